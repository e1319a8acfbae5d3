"""What holds for every route: who may ask, what is no request, whose things are shown, and how lists go on."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from litestar.handlers.http_handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from domain.token import SCOPES, Limits, effective_scopes
from interfaces.http.app import HANDLERS
from tests.interfaces.http.client import (
    POLLING,
    Api,
    connect_provider,
    error_code,
    operator,
    record_account,
    record_certificate,
    record_order,
    subscribe,
    token_id,
)

PUBLIC = {"GET /v1/health", "GET /v1/health/ready", "GET /v1/version"}

ALLOWED_BY = {
    "PUT /v1/secrets/{path}": ["secrets:write"],
    "GET /v1/secrets/{path}": ["secrets:read"],
    "GET /v1/secrets": ["secrets:read"],
    "POST /v1/dns/providers": ["pki:admin"],
    "GET /v1/dns/provider-types": ["pki:admin"],
    "GET /v1/dns/providers": ["pki:admin"],
    "PATCH /v1/dns/providers/{id}": ["pki:admin"],
    "DELETE /v1/dns/providers/{id}": ["pki:admin"],
    "GET /v1/dns/providers/{id}": ["pki:admin"],
    "POST /v1/dns/providers/{id}/verify": ["pki:admin"],
    "POST /v1/pki/acme/accounts": ["pki:admin"],
    "GET /v1/pki/acme/accounts": ["pki:admin"],
    "GET /v1/pki/acme/accounts/{id}": ["pki:admin"],
    "PATCH /v1/pki/acme/accounts/{id}": ["pki:admin"],
    "DELETE /v1/pki/acme/accounts/{id}": ["pki:admin"],
    "POST /v1/pki/acme/accounts/{id}/rollover": ["pki:admin"],
    "GET /v1/pki/acme/accounts/{id}/budget": ["pki:admin"],
    "POST /v1/pki/acme/issue": ["pki:issue"],
    "POST /v1/pki/acme/preflight": ["pki:issue"],
    "GET /v1/pki/acme/orders": ["pki:read"],
    "GET /v1/pki/acme/orders/{id}": ["pki:read"],
    "POST /v1/pki/acme/orders/{id}/cancel": ["pki:issue"],
    "GET /v1/pki/certificates": ["pki:read"],
    "GET /v1/pki/certificates/{id}": ["pki:read"],
    "GET /v1/pki/certificates/{id}/pem": ["pki:read"],
    "POST /v1/pki/certificates/{id}/private-key": ["pki:export"],
    "POST /v1/pki/certificates/{id}/bundle": ["pki:export"],
    "PATCH /v1/pki/certificates/{id}": ["pki:issue"],
    "GET /v1/pki/certificates/{id}/explain": ["pki:read"],
    "POST /v1/pki/certificates/{id}/renew": ["pki:issue"],
    "POST /v1/pki/certificates/{id}/revoke": ["pki:admin"],
    "POST /v1/pki/certificates/{id}/release-renewal": ["pki:admin"],
    "POST /v1/subscriptions": ["subscriptions:write", "pki:admin"],
    "GET /v1/subscriptions": ["subscriptions:read", "pki:admin"],
    "GET /v1/subscriptions/{id}": ["subscriptions:read", "pki:admin"],
    "PATCH /v1/subscriptions/{id}": ["subscriptions:write", "pki:admin"],
    "DELETE /v1/subscriptions/{id}": ["subscriptions:write", "pki:admin"],
    "POST /v1/subscriptions/{id}/rotate-secret": ["subscriptions:write", "pki:admin"],
    "POST /v1/subscriptions/{id}/test": ["subscriptions:write", "pki:admin"],
    "GET /v1/subscriptions/{id}/deliveries": ["subscriptions:read", "pki:admin"],
    "POST /v1/subscriptions/{id}/deliveries/{id}/redeliver": ["subscriptions:write", "pki:admin"],
    "POST /v1/subscriptions/{id}/replay": ["subscriptions:write", "pki:admin"],
    "GET /v1/subscriptions/{id}/poll": ["subscriptions:read", "pki:admin"],
    "POST /v1/subscriptions/{id}/ack": ["subscriptions:read", "pki:admin"],
    "GET /v1/audit/logs": ["audit:read"],
    "GET /v1/metrics": ["audit:read"],
}
"""By route the scopes of which one is needed."""

ACROSS_TENANTS = {"GET /v1/metrics"}
"""What they tell is of all tenants, so that the default one's tokens alone are good for them."""

BODIES: Mapping[str, Mapping[str, Any]] = {
    "PUT /v1/secrets/x": {"data": {"a": 1}, "secret_type": "json", "metadata": {"b": 1}},
    "POST /v1/dns/providers": {
        "name": "dns",
        "provider_type": "route53",
        "managed_zones": ["acme.example"],
        "credentials": {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "a-most-secret-key"},
        "config": {},
        "verify": False,
    },
    "POST /v1/dns/providers/x/verify": {"write_test": False},
    "POST /v1/pki/acme/accounts": {
        "name": "le",
        "provider": "custom",
        "environment": "staging",
        "email": "tls@acme.example",
        "directory_url": "https://ca.example/directory",
        "eab": {"kid": "kid", "hmac_key": "a2V5"},
        "key_type": "ec256",
    },
    "PATCH /v1/pki/acme/accounts/x": {"email": "ops@acme.example", "agree_to_terms": True},
    "POST /v1/pki/acme/accounts/x/rollover": {"key_type": "ec384"},
    "POST /v1/pki/acme/issue": {
        "account_id": "acme_staging_1",
        "domains": ["www.acme.example"],
        "challenge_type": "dns-01",
        "auto_renew": True,
        "key_type": "ec256",
    },
    "POST /v1/pki/acme/preflight": {
        "account_id": "acme_staging_1",
        "domains": ["acme.example"],
        "challenge_type": "dns-01",
    },
    "PATCH /v1/dns/providers/x": {
        "name": "dns",
        "managed_zones": ["acme.example"],
        "credentials": {},
        "credentials_path": "dns/main",
        "config": {},
        "is_active": False,
    },
    "POST /v1/pki/certificates/x/private-key": {"version": 1},
    "POST /v1/pki/certificates/x/bundle": {"format": "pem", "version": 1},
    "PATCH /v1/pki/certificates/x": {"auto_renew": False, "name": "edge"},
    "POST /v1/pki/certificates/x/renew": {"reason": "requested", "new_key": True, "csr_pem": "-----BEGIN"},
    "POST /v1/pki/certificates/x/revoke": {"reason": "superseded", "version": 1},
    "POST /v1/pki/certificates/x/release-renewal": {"reason": "looked into"},
    "POST /v1/subscriptions": {
        "name": "renewals",
        "paths": ["pki/certificates/*"],
        "events": ["certificate.renewed"],
        "delivery": {"type": "webhook", "url": "https://hooks.example/", "secret": "0123456789abcdef"},
        "filters": {"domains": ["*.acme.example"]},
    },
    "PATCH /v1/subscriptions/x": {
        "name": "renewals",
        "paths": ["pki/certificates/*"],
        "events": ["certificate.renewed"],
        "delivery": {"url": "https://hooks.example/", "ordered": True},
        "filters": {"domains": ["*.acme.example"]},
        "identity_id": "tok_x",
        "status": "paused",
    },
    "POST /v1/subscriptions/x/rotate-secret": {"overlap": "24h", "secret": "0123456789abcdef"},
    "POST /v1/subscriptions/x/replay": {"from": 1, "to": 2, "dry_run": True},
    "POST /v1/subscriptions/x/ack": {"event_ids": ["evt_x"]},
}
"""By request a good body with nearly all its fields."""

NEEDED = {
    "PUT /v1/secrets/x": {"data", "secret_type"},
    "POST /v1/dns/providers": {"name", "provider_type", "managed_zones"},
    "POST /v1/pki/acme/accounts": {"name", "provider", "environment", "email"},
    "POST /v1/pki/acme/issue": {"account_id", "domains", "challenge_type"},
    "POST /v1/pki/acme/preflight": {"account_id", "domains", "challenge_type"},
    "PATCH /v1/dns/providers/x": set(),
    "PATCH /v1/pki/acme/accounts/x": set(),
    "PATCH /v1/pki/certificates/x": set(),
    "POST /v1/pki/certificates/x/release-renewal": {"reason"},
    "POST /v1/subscriptions": {"name", "paths", "events", "delivery"},
    "PATCH /v1/subscriptions/x": set(),
    "POST /v1/subscriptions/x/replay": {"from"},
    "POST /v1/subscriptions/x/ack": {"event_ids"},
}
"""By request that has a body the fields that it must have."""


def routes(api: Api) -> Mapping[str, HTTPRouteHandler]:
    """Those under `/v1`, by method and path, but for the framework's OPTIONS."""
    found: dict[str, HTTPRouteHandler] = {}
    for route in api.routes.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith("/v1"):
            path = re.sub(r"{\w+_id:str}", "{id}", route.path).replace("{path:path}", "{path}")
            for handler in route.route_handlers:
                found |= {f"{method} {path}": handler for method in handler.http_methods if method != "OPTIONS"}
    return found


def request_to(route: str) -> str:
    return re.sub(r"{\w+}", "x", route)


# --- who may ask ---


def test_every_route_is_public_or_has_its_scope(api: Api) -> None:
    found = {route: handler.opt["scope"].split(" or ") for route, handler in routes(api).items()}
    assert found == {route: ["public"] for route in PUBLIC} | ALLOWED_BY
    assert len(found) == len(HANDLERS)


def test_without_a_token_only_the_public_ones_answer(api: Api) -> None:
    for route in PUBLIC:
        assert api.ask(request_to(route)).status_code == 200
    for route in ALLOWED_BY:
        answer = api.ask(request_to(route))
        assert (answer.status_code, error_code(answer)) == (401, "authentication_required"), route
        assert answer.headers["www-authenticate"] == "Bearer"


def test_without_a_token_nothing_is_said_about_the_body_either(api: Api) -> None:
    answer = api.ask("POST /v1/dns/providers", body={"surprise": 1})
    assert error_code(answer) == "authentication_required"


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_its_routes_and_no_others(api: Api, scope: Any) -> None:
    token = api.token(scope)
    for route, sufficient in ALLOWED_BY.items():
        answer = api.ask(request_to(route), token)
        if effective_scopes((scope,)).isdisjoint(sufficient):
            assert (answer.status_code, error_code(answer)) == (403, "insufficient_scope"), route
            assert answer.json()["error"]["details"] == {"required": sufficient[0]}
        elif route in ACROSS_TENANTS:
            assert (answer.status_code, error_code(answer)) == (403, "access_denied"), route
        else:
            assert answer.status_code in {200, 400, 404}, route


def test_a_token_without_scopes_opens_nothing(api: Api) -> None:
    token = api.token()
    assert {api.ask(request_to(route), token).status_code for route in ALLOWED_BY} == {403}


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "authentication_required"),
        ("Bearer", "authentication_required"),
        ("Bearer ", "authentication_required"),
        ("Basic dXNlcjpwYXNz", "authentication_required"),
        ("{token}", "authentication_required"),
        ("Bearer nonsense", "token_invalid"),
        ("Bearer skt_", "token_invalid"),
        ("Bearer skt_nobody_secret", "token_invalid"),
        ("Bearer {token}x", "token_invalid"),
        ("Bearer {token}, Bearer {token}", "token_invalid"),
        ("Bearer {id}", "token_invalid"),
        ("Bearer {upper}", "token_invalid"),
        ("Bearer t\xf6ken", "token_invalid"),
    ],
)
def test_whoever_cannot_be_known_is_told_so(api: Api, header: str, code: str) -> None:
    token = api.token("pki:read")
    said = header.format(token=token, id=token.rpartition("_")[0], upper=token.upper())
    answer = api.ask("GET /v1/pki/certificates", headers={"authorization": said})
    assert (answer.status_code, error_code(answer)) == (401, code)
    assert token not in answer.text


@pytest.mark.parametrize("header", ["Bearer {token}", "bearer {token}", "BEARER  {token}"])
def test_the_scheme_is_in_any_case(api: Api, header: str) -> None:
    said = header.format(token=api.token("pki:read"))
    assert api.ask("GET /v1/pki/certificates", headers={"authorization": said}).status_code == 200


def test_a_token_ends_when_it_expires_or_is_revoked(api: Api) -> None:
    expired = api.token("pki:read", valid_for=timedelta(0))
    assert error_code(api.ask("GET /v1/pki/certificates", expired)) == "token_expired"
    revoked = api.token("pki:read")
    assert api.ask("GET /v1/pki/certificates", revoked).status_code == 200
    api.parts.tokens.revoke(token_id(revoked), operator(api.tenant_id))
    assert error_code(api.ask("GET /v1/pki/certificates", revoked)) == "token_revoked"


def test_a_token_is_only_valid_from_its_networks(api: Api) -> None:
    here = api.token("pki:read", limits=Limits(networks=("10.0.0.0/8", "127.0.0.1/32")))
    assert api.ask("GET /v1/pki/certificates", here).status_code == 200
    elsewhere = api.token("pki:read", limits=Limits(networks=("10.0.0.0/8", "2001:db8::/32")))
    answer = api.ask("GET /v1/pki/certificates", elsewhere)
    assert (answer.status_code, error_code(answer)) == (403, "access_denied")


def test_who_connects_is_who_asks_whatever_the_headers_say(api: Api) -> None:
    elsewhere = api.token("pki:read", limits=Limits(networks=("10.0.0.0/8",)))
    claims = {"x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1", "x-real-ip": "10.0.0.1"}
    assert api.ask("GET /v1/pki/certificates", elsewhere, headers=claims).status_code == 403


# --- refusals on record ---


def refusals(api: Api) -> Sequence[Mapping[str, Any]]:
    answer = api.ask("GET /v1/audit/logs?action=access_denied", api.token("audit:read"))
    assert answer.status_code == 200
    rows: Sequence[Mapping[str, Any]] = answer.json()["logs"]
    return rows


def test_a_refusal_is_on_record_with_who_asked_for_what_from_where(api: Api) -> None:
    token = api.token("pki:read")
    answer = api.ask("POST /v1/dns/providers/x/verify", token, headers={"user-agent": "curl/8"})
    (row,) = refusals(api)
    assert {name: row[name] for name in row if name not in {"id", "timestamp", "event_position", "index"}} == {
        "action": "access_denied",
        "identity_type": "token",
        "identity_id": token_id(token),
        "tenant_id": api.tenant_id,
        "resource_path": "dns/providers/x/verify",
        "source_ip": "127.0.0.1",
        "user_agent": "curl/8",
        "success": False,
        "duration_ms": None,
        "request_id": answer.headers["x-request-id"],
        "extra_data": {"method": "POST", "code": "insufficient_scope"},
    }


def test_so_is_the_use_of_a_token_that_has_ended_but_not_of_one_that_never_was(api: Api) -> None:
    expired = api.token("pki:read", valid_for=timedelta(0))
    revoked = api.token("pki:read")
    api.parts.tokens.revoke(token_id(revoked), operator(api.tenant_id))
    for token in (expired, revoked, expired + "x", "nonsense", None):
        assert api.ask("GET /v1/pki/certificates", token).status_code == 401
    known = [(row["identity_id"], row["extra_data"]["code"]) for row in refusals(api)]
    assert known == [(token_id(expired), "token_expired"), (token_id(revoked), "token_revoked")]


def test_a_limit_that_refuses_is_on_record(api: Api) -> None:
    certificate_id = record_certificate(api)
    elsewhere = api.token("pki:read", limits=Limits(networks=("10.0.0.0/8",)))
    other = api.token("pki:read", limits=Limits(certificate_ids=("cert_other",)))
    for token in (elsewhere, other):
        assert api.ask(f"GET /v1/pki/certificates/{certificate_id}", token).status_code == 403
    assert [(row["identity_id"], row["extra_data"]["code"]) for row in refusals(api)] == [
        (token_id(elsewhere), "access_denied"),
        (token_id(other), "access_denied"),
    ]


def test_what_was_granted_or_merely_wrong_is_no_refusal(api: Api) -> None:
    token = api.token("pki:admin")
    statuses = [
        api.ask("GET /v1/dns/providers", token).status_code,
        api.ask("GET /v1/dns/providers/x", token).status_code,
        api.ask("POST /v1/dns/providers", token, {}).status_code,
    ]
    assert statuses == [200, 404, 400]
    assert refusals(api) == []


# --- what is no route ---


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nope", "/v2/secrets", "/v1/pki/certificates/x/pem/y", "/v1/HEALTH"])
def test_what_is_not_there_is_told_in_the_one_form(api: Api, path: str) -> None:
    answer = api.ask(f"GET {path}", api.token("admin"))
    assert (answer.status_code, error_code(answer)) == (404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_a_wrong_method_is_told_which_ones_there_are(api: Api, method: str) -> None:
    answer = api.ask(f"{method} /v1/health")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "OPTIONS"}
    assert answer.headers["x-request-id"]
    if method != "HEAD":
        assert error_code(answer) == "method_not_allowed"


def test_the_methods_can_be_asked_for(api: Api) -> None:
    answer = api.ask("OPTIONS /v1/dns/providers")
    assert answer.status_code == 204
    assert "POST" in answer.headers["allow"]


# --- bodies ---


def refused_fields(answer: Any) -> Sequence[str]:
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request"), answer.text
    return [field["field"] for field in answer.json()["error"].get("details", {}).get("fields", [])]


@pytest.fixture
def everything(api: Api) -> str:
    return api.token(*SCOPES)


def test_the_bodies_of_this_file_are_those_of_all_routes_that_take_one(api: Api) -> None:
    takes = {route for route, handler in routes(api).items() if handler.parsed_data_field is not None}
    assert {request_to(route) for route in takes} == set(BODIES)


@pytest.mark.parametrize("request_line", BODIES)
def test_a_body_of_the_right_shape_is_taken(api: Api, everything: str, request_line: str) -> None:
    answer = api.ask(request_line, everything, BODIES[request_line])
    assert answer.status_code in {201, 404}, answer.text


@pytest.mark.parametrize("request_line", BODIES)
def test_a_field_that_nobody_knows_is_named(api: Api, everything: str, request_line: str) -> None:
    body = {**BODIES[request_line], "surprise": 1}
    assert refused_fields(api.ask(request_line, everything, body)) == ["surprise"]


@pytest.mark.parametrize("request_line", NEEDED)
def test_a_missing_field_is_named(api: Api, everything: str, request_line: str) -> None:
    for missing in NEEDED[request_line]:
        body = {name: value for name, value in BODIES[request_line].items() if name != missing}
        assert refused_fields(api.ask(request_line, everything, body)) == [missing]


@pytest.mark.parametrize("request_line", BODIES)
def test_a_value_of_a_wrong_type_is_named_and_never_converted(api: Api, everything: str, request_line: str) -> None:
    wrong: Mapping[type, Sequence[Any]] = {
        str: [1, True, []],
        bool: ["true", "false", 1, 0],
        int: ["1", 1.5, True],
        list: ["x", {}],
        dict: ["x", []],
    }
    for name, good in BODIES[request_line].items():
        for bad in wrong[type(good)]:
            answer = api.ask(request_line, everything, {**BODIES[request_line], name: bad})
            assert refused_fields(answer) == [name], bad


def test_what_lies_deeper_is_named_by_its_path(api: Api, everything: str) -> None:
    account = BODIES["POST /v1/pki/acme/accounts"]
    answer = api.ask("POST /v1/pki/acme/accounts", everything, {**account, "eab": {"kid": "kid", "hmac_key": 1}})
    assert refused_fields(answer) == ["eab.hmac_key"]
    answer = api.ask("POST /v1/pki/acme/accounts", everything, {**account, "eab": {"kid": "kid", "hmac": "x"}})
    assert refused_fields(answer) == ["eab.hmac"]
    answer = api.ask("POST /v1/pki/acme/accounts", everything, {**account, "eab": {"kid": "kid"}})
    assert refused_fields(answer) == ["eab.hmac_key"]
    answer = api.ask("POST /v1/pki/acme/accounts", everything, {**account, "environment": "test"})
    assert refused_fields(answer) == ["environment"]
    issue = BODIES["POST /v1/pki/acme/issue"]
    answer = api.ask("POST /v1/pki/acme/issue", everything, {**issue, "domains": ["a.example", 1]})
    assert refused_fields(answer) == ["domains[1]"]


def test_a_secret_of_a_wrong_type_is_not_repeated(api: Api, everything: str) -> None:
    account = BODIES["POST /v1/pki/acme/accounts"]
    answer = api.ask("POST /v1/pki/acme/accounts", everything, {**account, "eab": ["hunter2"]})
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"x"', b"1"])
def test_a_body_that_is_needed_is_an_object(api: Api, everything: str, body: bytes) -> None:
    for request_line in NEEDED:
        refused_fields(api.ask(request_line, everything, body))


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
def test_where_all_is_optional_so_is_the_body(api: Api, everything: str, body: bytes) -> None:
    for request_line in set(BODIES) - set(NEEDED):
        assert api.ask(request_line, everything, body).status_code == 404


def test_what_is_no_json_is_told_in_the_one_form(api: Api, everything: str) -> None:
    assert refused_fields(api.ask("POST /v1/dns/providers", everything, b"{")) == []
    answer = api.ask("POST /v1/dns/providers", everything, b"{}", {"content-type": "text/plain"})
    assert (answer.status_code, error_code(answer)) == (415, "unsupported_media_type")
    answer = api.ask("PUT /v1/secrets/x", everything, {"data": {"a": "x" * 140_000}, "secret_type": "kv"})
    assert (answer.status_code, error_code(answer)) == (413, "request_too_large")


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_has_one_to_two_hundred_characters(api: Api, everything: str, name: str) -> None:
    for request_line in ("POST /v1/dns/providers", "POST /v1/pki/acme/accounts", "POST /v1/subscriptions"):
        answer = api.ask(request_line, everything, {**BODIES[request_line], "name": name})
        assert refused_fields(answer) == ["name"]
        answer = api.ask(request_line, everything, {**BODIES[request_line], "name": "\U0001f512" * 200})
        assert answer.status_code in {201, 409}


# --- query parameters ---


@pytest.mark.parametrize(
    "target",
    [
        "/v1/secrets?limit=x",
        "/v1/secrets?limit=1.5",
        "/v1/secrets?limit=",
        "/v1/secrets/x?version=one",
        "/v1/pki/certificates/x/pem?version=1.5",
        "/v1/audit/logs?success=perhaps",
        "/v1/audit/logs?from=yesterday",
        "/v1/audit/logs?to=2026-13-01T00:00:00Z",
        "/v1/subscriptions/x/deliveries?status=lost",
        "/v1/subscriptions/x/poll?timeout=1.5",
        "/v1/subscriptions/x/poll?max_events=many",
    ],
)
def test_a_query_of_a_wrong_type_is_named(api: Api, everything: str, target: str) -> None:
    assert refused_fields(api.ask(f"GET {target}", everything)) == [re.split("[?=]", target)[1]]


# --- tenants ---


def test_nothing_of_another_tenant_is_there(api: Api, everything: str, elsewhere: str) -> None:
    theirs = api.token(*SCOPES, tenant_id=elsewhere)
    account_id = record_account(api, elsewhere)
    order_id = record_order(api, elsewhere, account_id)
    certificate_id = record_certificate(api, elsewhere)
    provider_id = connect_provider(api, theirs)
    subscription_id, polling_id = subscribe(api, theirs)["id"], subscribe(api, theirs, POLLING)["id"]
    api.ask("PUT /v1/secrets/theirs", theirs, BODIES["PUT /v1/secrets/x"])
    things = {
        f"GET /v1/pki/acme/accounts/{account_id}": "acme_account_not_found",
        f"GET /v1/pki/acme/orders/{order_id}": "acme_order_not_found",
        f"POST /v1/pki/acme/orders/{order_id}/cancel": "acme_order_not_found",
        f"GET /v1/pki/certificates/{certificate_id}": "certificate_not_found",
        f"GET /v1/pki/certificates/{certificate_id}/pem": "certificate_not_found",
        f"POST /v1/pki/certificates/{certificate_id}/private-key": "certificate_not_found",
        f"POST /v1/pki/certificates/{certificate_id}/renew": "certificate_not_found",
        f"GET /v1/dns/providers/{provider_id}": "dns_provider_not_found",
        f"POST /v1/dns/providers/{provider_id}/verify": "dns_provider_not_found",
        f"GET /v1/subscriptions/{subscription_id}": "subscription_not_found",
        f"GET /v1/subscriptions/{subscription_id}/deliveries": "subscription_not_found",
        f"POST /v1/subscriptions/{subscription_id}/rotate-secret": "subscription_not_found",
        f"POST /v1/subscriptions/{subscription_id}/test": "subscription_not_found",
        f"GET /v1/subscriptions/{polling_id}/poll?timeout=0": "subscription_not_found",
        "GET /v1/secrets/theirs": "secret_not_found",
    }
    for request_line, code in things.items():
        answer = api.ask(request_line, everything)
        assert (answer.status_code, error_code(answer)) == (404, code), request_line
        if not request_line.endswith(("cancel", "renew")):
            assert api.ask(request_line, theirs).status_code == 200, request_line


@pytest.mark.parametrize(
    "path", ["secrets", "dns/providers", "pki/acme/accounts", "pki/acme/orders", "pki/certificates", "subscriptions"]
)
def test_no_list_shows_anothers_things(api: Api, everything: str, path: str, elsewhere: str) -> None:
    theirs = api.token(*SCOPES, tenant_id=elsewhere)
    fill(path, api, theirs, elsewhere)
    assert api.ask(f"GET /v1/{path}", everything).json() == {"data": [], "cursor": None, "has_more": False}
    assert len(api.ask(f"GET /v1/{path}", theirs).json()["data"]) >= 5


def test_an_order_takes_nothing_of_another_tenant(api: Api, everything: str, elsewhere: str) -> None:
    theirs = record_account(api, elsewhere)
    provider_id = connect_provider(api, api.token(*SCOPES, tenant_id=elsewhere))
    body = BODIES["POST /v1/pki/acme/issue"]
    answer = api.ask("POST /v1/pki/acme/issue", everything, {**body, "account_id": theirs})
    assert error_code(answer) == "acme_account_not_found"
    ours = {**body, "account_id": record_account(api)}
    answer = api.ask("POST /v1/pki/acme/issue", everything, {**ours, "dns_provider_id": provider_id})
    assert error_code(answer) == "dns_provider_not_found"
    answer = api.ask("POST /v1/pki/acme/issue", everything, ours)
    assert [challenge["dns_provider_id"] for challenge in answer.json()["challenges"]] == [None]


def test_a_provider_takes_no_secret_of_another_tenant(api: Api, everything: str, elsewhere: str) -> None:
    theirs = api.token(*SCOPES, tenant_id=elsewhere)
    api.ask("PUT /v1/secrets/dns", theirs, {"data": {"api_token": "x"}, "secret_type": "json"})
    body = {"name": "dns", "provider_type": "route53", "managed_zones": ["acme.example"], "credentials_path": "dns"}
    answer = api.ask("POST /v1/dns/providers", everything, body)
    assert answer.json()["error"]["details"]["fields"][0]["field"] == "credentials_path"


def test_tenants_may_use_the_same_names_and_paths(api: Api, everything: str, elsewhere: str) -> None:
    theirs = api.token(*SCOPES, tenant_id=elsewhere)
    for token, value in ((everything, "ours"), (theirs, "theirs")):
        connect_provider(api, token, "dns")
        body = {"data": {"value": value}, "secret_type": "kv"}
        assert api.ask("PUT /v1/secrets/same/path", token, body).status_code == 201
    assert api.ask("GET /v1/secrets/same/path", everything).json()["data"] == {"value": "ours"}
    assert api.ask("GET /v1/secrets/same/path", theirs).json()["data"] == {"value": "theirs"}


def test_the_audit_log_is_each_tenants_own(api: Api, everything: str, elsewhere: str) -> None:
    api.ask("PUT /v1/secrets/theirs", api.token(*SCOPES, tenant_id=elsewhere), BODIES["PUT /v1/secrets/x"])
    rows = api.ask("GET /v1/audit/logs", everything).json()["logs"]
    assert [(row["action"], row["tenant_id"]) for row in rows] == [("token_create", api.tenant_id)]


# --- lists ---


def fill(path: str, api: Api, token: str, tenant_id: str | None = None, count: int = 5) -> None:
    """So many items at the list's end; certificates come with their orders."""
    makers: Mapping[str, Callable[[int], object]] = {
        "secrets": lambda n: api.ask(f"PUT /v1/secrets/list/{n}", token, BODIES["PUT /v1/secrets/x"]),
        "dns/providers": lambda n: connect_provider(api, token, f"dns {n}"),
        "pki/acme/accounts": lambda n: record_account(api, tenant_id, f"account {n}"),
        "pki/acme/orders": lambda n: record_order(api, tenant_id, name=f"{n}.acme.example"),
        "pki/certificates": lambda _: record_certificate(api, tenant_id),
        "subscriptions": lambda _: subscribe(api, token),
        "audit/logs": lambda n: api.ask(f"PUT /v1/secrets/list/{n}", token, BODIES["PUT /v1/secrets/x"]),
    }
    for number in range(count):
        makers[path](number)


LISTS = [
    "secrets",
    "dns/providers",
    "pki/acme/accounts",
    "pki/acme/orders",
    "pki/certificates",
    "subscriptions",
    "audit/logs",
]


def items_of(answer: Any) -> Sequence[Any]:
    assert answer.status_code == 200, answer.text
    page = answer.json()
    (items,) = (page[name] for name in ("data", "logs") if name in page)
    assert set(page) - {"data", "logs"} == {"cursor", "has_more"}
    assert page["has_more"] is (page["cursor"] is not None)
    return items  # type: ignore[no-any-return]


def all_pages(api: Api, token: str, path: str, limit: int) -> Sequence[Sequence[Any]]:
    pages, cursor = [], ""
    while True:
        answer = api.ask(f"GET /v1/{path}?limit={limit}{cursor}", token)
        pages.append(items_of(answer))
        if not answer.json()["has_more"]:
            return pages
        cursor = f"&cursor={answer.json()['cursor']}"


@pytest.mark.parametrize("path", LISTS)
def test_the_pages_of_a_list_give_each_item_once_and_in_order(api: Api, everything: str, path: str) -> None:
    fill(path, api, everything)
    whole = items_of(api.ask(f"GET /v1/{path}", everything))
    assert len(whole) >= 5
    for limit in (1, 2, len(whole) - 1, len(whole), len(whole) + 1, 1000):
        pages = all_pages(api, everything, path, limit)
        assert [item for page in pages for item in page] == whole
        assert all(len(page) == limit for page in pages[:-1])
        assert 0 < len(pages[-1]) <= limit


@pytest.mark.parametrize("path", LISTS)
def test_what_comes_in_between_is_at_the_end(api: Api, everything: str, path: str) -> None:
    fill(path, api, everything, count=3)
    whole = items_of(api.ask(f"GET /v1/{path}", everything))
    first = api.ask(f"GET /v1/{path}?limit=2", everything).json()
    record_certificate(api)
    api.ask("PUT /v1/secrets/later", everything, BODIES["PUT /v1/secrets/x"])
    rest = items_of(api.ask(f"GET /v1/{path}?cursor={first['cursor']}", everything))
    assert [*items_of_page(first), *rest][: len(whole)] == whole


def items_of_page(page: Mapping[str, Any]) -> Sequence[Any]:
    items: Sequence[Any] = page.get("data") or page["logs"]
    return items


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [0, 1001, -1, 10**20])
def test_a_page_holds_one_to_a_thousand(api: Api, everything: str, path: str, limit: int) -> None:
    answer = api.ask(f"GET /v1/{path}?limit={limit}", everything)
    assert (answer.status_code, error_code(answer)) == (422, "validation_error")
    assert [field["field"] for field in answer.json()["error"]["details"]["fields"]] == ["limit"]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "5",
        "not%20a%20cursor",
        "%C3%A9",
        base64.urlsafe_b64encode(b"after:").decode(),
        base64.urlsafe_b64encode(b"after:-1").decode(),
        base64.urlsafe_b64encode(b"after:1.5").decode(),
        base64.urlsafe_b64encode(b"after:" + b"9" * 19).decode(),
        base64.urlsafe_b64encode(b"after:1; DROP TABLE events").decode(),
    ],
)
def test_a_cursor_that_no_list_gave_is_refused(api: Api, everything: str, cursor: str) -> None:
    for path in LISTS:
        answer = api.ask(f"GET /v1/{path}?cursor={cursor}", everything)
        assert (answer.status_code, error_code(answer)) == (400, "invalid_cursor")


def test_orders_are_found_by_their_status_and_certificate(api: Api, everything: str) -> None:
    waiting = record_order(api, name="waiting.acme.example")
    cancelled = record_order(api, name="cancelled.acme.example")
    api.ask(f"POST /v1/pki/acme/orders/{cancelled}/cancel", everything)

    def found(query: str) -> Sequence[str]:
        return [order["order_id"] for order in items_of(api.ask(f"GET /v1/pki/acme/orders?{query}", everything))]

    assert found("status=pending") == [waiting]
    assert found("status=invalid") == [cancelled]
    assert found("status=valid") == []
    assert found("certificate_id=cert_x") == []


def test_certificates_are_found_by_their_account(api: Api, everything: str) -> None:
    account_id = record_account(api)
    certificate_id = record_certificate(api, account_id=account_id)
    record_certificate(api)
    found = items_of(api.ask(f"GET /v1/pki/certificates?account_id={account_id}", everything))
    assert [certificate["id"] for certificate in found] == [certificate_id]


def test_audit_rows_are_found_by_what_they_say(api: Api, everything: str) -> None:
    written = api.ask("PUT /v1/secrets/a/b", everything, BODIES["PUT /v1/secrets/x"])
    api.ask("GET /v1/secrets/a/b", everything)
    api.ask("GET /v1/pki/certificates", api.token("admin"))

    def actions(query: str) -> Sequence[str]:
        return [row["action"] for row in items_of(api.ask(f"GET /v1/audit/logs?{query}", everything))]

    assert actions("") == ["token_create", "write", "read", "token_create", "access_denied"]
    assert actions("action=read") == ["read"]
    assert actions("path_prefix=secrets/a") == ["write", "read"]
    assert actions("success=false") == ["access_denied"]
    assert actions("success=true&path_prefix=secrets") == ["write", "read"]
    assert actions(f"identity_id={token_id(everything)}") == ["write", "read"]
    assert actions(f"request_id={written.headers['x-request-id']}") == ["write"]
    assert actions("source_ip=127.0.0.1") == ["write", "read", "access_denied"]
    assert actions("source_ip=192.0.2.1") == []
    assert actions("from=2100-01-01T00:00:00Z") == []
    assert actions("to=2000-01-01T00:00:00Z") == []
    assert len(actions("from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z")) == 5
