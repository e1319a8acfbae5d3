"""The ledger of the CAs' rate limits: what an order will cost, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from application.ports import Clock, PublicSuffixes
from domain.account import Account
from domain.errors import CaLimitReached
from domain.names import base_name
from domain.order import Order
from domain.rate_limit import (
    FULL,
    RENEWAL_LOOKS_BACK,
    Bucket,
    Cost,
    Kind,
    Level,
    cost_of,
    gates_of,
    ready_at,
    set_digest,
)

BEHIND = timedelta(minutes=1)
"""The CA counts a moment later than we do: whoever has to wait by our reckoning waits a little longer."""


class Ledger(Protocol):
    """What the read models know of past orders."""

    def levels(self, buckets: Collection[Bucket]) -> Mapping[Bucket, Level]:
        """Those of which anything is known."""

    def was_issued(self, ca: str, names_digest: str, since: datetime) -> bool:
        """Whether that CA issued a certificate for that set of names since then."""


class RateLimits:
    def __init__(self, ledger: Ledger, suffixes: PublicSuffixes, clock: Clock) -> None:
        self._ledger = ledger
        self._suffixes = suffixes
        self._clock = clock

    def cost(self, account: Account, dns_names: Sequence[str], *, in_window: bool = False) -> Cost:
        """Of an order for these names. `in_window`: it replaces a certificate, in the window that the CA suggests."""
        return cost_of(
            "ari_renewal" if in_window else self._kind(account, dns_names),
            account.directory_url,
            account.id,
            dns_names,
            self.registered_domains(dns_names),
        )

    def require_room(self, cost: Cost) -> None:
        """Raises CaLimitReached: the CA would refuse the order, or has said that it would."""
        now = self._clock.now()
        buckets = [*cost.taken, *cost.gates]
        levels = self._ledger.levels(buckets)
        waits = {}
        for bucket in buckets:
            level = levels.get(bucket, FULL)
            at = ready_at(bucket, level)
            if at is not None and at > now:
                waits[bucket] = at if at == level.blocked_until else at + BEHIND
        _require_none(waits, now)

    def require_unblocked(self, order: Order) -> None:
        """Raises CaLimitReached where the CA has said meanwhile that it takes no such order. What the order takes itself is
        taken already."""
        now = self._clock.now()
        gates = gates_of(
            order.ca,
            order.account_id,
            order.dns_names,
            self.registered_domains(order.dns_names),
            is_exempt=order.replaces is not None,
        )
        levels = self._ledger.levels([*order.charges, *gates])
        waits = {
            bucket: level.blocked_until
            for bucket, level in levels.items()
            if level.blocked_until is not None and level.blocked_until > now
        }
        _require_none(waits, now)

    def registered_domains(self, dns_names: Sequence[str]) -> Sequence[str]:
        """Each once."""
        return list(dict.fromkeys(self._suffixes.registered_domain(base_name(name)) for name in dns_names))

    def _kind(self, account: Account, dns_names: Sequence[str]) -> Kind:
        since = self._clock.now() - RENEWAL_LOOKS_BACK
        is_same = self._ledger.was_issued(account.directory_url, set_digest(dns_names), since)
        return "same_set" if is_same else "new"


def _require_none(waits: Mapping[Bucket, datetime], now: datetime) -> None:
    """Raises CaLimitReached: the longest wait is told."""
    if waits:
        bucket = max(waits, key=lambda each: waits[each])
        raise CaLimitReached(bucket, waits[bucket], now)
