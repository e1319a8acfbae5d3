"""One event owed to one subscription, until it was taken or given up."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.event import DomainEvent, InitialEvent
from domain.ulid import ulid_text

RETRY_DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (0, 5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 57600, 86400, 86400)
)
"""What lies before each attempt; after the last one the delivery is a dead letter."""

JITTER = 0.2
LONGEST_RETRY_AFTER = timedelta(hours=24)


class Delivery(BaseAggregate[str]):
    TOPIC = "delivery"

    class Event(DomainEvent):
        pass

    class Owed(InitialEvent, Event):
        """`position` is the event's in the event store."""

        TOPIC = "delivery.owed"
        tenant_id: str
        subscription_id: str
        position: int
        event_type: str

    class Delivered(Event):
        TOPIC = "delivery.delivered"
        status: int

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts += 1
            aggregate.ended = "delivered"

    class AttemptFailed(Event):
        """`status` is the receiver's, None where it gave none; `detail` says why."""

        TOPIC = "delivery.attempt_failed"
        status: int | None
        detail: str
        retry_at: datetime

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts += 1
            aggregate.due_at = self.retry_at

    class GivenUp(Event):
        TOPIC = "delivery.given_up"
        status: int | None
        detail: str

        def apply(self, aggregate: Delivery) -> None:
            aggregate.attempts += 1
            aggregate.ended = "dead"

    def __init__(self, tenant_id: str, subscription_id: str, position: int, timestamp: datetime) -> None:
        self.tenant_id = tenant_id
        self.subscription_id = subscription_id
        self.position = position
        self.due_at = timestamp
        self.attempts = 0
        self.ended: Literal["delivered", "dead"] | None = None

    @classmethod
    def owe(
        cls, delivery_id: str, *, tenant_id: str, subscription_id: str, position: int, event_type: str, now: datetime
    ) -> Self:
        return cls._create(
            cls.Owed,
            id=delivery_id,
            timestamp=now,
            tenant_id=tenant_id,
            subscription_id=subscription_id,
            position=position,
            event_type=event_type,
        )

    def delivered(self, status: int, now: datetime) -> None:
        if self.ended is None:
            self.trigger_event(self.Delivered, status=status, timestamp=now)

    def attempt_failed(
        self, status: int | None, detail: str, retry_after_seconds: float | None, chance: float, now: datetime
    ) -> None:
        """`chance` in [0, 1) spreads the next attempt by ±20 %. A receiver's wish to wait is granted up to a day."""
        if self.ended is not None:
            return
        if self.attempts + 1 == len(RETRY_DELAYS):
            self.trigger_event(self.GivenUp, status=status, detail=detail, timestamp=now)
            return
        spread = 1 - JITTER + 2 * JITTER * chance
        wished = min(LONGEST_RETRY_AFTER, timedelta(seconds=retry_after_seconds or 0))
        retry_at = now + max(RETRY_DELAYS[self.attempts + 1] * spread, wished)
        self.trigger_event(self.AttemptFailed, status=status, detail=detail, retry_at=retry_at, timestamp=now)


def delivery_id(subscription_id: str, position: int, timestamp: datetime) -> str:
    """The same for the same event and subscription, so that owing twice is refused by the store. A ULID in form."""
    digest = hashlib.sha256(f"{subscription_id}/{position}".encode()).digest()
    return "del_" + ulid_text(timestamp, digest[:10])
