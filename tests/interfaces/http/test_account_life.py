"""Accounts over HTTP: contacts, new keys, terms, and deactivating them."""

from __future__ import annotations

import pytest

from application.errors import CaRefused
from domain.account import Account
from domain.acme import ERROR_NAMESPACE, Problem
from tests.fakes_ca import FakeCa
from tests.interfaces.http.client import (
    Api,
    actions,
    error_code,
    record,
    record_certificate,
    record_order,
    wrong_fields,
)

REGISTER = {
    "provider": "custom",
    "environment": "staging",
    "email": "tls@acme.example",
    "directory_url": "https://ca.example/directory",
}


@pytest.fixture
def token(api: Api) -> str:
    return api.token("pki:admin", "pki:issue", "audit:read")


@pytest.fixture
def account_id(api: Api, token: str) -> str:
    answer = api.ask("POST /v1/pki/acme/accounts", token, REGISTER | {"name": api.new_id("name")})
    assert answer.status_code == 201, answer.text
    registered: str = answer.json()["id"]
    return registered


def ca_of(api: Api) -> FakeCa:
    ca = api.parts.services.accounts._ca
    assert isinstance(ca, FakeCa)
    return ca


def test_a_contact_is_changed_at_the_ca_before_the_answer(api: Api, token: str, account_id: str) -> None:
    answer = api.ask(f"PATCH /v1/pki/acme/accounts/{account_id}", token, {"email": "pki@acme.example"})
    assert (answer.status_code, answer.json()["email"]) == (200, "pki@acme.example")
    assert "pki@acme.example" in ca_of(api).emails.values()
    assert ("acme_account_update", f"pki/acme/accounts/{account_id}", True) in actions(api, token)


def test_a_contact_that_the_ca_refuses_is_a_wrong_field(api: Api, token: str, account_id: str) -> None:
    ca_of(api).fail("update_account", CaRefused(Problem(ERROR_NAMESPACE + "invalidContact", "no MX"), 400))
    answer = api.ask(f"PATCH /v1/pki/acme/accounts/{account_id}", token, {"email": "nobody@nowhere.example"})
    assert wrong_fields(answer) == {"email": "refused_by_ca"}


def test_a_new_key_is_begun_and_one_at_a_time(api: Api, token: str, account_id: str) -> None:
    before = api.ask(f"GET /v1/pki/acme/accounts/{account_id}", token).json()
    answer = api.ask(f"POST /v1/pki/acme/accounts/{account_id}/rollover", token)
    assert (answer.status_code, answer.json()["rollover"]["status"]) == (202, "in_progress")
    assert answer.json()["key_thumbprint"] == before["key_thumbprint"] != answer.json()["rollover"]["key_thumbprint"]
    assert answer.headers["location"] == f"/v1/pki/acme/accounts/{account_id}"
    again = api.ask(f"POST /v1/pki/acme/accounts/{account_id}/rollover", token, {"key_type": "ec384"})
    assert (again.status_code, error_code(again)) == (409, "version_conflict")


def test_an_account_is_deactivated_and_orders_nothing_more(api: Api, token: str, account_id: str) -> None:
    route = f"DELETE /v1/pki/acme/accounts/{account_id}"
    assert api.ask(route, token).status_code == 204
    assert api.ask(route, token).status_code == 204
    shown = api.ask(f"GET /v1/pki/acme/accounts/{account_id}", token).json()
    assert (shown["status"], shown["status_message"]) == ("deactivated", None)
    body = {"account_id": account_id, "domains": ["www.acme.example"], "challenge_type": "dns-01"}
    assert wrong_fields(api.ask("POST /v1/pki/acme/issue", token, body)) == {"account_id": "not_active"}
    assert [action for action, _, _ in actions(api, token)].count("acme_account_deactivate") == 1


def test_an_account_in_use_is_not_deactivated(api: Api, token: str, account_id: str) -> None:
    certificate_id = record_certificate(api, account_id=account_id)
    answer = api.ask(f"DELETE /v1/pki/acme/accounts/{account_id}", token)
    assert (answer.status_code, error_code(answer)) == (409, "acme_account_in_use")
    assert answer.json()["error"]["details"] == {"certificate_ids": [certificate_id]}


def test_an_account_with_a_running_order_is_not_deactivated(api: Api, token: str, account_id: str) -> None:
    order_id = record_order(api, account_id=account_id)
    answer = api.ask(f"DELETE /v1/pki/acme/accounts/{account_id}", token)
    assert (answer.status_code, error_code(answer)) == (409, "order_in_progress")
    assert answer.json()["error"]["details"] == {"order_id": order_id}


def test_what_the_ca_wants_of_somebody_is_shown(api: Api, token: str, account_id: str) -> None:
    account = api.parts.store.load(Account, account_id)
    terms = Problem(ERROR_NAMESPACE + "userActionRequired", "the terms have changed (https://ca.example/terms)")
    account.require_action(terms, api.parts.services.clock.now())
    record(api, account)
    shown = api.ask(f"GET /v1/pki/acme/accounts/{account_id}", token).json()
    assert (shown["status"], shown["status_message"]) == ("action_required", terms.detail)
    agreed = api.ask(f"PATCH /v1/pki/acme/accounts/{account_id}", token, {"agree_to_terms": True}).json()
    assert (agreed["status"], agreed["status_message"]) == ("active", None)


@pytest.mark.parametrize("line", ["PATCH /v1/pki/acme/accounts/x", "DELETE /v1/pki/acme/accounts/x"])
def test_what_is_not_there_is_not_found(api: Api, token: str, line: str) -> None:
    answer = api.ask(line, token, {"email": "a@b.example"} if line.startswith("PATCH") else b"")
    assert (answer.status_code, error_code(answer)) == (404, "acme_account_not_found")
