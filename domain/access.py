"""What changes no aggregate but must be on record: that something was read, tried, or refused. Each is a stream of its
own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from eventsourcing.utils import register_topic

from domain.event import DomainEvent


@dataclass(frozen=True)
class PrivateKeyRead(DomainEvent):
    TOPIC = "access.private_key_read"
    certificate_id: str
    version: int


@dataclass(frozen=True)
class SecretRead(DomainEvent):
    TOPIC = "access.secret_read"
    path: str
    version: int


@dataclass(frozen=True)
class RequestRefused(DomainEvent):
    """A known identity asked for what it may not have. `code` is the answer's."""

    TOPIC = "access.request_refused"
    method: str
    path: str
    code: str


@dataclass(frozen=True)
class SubscriptionTested(DomainEvent):
    """Somebody had a trial event sent. `status` is the receiver's, None where it gave none."""

    TOPIC = "access.subscription_tested"
    subscription_id: str
    status: int | None
    detail: str


AccessEvent = PrivateKeyRead | SecretRead | RequestRefused | SubscriptionTested

for event_class in (PrivateKeyRead, SecretRead, RequestRefused, SubscriptionTested):
    register_topic(event_class.TOPIC, event_class)


def private_key_read(access_id: str, certificate_id: str, version: int, now: datetime) -> PrivateKeyRead:
    return PrivateKeyRead(access_id, 1, now, certificate_id, version)


def secret_read(access_id: str, path: str, version: int, now: datetime) -> SecretRead:
    return SecretRead(access_id, 1, now, path, version)


def request_refused(access_id: str, method: str, path: str, code: str, now: datetime) -> RequestRefused:
    return RequestRefused(access_id, 1, now, method, path, code)


def subscription_tested(
    access_id: str, subscription_id: str, status: int | None, detail: str, now: datetime
) -> SubscriptionTested:
    return SubscriptionTested(access_id, 1, now, subscription_id, status, detail)
