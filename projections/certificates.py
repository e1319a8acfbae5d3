"""Certificate lines as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.certificate import Certificate, Version
from domain.names import WILDCARD
from domain.provenance import Recorded
from domain.rate_limit import set_digest
from domain.renewal import Plan
from projections.documents import Column, Condition, DocumentView, Pool
from projections.times import whole_seconds

Status = Literal["active", "expired", "revoked"]


class Revocation(msgspec.Struct, frozen=True):
    """When it was revoked, and why."""

    at: datetime
    reason: str


class VersionView(msgspec.Struct, frozen=True):
    version: int
    serial_number: str
    fingerprint_sha256: str
    not_before: datetime
    not_after: datetime
    order_id: str
    revoked: Revocation | None = None


class RenewalErrorView(msgspec.Struct, frozen=True):
    code: str
    message: str
    order_id: str | None


class AriWindowView(msgspec.Struct, frozen=True):
    """What the CA suggests (RFC 9773 §4.2)."""

    start: datetime
    end: datetime
    explanation_url: str | None
    seen_at: datetime


class RenewalView(msgspec.Struct, frozen=True):
    """`next_at` is None while an order for it is in progress (`order_id`), and where nothing is renewed by itself. `reason`
    is the rule that set it, or what puts it off. `held` is the breaker's alarm."""

    next_at: datetime | None = None
    reason: str | None = None
    ari_window: AriWindowView | None = None
    last_error: RenewalErrorView | None = None
    attempts: int = 0
    order_id: str | None = None
    held: bool = False


class CertificateView(msgspec.Struct, frozen=True):
    """As stored; whether it is expired depends on when one looks (`shown`)."""

    id: str
    name: str | None
    domains: Sequence[str]
    status: Status
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
    """One that was revoked stays so when it is over."""
    is_over = certificate.status == "active" and certificate.not_after <= now
    return replace(certificate, status="expired") if is_over else certificate


def with_status(status: Status, now: datetime) -> Condition:
    """Those that are shown so now."""
    match status:
        case "active":
            return Condition("status = 'active' AND not_after > %s", [now])
        case "expired":
            return Condition("status = 'active' AND not_after <= %s", [now])
        case "revoked":
            return Condition("status = 'revoked'")
        case _:
            assert_never(status)


def good_for(dns_name: str) -> Condition:
    """Those that have the name, or cover it by the wildcard one label above (RFC 6125 §6.4.3). A wildcard is covered by
    itself alone."""
    _, _, above = dns_name.partition(".")
    names = [dns_name] if dns_name.startswith(WILDCARD) else [dns_name, WILDCARD + above]
    return Condition("dns_names && %s::text[]", [names])


def ending_within(duration: timedelta, now: datetime) -> Condition:
    """Those that end so soon, and have not ended."""
    return Condition("not_after > %s AND not_after <= %s", [now, now + duration])


NOT_REVOKED = Condition("status <> 'revoked'")


def fold(certificate: CertificateView | None, recorded: Recorded) -> CertificateView:
    event = recorded.event
    if isinstance(event, Certificate.Issued):
        return _issued(event)
    if certificate is None:
        raise ValueError(f"{event} is not the first of its certificate")
    return _after(certificate, event)


def _issued(event: Certificate.Issued) -> CertificateView:
    version = event.version
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
        renewal=_next(RenewalView(), version.plan if event.auto_renew else None),
        account_id=event.account_id,
        versions=[_version(version)],
        created_at=whole_seconds(event.timestamp),
    )


def _after(certificate: CertificateView, event: object) -> CertificateView:
    renewal = certificate.renewal
    match event:
        case Certificate.Renewed(version=version):
            return replace(
                certificate,
                status="active",
                version=version.number,
                serial_number=version.serial_number,
                fingerprint_sha256=version.fingerprint_sha256,
                issuer=version.issuer,
                key_type=version.key_type,
                not_before=version.not_before,
                not_after=version.not_after,
                renewal=_next(RenewalView(), version.plan if certificate.auto_renew else None),
                versions=[*certificate.versions, _version(version)],
            )
        case Certificate.Revoked(version=number, reason=reason, next_renewal=next_renewal):
            revoked = Revocation(whole_seconds(event.timestamp), reason)
            versions = [replace(v, revoked=revoked) if v.version == number else v for v in certificate.versions]
            if number != certificate.version:
                return replace(certificate, versions=versions)
            renewal = replace(_next(renewal, next_renewal), held=False)
            return replace(certificate, status="revoked", versions=versions, renewal=renewal)
        case Certificate.AutoRenewalSwitched(on=on, next_renewal=next_renewal):
            return replace(certificate, auto_renew=on, renewal=_next(renewal, next_renewal))
        case Certificate.Renamed(name=name):
            return replace(certificate, name=name)
        case Certificate.ExpiryNeared() | Certificate.Expired():
            return certificate
        case _:
            return replace(certificate, renewal=_renewal_after(renewal, event))


def _renewal_after(renewal: RenewalView, event: object) -> RenewalView:
    match event:
        case Certificate.RenewalInfoSeen(suggestion=suggestion, explanation_url=url, next_renewal=next_renewal):
            window = suggestion.window
            seen = AriWindowView(window.start, window.end, url, whole_seconds(event.timestamp))
            return replace(_next(renewal, next_renewal), ari_window=seen)
        case Certificate.RenewalBegan(order_id=order_id):
            return replace(renewal, next_at=None, reason=event.reason, order_id=order_id, held=False)
        case Certificate.RenewalFailed(order_id=order_id, attempt=attempt, error=error, next_attempt_at=at):
            last_error = RenewalErrorView(error.code, error.message, order_id)
            failed = replace(renewal, last_error=last_error, attempts=attempt, order_id=None, held=False)
            return replace(failed, next_at=_shown_time(at), reason="retry" if at else None)
        case Certificate.RenewalPostponed(until=until):
            return replace(renewal, next_at=whole_seconds(until), reason="rate_limit")
        case Certificate.RenewalHeld(until=until):
            return replace(renewal, next_at=whole_seconds(until), reason="breaker", held=True)
        case Certificate.RenewalReleased(next_renewal=next_renewal):
            return replace(_next(renewal, next_renewal), held=False)
        case _:
            raise ValueError(f"no rule for {event}")


def _next(renewal: RenewalView, plan: Plan | None) -> RenewalView:
    return replace(renewal, next_at=_shown_time(plan.at if plan else None), reason=plan.rule if plan else None)


def _shown_time(at: datetime | None) -> datetime | None:
    return None if at is None else whole_seconds(at)


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
    columns={
        "account_id": Column("text NOT NULL", lambda certificate: certificate.account_id),
        "dns_names": Column("text[] NOT NULL", lambda certificate: list(certificate.domains)),
        "status": Column("text NOT NULL", lambda certificate: certificate.status),
        "names_digest": Column("text NOT NULL", lambda certificate: set_digest(certificate.domains)),
        "not_before": Column("timestamptz NOT NULL", lambda certificate: certificate.not_before),
        "not_after": Column("timestamptz NOT NULL", lambda certificate: certificate.not_after),
        "renew_at": Column("timestamptz", lambda certificate: certificate.renewal.next_at),
    },
    indexes=[
        "CREATE INDEX certificates_dns_names ON certificates USING gin (dns_names)",
        "CREATE INDEX certificates_tenant_end ON certificates (tenant_id, not_after)",
        "CREATE INDEX certificates_names ON certificates (names_digest)",
        "CREATE INDEX certificates_end ON certificates (not_after)",
        "CREATE INDEX certificates_renewal ON certificates (account_id, renew_at)",
    ],
)


def was_issued(pool: Pool, ca: str, names_digest: str, since: datetime) -> bool:
    """Whether one of that CA's certificates since then is for exactly these names."""
    with pool.connection() as connection:
        found = connection.execute(
            "SELECT FROM certificates c JOIN accounts a ON a.id = c.account_id"
            " WHERE c.names_digest = %s AND c.not_before >= %s AND a.document->>'directory_url' = %s LIMIT 1",
            [names_digest, since, ca],
        )
        return found.fetchone() is not None


def renewing_through(pool: Pool, account_id: str, most: int) -> Sequence[str]:
    """The ids of lines that are renewed by themselves through the account."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT id FROM certificates WHERE account_id = %s AND (document->>'auto_renew')::boolean LIMIT %s",
            [account_id, most],
        ).fetchall()
    return [certificate_id for (certificate_id,) in rows]


def of_account(pool: Pool, account_id: str, renewed_before: datetime, limit: int) -> Sequence[CertificateView]:
    """The lines of an account that are renewed by themselves before then, the next ones first."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT document::text FROM certificates WHERE account_id = %s AND renew_at < %s"
            " ORDER BY renew_at LIMIT %s",
            [account_id, renewed_before, limit],
        ).fetchall()
    return [msgspec.json.decode(document, type=CertificateView) for (document,) in rows]
