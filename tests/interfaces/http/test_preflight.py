"""The preflight check over HTTP, against zones that real servers serve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from application.rate_limits import RateLimits
from domain.account import Account, Offer
from domain.errors import CaLimitReached
from domain.rate_limit import Bucket
from domain.token import Limits
from interfaces.dns.survey import ResolvingSurvey
from tests.fakes_ca import FakeCa
from tests.interfaces.http.client import Api, egress_of, operator, refused
from tests.prove.preflight_fixtures import (
    ACCOUNT_URL,
    CA_IDENTITY,
    DEAD,
    EMBEDDED,
    FIXTURES,
    GOLDEN,
    HOSTS,
    OWN_PROVIDER,
    PROVIDER,
    SECOND,
    Fixture,
    World,
    served,
)

pytestmark = [pytest.mark.peers, pytest.mark.allow_hosts(HOSTS)]


@dataclass(frozen=True)
class Check:
    """A tenant with an account, and a provider for the zones of the fixtures."""

    api: Api
    token: str
    account_id: str

    def ask(self, domains: Sequence[str], **changes: object) -> Any:
        body = {"account_id": self.account_id, "domains": domains, "challenge_type": "dns-01", **changes}
        return self.api.ask("POST /v1/pki/acme/preflight", self.token, body)

    def report(self, domains: Sequence[str], **changes: object) -> Any:
        answer = self.ask(domains, **changes)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def codes(self, domains: Sequence[str], **changes: object) -> Sequence[str]:
        return [finding["code"] for finding in self.report(domains, **changes)["findings"]]


@pytest.fixture(scope="session")
def zones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with served(tmp_path_factory.mktemp("zones")) as world:
        yield world


@pytest.fixture(scope="session")
def checked(shared_api: Api) -> Check:
    api = replace(shared_api, tenant_id=shared_api.new_id("tnt"))
    token = api.token("pki:issue", "pki:admin")
    for provider in (PROVIDER, OWN_PROVIDER):
        assert api.ask("POST /v1/dns/providers", token, provider).status_code == 201
    return Check(api, token, record_ca_account(api))


@pytest.fixture
def check(checked: Check, zones: World, monkeypatch: pytest.MonkeyPatch) -> Check:
    look_at(checked.api, zones.resolver, zones.port, monkeypatch)
    return checked


def look_at(api: Api, resolver: str, port: int, monkeypatch: pytest.MonkeyPatch, seconds: float = 16.0) -> None:
    survey = ResolvingSurvey(egress_of(api.parts), [resolver], port=port, timeout_seconds=1.0, seconds=seconds)
    monkeypatch.setattr(api.parts.services.preflight, "_survey", survey)


def record_ca_account(api: Api, name: str = "le") -> str:
    account_id = api.new_id("acme_staging")
    account = Account.register(
        account_id,
        tenant_id=api.tenant_id,
        name=name,
        provider="custom",
        environment="staging",
        email="tls@acme.example",
        directory_url="https://ca.example/directory",
        ca_bundle_pem=None,
        account_url=ACCOUNT_URL,
        sealed_key_id="sealed_none",
        key_thumbprint="thumbprint",
        offer=Offer(ari=True, profiles=(), eab_required=False, caa_identities=(CA_IDENTITY,)),
        now=datetime.now(UTC),
    )
    api.parts.store.record(account, by=operator(api.tenant_id))
    return account_id


def history(api: Api) -> int:
    """How many events there are."""
    with api.parts.pool.connection() as connection:
        row = connection.execute("SELECT count(*) FROM events").fetchone()
    assert row is not None
    return int(row[0])


def ca_of(api: Api) -> FakeCa:
    ca = api.parts.services.accounts._ca
    assert isinstance(ca, FakeCa)
    return ca


# --- the zones ---


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: str(fixture.name))
def test_each_fault_is_found_and_nothing_else(check: Check, fixture: Fixture) -> None:
    report = check.report(fixture.ordered)
    assert fixture.golden_path.exists(), f"{fixture.golden_path.name} is to be written: {json.dumps(report, indent=2)}"
    assert report == fixture.golden()


def test_every_golden_report_is_of_a_fixture() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {fixture.name for fixture in FIXTURES}
    assert len(FIXTURES) >= 30


def test_nothing_is_recorded_and_no_ca_is_asked(check: Check) -> None:
    events, requests = history(check.api), ca_of(check.api).requests.total()
    for fixture in (fixture for fixture in FIXTURES if fixture.name in {"good", "caa-forbids", "unmanaged", "lame"}):
        check.report(fixture.ordered)
    assert (history(check.api), ca_of(check.api).requests.total()) == (events, requests)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("signed", ["dnssec_unverified"]),
        ("signed-long-ago", ["dnssec_unverified"]),
        ("signed-other-key", ["dnssec_broken"]),
        ("signed-only-above", ["dnssec_broken"]),
    ],
)
def test_without_a_resolver_that_validates_as_much_is_said_as_can_be_known(
    check: Check, zones: World, monkeypatch: pytest.MonkeyPatch, name: str, codes: list[str]
) -> None:
    look_at(check.api, zones.authority, zones.port, monkeypatch)
    assert check.codes([f"{name}.example"]) == codes


def test_the_servers_that_the_provider_names_are_asked_instead_of_the_zones_own(
    shared_api: Api, zones: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = replace(shared_api, tenant_id=shared_api.new_id("tnt"))
    token = api.token("pki:issue", "pki:admin")
    config = {**PROVIDER["config"], "nameservers": [f"{SECOND}:{zones.port}"]}
    assert api.ask("POST /v1/dns/providers", token, {**PROVIDER, "config": config}).status_code == 201
    look_at(api, zones.resolver, zones.port, monkeypatch)
    check = Check(api, token, record_ca_account(api))
    assert check.codes(["serials.example"]) == []
    (finding,) = check.report(["lame.example"])["findings"]
    assert (finding["code"], finding["evidence"][0]["of"]) == ("nameservers_silent", f"{SECOND}:{zones.port}")


def test_but_not_about_a_zone_to_which_an_alias_leads(
    shared_api: Api, zones: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = replace(shared_api, tenant_id=shared_api.new_id("tnt"))
    token = api.token("pki:issue", "pki:admin")
    config = {**PROVIDER["config"], "nameservers": [f"{EMBEDDED}:{zones.port}"]}
    assert api.ask("POST /v1/dns/providers", token, {**PROVIDER, "config": config}).status_code == 201
    look_at(api, zones.resolver, zones.port, monkeypatch)
    check = Check(api, token, record_ca_account(api))
    assert check.codes(["cname-managed.example"]) == ["cname_target_managed"]


def test_a_hundred_names_are_looked_at_in_time(check: Check) -> None:
    report = check.report([f"n{number}.good.example" for number in range(100)])
    assert report == {"ready": True, "findings": []}


def test_what_there_is_no_time_for_is_told_and_stands_in_the_way(
    check: Check, zones: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at(check.api, zones.resolver, zones.port, monkeypatch, seconds=0.0)
    report = check.report(["good.example"])
    assert not report["ready"]
    assert [finding["code"] for finding in report["findings"]] == ["incomplete"]


def test_resolvers_that_do_not_answer_are_told(check: Check, zones: World, monkeypatch: pytest.MonkeyPatch) -> None:
    look_at(check.api, f"{DEAD}:{zones.port}", zones.port, monkeypatch, seconds=4.0)
    report = check.report(["good.example"])
    assert not report["ready"]
    assert {finding["code"] for finding in report["findings"]} <= {"caa_lookup_failed", "lookup_failed", "incomplete"}


# --- what the service knows itself ---


def test_an_order_in_progress_is_told_which_ordering_would_give(check: Check) -> None:
    body = {"account_id": check.account_id, "domains": ["running.good.example"], "challenge_type": "dns-01"}
    order_id = check.api.ask("POST /v1/pki/acme/issue", check.token, body).json()["order_id"]
    (finding,) = check.report(["running.good.example"])["findings"]
    assert (finding["code"], finding["domain"]) == ("order_in_progress", None)
    assert finding["evidence"][0]["answer"] == order_id
    assert check.api.ask(f"POST /v1/pki/acme/orders/{order_id}/cancel", check.token).status_code == 200


def test_a_limit_without_room_is_told(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    until = datetime(2100, 1, 1, tzinfo=UTC)

    def no_room(_limits: RateLimits, _cost: object) -> None:
        raise CaLimitReached(Bucket("https://ca.example/directory", "new_orders", check.account_id), until, until)

    monkeypatch.setattr(RateLimits, "require_room", no_room)
    (finding,) = check.report(["good.example"])["findings"]
    assert (finding["code"], finding["severity"], finding["domain"]) == ("rate_limited", "error", None)
    assert finding["evidence"] == [
        {"asked": "rate limit new_orders", "of": "the ledger", "answer": "no room before 2100-01-01T00:00:00Z"}
    ]


def test_an_account_that_cannot_order_is_told(check: Check) -> None:
    account_id = record_ca_account(check.api, "closed")
    account = check.api.parts.store.load(Account, account_id)
    account.deactivate(datetime.now(UTC))
    check.api.parts.store.record(account, by=operator(check.api.tenant_id))
    (finding,) = check.report(["good.example"], account_id=account_id)["findings"]
    assert (finding["code"], finding["evidence"][0]["answer"]) == ("account_not_active", "deactivated")


# --- what is refused ---


@pytest.mark.parametrize(
    "changes",
    [
        {"domains": []},
        {"domains": ["co.uk", "*.co.uk", "-x.example"]},
        {"domains": [f"n{number}.acme.example" for number in range(101)]},
        {"domains": ["*.acme.example"], "challenge_type": "http-01"},
        {"challenge_type": "tls-alpn-01"},
        {"profile": "unheard-of"},
        {"account_id": "acme_staging_404"},
        {"dns_provider_id": "dnsp_404"},
        {"key_type": "dsa"},
        {"surprise": 1},
    ],
)
def test_a_body_is_refused_as_it_is_in_an_order(check: Check, changes: dict[str, Any]) -> None:
    good = {"account_id": check.account_id, "domains": ["www.acme.example"], "challenge_type": "dns-01"}
    answers = [
        check.api.ask(f"POST /v1/pki/acme/{route}", check.token, {**good, **changes})
        for route in ("issue", "preflight")
    ]
    for answer in answers:
        assert answer.status_code in {400, 404, 422}
    errors = [{**answer.json()["error"], "request_id": ""} for answer in answers]
    assert errors[0] == errors[1]


def test_a_token_learns_nothing_of_names_that_it_may_not_have(check: Check) -> None:
    limited = replace(check, token=check.api.token("pki:issue", limits=Limits(dns_names=("*.acme.example",))))
    assert refused(limited.ask(["good.example"])) == (403, "access_denied")
    one_line = replace(check, token=check.api.token("pki:issue", limits=Limits(certificate_ids=("cert_1",))))
    assert refused(one_line.ask(["good.example"])) == (403, "access_denied")
    assert refused(replace(check, token=check.api.token("pki:read")).ask(["good.example"])) == (
        403,
        "insufficient_scope",
    )
