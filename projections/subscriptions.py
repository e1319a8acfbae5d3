"""Subscriptions as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from domain.provenance import Recorded
from domain.subscription import Subscription
from domain.terms import pattern_characters
from projections.documents import Column, DocumentView, Pool
from projections.times import whole_seconds


class DeliveryTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """`url` for a webhook, `buffer_size` for polling."""

    type: Literal["webhook", "polling"]
    ordered: bool | None = None
    url: str | None = None
    ca_bundle_pem: str | None = None
    buffer_size: int | None = None
    previous_secret_until: datetime | None = None


class Filters(msgspec.Struct, frozen=True):
    """One of the `domains` must take one of an event's names; without any, all names will do."""

    domains: Sequence[str] = ()


class SubscriptionView(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: Literal["active", "paused", "disabled"]
    disabled_reason: str | None
    paths: Sequence[str]
    events: Sequence[str]
    filters: Filters
    delivery: DeliveryTerms
    identity_id: str
    created_at: datetime


def fold(view: SubscriptionView | None, recorded: Recorded) -> SubscriptionView | None:
    event = recorded.event
    if isinstance(event, Subscription.Subscribed):
        return _subscribed(event)
    if view is None:  # of one that has ended
        return None
    match event:
        case Subscription.Revised():
            return replace(
                view,
                identity_id=event.identity_id,
                name=event.name,
                paths=event.paths,
                events=event.event_types,
                filters=Filters(event.dns_names),
                delivery=replace(
                    _delivery(event.url, event.ca_bundle_pem, event.ordered, event.buffer_size),
                    previous_secret_until=view.delivery.previous_secret_until,
                ),
            )
        case Subscription.Paused():
            return replace(view, status="paused")
        case Subscription.Resumed() | Subscription.Enabled():
            return replace(view, status="active", disabled_reason=None)
        case Subscription.Disabled(reason=reason):
            return replace(view, status="disabled", disabled_reason=reason)
        case Subscription.SecretRotated(previous_until=until):
            return replace(view, delivery=replace(view.delivery, previous_secret_until=whole_seconds(until)))
        case Subscription.SecretsShredded(timestamp=now):
            ends_at = view.delivery.previous_secret_until
            if ends_at is None or ends_at > now:
                return view
            return replace(view, delivery=replace(view.delivery, previous_secret_until=None))
        case Subscription.Unsubscribed():
            return None
        case _:
            return view


def _subscribed(event: Subscription.Subscribed) -> SubscriptionView:
    target = event.target
    url, bundle = (target.url, target.ca_bundle_pem) if target else (None, None)
    return SubscriptionView(
        id=event.originator_id,
        name=event.name,
        status="active",
        disabled_reason=None,
        paths=event.paths,
        events=event.event_types,
        filters=Filters(event.dns_names),
        delivery=_delivery(url, bundle, event.ordered, event.buffer_size),
        identity_id=event.identity_id,
        created_at=whole_seconds(event.timestamp),
    )


def _delivery(url: str | None, ca_bundle_pem: str | None, ordered: bool, buffer_size: int) -> DeliveryTerms:
    if url is None:
        return DeliveryTerms("polling", buffer_size=buffer_size)
    return DeliveryTerms("webhook", ordered=ordered, url=url, ca_bundle_pem=ca_bundle_pem)


SUBSCRIPTIONS = DocumentView(
    name="subscriptions",
    document_type=SubscriptionView,
    event_class=Subscription.Event,
    fold=fold,
    columns={
        "is_paused": Column("boolean NOT NULL", lambda view: view.status == "paused"),
        "characters": Column("integer NOT NULL", lambda view: pattern_characters(view.paths, view.filters.domains)),
    },
    indexes=["CREATE INDEX ON subscriptions (id) WHERE is_paused"],
)


def paused(pool: Pool) -> Sequence[str]:
    """The ids of those that are, of all tenants."""
    with pool.connection() as connection:
        rows = connection.execute("SELECT id FROM subscriptions WHERE is_paused").fetchall()
    return [subscription_id for (subscription_id,) in rows]


def subscribed(pool: Pool, tenant_id: str) -> tuple[int, int]:
    """How many subscriptions the tenant has, and how many characters all their patterns have together."""
    query = "SELECT count(*), coalesce(sum(characters), 0) FROM subscriptions WHERE tenant_id = %s"
    with pool.connection() as connection:
        row = connection.execute(query, [tenant_id]).fetchone()
    return (row[0], row[1]) if row else (0, 0)


Asked = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def asked(pool: Pool, subscription_ids: Sequence[str]) -> Mapping[str, Asked]:
    """Whose they are, and the paths, event types and names that they ask for now."""
    query = "SELECT document::text FROM subscriptions WHERE id = ANY(%s)"
    with pool.connection() as connection:
        rows = connection.execute(query, [list(subscription_ids)]).fetchall()
    views = [msgspec.json.decode(text, type=SubscriptionView) for (text,) in rows]
    return {
        view.id: (view.identity_id, tuple(view.paths), tuple(view.events), tuple(view.filters.domains))
        for view in views
    }
