from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from domain.order import OrderError
from interfaces.postgres.pool import Pool
from projections.certificate_pems import CERTIFICATE_PEMS, PemView
from projections.certificates import (
    CERTIFICATES,
    CertificateView,
    RenewalErrorView,
    RenewalView,
    VersionView,
    ending_within,
    good_for,
    shown,
    with_status,
)
from tests.projections.folding import apply, document, recorded
from tests.projections.story import BEGIN, ISSUER, LEAF, OTHER_TENANT, TENANT, issued, version

NOW = BEGIN
WHOLE = NOW.replace(microsecond=0)
DAYS = timedelta(days=1)
PLANNED = version(1, "acme_order_1").plan.at.replace(microsecond=0)
FIRST = VersionView(1, "01", "1" * 64, WHOLE, WHOLE + 90 * DAYS, "acme_order_1")
SECOND = VersionView(2, "02", "2" * 64, WHOLE, WHOLE + 180 * DAYS, "acme_order_2")


def test_an_issued_certificate_shows_its_first_version(pool: Pool) -> None:
    assert document(pool, CERTIFICATES, issued("cert_1", NOW, "acme_order_1")) == CertificateView(
        id="cert_1",
        name="web",
        domains=["a.example", "*.a.example"],
        status="active",
        version=1,
        serial_number="01",
        fingerprint_sha256="1" * 64,
        issuer="CN=CA",
        key_type="ec256",
        not_before=WHOLE,
        not_after=WHOLE + 90 * DAYS,
        auto_renew=True,
        renewal=RenewalView(next_at=PLANNED, reason="lifetime"),
        account_id="acme_account_1",
        versions=[FIRST],
        created_at=WHOLE,
    )


def test_a_failed_renewal_is_shown_until_the_next_version_comes(pool: Pool) -> None:
    certificate = issued("cert_1", NOW, "acme_order_1")
    before = document(pool, CERTIFICATES, certificate)
    for number in (7, 8):
        certificate.renewal_failed(f"acme_order_{number}", OrderError("provider_error", "no access"), NOW)
    apply(pool, CERTIFICATES, recorded(certificate, after=10))

    error = RenewalErrorView("provider_error", "no access", "acme_order_8")
    failing = CERTIFICATES.one(pool, TENANT, "cert_1")
    again = max(NOW + timedelta(minutes=10), version(1, "").plan.at).replace(microsecond=0)
    assert failing == replace(before, renewal=RenewalView(again, "retry", last_error=error, attempts=2))

    certificate.renew(version(2, "acme_order_2"), "manual", NOW)
    apply(pool, CERTIFICATES, recorded(certificate, after=20))
    assert CERTIFICATES.one(pool, TENANT, "cert_1") == replace(
        before,
        version=2,
        serial_number="02",
        fingerprint_sha256="2" * 64,
        not_after=WHOLE + 180 * DAYS,
        renewal=RenewalView(version(2, "").plan.at.replace(microsecond=0), "lifetime"),
        versions=[FIRST, SECOND],
    )


def test_a_certificate_is_expired_from_the_very_second_of_its_end(pool: Pool) -> None:
    view = document(pool, CERTIFICATES, issued("cert_1", NOW, "acme_order_1"))

    assert shown(view, view.not_after - timedelta(microseconds=1)).status == "active"
    assert shown(view, view.not_after).status == "expired"


def test_a_renewal_without_its_certificate_is_refused(pool: Pool) -> None:
    certificate = issued("cert_1", NOW, "acme_order_1")
    certificate.renew(version(2, "acme_order_2"), "manual", NOW)

    with pytest.raises(ValueError, match="not the first"):
        apply(pool, CERTIFICATES, recorded(certificate)[1:])


# --- PEMs -----------------------------------------------------------------------------------------------------------


def test_each_version_keeps_its_pem_and_the_newest_is_given_where_none_is_named(pool: Pool) -> None:
    certificate = issued("cert_1", NOW, "acme_order_1")
    certificate.renewal_failed("acme_order_7", OrderError("provider_error", "no access"), NOW)
    certificate.renew(version(2, "acme_order_2"), "manual", NOW)
    apply(pool, CERTIFICATE_PEMS, recorded(certificate, issued("cert_2", NOW, "acme_order_3")))

    newest = PemView(LEAF + ISSUER, ISSUER, LEAF, 2, "02", "2" * 64, WHOLE + 180 * DAYS)
    first = PemView(LEAF + ISSUER, ISSUER, LEAF, 1, "01", "1" * 64, WHOLE + 90 * DAYS)
    assert CERTIFICATE_PEMS.one(pool, TENANT, "cert_1", None) == newest
    assert CERTIFICATE_PEMS.one(pool, TENANT, "cert_1", 2) == newest
    assert CERTIFICATE_PEMS.one(pool, TENANT, "cert_1", 1) == first


def test_no_pem_is_given_to_another_tenant_or_of_a_version_that_is_not_there(pool: Pool) -> None:
    apply(pool, CERTIFICATE_PEMS, recorded(issued("cert_1", NOW, "acme_order_1")))

    assert CERTIFICATE_PEMS.one(pool, OTHER_TENANT, "cert_1", None) is None
    assert CERTIFICATE_PEMS.one(pool, TENANT, "cert_1", 2) is None
    assert CERTIFICATE_PEMS.one(pool, TENANT, "cert_2", None) is None


MANY = """
INSERT INTO certificates (id, tenant_id, first_position, position, document, account_id, dns_names, status,
    names_digest, not_before, not_after)
SELECT 'cert_' || n, CASE n % 50 WHEN 7 THEN 'tnt_default' ELSE 'tnt_' || n % 50 END, n, n,
    json_build_object('as_large_as', repeat(md5(n::text), 40)), 'acme_account_1', ARRAY['www' || n || '.a.example'], 'active', '',
    now(), now() + (n - 10000) * interval '1 hour'
FROM generate_series(1, 20000) n
"""


def test_neither_names_nor_ends_are_looked_for_in_all_certificates(pool: Pool) -> None:
    now = datetime.now(UTC)
    with pool.connection() as connection:
        connection.execute(MANY)
        connection.execute("ANALYZE certificates")
        for condition, index in (
            (good_for("www7.a.example"), "certificates_dns_names"),
            (ending_within(DAYS, now), "_end on certificates"),
            (with_status("expired", now), "certificates_tenant_end"),
        ):
            query = f"EXPLAIN SELECT document FROM certificates WHERE tenant_id = %s AND {condition.sql}"
            rows = connection.execute(query.encode(), [TENANT, *condition.values]).fetchall()
            plan = "\n".join(line for (line,) in rows)
            assert index in plan
            assert "Seq Scan" not in plan
