"""The same request with the same `Idempotency-Key` is done once, and answered the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from application.errors import StoreUnavailable
from domain.token import SCOPES
from tests.interfaces.http.client import (
    POLLING,
    SUBSCRIPTION,
    Api,
    connect_provider,
    error_code,
    operator,
    record_account,
    record_certificate,
    stored_text,
    subscribe,
    token_id,
)
from tests.interfaces.http.test_routes import BODIES, request_to, routes

NEVER = {
    "POST /v1/pki/certificates/{id}/private-key",
    "POST /v1/pki/certificates/{id}/bundle",
    "POST /v1/subscriptions/{id}/ack",
}
"""They create nothing, and two of them answer with keys."""

PROVIDER = {
    "name": "dns",
    "provider_type": "rfc2136",
    "managed_zones": ["acme.example"],
    "credentials": {"tsig_key_name": "key", "tsig_secret": "c2VjcmV0LXNlY3JldA=="},
    "config": {"server": "127.0.0.1"},
}
ACCOUNT = {
    "name": "le",
    "provider": "custom",
    "environment": "staging",
    "email": "tls@acme.example",
    "directory_url": "https://ca.example/directory",
}
Request = tuple[str, Any]


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


def ask(api: Api, token: str, line: str, body: Any, key: str = "key-1") -> httpx.Response:
    return api.ask(line, token, body, {"idempotency-key": key})


def new_provider(_: Api, __: str) -> Request:
    return "POST /v1/dns/providers", PROVIDER


def new_account(_: Api, __: str) -> Request:
    return "POST /v1/pki/acme/accounts", ACCOUNT


def new_order(api: Api, token: str) -> Request:
    connect_provider(api, token, "another")
    body = {"account_id": record_account(api), "domains": ["www.acme.example"], "challenge_type": "dns-01"}
    return "POST /v1/pki/acme/issue", body


def renewal(api: Api, token: str) -> Request:
    connect_provider(api, token, "another")
    return f"POST /v1/pki/certificates/{record_certificate(api)}/renew", {"reason": "moved"}


def new_subscription(_: Api, __: str) -> Request:
    return "POST /v1/subscriptions", POLLING


def new_webhook(_: Api, __: str) -> Request:
    body = {**SUBSCRIPTION, "delivery": {"type": "webhook", "url": "https://receiver.example/"}}
    return "POST /v1/subscriptions", body


def rotation(api: Api, token: str) -> Request:
    _, body = new_webhook(api, token)
    return f"POST /v1/subscriptions/{subscribe(api, token, body)['id']}/rotate-secret", {}


CREATING: Mapping[str, Callable[[Api, str], Request]] = {
    each.__name__: each
    for each in (new_provider, new_account, new_order, renewal, new_subscription, new_webhook, rotation)
}


def keeping(api: Api) -> Mapping[str, bool]:
    """By route that is a POST whether it honours keys."""
    posts = {line: handler for line, handler in routes(api).items() if line.startswith("POST")}
    return {line: handler.opt.get("idempotent") is not False for line, handler in posts.items()}


# --- every POST ---


def test_every_post_honours_keys_but_those_that_create_nothing(api: Api) -> None:
    assert {line for line, honours in keeping(api).items() if not honours} == NEVER
    assert len(keeping(api)) > len(NEVER)


def test_a_key_in_another_form_is_refused_by_every_post_that_honours_them(api: Api, token: str) -> None:
    for line, honours in keeping(api).items():
        asked = request_to(line)
        answer = ask(api, token, asked, BODIES.get(asked, b""), "with space")
        assert ((answer.status_code, "Idempotency-Key" in answer.text) == (400, True)) is honours, line


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "schlüssel", "tab\t1"])
def test_a_key_has_one_form(api: Api, token: str, key: str) -> None:
    answer = ask(api, token, "POST /v1/subscriptions", POLLING, key)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    assert api.ask("GET /v1/subscriptions", token).json()["data"] == []


@pytest.mark.parametrize("key", ["x", "x" * 255, '"8e03978e-40d5-43e8-bc93-6894a57f9324"', "!~", "a,b"])
def test_any_visible_ascii_is_a_key(api: Api, token: str, key: str) -> None:
    answers = [ask(api, token, "POST /v1/subscriptions", POLLING, key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()


# --- done once ---


@pytest.mark.parametrize("what", CREATING)
def test_what_is_asked_again_is_done_once_and_answered_the_same(api: Api, token: str, what: str) -> None:
    line, body = CREATING[what](api, token)
    first, again = (ask(api, token, line, body) for _ in range(2))
    assert first.status_code in {200, 201, 202}, first.text
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("location", "content-type", "cache-control"):
        assert again.headers.get(header) == first.headers.get(header)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    if first.status_code == 201:
        things = api.ask(f"GET {line.removeprefix('POST ')}", token).json()["data"]
        assert [thing["id"] for thing in things] == [first.json()["id"]]


@pytest.mark.parametrize("what", CREATING)
def test_without_a_key_or_with_another_one_it_is_done_again(api: Api, token: str, what: str) -> None:
    line, body = CREATING[what](api, token)
    first = ask(api, token, line, body)
    for answer in (api.ask(line, token, body), ask(api, token, line, body, "key-2")):
        assert "idempotent-replayed" not in answer.headers
        assert answer.content != first.content or answer.status_code == 409 or "order_id" in first.json()


def test_a_secret_that_is_shown_once_is_shown_again_to_who_has_the_key_and_stored_sealed(api: Api, token: str) -> None:
    line, body = new_webhook(api, token)
    secret = ask(api, token, line, body).json()["delivery"]["secret"]
    assert secret.startswith("whsec_")
    assert ask(api, token, line, body).json()["delivery"]["secret"] == secret
    assert secret not in stored_text(api)
    with api.parts.pool.connection() as connection:
        rows = connection.execute("SELECT * FROM idempotency_keys, sealed WHERE kind = 'idempotent-answer'").fetchall()
    assert rows
    assert secret not in repr(rows)


# --- conflicts ---


def test_the_same_key_for_something_else_is_a_conflict(api: Api, token: str) -> None:
    certificate_id = record_certificate(api)
    assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 201
    for line, body in (
        ("POST /v1/subscriptions", {**POLLING, "name": "another"}),
        ("POST /v1/subscriptions?x=1", POLLING),
        ("POST /v1/dns/providers", PROVIDER),
        (f"POST /v1/pki/certificates/{certificate_id}/renew", b""),
    ):
        answer = ask(api, token, line, body)
        assert (answer.status_code, error_code(answer)) == (409, "idempotency_conflict"), line
    assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 201


def test_while_the_first_is_being_handled_the_same_key_is_a_conflict(
    api: Api, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    subscriptions = api.parts.services.subscriptions
    subscribes = subscriptions.subscribe

    def slowly(*wanted: Any) -> Any:
        begun.set()
        assert may_end.wait(20)
        return subscribes(*wanted)

    monkeypatch.setattr(subscriptions, "subscribe", slowly)
    headers = {"authorization": f"Bearer {token}", "idempotency-key": "key-1"}

    async def two() -> tuple[httpx.Response, httpx.Response]:
        first = asyncio.create_task(api.client.post("/v1/subscriptions", json=POLLING, headers=headers))
        await asyncio.to_thread(begun.wait, 20)
        second = await api.client.post("/v1/subscriptions", json=POLLING, headers=headers)
        may_end.set()
        return await first, second

    first, second = api.run(two())
    assert first.status_code == 201
    assert (second.status_code, error_code(second)) == (409, "idempotency_conflict")
    assert "being handled" in second.json()["error"]["message"]
    assert api.run(api.client.post("/v1/subscriptions", json=POLLING, headers=headers)).json() == first.json()


def test_a_key_is_its_tokens_own(api: Api, token: str, elsewhere: str) -> None:
    first = ask(api, token, "POST /v1/subscriptions", POLLING).json()["id"]
    for other in (api.token(*SCOPES), api.token(*SCOPES, tenant_id=elsewhere)):
        assert ask(api, other, "POST /v1/subscriptions", POLLING).json()["id"] != first


# --- what frees a key ---


def test_what_was_refused_can_be_asked_again_with_the_same_key(api: Api, token: str) -> None:
    for body in ({**POLLING, "events": ["nonsense"]}, {**POLLING, "surprise": 1}, b"{"):
        assert ask(api, token, "POST /v1/subscriptions", body).status_code >= 400
    assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 201


def test_so_can_what_failed(api: Api, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(api.parts.services.subscriptions, "subscribe", fail)
        assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 500
    assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 201


def test_a_key_is_good_for_nothing_without_a_token_that_is(api: Api, token: str) -> None:
    assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 201
    api.parts.tokens.revoke(token_id(token), operator(api.tenant_id))
    answer = ask(api, token, "POST /v1/subscriptions", POLLING)
    assert (answer.status_code, error_code(answer)) == (401, "token_revoked")
    assert "whsec_" not in answer.text


def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    api: Api, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("away", 1)

    with monkeypatch.context() as patched:
        patched.setattr(api.parts.services.idempotency, "keep", away)
        assert ask(api, token, "POST /v1/subscriptions", POLLING).status_code == 201
    answer = ask(api, token, "POST /v1/subscriptions", POLLING)
    assert (answer.status_code, error_code(answer)) == (409, "idempotency_conflict")


def test_other_methods_and_readings_of_keys_take_no_notice(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, versions=2)
    for number in (1, 2):
        answer = ask(api, token, f"POST /v1/pki/certificates/{certificate_id}/private-key", {"version": number})
        assert answer.json()["version"] == number
    for _ in range(2):
        assert ask(api, token, f"PATCH /v1/pki/certificates/{certificate_id}", {"name": "x"}).status_code == 200
    with api.parts.pool.connection() as connection:
        query = "SELECT count(*) FROM idempotency_keys WHERE tenant_id = %s"
        assert connection.execute(query, [api.tenant_id]).fetchone() == (0,)
