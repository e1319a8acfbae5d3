"""What the lists of certificates and orders can be narrowed to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from domain.certificate import Certificate, Version
from domain.token import SCOPES, Limits
from tests.interfaces.http.client import (
    Api,
    connect_provider,
    error_code,
    record,
    record_account,
    record_certificate,
    record_order,
    wrong_fields,
)

PATH = "/v1/pki/certificates"


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


def certified(api: Api, *dns_names: str, ends_in: timedelta = timedelta(days=90), account_id: str = "acme_1") -> str:
    """The id of a certificate for those names."""
    certificate_id = api.new_id("cert")
    now = datetime.now(UTC).replace(microsecond=0)
    version = Version(
        number=1,
        order_id=api.new_id("acme_order"),
        serial_number="01",
        fingerprint_sha256="01" * 32,
        issuer="CN=Test CA",
        key_type="ec256",
        not_before=now - timedelta(days=100),
        not_after=now + ends_in,
        chain_pem="",
        sealed_key_id=None,
    )
    certificate = Certificate.issue(
        certificate_id,
        tenant_id=api.tenant_id,
        account_id=account_id,
        name=None,
        dns_names=dns_names or ("www.acme.example",),
        auto_renew=False,
        version=version,
        now=now,
    )
    record(api, certificate)
    return certificate_id


def revoke(api: Api, certificate_id: str) -> None:
    """As if the CA had done it."""
    certificate = api.parts.store.load(Certificate, certificate_id, api.tenant_id)
    certificate.revoke(1, "superseded", datetime.now(UTC))
    record(api, certificate)


def listed(api: Api, token: str, query: str = "") -> Sequence[str]:
    answer = api.ask(f"GET {PATH}?{query}", token)
    assert answer.status_code == 200, answer.text
    return [certificate["id"] for certificate in answer.json()["data"]]


# --- certificates ---


def test_a_domain_finds_what_has_the_name_or_covers_it_by_a_wildcard(api: Api, token: str) -> None:
    www, wildcard, both, other = (
        certified(api, "www.acme.example", "acme.example"),
        certified(api, "*.acme.example"),
        certified(api, "*.acme.example", "www.acme.example"),
        certified(api, "www.other.example"),
    )
    for name, found in {
        "www.acme.example": [www, wildcard, both],
        "WWW.Acme.Example.": [www, wildcard, both],
        "mail.acme.example": [wildcard, both],
        "*.acme.example": [wildcard, both],
        "acme.example": [www],
        "a.mail.acme.example": [],
        "www.other.example": [other],
        "nobody.example": [],
    }.items():
        assert listed(api, token, f"domain={quote(name)}") == found, name


def test_a_domain_may_be_written_as_people_do(api: Api, token: str) -> None:
    certificate_id = certified(api, "xn--bcher-kva.example")
    assert listed(api, token, f"domain={quote('bücher.example')}") == [certificate_id]


@pytest.mark.parametrize("name", ["", "*", "a", "a..b", "10.0.0.1", "*.*.example", "%", "a" * 64 + ".example"])
def test_what_is_no_name_is_said_to_be_none(api: Api, token: str, name: str) -> None:
    assert wrong_fields(api.ask(f"GET {PATH}?domain={quote(name)}", token)) == {"domain": "invalid_name"}


def test_the_status_is_that_of_this_moment(api: Api, token: str) -> None:
    active, expired, revoked, both = (
        certified(api),
        certified(api, ends_in=timedelta(0)),
        certified(api),
        certified(api, ends_in=timedelta(0)),
    )
    for certificate_id in (revoked, both):
        revoke(api, certificate_id)
    assert listed(api, token, "status=active") == [active]
    assert listed(api, token, "status=expired") == [expired]
    assert listed(api, token, "status=revoked") == [revoked, both]
    assert listed(api, token, "include_revoked=true") == [active, expired, revoked, both]
    assert listed(api, token) == [active, expired]
    for status in ("active", "expired", "revoked"):
        shown = api.ask(f"GET {PATH}?status={status}", token).json()["data"]
        assert {certificate["status"] for certificate in shown} == {status}


def test_what_ends_soon_is_what_has_not_ended_yet(api: Api, token: str) -> None:
    ended, tomorrow, next_week, next_year = (certified(api, ends_in=timedelta(days=days)) for days in (-1, 1, 7, 365))
    assert listed(api, token, "expiring_within=2d") == [tomorrow]
    assert listed(api, token, "expiring_within=169h") == [tomorrow, next_week]
    assert listed(api, token, "expiring_within=36500d") == [tomorrow, next_week, next_year]
    assert listed(api, token, "expiring_within=30s") == []
    assert ended not in listed(api, token, "expiring_within=2d&include_revoked=true")


@pytest.mark.parametrize("duration", ["", "30", "d", "0d", "-1d", "1.5d", "30 d", "1w", "36501d", "9999999999d"])
def test_what_is_no_duration_is_a_400(api: Api, token: str, duration: str) -> None:
    answer = api.ask(f"GET {PATH}?expiring_within={quote(duration)}", token)
    assert wrong_fields(answer, 400, "invalid_duration") == {"expiring_within": "invalid_duration"}


@pytest.mark.parametrize("query", ["status=valid", "status=Active", "status=", "include_revoked=maybe"])
def test_a_word_that_is_none_of_theirs_is_refused(api: Api, token: str, query: str) -> None:
    answer = api.ask(f"GET {PATH}?{query}", token)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


def test_filters_narrow_together_and_pages_go_on_in_them(api: Api, token: str) -> None:
    account_id = record_account(api)
    wanted = []
    for _ in range(5):
        certified(api, "www.other.example", account_id=account_id)
        wanted.append(certified(api, "*.acme.example", account_id=account_id, ends_in=timedelta(days=3)))
        certified(api, "*.acme.example", account_id=account_id)
        certified(api, "*.acme.example", ends_in=timedelta(days=3))
    line = f"domain=www.acme.example&status=active&account_id={account_id}&expiring_within=4d"
    assert listed(api, token, line) == wanted
    found: list[str] = []
    cursor = ""
    for size in (2, 2, 1):
        page = api.ask(f"GET {PATH}?{line}&limit=2{cursor}", token).json()
        assert (len(page["data"]), page["has_more"]) == (size, size == 2)
        found += [certificate["id"] for certificate in page["data"]]
        cursor = f"&cursor={page['cursor']}"
    assert found == wanted


def test_nobody_finds_by_a_filter_what_they_may_not_see(api: Api, token: str, elsewhere: str) -> None:
    certificate_id = certified(api, "www.acme.example")
    for stranger in (
        api.token("pki:read", tenant_id=elsewhere),
        api.token("pki:read", limits=Limits(certificate_ids=(record_certificate(api),))),
        api.token("pki:read", limits=Limits(dns_names=("*.other.example",))),
    ):
        assert certificate_id not in listed(api, stranger, "domain=www.acme.example")
    assert certificate_id in listed(api, token, "domain=www.acme.example")


# --- orders ---


def test_orders_are_found_by_their_status(api: Api, token: str) -> None:
    connect_provider(api, token)
    first, second = record_order(api), record_order(api, name="mail.acme.example")
    api.ask(f"POST /v1/pki/acme/orders/{first}/cancel", token)

    def orders(query: str) -> Sequence[str]:
        return [order["order_id"] for order in api.ask(f"GET /v1/pki/acme/orders?{query}", token).json()["data"]]

    assert orders("status=invalid") == [first]
    assert orders("status=pending") == [second]
    assert orders("status=valid") == orders("status=processing") == []
    assert orders("") == [first, second]


@pytest.mark.parametrize("status", ["", "done", "Pending", "pending,valid"])
def test_a_status_that_no_order_has_is_refused(api: Api, token: str, status: str) -> None:
    answer = api.ask(f"GET /v1/pki/acme/orders?status={status}", token)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
