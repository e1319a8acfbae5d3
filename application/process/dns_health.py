"""Whether DNS providers still do what they did: daily a value is written and removed, so that credentials that have died are
noticed before a certificate needs them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from application.dns_providers import DnsProviders, reason_of
from application.errors import EgressRefused, Failure, StoreUnavailable, ZoneRefused
from application.event_store import EventStore, History
from application.ports import Clock
from application.process.todo import NO_LIMITS, Claim, Decision, Step, logged_step
from domain.dns_provider import WHILE_DEGRADED, DnsProvider
from domain.errors import InvalidFields
from domain.provenance import of_process

NAME = "dns_health"
FOR_ORDERS_ALONE = frozenset({"acmedns", "embedded"})
"""Types with nothing to try: the first has room for two values, the second is the service itself."""


class TryCanary(Step, frozen=True): ...


def next_step(provider: DnsProvider) -> TryCanary | None:
    """Pure. Who wishes none says so by `canary: false` in the provider's config."""
    is_tried = provider.provider_type not in FOR_ORDERS_ALONE and provider.config.get("canary", True)
    if not is_tried or not provider.is_active:
        return None
    return TryCanary(provider.canary_due_at)


DECISION = Decision(NAME, next_step)


class DnsHealth:
    name = NAME

    def __init__(self, store: EventStore, history: History, providers: DnsProviders, clock: Clock) -> None:
        self._store = store
        self._history = history
        self._providers = providers
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> timedelta | None:
        provider = self._store.load(DnsProvider, claim.subject)
        step = next_step(provider)
        if step is None:
            return None
        with logged_step(step, dns_provider_id=provider.id):
            self._try(provider)
        if not provider.pending_events:
            return WHILE_DEGRADED
        by = of_process(NAME, self._history.origin(provider.id), provider.id, provider.version)
        self._store.record(provider, by=by, claim=claim)
        return None

    def give_up(self, claim: Claim) -> None:
        """There is nothing to end: it is tried again."""

    def _try(self, provider: DnsProvider) -> None:
        try:
            zones = self._providers.sing(provider)
        except StoreUnavailable:
            raise
        except Failure as failure:
            for_good = isinstance(failure, ZoneRefused | EgressRefused)
            provider.canary_failed(reason_of(failure), failure.detail, self._clock.now(), for_good=for_good)
        except InvalidFields as refusal:  # the secret that held its credentials
            provider.canary_failed("credentials_rejected", str(refusal), self._clock.now(), for_good=True)
        else:
            provider.canary_passed(zones, self._clock.now())
