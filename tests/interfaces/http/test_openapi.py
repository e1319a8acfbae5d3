"""The description of the API is true: it is valid, covers every route, and nothing that is sent is answered otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from application.secret_value import SecretValue
from domain.announcement import EVENT_TYPES, TEST, announcement_of
from domain.token import SCOPES
from interfaces.http.app import HANDLERS
from interfaces.webhooks.signature import signed_headers
from tests.interfaces.http.client import (
    POLLING,
    Api,
    connect_provider,
    error_code,
    record_account,
    record_certificate,
    record_order,
    subscribe,
)
from tests.interfaces.http.test_idempotency import NEVER
from tests.interfaces.http.test_routes import ALLOWED_BY, BODIES, PUBLIC
from tests.projections.story import told_in_memory

EXAMPLES = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Description(dict[str, Any]):
    """Too long to be shown with each example that fails."""

    def __repr__(self) -> str:
        return "Description(…)"


@pytest.fixture(scope="session")
def description(shared_api: Api) -> Mapping[str, Any]:
    answer = shared_api.ask("GET /schema/openapi.json")
    assert answer.status_code == 200
    return Description(answer.json())


def operations(description: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """By method and path, with `{id}` for every id."""
    return {
        f"{method.upper()} {re.sub(r'{[a-z]+_id}', '{id}', path)}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }


def test_the_description_is_valid(description: Mapping[str, Any]) -> None:
    OpenAPIV31SpecValidator(description).validate()


def test_it_covers_every_route_and_no_other(description: Mapping[str, Any]) -> None:
    assert set(operations(description)) == {*ALLOWED_BY, *PUBLIC}
    assert len(operations(description)) == len(HANDLERS)


def test_it_tells_the_fields_of_every_body(description: Mapping[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    told = {}
    for line, operation in operations(description).items():
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            reference = schema.get("$ref") or schema["oneOf"][0]["$ref"]
            told[re.sub(r"{\w+}", "x", line)] = set(schemas[reference.rpartition("/")[2]]["properties"])
    assert set(told) == set(BODIES)
    for line, fields in told.items():
        assert set(BODIES[line]) <= fields


def test_a_body_that_may_be_absent_is_not_required(description: Mapping[str, Any]) -> None:
    required = {
        re.sub(r"{\w+}", "x", line): operation["requestBody"]["required"]
        for line, operation in operations(description).items()
        if "requestBody" in operation
    }
    absent = "POST /v1/subscriptions/x/rotate-secret"
    assert absent in required
    assert {line for line, is_required in required.items() if not is_required} >= {absent}
    assert required["POST /v1/subscriptions"]


def test_it_tells_where_a_key_makes_a_request_idempotent(description: Mapping[str, Any]) -> None:
    taking = {
        line
        for line, operation in operations(description).items()
        if any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", []))
    }
    assert taking == {line for line in operations(description) if line.startswith("POST ")} - NEVER


def test_every_route_with_a_scope_tells_its_errors_in_the_one_form(description: Mapping[str, Any]) -> None:
    for line, operation in operations(description).items():
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        if line in PUBLIC:
            continue
        assert {"400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "502", "503", "504"} == set(
            errors
        )
        for answer in errors.values():
            assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
        assert operation["security"] == [{"bearer": []}]


def test_it_describes_what_is_sent_for_each_event_type(description: Mapping[str, Any]) -> None:
    assert set(description["webhooks"]) == {*EVENT_TYPES, TEST}
    told = [announcement for recorded in told_in_memory() if (announcement := announcement_of(recorded)) is not None]
    assert {announcement.event_type for announcement in told} == set(EVENT_TYPES)
    for announcement in told:
        post = description["webhooks"][announcement.event_type]["post"]
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        body = json.loads(msgspec.json.encode(announcement))
        assert list(OAS31Validator(schema).iter_errors(body)) == []
        assert set(schema["properties"]) == set(body)
        assert set(schema["properties"]["data"]["properties"]) == set(body["data"])
        assert list(OAS31Validator(schema).iter_errors({**body, "event_type": TEST}))
        missing = dict(list(body["data"].items())[1:])
        assert list(OAS31Validator(schema).iter_errors({**body, "data": missing}))


def test_it_names_the_headers_that_are_sent(description: Mapping[str, Any]) -> None:
    sent = signed_headers("evt_1", "certificate.issued", 1, b"{}", [SecretValue("0123456789abcdef")])
    for item in description["webhooks"].values():
        named = {parameter["name"] for parameter in item["post"]["parameters"]}
        assert named == set(sent) - {"Content-Type", "User-Agent"}


# --- whatever is sent ---

NASTY = [
    "",
    " ",
    "\n",
    "\x00",
    "\x7f",
    "\u202e",
    "\U0001f512",
    "İ",
    "ß",
    "'; DROP TABLE events; --",
    "%s",
    "{0}",
    "../..",
    "*",
    "*.",
    "**",
    ".",
    "..",
    "xn--",
    "xn--a-ä.example",
    "a" * 64 + ".example",
    "http://[",
    "https://[::1",
    "https://a:b/",
    "https://a:99999/",
    "http://\ud7ff/",
    "1e999",
    "x" * 4000,
]

texts = st.sampled_from(NASTY) | st.text(max_size=30)
numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**63, 2**64, -(2**64), 10**400])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


moments = st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1e300", "2026-01-01"]) | (
    st.datetimes().map(lambda moment: moment.isoformat() + "Z")
)
positions = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
"""Larger ones are tried in `test_deliveries.py`."""

SHAPED: Mapping[str, st.SearchStrategy[Any]] = {
    "name": st.uuids().map(str) | texts,
    "data": st.dictionaries(texts, values, max_size=3),
    "metadata": st.dictionaries(texts, values, max_size=3),
    "credentials": st.dictionaries(texts, texts, max_size=2),
    "provider_type": st.sampled_from(["embedded", "rfc2136", "nobody"]),
    "config": st.fixed_dictionaries(
        {},
        optional={
            "ttl": numbers,
            "propagation": texts,
            "propagation_timeout": texts,
            "nameservers": st.lists(texts, max_size=2),
            "server": texts,
            "port": numbers,
        },
    ),
    "eab": st.fixed_dictionaries({"kid": texts, "hmac_key": texts}),
    "version": numbers,
    "delivery": st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["webhook", "polling"]),
            "url": texts,
            "secret": texts,
            "ca_bundle_pem": texts,
            "ordered": st.booleans(),
            "buffer_size": numbers,
        },
    ),
    "filters": st.fixed_dictionaries({}, optional={"domains": st.lists(texts, max_size=3)}),
    "from": positions | moments,
    "to": positions | moments,
    "dry_run": st.booleans(),
    "event_ids": st.lists(texts, max_size=3),
    "overlap": texts | st.sampled_from(["1h", "30d", "31d", "100y", "9999999999d"]),
    "status": st.sampled_from(["active", "paused", "disabled"]),
    "managed_zones": st.lists(texts, max_size=3),
    "domains": st.lists(texts, max_size=3),
    "paths": st.lists(texts, max_size=3),
    "events": st.lists(texts | st.just("certificate.renewed"), max_size=3),
}
"""By field values of its shape; all other fields are texts."""


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    """A request line and a body: mostly a good one with one or two fields otherwise, rarely anything."""
    line = draw(st.sampled_from(sorted(BODIES)))
    chance = draw(st.integers(0, 19))
    if chance == 0:
        return line, draw(values)
    body = dict(BODIES[line]) | ({"name": str(draw(st.uuids()))} if "name" in BODIES[line] else {})
    for name in draw(st.sets(st.sampled_from(sorted(body)), min_size=1, max_size=2)):
        body[name] = draw(values if chance == 1 else SHAPED.get(name, texts))
    if chance == 2:
        del body[draw(st.sampled_from(sorted(body)))]
    return line, body


def encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, OverflowError):
        return b"null"


def require_described(description: Mapping[str, Any], line: str, answer: httpx.Response) -> None:
    """No 5xx, no status that the description does not tell, and errors in the one form."""
    assert answer.status_code < 500, answer.text
    assert str(answer.status_code) in operations(description)[line]["responses"], answer.text
    if answer.status_code >= 400:
        error_code(answer)


@pytest.fixture
def everything(api: Api) -> str:
    return api.token(*SCOPES)


@pytest.fixture
def things(api: Api, everything: str) -> list[str]:
    """The ids of one of each kind."""
    account_id = record_account(api)
    return [
        record_certificate(api, account_id=account_id, versions=2),
        record_order(api),
        account_id,
        connect_provider(api, everything),
        subscribe(api, everything)["id"],
        subscribe(api, everything, POLLING)["id"],
        everything.rpartition("_")[0],
    ]


@EXAMPLES
@given(requests())
@example(("POST /v1/dns/providers", {**BODIES["POST /v1/dns/providers"], "name": "\x00"}))
@example(("POST /v1/pki/acme/issue", {**BODIES["POST /v1/pki/acme/issue"], "account_id": "\x00"}))
@example(("POST /v1/dns/providers", {**BODIES["POST /v1/dns/providers"], "name": "x" * 4000}))
@example(("PUT /v1/secrets/x", {**BODIES["PUT /v1/secrets/x"], "metadata": {"x": 10**400}}))
@example(("POST /v1/subscriptions", {**BODIES["POST /v1/subscriptions"], "filters": {"domains": ["\x00"]}}))
@example(("POST /v1/subscriptions/x/ack", {"event_ids": ["\x00"]}))
@example(("POST /v1/subscriptions/x/replay", {"from": 2**62, "dry_run": False}))
@example(("POST /v1/subscriptions/x/replay", {"from": -(2**62), "to": -(2**62), "dry_run": False}))
def test_no_body_is_answered_by_a_fault(
    api: Api,
    everything: str,
    things: list[str],
    description: Mapping[str, Any],
    request_and_body: tuple[str, Any],
) -> None:
    line, body = request_and_body
    if isinstance(body, dict) and body.get("account_id") == "acme_staging_1":
        body["account_id"] = things[2]
    described = line.replace("/x", "/{path}" if "secrets" in line else "/{id}")
    asked = line.replace("certificates/x", f"certificates/{things[0]}").replace("providers/x", f"providers/{things[3]}")
    for subscription_id in things[4:6]:
        by_id = asked.replace("subscriptions/x", f"subscriptions/{subscription_id}")
        require_described(description, described, api.ask(by_id, everything, encoded(body)))


def test_a_real_id_in_every_place_is_answered_by_no_fault(
    api: Api, everything: str, things: list[str], description: Mapping[str, Any]
) -> None:
    for line in ALLOWED_BY:
        for thing in things:
            body = BODIES.get(re.sub(r"{\w+}", "x", line), {}) if line.startswith(("POST", "PUT", "PATCH")) else None
            asked = re.sub(r"{\w+}", thing, line) + ("?timeout=0" if line.endswith("/poll") else "")
            answer = api.ask(asked, everything) if body is None else api.ask(asked, everything, body or b"")
            require_described(description, line, answer)


segments = st.text("abcxyzABC019-_.~", min_size=1, max_size=20) | st.text(min_size=1, max_size=5) | st.just("x" * 3000)
parameters = st.sampled_from(
    [
        "limit",
        "cursor",
        "version",
        "prefix",
        "status",
        "certificate_id",
        "account_id",
        "from",
        "to",
        "action",
        "success",
        "timeout",
        "wait",
        "after",
        "domain",
        "expiring_within",
        "include_revoked",
        "since_event_id",
        "max_events",
    ]
)


@EXAMPLES
@given(
    st.sampled_from(sorted(ALLOWED_BY)),
    segments,
    st.dictionaries(parameters, texts | st.integers().map(str) | st.datetimes().map(str) | st.just("true"), max_size=3),
)
@example("GET /v1/pki/acme/orders", "x", {"status": "\x00"})
@example("GET /v1/pki/certificates", "x", {"domain": "\x00"})
@example("GET /v1/pki/certificates", "x", {"expiring_within": "9999999999d", "include_revoked": "\x00"})
@example("GET /v1/pki/acme/orders/{id}", "x", {"wait": str(10**400)})
@example("POST /v1/pki/certificates/{id}/bundle", "x", {"after": str(-(10**400)), "wait": "0"})
@example("GET /v1/secrets/{path}", "x", {"version": str(10**400)})
@example("GET /v1/audit/logs", "x", {"from": "0001-01-01T00:00:00+14:00"})
@example("GET /v1/audit/logs", "x", {"to": "9999-12-31T23:59:59-14:00"})
@example("GET /v1/audit/logs", "x", {"from": "1e300"})
@example("GET /v1/subscriptions/{id}/poll", "x", {"timeout": str(10**400), "max_events": str(-(10**400))})
@example("GET /v1/subscriptions/{id}/deliveries", "x", {"status": "\x00"})
def test_no_path_or_query_is_answered_by_a_fault(
    api: Api,
    everything: str,
    description: Mapping[str, Any],
    line: str,
    segment: str,
    query: Mapping[str, str],
) -> None:
    assume(segment not in {".", ".."})  # the client resolves these itself
    target = re.sub(r"{\w+}", lambda _: quote(segment, safe="", errors="surrogatepass"), line)
    said = "&".join(f"{name}={quote(value, safe='', errors='surrogatepass')}" for name, value in query.items())
    body: object = b"" if line.startswith(("GET", "DELETE")) else BODIES.get(re.sub(r"{\w+}", "x", line), b"")
    answer = api.ask(f"{target}?{said}", everything, body)
    require_described(description, line, answer)
