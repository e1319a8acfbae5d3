"""What is owed to webhook subscriptions, and how it went."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from domain.delivery import Delivery
from domain.provenance import Recorded
from projections.documents import Column, DocumentView
from projections.times import whole_seconds

DeliveryStatus = Literal["pending", "delivered", "dead"]


class AttemptView(msgspec.Struct, frozen=True):
    """`status` is the receiver's, None where it gave none; `error` says why it was no success."""

    at: datetime
    status: int | None
    error: str | None
    duration_ms: int | None


class DeliveryView(msgspec.Struct, frozen=True):
    """`sequence` is the event's; `attempts` are those since it was owed or asked for again. `abandoned_reason` says why it
    was given up without a further attempt."""

    id: str
    subscription_id: str
    event_id: str
    event_type: str
    path: str
    sequence: int
    replay_id: str | None
    status: DeliveryStatus
    attempts: int
    last_attempt: AttemptView | None
    abandoned_reason: str | None
    next_attempt_at: datetime | None
    created_at: datetime
    completed_at: datetime | None


def fold(view: DeliveryView | None, recorded: Recorded) -> DeliveryView:
    event = recorded.event
    now = whole_seconds(event.timestamp)
    if isinstance(event, Delivery.Owed):
        return DeliveryView(
            id=event.originator_id,
            subscription_id=event.subscription_id,
            event_id=event.event_id,
            event_type=event.event_type,
            path=event.path,
            sequence=event.position,
            replay_id=event.replay_id,
            status="pending",
            attempts=0,
            last_attempt=None,
            abandoned_reason=None,
            next_attempt_at=now,
            created_at=now,
            completed_at=None,
        )
    if view is None:
        raise ValueError(f"no rule for {event}")
    match event:
        case Delivery.Delivered():
            tried = AttemptView(now, event.status, None, event.duration_ms)
            return _ended(view, "delivered", now, tried)
        case Delivery.AttemptFailed():
            tried = AttemptView(now, event.status, event.detail, event.duration_ms)
            due_at = whole_seconds(event.retry_at)
            return replace(view, attempts=view.attempts + 1, last_attempt=tried, next_attempt_at=due_at)
        case Delivery.GivenUp():
            tried = AttemptView(now, event.status, event.detail, event.duration_ms)
            return _ended(view, "dead", now, tried)
        case Delivery.Abandoned(detail=detail):
            return replace(view, status="dead", abandoned_reason=detail, next_attempt_at=None, completed_at=now)
        case Delivery.Reopened():
            again = replace(view, status="pending", attempts=0, abandoned_reason=None)
            return replace(again, next_attempt_at=now, completed_at=None)
        case _:
            raise ValueError(f"no rule for {event}")


def _ended(view: DeliveryView, status: DeliveryStatus, now: datetime, tried: AttemptView) -> DeliveryView:
    return replace(
        view,
        status=status,
        attempts=view.attempts + 1,
        last_attempt=tried,
        next_attempt_at=None,
        completed_at=now,
    )


DELIVERIES = DocumentView(
    name="deliveries",
    document_type=DeliveryView,
    event_class=Delivery.Event,
    fold=fold,
    columns={
        "subscription_id": Column("text NOT NULL", lambda view: view.subscription_id),
        "status": Column("text NOT NULL", lambda view: view.status),
    },
    indexes=[
        "CREATE INDEX ON deliveries (subscription_id, first_position)",
        "CREATE INDEX ON deliveries (subscription_id, status, first_position)",
        "CREATE INDEX ON deliveries (status) WHERE status <> 'delivered'",
    ],
)
