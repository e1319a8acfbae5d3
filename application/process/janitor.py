"""Removing again what orders have removed from a provider's zones.

An order removes each value that it wrote, and puts that on record. What it cannot know of is a value that comes afterwards:
between the decision to write and the writing a worker was killed, or a provider took long. So what was removed lately is
removed once more, hourly and at each start. No other value is ever touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from application.dns_providers import DnsProviders
from application.errors import Failure, Retryable, StoreUnavailable, ZoneRefused
from application.event_store import EventStore, History
from application.ports import Clock, DnsZone, TxtValue
from application.process.todo import NO_LIMITS, Claim, Decision, Step, logged_step
from domain.dns_provider import DnsProvider, Removal
from domain.errors import Refusal, SealBroken
from domain.provenance import of_process

NAME = "janitor"
EVERY = timedelta(hours=1)
SETTLED = timedelta(minutes=15)  # by then nobody who began to write before the removal is still at it
LONGEST_AGO = timedelta(days=30)
AFTER_FAILURE = timedelta(minutes=10)
TOGETHER = 100

log = structlog.get_logger()


class SweepRecords(Step, frozen=True): ...


def next_step(provider: DnsProvider) -> SweepRecords | None:
    """Pure."""
    if provider.is_gone:
        return None
    return SweepRecords(provider.swept_at + EVERY)


DECISION = Decision(NAME, next_step)


class Removals(Protocol):
    def removals(self, dns_provider_id: str, after: int, since: datetime, limit: int) -> Sequence[Removal]:
        """From the provider's zones, those after a position and not before `since`, in order."""

    def is_shown_for_another(self, order_id: str, record_value: str) -> bool:
        """Whether another order in progress has the same TXT value to show."""


class Janitor:
    name = NAME

    def __init__(
        self, store: EventStore, history: History, providers: DnsProviders, removals: Removals, clock: Clock
    ) -> None:
        self._store = store
        self._history = history
        self._providers = providers
        self._removals = removals
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> timedelta | None:
        """Also before it is due: then somebody wished it so."""
        provider = self._store.load(DnsProvider, claim.subject)
        step = next_step(provider)
        if step is None:
            return None
        with logged_step(step, dns_provider_id=provider.id):
            try:
                return self._sweep(provider, claim)
            except (StoreUnavailable, SealBroken):
                raise
            except (Failure, Refusal) as failure:
                log.warning("sweep_failed", detail=str(failure))
                asked_for = failure.retry_after_seconds if isinstance(failure, Retryable) else None
                return max(AFTER_FAILURE, timedelta(seconds=asked_for or 0))

    def give_up(self, claim: Claim) -> None:
        """There is nothing to end: it is tried again."""

    def _sweep(self, provider: DnsProvider, claim: Claim) -> timedelta | None:
        """What is too new is swept, and looked at again the next time."""
        now, after, settled = self._clock.now(), provider.swept_through, provider.swept_through
        while found := self._removals.removals(provider.id, after, now - LONGEST_AGO, TOGETHER):
            self._remove(provider, found)
            after = found[-1].position
            settled = max([settled, *(each.position for each in found if each.at <= now - SETTLED)])
        if settled == provider.swept_through:
            return EVERY
        provider.swept(settled, now)
        by = of_process(NAME, self._history.origin(provider.id), provider.id, provider.version)
        self._store.record(provider, by=by, claim=claim)
        return None

    def _remove(self, provider: DnsProvider, removed: Sequence[Removal]) -> None:
        values = {
            TxtValue(each.record_name, each.record_value)
            for each in removed
            if not self._removals.is_shown_for_another(each.order_id, each.record_value)
        }
        if values:
            zone, _ = self._providers.reach(provider)
            try:
                zone.remove(sorted(values))
            except ZoneRefused as refusal:
                if refusal.reason != "zone_not_found":
                    raise
                _remove_one_by_one(zone, sorted(values))


def _remove_one_by_one(zone: DnsZone, values: Sequence[TxtValue]) -> None:
    """What lies in a zone that is gone went with it."""
    for value in values:
        try:
            zone.remove([value])
        except ZoneRefused as refusal:
            if refusal.reason != "zone_not_found":
                raise
            log.info("zone_gone", record_name=value.record_name)
