"""Who is owed which event: a follower of what is announced.

What it writes are events. A delivery's id is made of the event's and the subscription's, so that one read twice is owed
once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from application.event_store import EventStore
from application.ports import Clock
from domain.announcement import Announced
from domain.delivery import Delivery, delivery_id
from domain.errors import VersionConflict
from domain.provenance import Provenance
from domain.terms import Audience, Terms

PROCESS = "delivery"
TOGETHER = 200  # in one append: a longer one would hold up everybody else's


class AllTerms(Protocol):
    def __call__(self, after: int) -> Sequence[Terms]:
        """Of all webhook subscriptions, those that may ask for an event behind that position."""


class FanOut:
    """A follower (`projections/catch_up.py`) of the announcements."""

    name = "delivery_fan_out"

    def __init__(self, store: EventStore, all_terms: AllTerms, clock: Clock) -> None:
        self._store = store
        self._all_terms = all_terms
        self._clock = clock
        self._known: Sequence[Terms] = ()
        self._audience = Audience(())

    def apply(self, cursor: Any, events: Sequence[Announced]) -> None:
        audience = self._audience_after(events[0].position - 1)
        owed: list[tuple[Delivery, Provenance]] = []
        for announced in events:
            cursor.execute("SELECT 1")  # a sign of life: the follower's transaction is not idle
            for terms in audience.of(announced):
                owed.append((owe(terms, announced, None, self._clock), _provenance(announced)))
                if len(owed) == TOGETHER:
                    self._record(owed)
                    owed.clear()
                    cursor.execute("SELECT 1")
        self._record(owed)

    def _audience_after(self, position: int) -> Audience:
        all_terms = self._all_terms(position)
        if all_terms != self._known:
            self._known, self._audience = all_terms, Audience(all_terms)
        return self._audience

    def _record(self, owed: Sequence[tuple[Delivery, Provenance]]) -> None:
        try:
            self._store.record_each(owed)
        except VersionConflict:  # some were owed before, by one who did not come to the end
            for delivery, by in owed:
                with suppress(VersionConflict):
                    self._store.record(delivery, by=by)


def owe(terms: Terms, announced: Announced, replay_id: str | None, clock: Clock) -> Delivery:
    return Delivery.owe(
        delivery_id(terms.subscription_id, announced.position, replay_id, announced.at),
        tenant_id=terms.tenant_id,
        subscription_id=terms.subscription_id,
        position=announced.position,
        event_type=announced.event_type,
        event_id=announced.event_id,
        path=announced.path,
        ordered=terms.ordered,
        replay_id=replay_id,
        now=clock.now(),
    )


def _provenance(announced: Announced) -> Provenance:
    return Provenance(
        announced.tenant_id, "system", PROCESS, request_id=announced.request_id, causation=announced.causation
    )
