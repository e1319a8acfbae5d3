"""Events for those who ask instead of being sent them.

The history is the buffer: what is not acknowledged is given out again, and nothing is ever dropped from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import msgspec

from application.announcements import Announcements, wanted
from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids
from application.subscriptions import require_within_limits
from domain.acknowledgement import acknowledged
from domain.announcement import Announced
from domain.errors import Denied, FieldProblem, InvalidFields, NotFound
from domain.subscription import Subscription, Terms

MOST_EVENTS = 1000
MOST_AHEAD = 10_000  # acknowledged beyond one that is not


class Cursors(Protocol):
    def polling_cursor(self, subscription_id: str) -> tuple[int, frozenset[int]] | None:
        """The position up to which all is dealt with, and those beyond it that are."""


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

    def pending(self, subscription_id: str, since_event_id: str | None, max_events: int, caller: Caller) -> Pending:
        """What is not acknowledged, or with `since_event_id` all behind that event, acknowledged or not.

        Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        if not 1 <= max_events <= MOST_EVENTS:
            raise InvalidFields(FieldProblem("max_events", "out_of_range", f"between 1 and {MOST_EVENTS}"))
        terms, upto = subscription.terms(), self._announcements.last_position()
        if since_event_id is None:
            most = min(max_events + 1, subscription.buffer_size)
            found = self._window(subscription, *self._cursor(subscription), upto, most)
        else:
            after = self._position(since_event_id, caller)
            found = list(islice(wanted(self._announcements, terms, after, upto), max_events + 1))
        return Pending(found[:max_events], len(found) > max_events, terms, upto)

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
        window = self._window(subscription, after, done, last, subscription.buffer_size)
        left = [announced.position for announced in window if announced.position not in positions]
        cursor = left[0] - 1 if left else window[-1].position if window else after
        event = acknowledged(
            self._ids.new("ack"), subscription_id, tuple(sorted(positions)), after, cursor, self._clock.now()
        )
        self._store.record(event, by=caller.provenance)

    def _cursor(self, subscription: Subscription) -> tuple[int, frozenset[int]]:
        cursor = self._cursors.polling_cursor(subscription.id)
        if cursor is None:
            raise NotFound(Subscription.TOPIC, subscription.id)
        return cursor

    def _window(
        self, subscription: Subscription, after: int, done: frozenset[int], upto: int, most: int
    ) -> list[Announced]:
        """The first of those that are not dealt with."""
        left = (
            announced
            for announced in wanted(self._announcements, subscription.terms(), after, upto)
            if announced.position not in done
        )
        return list(islice(left, most))

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
