"""A standing wish to be told of events: which paths, which types, and how.

A webhook is sent each event; a polling subscription asks for them. Both read the same history: what a subscriber is
owed follows from the events alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.announcement import EventType
from domain.errors import TooMany
from domain.event import DomainEvent, InitialEvent
from domain.terms import Terms

Status = Literal["active", "paused", "disabled", "ended"]

LONGEST_OVERLAP = timedelta(days=30)
ONLY_FAILURES_FOR = timedelta(days=5)
"""After so long without a success a webhook's subscription is disabled."""

MOST_REPLAYS = 5
"""Unfinished at a time, of one subscription."""


@dataclass(frozen=True)
class WebhookTarget:
    """The signing secret is sealed under `sealed_secret_id`."""

    url: str
    sealed_secret_id: str
    ca_bundle_pem: str | None


@dataclass(frozen=True)
class SigningSecret:
    """`until` is None for the newest, which has no end yet."""

    sealed_id: str
    until: datetime | None


@dataclass(frozen=True)
class Replay:
    """What is still to be owed again: the events behind the position `after`, up to `upto`."""

    id: str
    after: int
    upto: int
    since: datetime


class Subscription(BaseAggregate[str]):
    TOPIC = "subscription"

    class Event(DomainEvent):
        pass

    class Subscribed(InitialEvent, Event):
        """`identity_id` is whose wish it is. `target` is None for polling. `dns_names` are globs, of which one must take
        one of an event's names; without any, all names will do."""

        TOPIC = "subscription.subscribed"
        class_version = 2
        tenant_id: str
        identity_id: str
        name: str
        paths: tuple[str, ...]
        event_types: tuple[EventType, ...]
        target: WebhookTarget | None
        dns_names: tuple[str, ...]
        ordered: bool
        buffer_size: int

        @staticmethod
        def upcast_v1_v2(fields: dict[str, Any]) -> None:
            fields.update(dns_names=(), ordered=False, buffer_size=1000)

    class Revised(Event):
        """All terms as they are from now on; `url` is None for polling."""

        TOPIC = "subscription.revised"
        identity_id: str
        name: str
        paths: tuple[str, ...]
        event_types: tuple[EventType, ...]
        dns_names: tuple[str, ...]
        ordered: bool
        buffer_size: int
        url: str | None
        ca_bundle_pem: str | None

        def apply(self, aggregate: Subscription) -> None:
            aggregate.identity_id = self.identity_id
            aggregate.name = self.name
            aggregate.paths = self.paths
            aggregate.event_types = self.event_types
            aggregate.dns_names = self.dns_names
            aggregate.ordered = self.ordered
            aggregate.buffer_size = self.buffer_size
            aggregate.url = self.url
            aggregate.ca_bundle_pem = self.ca_bundle_pem

    class Paused(Event):
        """Nothing more is sent; what happens meanwhile is owed all the same."""

        TOPIC = "subscription.paused"

        def apply(self, aggregate: Subscription) -> None:
            aggregate.status = "paused"

    class Resumed(Event):
        """After a pause."""

        TOPIC = "subscription.resumed"

        def apply(self, aggregate: Subscription) -> None:
            aggregate.status = "active"
            aggregate.tried_since = self.timestamp

    class Disabled(Event):
        """What happens from now on is not owed. What was owed before is given up when its next attempt falls due; replays
        end."""

        TOPIC = "subscription.disabled"
        reason: str

        def apply(self, aggregate: Subscription) -> None:
            aggregate.status = "disabled"
            aggregate.replays = ()

    class Enabled(Event):
        """After it was disabled. What happened meanwhile can be replayed."""

        TOPIC = "subscription.enabled"

        def apply(self, aggregate: Subscription) -> None:
            aggregate.status = "active"
            aggregate.tried_since = self.timestamp

    class SecretRotated(Event):
        TOPIC = "subscription.secret_rotated"
        sealed_secret_id: str
        previous_until: datetime

        def apply(self, aggregate: Subscription) -> None:
            newest, older = aggregate.secrets[0], aggregate.secrets[1:]
            aggregate.secrets = (
                SigningSecret(self.sealed_secret_id, None),
                SigningSecret(newest.sealed_id, self.previous_until),
                *(SigningSecret(secret.sealed_id, self.timestamp) for secret in older),
            )

    class SecretsShredded(Event):
        TOPIC = "subscription.secrets_shredded"
        sealed_secret_ids: tuple[str, ...]

        def apply(self, aggregate: Subscription) -> None:
            aggregate.secrets = tuple(
                secret for secret in aggregate.secrets if secret.sealed_id not in self.sealed_secret_ids
            )

    class ReplayRequested(Event):
        """The events behind the position `after`, up to `upto`, as far as the subscription wants them today."""

        TOPIC = "subscription.replay_requested"
        replay_id: str
        after: int
        upto: int

        def apply(self, aggregate: Subscription) -> None:
            aggregate.replays = (*aggregate.replays, Replay(self.replay_id, self.after, self.upto, self.timestamp))

    class ReplayAdvanced(Event):
        """Up to `position` all is owed."""

        TOPIC = "subscription.replay_advanced"
        replay_id: str
        position: int

        def apply(self, aggregate: Subscription) -> None:
            aggregate.replays = tuple(
                Replay(replay.id, self.position, replay.upto, self.timestamp) if replay.id == self.replay_id else replay
                for replay in aggregate.replays
                if replay.id != self.replay_id or self.position < replay.upto
            )

    class Unsubscribed(Event):
        TOPIC = "subscription.unsubscribed"

        def apply(self, aggregate: Subscription) -> None:
            aggregate.status = "ended"
            aggregate.replays = ()
            aggregate.secrets = tuple(SigningSecret(secret.sealed_id, self.timestamp) for secret in aggregate.secrets)

    def __init__(
        self,
        tenant_id: str,
        identity_id: str,
        name: str,
        paths: tuple[str, ...],
        event_types: tuple[EventType, ...],
        target: WebhookTarget | None,
        dns_names: tuple[str, ...],
        ordered: bool,
        buffer_size: int,
        timestamp: datetime,
    ) -> None:
        self.tenant_id = tenant_id
        self.identity_id = identity_id
        self.name = name
        self.paths = paths
        self.event_types = event_types
        self.dns_names = dns_names
        self.ordered = ordered
        self.buffer_size = buffer_size
        self.url = target.url if target else None
        self.ca_bundle_pem = target.ca_bundle_pem if target else None
        self.secrets: tuple[SigningSecret, ...] = (SigningSecret(target.sealed_secret_id, None),) if target else ()
        self.status: Status = "active"
        self.tried_since = timestamp
        self.replays: tuple[Replay, ...] = ()

    @classmethod
    def subscribe(
        cls,
        subscription_id: str,
        *,
        tenant_id: str,
        identity_id: str,
        name: str,
        paths: tuple[str, ...],
        event_types: tuple[EventType, ...],
        target: WebhookTarget | None,
        dns_names: tuple[str, ...] = (),
        ordered: bool = False,
        buffer_size: int = 1000,
        now: datetime,
    ) -> Self:
        return cls._create(
            cls.Subscribed,
            id=subscription_id,
            timestamp=now,
            tenant_id=tenant_id,
            identity_id=identity_id,
            name=name,
            paths=paths,
            event_types=event_types,
            target=target,
            dns_names=dns_names,
            ordered=ordered,
            buffer_size=buffer_size,
        )

    @property
    def is_webhook(self) -> bool:
        return self.url is not None

    def terms(self) -> Terms:
        """What it asks for as it stands, whenever it happened."""
        return Terms(
            subscription_id=self.id,
            tenant_id=self.tenant_id,
            paths=self.paths,
            event_types=self.event_types,
            dns_names=self.dns_names,
            ordered=self.ordered,
            after=0,
            upto=None,
        )

    def secrets_in_force(self, now: datetime) -> Sequence[str]:
        """The ids under which they are sealed, the newest first."""
        return [secret.sealed_id for secret in self.secrets if secret.until is None or secret.until > now]

    def revise(
        self,
        *,
        identity_id: str,
        name: str,
        paths: tuple[str, ...],
        event_types: tuple[EventType, ...],
        dns_names: tuple[str, ...],
        ordered: bool,
        buffer_size: int,
        url: str | None,
        ca_bundle_pem: str | None,
        now: datetime,
    ) -> None:
        """Who is owed what changes for later events only. What is owed already stays owed, in the order that it had; its next
        attempt goes to the new address. The same again records nothing."""
        terms = {
            "identity_id": identity_id,
            "name": name,
            "paths": paths,
            "event_types": event_types,
            "dns_names": dns_names,
            "ordered": ordered,
            "buffer_size": buffer_size,
            "url": url,
            "ca_bundle_pem": ca_bundle_pem,
        }
        if any(getattr(self, name) != value for name, value in terms.items()):
            self.trigger_event(self.Revised, **terms, timestamp=now)

    def pause(self, now: datetime) -> None:
        if self.status == "active":
            self.trigger_event(self.Paused, timestamp=now)

    def resume(self, now: datetime) -> None:
        """After a pause, or after it was disabled."""
        if self.status == "paused":
            self.trigger_event(self.Resumed, timestamp=now)
        elif self.status == "disabled":
            self.trigger_event(self.Enabled, timestamp=now)

    def disable(self, reason: str, now: datetime) -> None:
        if self.status in {"active", "paused"}:
            self.trigger_event(self.Disabled, reason=reason, timestamp=now)

    def rotate_secret(self, sealed_secret_id: str, overlap: timedelta, now: datetime) -> None:
        """Both are used for so long; one that was on its way out already ends now."""
        self.trigger_event(
            self.SecretRotated, sealed_secret_id=sealed_secret_id, previous_until=now + overlap, timestamp=now
        )

    def secrets_shredded(self, sealed_secret_ids: tuple[str, ...], now: datetime) -> None:
        self.trigger_event(self.SecretsShredded, sealed_secret_ids=sealed_secret_ids, timestamp=now)

    def request_replay(self, replay_id: str, after: int, upto: int, now: datetime) -> None:
        """Raises TooMany."""
        if len(self.replays) >= MOST_REPLAYS:
            raise TooMany(f"{MOST_REPLAYS} replays of this subscription are not finished yet")
        self.trigger_event(self.ReplayRequested, replay_id=replay_id, after=after, upto=upto, timestamp=now)

    def replay_advanced(self, replay_id: str, position: int, now: datetime) -> None:
        self.trigger_event(self.ReplayAdvanced, replay_id=replay_id, position=position, timestamp=now)

    def unsubscribe(self, now: datetime) -> None:
        if self.status != "ended":
            self.trigger_event(self.Unsubscribed, timestamp=now)
