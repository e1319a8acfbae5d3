"""Renewing certificates: an order for the next version of a line, on request or by itself, and what it costs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from application.caller import Caller
from application.certificates import load_certificate
from application.event_store import EventStore, Taken
from application.orders import Directory, assigned, record_order
from application.ports import Clock, Ids
from application.process.todo import Claim
from application.rate_limits import RateLimits
from domain.account import Account
from domain.certificate import Certificate
from domain.errors import OrderInProgress, VersionConflict
from domain.order import Order
from domain.provenance import Provenance
from domain.rate_limit import Cost


class Placed(msgspec.Struct, frozen=True):
    """`is_new` is False for an order that was in progress already; then `cost` is None: it adds nothing. `ca` is the
    directory's URL."""

    order_id: str
    is_new: bool
    ca: str = ""
    cost: Cost | None = None


class Renewals:
    def __init__(
        self, store: EventStore, directory: Directory, rate_limits: RateLimits, clock: Clock, ids: Ids
    ) -> None:
        self._store = store
        self._directory = directory
        self._rate_limits = rate_limits
        self._clock = clock
        self._ids = ids

    def renew(self, certificate_id: str, *, reason: str, new_key: bool, caller: Caller) -> Placed:
        """An order for the line's next version, for the same names, or the one in progress. Raises NotFound, Denied,
        OrderInProgress (for the same names under another line), CaLimitReached."""
        certificate = load_certificate(self._store, certificate_id, caller)
        if certificate.renewing is not None:
            return Placed(certificate.renewing.order_id, is_new=False)
        try:
            return self.begin(certificate, reason, caller.provenance, automatic=False, new_key=new_key)
        except VersionConflict:  # somebody else has begun one, or changed the line: then it is asked for again
            certificate = load_certificate(self._store, certificate_id, caller)
            if certificate.renewing is None:
                raise
            return Placed(certificate.renewing.order_id, is_new=False)
        except Taken:
            running = self._directory.running_order(certificate.account_id, certificate.dns_names)
            if running is None:
                raise VersionConflict from None
            if self._store.load(Order, running).certificate_id != certificate_id:
                raise OrderInProgress(running) from None
            return Placed(running, is_new=False)

    def begin(
        self,
        certificate: Certificate,
        reason: str,
        by: Provenance,
        *,
        automatic: bool,
        new_key: bool = True,
        claim: Claim | None = None,
    ) -> Placed:
        """Raises AccountNotActive, CaLimitReached, OrderInProgress, VersionConflict, and Taken: an order for the same names
        is in progress."""
        now = self._clock.now()
        account, cost = self.cost(certificate, now)
        account.require_active()
        self._rate_limits.require_room(cost)
        first = self._store.load(Order, certificate.versions[0].order_id)
        order = Order.place(
            self._ids.new("acme_order"),
            tenant_id=certificate.tenant_id,
            account_id=certificate.account_id,
            certificate_id=certificate.id,
            assignments=assigned(
                self._directory, certificate.tenant_id, certificate.dns_names, first.provider_of_first_name
            ),
            challenge_type=first.challenge_type,
            key_type=certificate.current.key_type,
            auto_renew=certificate.auto_renew,
            name=certificate.name,
            profile=first.profile,
            preferred_chain=first.preferred_chain,
            renewal_reason=reason,
            kept_key_id=None if new_key else certificate.current.sealed_key_id,
            replaces=certificate.replaceable,
            ca=account.directory_url,
            charges=cost.taken,
            now=now,
        )
        certificate.begin_renewal(order.id, reason, now, automatic=automatic)
        record_order(self._store, order, by, claim, [certificate])
        return Placed(order.id, is_new=True, ca=account.directory_url, cost=cost)

    def cost(self, certificate: Certificate, now: datetime) -> tuple[Account, Cost]:
        """Its account, and the cost of renewing it at that moment."""
        account = self._store.load(Account, certificate.account_id)
        suggestion = certificate.suggestion if certificate.replaceable is not None else None
        in_window = suggestion is not None and suggestion.window.takes(now)
        return account, self._rate_limits.cost(account, certificate.dns_names, in_window=in_window)

    def release(self, certificate_id: str, reason: str, caller: Caller) -> None:
        """Lifts the breaker that holds the renewals of a line. Raises NotFound, Denied."""
        certificate = load_certificate(self._store, certificate_id, caller)
        certificate.release_renewal(reason, self._clock.now())
        self._store.record(certificate, by=caller.provenance)
