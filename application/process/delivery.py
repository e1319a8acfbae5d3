"""Webhooks: who is owed which event, and handing it over.

`FanOut` follows the history and owes each announcement to the subscriptions that want it. A delivery's id is made of
both, so an event read twice is owed once. `Deliveries` then makes the attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from application.errors import EgressRefused, EndpointUnreachable
from application.event_store import EventStore, History
from application.ports import Clock, KeyStore, WebhookRequest, WebhookSender
from application.process.announcements import Announcement, announcement_of
from application.process.todo import Claim, Decision, Step, logged_step
from application.secret_value import SecretValue
from application.subscriptions import SEALED_KIND
from domain.delivery import Delivery, delivery_id
from domain.errors import VersionConflict
from domain.provenance import Recorded, of_process
from domain.subscription import Listener, Subscription

NAME = "delivery"
TAKEN = range(200, 300)


class Attempt(Step, frozen=True): ...


def next_step(delivery: Delivery) -> Step | None:
    """Pure."""
    return Attempt(delivery.due_at) if delivery.ended is None else None


DECISION = Decision(NAME, next_step)


class Sign(Protocol):
    def __call__(
        self,
        *,
        event_id: str,
        event_type: str,
        timestamp_seconds: int,
        body: bytes,
        secrets: Sequence[SecretValue],
    ) -> Mapping[str, str]:
        """All headers of the POST; the secrets newest first."""


class Chance(Protocol):
    def __call__(self) -> float:
        """A random number in [0, 1)."""


class Listeners(Protocol):
    def __call__(self) -> Sequence[Listener]:
        """The active subscriptions."""


class FanOut:
    """A follower of the history (`projections/catch_up.py`). What it writes are events, so it needs no cursor."""

    name = "delivery_fan_out"

    def __init__(self, store: EventStore, listeners: Listeners) -> None:
        self._store = store
        self._listeners = listeners

    def apply(self, _: Any, events: Sequence[Recorded]) -> None:
        announced = [
            (recorded, announcement) for recorded in events if (announcement := announcement_of(recorded)) is not None
        ]
        if not announced:
            return
        listeners = self._listeners()
        for recorded, announcement in announced:
            for listener in listeners:
                if listener.wants(
                    announcement.tenant_id, announcement.path, announcement.event_type, announcement.sequence
                ):
                    self._owe(listener, recorded, announcement)

    def _owe(self, listener: Listener, recorded: Recorded, announcement: Announcement) -> None:
        event = recorded.event
        delivery = Delivery.owe(
            delivery_id(listener.subscription_id, recorded.position, event.timestamp),
            tenant_id=listener.tenant_id,
            subscription_id=listener.subscription_id,
            position=recorded.position,
            event_type=announcement.event_type,
            now=event.timestamp,
        )
        by = of_process(NAME, recorded.by, event.originator_id, event.originator_version)
        try:
            self._store.record(delivery, by=by)
        except VersionConflict:
            return  # owed before


class Deliveries:
    name = NAME

    def __init__(
        self,
        store: EventStore,
        history: History,
        keys: KeyStore,
        sender: WebhookSender,
        sign: Sign,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._keys = keys
        self._sender = sender
        self._sign = sign
        self._chance = chance
        self._clock = clock

    def perform(self, claim: Claim) -> None:
        delivery = self._store.load(Delivery, claim.subject)
        step = next_step(delivery)
        if step is None:
            return
        origin = self._history.origin(delivery.id)
        with logged_step(step, delivery_id=delivery.id, request_id=origin.request_id):
            by = of_process(NAME, origin, delivery.id, delivery.version)
            self._attempt(delivery)
            self._store.record(delivery, by=by, claim=claim)

    def give_up(self, claim: Claim) -> None:
        delivery = self._store.load(Delivery, claim.subject)
        by = of_process(NAME, self._history.origin(delivery.id), delivery.id, delivery.version)
        delivery.attempt_failed(None, "the service failed at this delivery", None, self._chance(), self._clock.now())
        self._store.record(delivery, by=by, claim=claim)

    def _attempt(self, delivery: Delivery) -> None:
        try:
            response = self._sender.send(self._request(delivery))
        except (EndpointUnreachable, EgressRefused) as failure:
            delivery.attempt_failed(None, failure.detail, None, self._chance(), self._clock.now())
            return
        now = self._clock.now()
        if response.status in TAKEN:
            delivery.delivered(response.status, now)
        else:
            detail = f"the receiver answered {response.status}"
            delivery.attempt_failed(response.status, detail, response.retry_after_seconds, self._chance(), now)

    def _request(self, delivery: Delivery) -> WebhookRequest:
        subscription = self._store.load(Subscription, delivery.subscription_id)
        (recorded,) = self._history.read(delivery.position - 1, 1)
        announcement = announcement_of(recorded)
        if announcement is None:
            raise ValueError(f"nothing to announce at position {delivery.position}")
        body = msgspec.json.encode(announcement)
        target = subscription.target
        secret = self._keys.open(SEALED_KIND, delivery.tenant_id, subscription.id, target.sealed_secret_id)
        headers = self._sign(
            event_id=announcement.event_id,
            event_type=announcement.event_type,
            timestamp_seconds=int(self._clock.now().timestamp()),
            body=body,
            secrets=[secret],
        )
        return WebhookRequest(target.url, headers, body, target.ca_bundle_pem)
