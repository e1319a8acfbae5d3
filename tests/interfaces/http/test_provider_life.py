"""Changing and disconnecting DNS providers, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.interfaces.http.client import Api, actions, record_account, refused, stored_text, wrong_fields

TSIG = {"tsig_key_name": "key", "tsig_secret": "c2VjcmV0LXNlY3JldA=="}
BODY = {
    "name": "dns",
    "provider_type": "rfc2136",
    "managed_zones": ["acme.example"],
    "credentials": TSIG,
    "config": {"server": "127.0.0.1"},
}


@pytest.fixture
def token(api: Api) -> str:
    return api.token("pki:admin", "pki:issue", "audit:read", "secrets:write")


@pytest.fixture
def line(api: Api, token: str) -> str:
    return f"/v1/dns/providers/{connect(api, token)['id']}"


def connect(api: Api, token: str, **changes: Any) -> Mapping[str, Any]:
    answer = api.ask("POST /v1/dns/providers", token, {**BODY, **changes})
    assert answer.status_code == 201, answer.text
    provider: Mapping[str, Any] = answer.json()
    return provider


def sealed(api: Api, line: str) -> list[bool]:
    """Of the provider's credentials in their order whether they can still be opened."""
    with api.parts.pool.connection() as connection:
        query = "SELECT ciphertext IS NOT NULL FROM sealed WHERE owner_id = %s ORDER BY sealed_id"
        return [is_there for (is_there,) in connection.execute(query, [line.rpartition("/")[2]]).fetchall()]


def test_what_is_left_out_stays(api: Api, token: str, line: str) -> None:
    before = api.ask(f"GET {line}", token).json()
    answer = api.ask(f"PATCH {line}", token, {"name": "renamed", "is_active": False})
    assert answer.status_code == 200
    assert answer.json() == {**before, "name": "renamed", "is_active": False}
    assert api.ask(f"GET {line}", token).json() == answer.json()
    changes = {"managed_zones": ["*.Shop.Example"], "config": {"server": "::1", "port": 5353}, "credentials": TSIG}
    answer = api.ask(f"PATCH {line}", token, changes)
    assert answer.json()["managed_zones"] == ["*.shop.example"]
    assert answer.json()["config"] == {"server": "::1", "port": 5353}
    assert ("dns_provider_update", line.removeprefix("/v1/"), True) in actions(api, token)


def test_credentials_that_are_replaced_are_destroyed(api: Api, token: str, line: str) -> None:
    another = {**TSIG, "tsig_secret": "YW5vdGhlci1zZWNyZXQ="}
    assert api.ask(f"PATCH {line}", token, {"credentials": another}).status_code == 200
    assert sealed(api, line) == [False, True]
    assert another["tsig_secret"] not in stored_text(api)
    api.ask("PUT /v1/secrets/dns/main", token, {"data": TSIG, "secret_type": "json"})
    answer = api.ask(f"PATCH {line}", token, {"credentials_path": "dns/main"})
    assert answer.json()["credentials_path"] == "dns/main"
    assert sealed(api, line) == [False, False]
    answer = api.ask(f"PATCH {line}", token, {"credentials": TSIG})
    assert answer.json()["credentials_path"] is None


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"managed_zones": []}, {"managed_zones": "required"}),
        ({"credentials": {}}, {"credentials.tsig_key_name": "required", "credentials.tsig_secret": "required"}),
        ({"config": {}, "credentials": TSIG}, {"config.server": "required"}),
        ({"config": {"server": "127.0.0.1", "ttl": 0}}, {"config.ttl": "invalid"}),
        ({"config": {"server": "evil.example"}}, {"credentials": "required"}),
        ({"credentials_path": "dns/none"}, {"credentials_path": "not_found"}),
        ({"credentials_path": "/x/"}, {"credentials_path": "invalid_path"}),
        ({"credentials_path": "dns/none", "credentials": TSIG}, {"credentials_path": "unexpected"}),
    ],
)
def test_what_is_not_acceptable_changes_nothing(
    api: Api, token: str, line: str, changes: Mapping[str, Any], fields: Mapping[str, str]
) -> None:
    before = api.ask(f"GET {line}", token).json()
    answer = api.ask(f"PATCH {line}", token, changes)
    code = "invalid_path" if "invalid_path" in fields.values() else "validation_error"
    assert wrong_fields(answer, 400 if code == "invalid_path" else 422, code) == fields
    assert api.ask(f"GET {line}", token).json() == before
    assert sealed(api, line) == [True]


def test_what_says_nothing_of_where_a_provider_is_needs_no_credentials(api: Api, token: str, line: str) -> None:
    answer = api.ask(f"PATCH {line}", token, {"config": {"server": "127.0.0.1", "ttl": 5, "canary": False}})
    assert answer.status_code == 200


def test_a_name_that_is_in_use_is_refused(api: Api, token: str, line: str) -> None:
    connect(api, token, name="other")
    assert refused(api.ask(f"PATCH {line}", token, {"name": "other"})) == (409, "name_in_use")


def test_who_is_disconnected_is_gone_and_its_name_and_zones_are_free(api: Api, token: str, line: str) -> None:
    assert api.ask(f"DELETE {line}", token).status_code == 204
    assert sealed(api, line) == [False]
    for again in (f"GET {line}", f"DELETE {line}", f"POST {line}/verify"):
        assert refused(api.ask(again, token)) == (404, "dns_provider_not_found")
    assert refused(api.ask(f"PATCH {line}", token, {"name": "x"})) == (404, "dns_provider_not_found")
    assert api.ask("GET /v1/dns/providers", token).json()["data"] == []
    assert ("dns_provider_delete", line.removeprefix("/v1/"), True) in actions(api, token)
    connect(api, token)


def test_who_is_used_by_an_order_stays(api: Api, token: str, line: str) -> None:
    body = {"account_id": record_account(api), "domains": ["www.acme.example"], "challenge_type": "dns-01"}
    placed = api.ask("POST /v1/pki/acme/issue", token, body).json()
    assert placed["status"] == "pending"
    answer = api.ask(f"DELETE {line}", token)
    assert refused(answer) == (409, "dns_provider_in_use")
    assert answer.json()["error"]["details"] == {"order_id": placed["order_id"]}
    api.ask(f"POST /v1/pki/acme/orders/{placed['order_id']}/cancel", token)
    assert api.ask(f"DELETE {line}", token).status_code == 204


def test_who_is_not_active_manages_no_names_of_new_orders(api: Api, token: str, line: str) -> None:
    api.ask(f"PATCH {line}", token, {"is_active": False})
    body = {"account_id": record_account(api), "domains": ["www.acme.example"], "challenge_type": "dns-01"}
    placed = api.ask("POST /v1/pki/acme/issue", token, body).json()
    assert (placed["status"], placed["error"]["code"]) == ("invalid", "zone_not_managed")
    api.ask(f"PATCH {line}", token, {"is_active": True})
    assert api.ask("POST /v1/pki/acme/issue", token, body).json()["status"] == "pending"
