"""Subscriptions as the API shows them, and who listens to what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.provenance import Recorded
from domain.subscription import Listener, Subscription
from projections.documents import DocumentView, Pool
from projections.times import whole_seconds


class DeliveryView(msgspec.Struct, frozen=True):
    type: str
    url: str


class SubscriptionView(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    paths: Sequence[str]
    events: Sequence[str]
    delivery: DeliveryView
    identity_id: str
    created_at: datetime


def fold(_: SubscriptionView | None, recorded: Recorded) -> SubscriptionView:
    event = recorded.event
    if not isinstance(event, Subscription.Subscribed):
        raise TypeError(f"no rule for {event}")
    return SubscriptionView(
        id=event.originator_id,
        name=event.name,
        status="active",
        paths=event.paths,
        events=event.event_types,
        delivery=DeliveryView("webhook", event.target.url),
        identity_id=event.identity_id,
        created_at=whole_seconds(event.timestamp),
    )


SUBSCRIPTIONS = DocumentView(
    name="subscriptions", document_type=SubscriptionView, event_class=Subscription.Event, fold=fold
)


def listeners(pool: Pool) -> Sequence[Listener]:
    """The active subscriptions of all tenants."""
    with pool.connection() as connection:
        rows = connection.execute("SELECT tenant_id, first_position, document::text FROM subscriptions").fetchall()
    views = [(tenant, position, msgspec.json.decode(text, type=SubscriptionView)) for tenant, position, text in rows]
    return [
        Listener(view.id, tenant_id, tuple(view.paths), tuple(view.events), position)
        for tenant_id, position, view in views
        if view.status == "active"
    ]
