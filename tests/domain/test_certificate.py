from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from domain.certificate import Certificate, Version
from domain.errors import NotFound, PrivateKeyNotStored
from domain.order import OrderError
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=60)

FIRST = Version(
    number=1,
    order_id="acme_order_1",
    serial_number="04aa",
    fingerprint_sha256="ab" * 32,
    issuer="CN=YE1",
    key_type="ec256",
    not_before=NOW,
    not_after=NOW + timedelta(days=90),
    chain_pem="the chain",
    sealed_key_id="key_1",
)
SECOND = replace(FIRST, number=2, order_id="acme_order_2", serial_number="04bb", not_after=LATER + timedelta(days=90))
DOWN = OrderError("backend_error", "the CA is down")


def issued(version: Version = FIRST) -> Certificate:
    certificate = Certificate.issue(
        "cert_1",
        tenant_id="tnt_default",
        account_id="acme_staging_1",
        name="shop",
        dns_names=("acme.example", "*.acme.example"),
        auto_renew=True,
        version=version,
        now=NOW,
    )
    certificate.collect_events()
    return certificate


def renewed() -> Certificate:
    certificate = issued()
    certificate.renew(SECOND, "ari", LATER)
    certificate.collect_events()
    return certificate


def test_a_line_begins_with_its_first_version() -> None:
    certificate = Certificate.issue(
        "cert_1",
        tenant_id="tnt_default",
        account_id="acme_staging_1",
        name="shop",
        dns_names=("acme.example",),
        auto_renew=True,
        version=FIRST,
        now=NOW,
    )
    assert recorded(certificate, NOW) == [
        (
            Certificate.Issued,
            {
                "tenant_id": "tnt_default",
                "account_id": "acme_staging_1",
                "name": "shop",
                "dns_names": ("acme.example",),
                "auto_renew": True,
                "version": FIRST,
            },
        )
    ]
    assert (certificate.id, certificate.current, certificate.next_number) == ("cert_1", FIRST, 2)


def test_a_renewal_adds_a_version_and_tells_what_it_follows() -> None:
    certificate = issued()
    certificate.renew(SECOND, "ari", LATER)
    assert recorded(certificate, LATER) == [
        (
            Certificate.Renewed,
            {
                "dns_names": ("acme.example", "*.acme.example"),
                "version": SECOND,
                "reason": "ari",
                "old_serial_number": "04aa",
                "old_not_after": FIRST.not_after,
            },
        )
    ]
    assert (certificate.id, certificate.current, certificate.next_number) == ("cert_1", SECOND, 3)


@pytest.mark.parametrize("version", [FIRST, SECOND], ids=["first", "second"])
def test_the_same_order_s_version_again_changes_nothing(version: Version) -> None:
    certificate = renewed()
    certificate.renew(replace(version, number=3), "ari", LATER)
    assert recorded(certificate, LATER) == []
    assert certificate.versions == (FIRST, SECOND)


def test_older_versions_stay() -> None:
    certificate = renewed()
    assert [certificate.version_numbered(number) for number in (1, 2, None)] == [FIRST, SECOND, SECOND]


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_version_that_never_was_is_not_found(number: int) -> None:
    with pytest.raises(NotFound) as refusal:
        renewed().version_numbered(number)
    assert refusal.value.kind == "version"


def test_a_version_is_given_with_what_its_key_is_sealed_under() -> None:
    assert renewed().sealed_key_of(1) == (FIRST, "key_1")
    assert renewed().sealed_key_of(None) == (SECOND, "key_1")


def test_a_key_that_was_never_here_cannot_be_had() -> None:
    with pytest.raises(PrivateKeyNotStored):
        issued(replace(FIRST, sealed_key_id=None)).sealed_key_of(None)


def test_a_key_of_a_version_that_never_was_is_not_found() -> None:
    with pytest.raises(NotFound):
        issued().sealed_key_of(2)


def test_failed_renewals_are_counted_and_told() -> None:
    certificate = issued()
    certificate.renewal_failed("acme_order_2", DOWN, LATER)
    certificate.renewal_failed("acme_order_3", DOWN, LATER)
    told = {"dns_names": certificate.dns_names, "error": DOWN, "not_after": FIRST.not_after}
    in_1, in_10 = (max(FIRST.plan.at, LATER + timedelta(minutes=minutes)) for minutes in (1, 10))
    assert recorded(certificate, LATER) == [
        (Certificate.RenewalFailed, {"order_id": "acme_order_2", "attempt": 1, "next_attempt_at": in_1, **told}),
        (Certificate.RenewalFailed, {"order_id": "acme_order_3", "attempt": 2, "next_attempt_at": in_10, **told}),
    ]


def test_a_renewal_begins_the_count_anew() -> None:
    certificate = issued()
    certificate.renewal_failed("acme_order_2", DOWN, LATER)
    certificate.renew(replace(SECOND, order_id="acme_order_3"), "ari", LATER)
    certificate.collect_events()
    certificate.renewal_failed("acme_order_4", DOWN, LATER)
    ((_, fields),) = recorded(certificate, LATER)
    assert (fields["attempt"], fields["not_after"]) == (1, SECOND.not_after)
