"""One event owed to one subscription, until it was taken or given up."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.event import DomainEvent, InitialEvent
from domain.ulid import ulid_text

RETRY_DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (0, 5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 86400)
)
"""What lies before each attempt; after the last one the delivery is a dead letter."""

JITTER = 0.2
LONGEST_RETRY_AFTER = timedelta(hours=24)
DEAD_LETTERS_KEPT = timedelta(days=30)

Outcome = Literal["delivered", "dead"]


def _as_first_written(fields: dict[str, Any]) -> None:
    """The first form of an attempt did not repeat whose it is, nor measure it."""
    fields.update(subscription_id="", duration_ms=None)


class Delivery(BaseAggregate[str]):
    TOPIC = "delivery"

    class Event(DomainEvent):
        pass

    class Owed(InitialEvent, Event):
        """`position`, `event_id`, `event_type` and `path` are the event's. `ordered`: not before all earlier ones of
        the same path and subscription have ended. `replay_id` is None the first time."""

        TOPIC = "delivery.owed"
        class_version = 2
        tenant_id: str
        subscription_id: str
        position: int
        event_type: str
        event_id: str
        path: str
        ordered: bool
        replay_id: str | None

        @staticmethod
        def upcast_v1_v2(fields: dict[str, Any]) -> None:
            """What the first form did not say stands in the event at its position."""
            fields.update(event_id="", path="", ordered=False, replay_id=None)

    class Delivered(Event):
        """`duration_ms` is None where nobody measured it."""

        TOPIC = "delivery.delivered"
        class_version = 2
        subscription_id: str
        status: int
        duration_ms: int | None
        upcast_v1_v2 = staticmethod(_as_first_written)

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts += 1
            aggregate.ended, aggregate.ended_at = "delivered", self.timestamp

    class AttemptFailed(Event):
        """`status` is the receiver's, None where it gave none; `detail` says why."""

        TOPIC = "delivery.attempt_failed"
        class_version = 2
        subscription_id: str
        status: int | None
        detail: str
        retry_at: datetime
        duration_ms: int | None
        upcast_v1_v2 = staticmethod(_as_first_written)

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts += 1
            aggregate.due_at = self.retry_at

    class GivenUp(Event):
        """After the last attempt, or one that was answered for good."""

        TOPIC = "delivery.given_up"
        class_version = 2
        subscription_id: str
        status: int | None
        detail: str
        duration_ms: int | None
        upcast_v1_v2 = staticmethod(_as_first_written)

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts += 1
            aggregate.ended, aggregate.ended_at = "dead", self.timestamp

    class Abandoned(Event):
        """Given up without a further attempt: `detail` says why."""

        TOPIC = "delivery.abandoned"
        detail: str

        def apply(self, aggregate: Delivery) -> None:
            aggregate.ended, aggregate.ended_at = "dead", self.timestamp

    class Reopened(Event):
        """From the first attempt on again, because somebody asked for it."""

        TOPIC = "delivery.reopened"

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts = 0
            aggregate.ended, aggregate.ended_at = None, None
            aggregate.due_at = self.timestamp

    def __init__(
        self, tenant_id: str, subscription_id: str, position: int, path: str, ordered: bool, timestamp: datetime
    ) -> None:
        self.tenant_id = tenant_id
        self.subscription_id = subscription_id
        self.position = position
        self.path = path
        self.ordered = ordered
        self.due_at = timestamp
        self.attempts = 0
        self.ended: Outcome | None = None
        self.ended_at: datetime | None = None

    @classmethod
    def owe(
        cls,
        delivery_id: str,
        *,
        tenant_id: str,
        subscription_id: str,
        position: int,
        event_type: str,
        event_id: str,
        path: str,
        ordered: bool,
        replay_id: str | None,
        now: datetime,
    ) -> Self:
        return cls._create(
            cls.Owed,
            id=delivery_id,
            timestamp=now,
            tenant_id=tenant_id,
            subscription_id=subscription_id,
            position=position,
            event_type=event_type,
            event_id=event_id,
            path=path,
            ordered=ordered,
            replay_id=replay_id,
        )

    def delivered(self, status: int, duration_ms: int, now: datetime) -> None:
        if self.ended is None:
            self._attempted(self.Delivered, status=status, duration_ms=duration_ms, timestamp=now)

    def attempt_failed(
        self,
        status: int | None,
        detail: str,
        retry_after_seconds: float | None,
        duration_ms: int | None,
        chance: float,
        now: datetime,
    ) -> None:
        """`chance` in [0, 1) spreads the next attempt by ±20 %. A receiver's wish to wait is granted up to a day."""
        if self.ended is not None:
            return
        if self._is_last_attempt:
            self.give_up(status, detail, duration_ms, now)
            return
        spread = 1 - JITTER + 2 * JITTER * chance
        wished = min(LONGEST_RETRY_AFTER, timedelta(seconds=retry_after_seconds or 0))
        retry_at = now + max(RETRY_DELAYS[self.attempts + 1] * spread, wished)
        self._failed(status, detail, retry_at, duration_ms, now)

    def attempt_cut_off(self, now: datetime) -> None:
        """A worker ended in the middle of it: it counts, so that a payload on which workers die is given up too, and the
        next one may come at once."""
        detail = "the worker ended during the attempt"
        if self.ended is not None:
            return
        if self._is_last_attempt:
            self.give_up(None, detail, None, now)
        else:
            self._failed(None, detail, now, None, now)

    def give_up(self, status: int | None, detail: str, duration_ms: int | None, now: datetime) -> None:
        if self.ended is None:
            self._attempted(self.GivenUp, status=status, detail=detail, duration_ms=duration_ms, timestamp=now)

    def abandon(self, detail: str, now: datetime) -> None:
        """Without a further attempt."""
        if self.ended is None:
            self.trigger_event(self.Abandoned, detail=detail, timestamp=now)

    def reopen(self, now: datetime) -> None:
        """Send it again, or at once where it waits. Before its first attempt it is sent anyway."""
        if self.ended is not None or self.attempts:
            self.trigger_event(self.Reopened, timestamp=now)

    def is_forgotten(self, now: datetime) -> bool:
        """A dead letter whose time is over."""
        return self.ended == "dead" and self.ended_at is not None and now - self.ended_at > DEAD_LETTERS_KEPT

    @property
    def _is_last_attempt(self) -> bool:
        return self.attempts + 1 >= len(RETRY_DELAYS)

    def _failed(
        self, status: int | None, detail: str, retry_at: datetime, duration_ms: int | None, now: datetime
    ) -> None:
        self._attempted(
            self.AttemptFailed,
            status=status,
            detail=detail,
            retry_at=retry_at,
            duration_ms=duration_ms,
            timestamp=now,
        )

    def _attempted(self, event_class: type[Event], **fields: Any) -> None:
        self.trigger_event(event_class, subscription_id=self.subscription_id, **fields)


def delivery_id(subscription_id: str, position: int, replay_id: str | None, timestamp: datetime) -> str:
    """The same for the same event, subscription and replay, so that owing twice is refused by the store. A ULID in
    form."""
    owed = f"{subscription_id}/{position}" if replay_id is None else f"{subscription_id}/{position}/{replay_id}"
    return "del_" + ulid_text(timestamp, hashlib.sha256(owed.encode()).digest()[:10])
