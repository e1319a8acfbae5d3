"""Requests that wait for an order or a certificate to change: told in time, without a thread each, and let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from application.errors import StoreUnavailable
from domain.certificate import Certificate
from domain.errors import TooMany
from domain.order import Order, OrderError
from domain.token import SCOPES
from interfaces.http import changes
from interfaces.http.changes import Changes
from tests.interfaces.http import client
from tests.interfaces.http.client import Api, error_code, operator, record, record_order
from tests.interfaces.http.test_long_polls import in_loop, until
from tests.lines import real_line, real_version

DEADLINE_SECONDS = 20.0
LONG = 30


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


def changes_of(api: Api) -> Changes:
    return api.parts.services.changes


def is_waiting(api: Api, count: int = 1) -> bool:
    """So many wait, and it was looked for all of them."""
    return len(changes_of(api)._waiting) == count and changes_of(api)._reader.done()


def answer_of(
    api: Api, token: str, line: str, meanwhile: Callable[[], object] = lambda: None, *, is_heard: bool = True
) -> httpx.Response:
    """Once the request waits something happens, of which the listener hears, or does not."""
    method, path = line.split(" ", 1)

    async def both() -> httpx.Response:
        async with asyncio.timeout(DEADLINE_SECONDS):
            headers = {"authorization": f"Bearer {token}"}
            asking = asyncio.create_task(api.client.request(method, path, headers=headers))
            await until(lambda: is_waiting(api) or asking.done())
            await asyncio.to_thread(meanwhile)
            if is_heard:
                changes_of(api).wake()
            return await asking

    answer: httpx.Response = api.run(both())
    assert not changes_of(api)._waiting
    assert not changes_of(api)._of_each
    return answer


def change(api: Api, order_id: str, *commands: Callable[[Order], object]) -> None:
    order = api.parts.store.load(Order, order_id, api.tenant_id)
    for command in commands:
        command(order)
    api.parts.store.record(order, by=operator(api.tenant_id))


def cancel(order: Order) -> None:
    order.cancel(datetime.now(UTC))


def postpone(order: Order) -> None:
    """Neither status nor phase is another afterwards."""
    order.trigger_event(
        Order.Postponed, phase="placing", until=datetime.now(UTC), error=None, timestamp=datetime.now(UTC)
    )


def postpone_with_error(order: Order) -> None:
    """The phase is `waiting` afterwards."""
    error = OrderError("backend_error", "the CA is away")
    order.trigger_event(
        Order.Postponed, phase="placing", until=datetime.now(UTC), error=error, timestamp=datetime.now(UTC)
    )


# --- orders ---


def test_an_order_is_told_when_its_status_changes(api: Api, token: str) -> None:
    order_id = record_order(api)
    line = f"GET /v1/pki/acme/orders/{order_id}?wait={LONG}"
    answer = answer_of(api, token, line, lambda: change(api, order_id, cancel))
    assert (answer.status_code, answer.json()["status"], answer.json()["phase"]) == (200, "invalid", "done")


def test_an_order_is_told_when_its_phase_changes(api: Api, token: str) -> None:
    order_id = record_order(api)
    line = f"GET /v1/pki/acme/orders/{order_id}?wait={LONG}"
    answer = answer_of(api, token, line, lambda: change(api, order_id, postpone_with_error))
    assert (answer.json()["status"], answer.json()["phase"]) == ("pending", "waiting")


def test_what_changes_neither_is_waited_on(api: Api, token: str) -> None:
    order_id = record_order(api)
    line = f"GET /v1/pki/acme/orders/{order_id}?wait=2"
    answer = answer_of(api, token, line, lambda: change(api, order_id, postpone))
    assert answer.json()["phase"] == "placing"
    assert answer.json()["next_attempt_at"] is not None


def test_where_nothing_happens_the_order_is_told_as_it_is_when_the_time_is_over(api: Api, token: str) -> None:
    order_id = record_order(api)
    answer = answer_of(api, token, f"GET /v1/pki/acme/orders/{order_id}?wait=1")
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")


def test_what_nobody_was_woken_for_is_told_when_the_time_is_over(api: Api, token: str) -> None:
    order_id = record_order(api)
    line = f"GET /v1/pki/acme/orders/{order_id}?wait=1"
    answer = answer_of(api, token, line, lambda: change(api, order_id, cancel), is_heard=False)
    assert answer.json()["status"] == "invalid"


def test_an_order_that_is_done_is_told_at_once(api: Api, token: str) -> None:
    order_id = record_order(api)
    change(api, order_id, cancel)
    answer = api.ask(f"GET /v1/pki/acme/orders/{order_id}?wait=60", token)
    assert answer.json()["phase"] == "done"


def test_what_happens_to_another_order_wakes_nobody(api: Api, token: str) -> None:
    order_id, other = record_order(api), record_order(api, name="other.acme.example")
    line = f"GET /v1/pki/acme/orders/{order_id}?wait=1"
    answer = answer_of(api, token, line, lambda: change(api, other, cancel))
    assert answer.json()["status"] == "pending"


@pytest.mark.parametrize("seconds", [-1, 61, 10**20])
@pytest.mark.parametrize("line", ["GET /v1/pki/acme/orders/x?", "POST /v1/pki/certificates/x/bundle?after=1&"])
def test_nobody_waits_for_more_than_a_minute(api: Api, token: str, line: str, seconds: int) -> None:
    answer = client.wrong_fields(api.ask(f"{line}wait={seconds}", token), 400, "invalid_request")
    assert answer == {"wait": "out_of_range"}


def test_a_wait_is_whole_seconds(api: Api, token: str) -> None:
    for seconds in ("1.5", "x", ""):
        answer = api.ask(f"GET /v1/pki/acme/orders/x?wait={seconds}", token)
        assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


def test_nobody_waits_for_what_is_not_theirs(api: Api, token: str, elsewhere: str) -> None:
    theirs = record_order(api, elsewhere)
    for order_id in ("acme_order_x", theirs):
        answer = api.ask(f"GET /v1/pki/acme/orders/{order_id}?wait=60", token)
        assert (answer.status_code, error_code(answer)) == (404, "acme_order_not_found")


def test_a_token_that_is_revoked_meanwhile_is_told_nothing(api: Api) -> None:
    order_id = record_order(api)
    waits = api.token("pki:read")

    def revoke() -> None:
        api.parts.tokens.revoke(client.token_id(waits), operator(api.tenant_id))
        change(api, order_id, cancel)

    answer = answer_of(api, waits, f"GET /v1/pki/acme/orders/{order_id}?wait={LONG}", revoke)
    assert (answer.status_code, error_code(answer)) == (401, "token_revoked")


def test_more_than_may_wait_are_told_to_come_again(api: Api, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"GET /v1/pki/acme/orders/{record_order(api)}"
    for bound in ("MOST_WAITING", "MOST_WAITING_EACH"):
        with monkeypatch.context() as patched:
            patched.setattr(changes, bound, 0)
            answer = api.ask(f"{line}?wait=60", token)
            assert (answer.status_code, error_code(answer)) == (429, "rate_limited")
            assert answer.headers["retry-after"] == str(answer.json()["error"]["retry_after"])
            assert api.ask(line, token).status_code == 200


def test_at_the_end_of_the_process_everybody_has_an_answer(
    api: Api, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_of(api), "is_closed", False)  # opens again after the test
    answer = answer_of(api, token, f"GET /v1/pki/acme/orders/{record_order(api)}?wait={LONG}", changes_of(api).close)
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")


# --- certificates ---


class Line:
    """A certificate line that can be renewed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.id = api.new_id("cert")
        record(api, real_line(self._version(1), self.id, tenant_id=api.tenant_id))

    def _version(self, number: int) -> Any:
        keys = self._api.parts.services.certificates._keys
        order_id = self._api.new_id("acme_order")
        return real_version(keys, self.id, number, tenant_id=self._api.tenant_id, order_id=order_id)

    def renew(self) -> None:
        certificate = self._api.parts.store.load(Certificate, self.id, self._api.tenant_id)
        certificate.renew(self._version(certificate.next_number), "ari", datetime.now(UTC))
        record(self._api, certificate)

    def rename(self) -> None:
        certificate = self._api.parts.store.load(Certificate, self.id, self._api.tenant_id)
        certificate.rename("another", datetime.now(UTC))
        record(self._api, certificate)


@pytest.fixture
def line(api: Api) -> Line:
    return Line(api)


def test_a_bundle_comes_when_there_is_a_newer_version(api: Api, token: str, line: Line) -> None:
    asked = f"POST /v1/pki/certificates/{line.id}/bundle?after=1&wait={LONG}"
    answer = answer_of(api, token, asked, line.renew)
    assert (answer.status_code, answer.json()["version"]) == (200, 2)


def test_a_bundle_comes_at_once_where_there_is_one_already(api: Api, token: str, line: Line) -> None:
    line.renew()
    for after in (0, 1, -1):
        answer = api.ask(f"POST /v1/pki/certificates/{line.id}/bundle?after={after}&wait=60", token)
        assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert api.ask(f"POST /v1/pki/certificates/{line.id}/bundle?after=1", token).status_code == 200


def test_without_a_newer_version_there_is_no_body_and_no_key_was_read(api: Api, token: str, line: Line) -> None:
    for after, wait in ((1, 1), (1, 0), (7, 0), (2**70, 0)):
        answer = api.ask(f"POST /v1/pki/certificates/{line.id}/bundle?after={after}&wait={wait}", token)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["cache-control"] == "no-store"
    assert "pki_private_key_read" not in [action for action, _, _ in client.actions(api, token)]


def test_a_change_that_is_no_new_version_is_waited_on(api: Api, token: str, line: Line) -> None:
    answer = answer_of(api, token, f"POST /v1/pki/certificates/{line.id}/bundle?after=1&wait=1", line.rename)
    assert answer.status_code == 304


def test_to_wait_needs_to_say_what_is_known(api: Api, token: str, line: Line) -> None:
    answer = api.ask(f"POST /v1/pki/certificates/{line.id}/bundle?wait=1", token)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")
    answer = api.ask(f"POST /v1/pki/certificates/{line.id}/bundle?after=0", token, {"version": 1})
    assert (answer.status_code, error_code(answer)) == (400, "invalid_request")


# --- many ---


class Documents:
    """At which position each was changed last."""

    def __init__(self) -> None:
        self.at: dict[str, int] = {}
        self.asked: list[int] = []
        self.is_away = False

    def positions(self, subject_ids: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(len(subject_ids))
        if self.is_away:
            raise StoreUnavailable("away", 0.01)
        return {subject: self.at[subject] for subject in subject_ids if subject in self.at}


@in_loop
async def test_many_wait_without_a_thread_each_and_one_look_finds_who_is_told() -> None:
    documents = Documents()
    documents.at = {f"cert_{number}": number for number in range(500)}
    with ThreadPoolExecutor(1) as threads:
        all_changes = Changes(documents.positions, threads)
        waits = [
            asyncio.create_task(all_changes.wait(subject, position, "tok_1", LONG))
            for subject, position in documents.at.items()
        ]
        await until(lambda: len(all_changes._waiting) == 500 and all_changes._reader.done())
        before = threading.active_count()
        documents.asked.clear()
        documents.at["cert_7"] = 1000
        await asyncio.to_thread(all_changes.wake)
        await waits[7]
        assert documents.asked == [500]
        assert sum(wait.done() for wait in waits) == 1
        assert threading.active_count() <= before + 1
        all_changes.close()
        await asyncio.gather(*waits)
    assert not all_changes._waiting


@in_loop
async def test_a_change_before_the_wait_is_not_missed_and_neither_is_an_end() -> None:
    documents = Documents()
    documents.at = {"cert_1": 2}
    with ThreadPoolExecutor(1) as threads:
        all_changes = Changes(documents.positions, threads)
        await all_changes.wait("cert_1", 1, "tok_1", LONG)
        await all_changes.wait("cert_gone", 1, "tok_1", LONG)


@in_loop
async def test_who_waits_while_the_store_is_away_is_told_when_it_is_back() -> None:
    documents = Documents()
    documents.at = {"cert_1": 2}
    documents.is_away = True
    with ThreadPoolExecutor(1) as threads:
        all_changes = Changes(documents.positions, threads)
        wait = asyncio.create_task(all_changes.wait("cert_1", 1, "tok_1", LONG))
        await until(lambda: len(documents.asked) > 1)
        documents.is_away = False
        await wait


@in_loop
async def test_who_is_cancelled_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_WAITING_EACH", 1)
    documents = Documents()
    documents.at = {"cert_1": 1}
    with ThreadPoolExecutor(1) as threads:
        all_changes = Changes(documents.positions, threads)
        wait = asyncio.create_task(all_changes.wait("cert_1", 1, "tok_1", LONG))
        await until(lambda: bool(all_changes._waiting))
        with pytest.raises(TooMany):
            await all_changes.wait("cert_1", 1, "tok_1", LONG)
        other = asyncio.create_task(all_changes.wait("cert_1", 1, "tok_2", 0.01))
        await other
        wait.cancel()
        await asyncio.wait([wait])
        assert not all_changes._waiting
        assert not all_changes._of_each
