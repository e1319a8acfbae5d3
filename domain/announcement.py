"""What subscribers can be told: the one place that declares each event type, its `data`, and the event it tells of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from domain.certificate import Certificate, Version
from domain.dns_provider import DnsProvider
from domain.durations import duration_text
from domain.order import Order
from domain.provenance import Recorded
from domain.ulid import ulid_text

EventType = Literal[
    "certificate.issued",
    "certificate.renewed",
    "certificate.renewal_failed",
    "certificate.expiring",
    "certificate.expired",
    "certificate.revoked",
    "order.invalid",
    "dns_provider.degraded",
    "dns_provider.recovered",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)


@dataclass(frozen=True)
class CertificateIssued:
    """`serial_number` and `fingerprint_sha256` (of the leaf's DER) are hex."""

    certificate_id: str
    version: int
    domains: tuple[str, ...]
    serial_number: str
    fingerprint_sha256: str
    issuer: str
    not_before: datetime
    not_after: datetime
    order_id: str


@dataclass(frozen=True)
class CertificateRenewed(CertificateIssued):
    """`old_serial_number` and `old_not_after` are the version's before."""

    old_serial_number: str
    old_not_after: datetime
    reason: str


@dataclass(frozen=True)
class RenewalError:
    code: str
    message: str


@dataclass(frozen=True)
class CertificateRenewalFailed:
    """`attempt` counts from the last version on, whose end `not_after` is; `retry_after` is in seconds. `order_id` is None
    where it did not come to an order, `next_attempt_at` where nothing is tried by itself."""

    certificate_id: str
    domains: tuple[str, ...]
    order_id: str | None
    attempt: int
    error: RenewalError
    retry_after: int | None
    next_attempt_at: datetime | None
    not_after: datetime
    days_remaining: int


@dataclass(frozen=True)
class CertificateExpiring:
    """`threshold` is how long before the end it is told, as `30d`, `7d`, `1d`; shorter for short lifetimes."""

    certificate_id: str
    domains: tuple[str, ...]
    not_after: datetime
    days_remaining: int
    threshold: str


@dataclass(frozen=True)
class CertificateExpired:
    """`serial_number` is hex."""

    certificate_id: str
    version: int
    domains: tuple[str, ...]
    serial_number: str


@dataclass(frozen=True)
class CertificateRevoked(CertificateExpired):
    """`revoked_by` is who asked for it, as `identity_id` has it."""

    reason: str
    revoked_by: str


@dataclass(frozen=True)
class FailedOrderError(RenewalError):
    """`retry_after` is in seconds."""

    retry_after: int | None


@dataclass(frozen=True)
class OrderInvalid:
    order_id: str
    domains: tuple[str, ...]
    error: FailedOrderError


@dataclass(frozen=True)
class DnsProviderDegraded:
    """`reason` is `credentials_rejected`, `permission_missing`, `zone_not_found`, `throttled` or `unreachable`."""

    dns_provider_id: str
    reason: str


@dataclass(frozen=True)
class DnsProviderRecovered(DnsProviderDegraded):
    """`reason` is what it had been degraded by."""


Data = (
    CertificateIssued
    | CertificateRenewed
    | CertificateRenewalFailed
    | CertificateExpiring
    | CertificateExpired
    | CertificateRevoked
    | OrderInvalid
    | DnsProviderDegraded
    | DnsProviderRecovered
)

CATALOGUE: Mapping[EventType, type[Data]] = {
    "certificate.issued": CertificateIssued,
    "certificate.renewed": CertificateRenewed,
    "certificate.renewal_failed": CertificateRenewalFailed,
    "certificate.expiring": CertificateExpiring,
    "certificate.expired": CertificateExpired,
    "certificate.revoked": CertificateRevoked,
    "order.invalid": OrderInvalid,
    "dns_provider.degraded": DnsProviderDegraded,
    "dns_provider.recovered": DnsProviderRecovered,
}
"""The `data` of each type."""

TEST = "subscription.test"
RENEWAL_HELD = "renewal_held"
"""The code of a renewal that the breaker holds back."""


@dataclass(frozen=True)
class SubscriptionTest:
    """`data` of an event that only tries a receiver. It is in no history, and its sequence is 0."""

    subscription_id: str


@dataclass(frozen=True)
class Announcement:
    """The body of a webhook. `sequence` is the position in the event store."""

    event_id: str
    event_type: str
    timestamp: datetime
    tenant_id: str
    identity_id: str
    path: str
    sequence: int
    data: Data | SubscriptionTest
    request_id: str | None


@dataclass(frozen=True)
class Announced:
    """An announcement as it is kept. `body` is its JSON, the same for everybody and for ever; `causation` is the
    `subject@version` that it tells of."""

    position: int
    event_id: str
    tenant_id: str
    event_type: str
    path: str
    dns_names: tuple[str, ...]
    at: datetime
    causation: str
    request_id: str | None
    body: str


def announcement_of(recorded: Recorded) -> Announcement | None:
    """None for events that nobody can subscribe to."""
    event = recorded.event
    match event:
        case Certificate.Issued(version=version, dns_names=dns_names):
            return _of_certificate(
                recorded, "certificate.issued", CertificateIssued(*_version(event.originator_id, dns_names, version))
            )
        case Certificate.Renewed(version=version, dns_names=dns_names):
            renewed = CertificateRenewed(
                *_version(event.originator_id, dns_names, version),
                old_serial_number=event.old_serial_number,
                old_not_after=event.old_not_after,
                reason=event.reason,
            )
            return _of_certificate(recorded, "certificate.renewed", renewed)
        case Certificate.RenewalFailed(error=error):
            failed = CertificateRenewalFailed(
                certificate_id=event.originator_id,
                domains=event.dns_names,
                order_id=event.order_id,
                attempt=event.attempt,
                error=RenewalError(error.code, error.message),
                retry_after=error.retry_after_seconds,
                next_attempt_at=event.next_attempt_at,
                not_after=event.not_after,
                days_remaining=(event.not_after - event.timestamp).days,
            )
            return _of_certificate(recorded, "certificate.renewal_failed", failed)
        case Certificate.RenewalHeld():
            message = f"renewed by itself {event.renewals} times since {event.since:%Y-%m-%dT%H:%M:%SZ}: held back"
            held = CertificateRenewalFailed(
                certificate_id=event.originator_id,
                domains=event.dns_names,
                order_id=None,
                attempt=event.attempt,
                error=RenewalError(RENEWAL_HELD, message),
                retry_after=None,
                next_attempt_at=event.until,
                not_after=event.not_after,
                days_remaining=(event.not_after - event.timestamp).days,
            )
            return _of_certificate(recorded, "certificate.renewal_failed", held)
        case Certificate.ExpiryNeared():
            expiring = CertificateExpiring(
                certificate_id=event.originator_id,
                domains=event.dns_names,
                not_after=event.not_after,
                days_remaining=(event.not_after - event.timestamp).days,
                threshold=duration_text(event.before),
            )
            return _of_certificate(recorded, "certificate.expiring", expiring)
        case Certificate.Expired():
            expired = CertificateExpired(event.originator_id, event.version, event.dns_names, event.serial_number)
            return _of_certificate(recorded, "certificate.expired", expired)
        case Certificate.Revoked():
            revoked = CertificateRevoked(
                event.originator_id,
                event.version,
                event.dns_names,
                event.serial_number,
                reason=event.reason,
                revoked_by=recorded.by.identity_id,
            )
            return _of_certificate(recorded, "certificate.revoked", revoked)
        case Order.Failed(error=error):
            reason = FailedOrderError(error.code, error.message, error.retry_after_seconds)
            invalid = OrderInvalid(event.originator_id, event.dns_names, reason)
            return _announce(recorded, "order.invalid", f"pki/acme/orders/{event.originator_id}", invalid)
        case DnsProvider.Degraded(originator_id=provider_id, reason=why):
            degraded = DnsProviderDegraded(provider_id, why)
            return _announce(recorded, "dns_provider.degraded", f"dns/providers/{provider_id}", degraded)
        case DnsProvider.Recovered(originator_id=provider_id, reason=why):
            recovered = DnsProviderRecovered(provider_id, why)
            return _announce(recorded, "dns_provider.recovered", f"dns/providers/{provider_id}", recovered)
        case _:
            return None


def event_id(recorded: Recorded) -> str:
    """The same for the same event, for ever."""
    event = recorded.event
    digest = hashlib.sha256(causation(recorded).encode()).digest()
    return "evt_" + ulid_text(event.timestamp, digest[:10])


def causation(recorded: Recorded) -> str:
    return f"{recorded.event.originator_id}@{recorded.event.originator_version}"


def _of_certificate(recorded: Recorded, event_type: EventType, data: Data) -> Announcement:
    return _announce(recorded, event_type, f"pki/certificates/{recorded.event.originator_id}", data)


def _announce(recorded: Recorded, event_type: EventType, path: str, data: Data) -> Announcement:
    return Announcement(
        event_id=event_id(recorded),
        event_type=event_type,
        timestamp=recorded.event.timestamp,
        tenant_id=recorded.by.tenant_id,
        identity_id=recorded.by.identity_id,
        path=path,
        sequence=recorded.position,
        data=data,
        request_id=recorded.by.request_id,
    )


def _version(
    certificate_id: str, dns_names: tuple[str, ...], version: Version
) -> tuple[str, int, tuple[str, ...], str, str, str, datetime, datetime, str]:
    """The first fields of both kinds, in their order."""
    return (
        certificate_id,
        version.number,
        dns_names,
        version.serial_number,
        version.fingerprint_sha256,
        version.issuer,
        version.not_before,
        version.not_after,
        version.order_id,
    )
