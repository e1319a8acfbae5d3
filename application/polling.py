"""Events for those who ask instead of being sent them.

The history is the buffer: what is not acknowledged is given out again, and nothing is ever dropped from it. What was wanted
of it is told by the terms of its own time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

import msgspec

from application.announcements import Announcements, pages
from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids
from application.rights import require_within_limits
from domain.acknowledgement import acknowledged
from domain.announcement import Announced
from domain.errors import Denied, FieldProblem, InvalidFields, NotFound
from domain.subscription import Subscription
from domain.terms import Terms

MOST_EVENTS = 1000
MOST_AHEAD = 10_000  # acknowledged beyond one that is not
MOST_SUBSCRIPTIONS, MOST_POSITIONS = 1000, 1000  # that are remembered, and of each of them


class Cursors(Protocol):
    def polling_cursor(self, subscription_id: str) -> tuple[int, frozenset[int]] | None:
        """The position up to which all is dealt with, and those beyond it that are."""

    def polling_terms(self, subscription_id: str) -> Sequence[Terms]:
        """What it asked for from its beginning on, each behind the one before."""


class Pending(msgspec.Struct, frozen=True):
    """What there is for a subscriber now; `terms` are for what comes behind the position `upto`."""

    events: Sequence[Announced]
    has_more: bool
    terms: Terms
    upto: int


class Polling:
    def __init__(
        self, store: EventStore, announcements: Announcements, cursors: Cursors, clock: Clock, ids: Ids
    ) -> None:
        self._store = store
        self._announcements = announcements
        self._cursors = cursors
        self._clock = clock
        self._ids = ids
        self._looked = _Looked()

    def pending(self, subscription_id: str, since_event_id: str | None, max_events: int, caller: Caller) -> Pending:
        """What is not acknowledged, or with `since_event_id` all behind that event, acknowledged or not.

        Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        if not 1 <= max_events <= MOST_EVENTS:
            raise InvalidFields(FieldProblem("max_events", "out_of_range", f"between 1 and {MOST_EVENTS}"))
        upto = self._announcements.last_position()
        if since_event_id is None:
            after, done = self._cursor(subscription)
            most = min(max_events + 1, subscription.buffer_size)
        else:
            after, done, most = self._position(since_event_id, caller), frozenset(), max_events + 1
        wanted = (position for position in self._wanted(subscription, after, upto) if position not in done)
        found = list(islice(wanted, most))
        events = self._announcements.all_announced_at(found[:max_events])
        return Pending(events, len(found) > max_events, subscription.terms(), upto)

    def acknowledge(self, subscription_id: str, event_ids: Sequence[str], caller: Caller) -> None:
        """They are dealt with. Those that are already change nothing. Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        known = self._announcements.positions(caller.tenant_id, event_ids)
        unknown = [event_id for event_id in event_ids if event_id not in known]
        if unknown:
            raise InvalidFields(FieldProblem("event_ids", "unknown", f"there is no event {unknown[0]}"))
        after, done = self._cursor(subscription)
        positions = {position for position in known.values() if position > after} - done
        if not positions:
            return
        if len(done | positions) > MOST_AHEAD:
            raise InvalidFields(FieldProblem("event_ids", "too_far", "acknowledge the earlier ones first"))
        last = self._announcements.last_position()
        left = (p for p in self._wanted(subscription, after, last) if p not in done and p not in positions)
        first = next(left, None)
        cursor = last if first is None else first - 1  # what was never wanted is passed with it
        event = acknowledged(
            self._ids.new("ack"), subscription_id, tuple(sorted(positions)), after, cursor, self._clock.now()
        )
        self._store.record(event, by=caller.provenance)

    def _wanted(self, subscription: Subscription, after: int, upto: int) -> Iterator[int]:
        all_terms = _to_the_beginning(self._cursors.polling_terms(subscription.id))
        return self._looked.wanted(self._announcements, subscription.id, all_terms, after, upto)

    def _cursor(self, subscription: Subscription) -> tuple[int, frozenset[int]]:
        cursor = self._cursors.polling_cursor(subscription.id)
        if cursor is None:
            raise NotFound(Subscription.TOPIC, subscription.id)
        return cursor

    def _position(self, event_id: str, caller: Caller) -> int:
        found = self._announcements.positions(caller.tenant_id, [event_id])
        if event_id not in found:
            raise InvalidFields(FieldProblem("since_event_id", "unknown", f"there is no event {event_id}"))
        return found[event_id]

    def _load(self, subscription_id: str, caller: Caller) -> Subscription:
        """The caller's own. Raises NotFound, InvalidFields, Denied."""
        subscription = self._store.load(Subscription, subscription_id, caller.tenant_id)
        if subscription.status == "ended":
            raise NotFound(Subscription.TOPIC, subscription_id)
        if subscription.is_webhook:
            raise InvalidFields(FieldProblem("delivery.type", "not_polling", "this subscription is a webhook's"))
        if subscription.identity_id != caller.token_id:
            raise Denied("access_denied", "a subscription is polled by its owner alone")
        require_within_limits(subscription.paths, caller)
        return subscription


class _Passed(msgspec.Struct, frozen=True):
    """What the terms want behind `after`, up to `upto`. It stays so: the history only grows."""

    terms: Sequence[Terms]
    after: int
    upto: int
    positions: Sequence[int]


class _Looked:
    """What was looked through once is not looked through again for the same subscription, for as long as there is room to
    remember it. Safe in many threads."""

    def __init__(self) -> None:
        self._passed: OrderedDict[str, _Passed] = OrderedDict()
        self._lock = threading.Lock()

    def wanted(
        self, announcements: Announcements, subscription_id: str, terms: Sequence[Terms], after: int, upto: int
    ) -> Iterator[int]:
        """The positions of what the terms ask for behind `after`, up to `upto`, in order."""
        passed = self._recall(subscription_id, terms, after)
        yield from (position for position in passed.positions if after < position <= upto)
        positions = list(passed.positions)
        for found, looked_upto in _pages(announcements, terms, passed.upto, upto):
            positions += found
            if len(positions) <= MOST_POSITIONS:
                self._remember(subscription_id, _Passed(terms, passed.after, looked_upto, tuple(positions)))
            yield from found

    def _recall(self, subscription_id: str, terms: Sequence[Terms], after: int) -> _Passed:
        with self._lock:
            passed = self._passed.get(subscription_id)
            if passed is None or passed.terms != terms or not passed.after <= after <= passed.upto:
                return _Passed(terms, after, after, ())
            self._passed.move_to_end(subscription_id)
        kept = tuple(position for position in passed.positions if position > after)
        return _Passed(terms, after, passed.upto, kept)

    def _remember(self, subscription_id: str, passed: _Passed) -> None:
        with self._lock:
            self._passed[subscription_id] = passed
            self._passed.move_to_end(subscription_id)
            if len(self._passed) > MOST_SUBSCRIPTIONS:
                self._passed.popitem(last=False)


def _pages(
    announcements: Announcements, all_terms: Sequence[Terms], after: int, upto: int
) -> Iterator[tuple[Sequence[int], int]]:
    """As `pages`, each position by the terms of its time."""
    for terms in all_terms:
        end = upto if terms.upto is None else min(upto, terms.upto)
        yield from pages(announcements, terms, max(after, terms.after), end)


def _to_the_beginning(all_terms: Sequence[Terms]) -> Sequence[Terms]:
    """The first ones are good for what happened before, too: who keeps their own place may begin there."""
    return [replace(terms, after=0) if number == 0 else terms for number, terms in enumerate(all_terms)]
