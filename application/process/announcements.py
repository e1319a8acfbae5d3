"""What subscribers are told: for each event of the store that concerns them its type, path and `data`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from domain.certificate import Certificate, Version
from domain.order import Order, OrderError
from domain.provenance import Recorded
from domain.subscription import EventType
from domain.ulid import ulid_text


class Announcement(msgspec.Struct, frozen=True):
    """The body of a webhook. `sequence` is the position in the event store."""

    event_id: str
    event_type: EventType
    timestamp: datetime
    tenant_id: str
    identity_id: str
    path: str
    sequence: int
    data: Mapping[str, Any]
    request_id: str | None


def announcement_of(recorded: Recorded) -> Announcement | None:
    """None for events that nobody can subscribe to."""
    event = recorded.event
    data: Mapping[str, Any]
    certificate = f"pki/certificates/{event.originator_id}"
    match event:
        case Certificate.Issued(version=version, dns_names=dns_names):
            data = {"certificate_id": event.originator_id, "domains": dns_names, **_version(version)}
            return _announce(recorded, "certificate.issued", certificate, data)
        case Certificate.Renewed(version=version):
            data = {
                "certificate_id": event.originator_id,
                "domains": event.dns_names,
                "old_serial_number": event.old_serial_number,
                "old_not_after": event.old_not_after,
                "reason": event.reason,
                **_version(version),
            }
            return _announce(recorded, "certificate.renewed", certificate, data)
        case Certificate.RenewalFailed():
            data = {
                "certificate_id": event.originator_id,
                "domains": event.dns_names,
                "order_id": event.order_id,
                "attempt": event.attempt,
                "error": {"code": event.error.code, "message": event.error.message},
                "retry_after": event.error.retry_after_seconds,
                "next_attempt_at": None,
                "not_after": event.not_after,
                "days_remaining": (event.not_after - event.timestamp).days,
            }
            return _announce(recorded, "certificate.renewal_failed", certificate, data)
        case Order.Failed(error=error):
            data = {"order_id": event.originator_id, "domains": event.dns_names, "error": _error(error)}
            return _announce(recorded, "order.invalid", f"pki/acme/orders/{event.originator_id}", data)
        case _:
            return None


def _announce(recorded: Recorded, event_type: EventType, path: str, data: Mapping[str, Any]) -> Announcement:
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


def event_id(recorded: Recorded) -> str:
    """The same for the same event, for ever."""
    event = recorded.event
    digest = hashlib.sha256(f"{event.originator_id}@{event.originator_version}".encode()).digest()
    return "evt_" + ulid_text(event.timestamp, digest[:10])


def _version(version: Version) -> Mapping[str, Any]:
    return {
        "version": version.number,
        "serial_number": version.serial_number,
        "fingerprint_sha256": version.fingerprint_sha256,
        "issuer": version.issuer,
        "not_before": version.not_before,
        "not_after": version.not_after,
        "order_id": version.order_id,
    }


def _error(error: OrderError) -> Mapping[str, Any]:
    return {"code": error.code, "message": error.message, "retry_after": error.retry_after_seconds}
