"""Renewals over HTTP: what a certificate says of its next one, switching it, lifting the breaker, and the CA's budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.account import Account, Offer
from domain.certificate import Certificate, Suggestion
from domain.order import Order, OrderError
from domain.rate_limit import LETS_ENCRYPT, Bucket
from domain.renewal import Window
from domain.token import Limits
from interfaces.http.system import _state
from tests.interfaces.http.client import (
    Api,
    actions,
    connect_provider,
    error_code,
    record,
    record_account,
    record_certificate,
    record_order,
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def token(api: Api) -> str:
    return api.token("pki:issue", "pki:admin", "audit:read")


def get(api: Api, token: str, path: str) -> Mapping[str, Any]:
    answer = api.ask(f"GET /v1/pki/{path}", token)
    assert answer.status_code == 200, answer.text
    found: Mapping[str, Any] = answer.json()
    return found


def load(api: Api, certificate_id: str) -> Certificate:
    return api.parts.store.load(Certificate, certificate_id)


def suggest(api: Api, certificate_id: str, start: timedelta, end: timedelta) -> Suggestion:
    now = datetime.now(UTC)
    certificate = load(api, certificate_id)
    suggestion = Suggestion("akid.serial", Window(now + start, now + end), now + start)
    certificate.see_renewal_info(suggestion, "https://ca.example/why", now + HOUR, now)
    record(api, certificate)
    return suggestion


def account_at_lets_encrypt(api: Api) -> str:
    account = Account.register(
        api.new_id("acme_production"),
        tenant_id=api.tenant_id,
        name=f"le {api.new_id('name')}",
        provider="letsencrypt",
        environment="production",
        email="tls@acme.example",
        directory_url=LETS_ENCRYPT,
        ca_bundle_pem=None,
        account_url="https://le.example/acct/1",
        sealed_key_id="sealed_none",
        key_thumbprint="thumbprint",
        offer=Offer(ari=True, profiles=(), eab_required=False, caa_identities=()),
        now=datetime.now(UTC),
    )
    record(api, account)
    return account.id


# --- what a certificate says ---


def test_a_new_certificate_says_when_it_will_be_renewed(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    renewal = get(api, token, f"certificates/{certificate_id}")["renewal"]
    plan = load(api, certificate_id).plan
    assert renewal == {
        "next_at": f"{plan.at:%Y-%m-%dT%H:%M:%SZ}",
        "reason": "lifetime",
        "ari_window": None,
        "last_error": None,
        "attempts": 0,
        "order_id": None,
        "held": False,
    }


def test_it_shows_the_window_that_the_ca_suggests(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    suggestion = suggest(api, certificate_id, 50 * DAY, 52 * DAY)
    renewal = get(api, token, f"certificates/{certificate_id}")["renewal"]
    assert (renewal["reason"], renewal["next_at"]) == ("ari", f"{suggestion.renew_at:%Y-%m-%dT%H:%M:%SZ}")
    assert renewal["ari_window"]["explanation_url"] == "https://ca.example/why"
    assert datetime.fromisoformat(renewal["ari_window"]["start"]) == suggestion.window.start


def test_a_renewal_in_progress_is_shown_with_its_order(api: Api, token: str) -> None:
    connect_provider(api, token)
    certificate_id = record_certificate(api)
    order = api.ask(f"POST /v1/pki/certificates/{certificate_id}/renew", token).json()
    renewal = get(api, token, f"certificates/{certificate_id}")["renewal"]
    assert (renewal["order_id"], renewal["next_at"], renewal["reason"]) == (order["order_id"], None, "requested")


# --- explain ---


def test_it_is_explained_with_events_that_are_in_the_history(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    suggest(api, certificate_id, 50 * DAY, 52 * DAY)
    certificate = load(api, certificate_id)
    certificate.renewal_failed(record_order(api), OrderError("backend_error", "no answer"), datetime.now(UTC))
    record(api, certificate)
    explanation = get(api, token, f"certificates/{certificate_id}/explain")
    assert (explanation["version"], explanation["rule"]) == (1, "ari")
    assert explanation["last_failure"]["code"] == "backend_error"
    history = {each.position: each.event for each in api.parts.history.read(0, 10_000)}
    for sentence in explanation["sentences"]:
        cited = sentence["rests_on"]
        assert cited["event"] == type(history[cited["position"]]).TOPIC  # type: ignore[attr-defined]
    assert len(explanation["sentences"]) == 3


def test_what_is_not_there_is_not_explained(api: Api, token: str) -> None:
    answer = api.ask("GET /v1/pki/certificates/cert_404/explain", token)
    assert (answer.status_code, error_code(answer)) == (404, "certificate_not_found")


# --- switching and lifting ---


def test_renewing_by_itself_is_switched_off_and_on(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    route = f"PATCH /v1/pki/certificates/{certificate_id}"
    off = api.ask(route, token, {"auto_renew": False})
    assert (off.status_code, off.json()["auto_renew"], off.json()["renewal"]["next_at"]) == (200, False, None)
    on = api.ask(route, token, {"auto_renew": True}).json()
    assert on["renewal"]["next_at"] is not None
    assert [action for action, _, _ in actions(api, token)].count("pki_certificate_update") == 2


def test_a_name_is_given_changed_and_taken_away(api: Api, token: str) -> None:
    route = f"PATCH /v1/pki/certificates/{record_certificate(api)}"
    for name in ("edge", "shop", None):
        assert api.ask(route, token, {"name": name}).json()["name"] == name
    assert api.ask(route, token, {}).status_code == 200


@pytest.mark.parametrize("body", [{"auto_renew": "no"}, {"auto_renew": None}, {"name": ""}, {"domains": []}])
def test_nothing_else_can_be_changed(api: Api, token: str, body: Mapping[str, Any]) -> None:
    answer = api.ask(f"PATCH /v1/pki/certificates/{record_certificate(api)}", token, body)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


def test_the_breaker_is_lifted_with_a_reason_on_record(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    certificate, now = load(api, certificate_id), datetime.now(UTC)
    certificate.begin_renewal("acme_order_2", "ari", now, automatic=True)
    certificate.renew(replace(certificate.current, number=2, order_id="acme_order_2"), "ari", now)
    assert certificate.hold_renewal(now)
    record(api, certificate)
    assert get(api, token, f"certificates/{certificate_id}")["renewal"]["held"] is True
    route = f"POST /v1/pki/certificates/{certificate_id}/release-renewal"
    assert api.ask(route, token, {"reason": ""}).status_code == 400
    lifted = api.ask(route, token, {"reason": "the CA had a fault"}).json()["renewal"]
    assert (lifted["held"], lifted["reason"]) == (False, "lifetime")
    assert ("pki_renewal_release", f"pki/certificates/{certificate_id}", True) in actions(api, token)


# --- budget ---


def buckets(budget: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {bucket["limit"]: bucket for bucket in budget["buckets"]}


def test_the_budget_shows_every_bucket_and_what_is_reserved_for_the_renewals_of_the_coming_week(
    api: Api, token: str
) -> None:
    account_id = account_at_lets_encrypt(api)
    record_certificate(api, account_id=account_id, valid_for=9 * DAY)
    record_certificate(api, account_id=account_id, valid_for=90 * DAY)
    budget = get(api, token, f"acme/accounts/{account_id}/budget")
    assert (budget["ca"], budget["limits_known"]) == (LETS_ENCRYPT, True)
    assert (budget["renewals_ahead"], budget["exempt"], budget["truncated"]) == (1, 0, False)
    assert buckets(budget)["new_orders"] == {
        "limit": "new_orders",
        "applies_to": account_id,
        "capacity": 300,
        "available": 300,
        "refill_seconds": 36.0,
        "reserved": 0,
        "next_at": None,
    }
    per_set = buckets(budget)["certificates_per_set"]
    assert (per_set["applies_to"], per_set["capacity"], per_set["reserved"]) == ("www.acme.example", 5, 1)
    assert buckets(budget)["certificates_per_domain"]["applies_to"] == "acme.example"
    assert buckets(budget)["new_registrations"]["available"] < 10


def test_a_renewal_in_a_window_that_the_ca_suggests_needs_nothing_reserved(api: Api, token: str) -> None:
    account_id = account_at_lets_encrypt(api)
    suggest(api, record_certificate(api, account_id=account_id), DAY, 2 * DAY)
    budget = get(api, token, f"acme/accounts/{account_id}/budget")
    assert (budget["renewals_ahead"], budget["exempt"]) == (1, 1)
    assert buckets(budget)["certificates_per_set"]["reserved"] == 0


def test_the_budget_of_a_ca_without_known_limits_says_so(api: Api, token: str) -> None:
    budget = get(api, token, f"acme/accounts/{record_account(api, name=api.new_id('name'))}/budget")
    assert (budget["limits_known"], list(buckets(budget))) == (False, ["unnamed"])


def test_an_order_beyond_the_limit_answers_429_with_the_limit_and_when_it_refills(api: Api, token: str) -> None:
    connect_provider(api, token)
    account_id, now = account_at_lets_encrypt(api), datetime.now(UTC)
    order = api.parts.store.load(Order, record_order(api, account_id=account_id))
    order.throttled(Bucket(LETS_ENCRYPT, "new_orders", account_id), now + timedelta(seconds=100), now)
    record(api, order)
    body = {"account_id": account_id, "domains": ["new.acme.example"], "challenge_type": "dns-01"}
    answer = api.ask("POST /v1/pki/acme/issue", token, body)
    assert (answer.status_code, error_code(answer)) == (429, "backend_rate_limited")
    error = answer.json()["error"]
    assert 90 <= error["retry_after"] <= 100
    assert answer.headers["retry-after"] == str(error["retry_after"])
    assert error["details"]["limit"] == "new_orders"
    budget = get(api, token, f"acme/accounts/{account_id}/budget")
    assert (buckets(budget)["new_orders"]["available"], buckets(budget)["new_orders"]["next_at"] is None) == (0, False)


def test_a_token_for_other_names_sees_nothing_of_them_in_the_budget(api: Api) -> None:
    account_id = account_at_lets_encrypt(api)
    record_certificate(api, account_id=account_id, valid_for=9 * DAY)
    limited = api.token("pki:admin", limits=Limits(dns_names=("other.example",)))
    budget = get(api, limited, f"acme/accounts/{account_id}/budget")
    assert (budget["renewals_ahead"], "certificates_per_set" in buckets(budget)) == (0, False)


# --- readiness ---


def test_renewals_that_are_behind_are_an_alarm_and_make_a_worker_not_ready(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    with api.parts.pool.connection() as connection:
        connection.execute("UPDATE todo SET due_at = now() + interval '1 day' WHERE process = 'renewal'")
        connection.execute(
            "UPDATE todo SET due_at = now() - interval '7 minutes' WHERE process = 'renewal' AND subject = %s",
            [certificate_id],
        )
    said = api.ask("GET /v1/health/ready")
    assert (said.status_code, said.json()["status"]) == (200, "ready")
    assert said.json()["alarm"].startswith("renewals are 7m behind")
    working = replace(api.parts.services, works=True)
    assert _state(working)[0] == said.json()["alarm"]
    assert api.ask(f"PATCH /v1/pki/certificates/{certificate_id}", token, {"auto_renew": False}).status_code == 200
    assert "alarm" not in api.ask("GET /v1/health/ready").json()
