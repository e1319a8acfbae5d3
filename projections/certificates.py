"""Certificate lines as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from domain.certificate import Certificate, Version
from domain.provenance import Recorded
from projections.documents import Column, DocumentView
from projections.times import whole_seconds


class VersionView(msgspec.Struct, frozen=True):
    version: int
    serial_number: str
    fingerprint_sha256: str
    not_before: datetime
    not_after: datetime
    order_id: str


class RenewalErrorView(msgspec.Struct, frozen=True):
    code: str
    message: str
    order_id: str


class RenewalView(msgspec.Struct, frozen=True):
    """`next_at` is None as long as nothing is scheduled."""

    next_at: datetime | None = None
    reason: str | None = None
    ari_window: None = None
    last_error: RenewalErrorView | None = None
    attempts: int = 0


class CertificateView(msgspec.Struct, frozen=True):
    """As stored; whether it is expired depends on when one looks (`shown`)."""

    id: str
    name: str | None
    domains: Sequence[str]
    status: str
    version: int
    serial_number: str
    fingerprint_sha256: str
    issuer: str
    key_type: str
    not_before: datetime
    not_after: datetime
    auto_renew: bool
    renewal: RenewalView
    account_id: str
    versions: Sequence[VersionView]
    created_at: datetime


def shown(certificate: CertificateView, now: datetime) -> CertificateView:
    return replace(certificate, status="expired") if certificate.not_after <= now else certificate


def fold(certificate: CertificateView | None, recorded: Recorded) -> CertificateView:
    event = recorded.event
    match event:
        case Certificate.Issued(version=version):
            return CertificateView(
                id=event.originator_id,
                name=event.name,
                domains=event.dns_names,
                status="active",
                version=version.number,
                serial_number=version.serial_number,
                fingerprint_sha256=version.fingerprint_sha256,
                issuer=version.issuer,
                key_type=version.key_type,
                not_before=version.not_before,
                not_after=version.not_after,
                auto_renew=event.auto_renew,
                renewal=RenewalView(),
                account_id=event.account_id,
                versions=[_version(version)],
                created_at=whole_seconds(event.timestamp),
            )
        case Certificate.Renewed(version=version) if certificate is not None:
            return replace(
                certificate,
                version=version.number,
                serial_number=version.serial_number,
                fingerprint_sha256=version.fingerprint_sha256,
                issuer=version.issuer,
                key_type=version.key_type,
                not_before=version.not_before,
                not_after=version.not_after,
                renewal=RenewalView(),
                versions=[*certificate.versions, _version(version)],
            )
        case Certificate.RenewalFailed(order_id=order_id, attempt=attempt, error=error) if certificate is not None:
            last_error = RenewalErrorView(error.code, error.message, order_id)
            return replace(certificate, renewal=replace(certificate.renewal, last_error=last_error, attempts=attempt))
        case _:
            raise ValueError(f"no rule for {event}")


def _version(version: Version) -> VersionView:
    return VersionView(
        version=version.number,
        serial_number=version.serial_number,
        fingerprint_sha256=version.fingerprint_sha256,
        not_before=version.not_before,
        not_after=version.not_after,
        order_id=version.order_id,
    )


CERTIFICATES = DocumentView(
    name="certificates",
    document_type=CertificateView,
    event_class=Certificate.Event,
    fold=fold,
    columns={"account_id": Column("text NOT NULL", lambda certificate: certificate.account_id)},
)
