"""Webhooks through real processes: workers that die, endpoints that hang, keep order, or are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook

from domain.certificate import Certificate
from interfaces.postgres.pool import open_pool
from tests.projections.live import Live
from tests.projections.story import BY, issued, version
from tests.servers.https import Answer, Asked, serving
from tests.servers.process import wait_until
from tests.system.service import Client, Process, running_database
from tests.system.test_webhook_docs import blocks, typed

DEADLINE_SECONDS = 35.0


class Stage:
    """An API, a token for it, and a history to be written to; workers come and go."""

    def __init__(self, folder: Path, settings: Mapping[str, str], live: Live, client: Client) -> None:
        self._folder = folder
        self._settings = settings
        self.live = live
        self.client = client

    @contextmanager
    def worker(self, number: int = 1) -> Iterator[Process]:
        with Process(self._folder / f"worker{number}", "worker", self._settings) as worker:
            yield worker

    def subscribe(self, url: str, **delivery: Any) -> dict[str, Any]:
        subscription: dict[str, Any] = self.client.post(
            "/v1/subscriptions",
            {
                "name": "receiver",
                "paths": ["pki/certificates/*"],
                "events": ["certificate.issued", "certificate.renewed"],
                "delivery": {"type": "webhook", "url": url, **delivery},
            },
        )
        return subscription

    def issue(self, *names: str) -> None:
        for name in names:
            self.live.store.record(issued(f"cert_{name}", datetime.now(UTC), f"order_{name}"), by=BY)

    def renew(self, name: str) -> None:
        certificate = self.live.store.load(Certificate, f"cert_{name}")
        number = certificate.next_number
        certificate.renew(version(number, f"order_{name}_{number}"), "manual", datetime.now(UTC))
        self.live.store.record(certificate, by=BY)

    def deliveries(self, subscription: Mapping[str, Any], **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(f"/v1/subscriptions/{subscription['id']}/deliveries", **query)[
            "data"
        ]
        return found

    def status_of(self, subscription: Mapping[str, Any]) -> str:
        status: str = self.client.get(f"/v1/subscriptions/{subscription['id']}")["status"]
        return status


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        settings = stack.enter_context(running_database(folder))
        api = stack.enter_context(Process(folder / "api", "api", settings))
        client = stack.enter_context(Client(api.url, api.token("pki:admin")))
        pool = stack.enter_context(open_pool(settings["DATABASE_URL"], 4))
        yield Stage(folder, settings, Live(pool), client)


class Receiver:
    """Notes the events and answers by `judge`, which may wait."""

    def __init__(self, judge: Callable[[int, dict[str, Any]], int] = lambda _number, _event: 204) -> None:
        self._judge = judge
        self._came = threading.Condition()
        self.asked: list[Asked] = []
        self.events: list[dict[str, Any]] = []
        self.open_now = self.most_open = 0

    def __call__(self, asked: Asked) -> Answer:
        event = msgspec.json.decode(asked.body)
        with self._came:
            self.asked.append(asked)
            self.events.append(event)
            number = len(self.events)
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
            self._came.notify_all()
        try:
            return Answer(self._judge(number, event))
        finally:
            with self._came:
                self.open_now -= 1

    def wait_for(self, count: int) -> Sequence[dict[str, Any]]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.events) >= count, DEADLINE_SECONDS), self.events
            return list(self.events)


def test_what_a_killed_worker_was_sending_goes_out_again_and_counts(stage: Stage) -> None:
    let_go = threading.Event()

    def hang_first(number: int, _event: object) -> int:
        if number == 1:
            let_go.wait(DEADLINE_SECONDS)
        return 204

    receiver = Receiver(hang_first)
    with serving(receiver, tls=False) as server:
        subscription = stage.subscribe(server.url)
        stage.issue("a")
        with stage.worker() as worker:
            receiver.wait_for(1)
            worker.kill()
            worker.start()
            first, second = receiver.wait_for(2)
            wait_until(lambda: not stage.deliveries(subscription, status="pending"), what="it was taken")
        let_go.set()
    assert first == second
    (delivery,) = stage.deliveries(subscription)
    assert (delivery["status"], delivery["attempts"]) == ("delivered", 2)


def test_at_most_four_at_a_time_reach_an_endpoint_whatever_the_number_of_workers(stage: Stage) -> None:
    four_wait = threading.Barrier(5)

    def wait_for_three_others(number: int, _event: object) -> int:
        if number <= 4:
            four_wait.wait(DEADLINE_SECONDS)
        return 204

    receiver = Receiver(wait_for_three_others)
    with serving(receiver, tls=False) as server, stage.worker(1), stage.worker(2):
        subscription = stage.subscribe(server.url)
        stage.issue(*"abcdefghijkl")
        receiver.wait_for(4)
        wait_until(lambda: len(stage.deliveries(subscription)) == 12, what="all are owed")
        assert len(receiver.events) == 4
        four_wait.wait(DEADLINE_SECONDS)
        receiver.wait_for(12)
        wait_until(lambda: not stage.deliveries(subscription, status="pending"), what="all are taken")
    assert receiver.most_open == 4


def test_endpoints_that_hang_delay_nobody_else(stage: Stage) -> None:
    let_go = threading.Event()

    def hang(_number: int, _event: object) -> int:
        let_go.wait(DEADLINE_SECONDS)
        return 500

    tarpits = [Receiver(hang) for _ in range(3)]
    sound = Receiver()
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(receiver, tls=False)) for receiver in (*tarpits, sound)]
        for server in servers:
            stage.subscribe(server.url)
        stage.issue(*"abcdef")
        with stage.worker():
            sound.wait_for(6)
            assert all(tarpit.open_now == len(tarpit.events) for tarpit in tarpits)
            let_go.set()


def test_the_order_of_a_certificate_is_kept_where_it_is_wished(stage: Stage) -> None:
    def refuse_the_first_of_each(_number: int, event: dict[str, Any]) -> int:
        with seen_lock:
            is_new = event["event_id"] not in seen
            seen.add(event["event_id"])
        return 500 if is_new and event["event_type"] == "certificate.issued" else 204

    seen: set[str] = set()
    seen_lock = threading.Lock()
    receiver = Receiver(refuse_the_first_of_each)
    with serving(receiver, tls=False) as server:
        subscription = stage.subscribe(server.url, ordered=True)
        stage.issue("a", "b")
        for name in "abab":
            stage.renew(name)
        with stage.worker():
            wait_until(
                lambda: len(stage.deliveries(subscription, status="delivered")) == 6,
                what="all are taken",
                deadline_seconds=DEADLINE_SECONDS,
            )
    for name in "ab":
        versions = [event["data"]["version"] for event in receiver.events if event["path"].endswith(f"cert_{name}")]
        assert versions == [1, 1, 2, 3]


def test_an_endpoint_that_is_gone_is_told_of_nothing_more(stage: Stage) -> None:
    receiver = Receiver(lambda _number, _event: 410)
    with serving(receiver, tls=False) as server, stage.worker():
        subscription = stage.subscribe(server.url)
        stage.issue("a")
        wait_until(lambda: stage.status_of(subscription) == "disabled", what="it is disabled")
        assert [each["status"] for each in stage.deliveries(subscription)] == ["dead"]
        stage.issue("b")
        other = Receiver()
        with serving(other, tls=False) as healthy:
            stage.subscribe(healthy.url)
            stage.issue("c")
            other.wait_for(1)
        assert len(receiver.events) == 1


def test_a_pause_holds_back_what_happens_meanwhile(stage: Stage) -> None:
    receiver, other = Receiver(), Receiver()
    with serving(receiver, tls=False) as server, serving(other, tls=False) as beside, stage.worker():
        subscription = stage.subscribe(server.url)
        stage.subscribe(beside.url)
        route = f"/v1/subscriptions/{subscription['id']}"
        assert stage.client.patch(route, {"status": "paused"})["status"] == "paused"
        stage.issue(*"abc")
        other.wait_for(3)
        wait_until(lambda: len(stage.deliveries(subscription, status="pending")) == 3, what="all are owed")
        assert receiver.events == []
        stage.client.patch(route, {"status": "active"})
        assert sorted(event["sequence"] for event in receiver.wait_for(3)) == sorted(
            event["sequence"] for event in other.events
        )


def test_a_new_subscriber_is_given_the_whole_history_in_the_same_words(stage: Stage) -> None:
    first, second = Receiver(), Receiver()
    with serving(first, tls=False) as server, serving(second, tls=False) as later, stage.worker():
        stage.subscribe(server.url)
        stage.issue(*"abc")
        stage.renew("a")
        first.wait_for(4)
        subscription = stage.subscribe(later.url)
        route = f"/v1/subscriptions/{subscription['id']}/replay"
        assert stage.client.post(route, {"from": 1, "dry_run": True})["count"] == 4
        assert stage.client.post(route, {"from": 1})["count"] == 4
        second.wait_for(4)
    assert sorted(asked.body for asked in second.asked) == sorted(asked.body for asked in first.asked)


def test_a_dead_letter_is_sent_again_when_somebody_asks(stage: Stage) -> None:
    is_back = threading.Event()
    receiver = Receiver(lambda _number, _event: 204 if is_back.is_set() else 410)
    with serving(receiver, tls=False) as server, stage.worker():
        subscription = stage.subscribe(server.url)
        route = f"/v1/subscriptions/{subscription['id']}"
        stage.issue("a")
        wait_until(lambda: stage.status_of(subscription) == "disabled", what="it is disabled")
        (dead,) = stage.deliveries(subscription, status="dead")
        again = f"{route}/deliveries/{dead['id']}/redeliver"
        assert stage.client.try_post(again).status_code == 422
        is_back.set()
        stage.client.patch(route, {"status": "active"})
        assert stage.client.post(again)["status"] == "pending"
        wait_until(lambda: bool(stage.deliveries(subscription, status="delivered")), what="it was taken")
    assert [event["event_id"] for event in receiver.events] == [dead["event_id"]] * 2


def test_during_a_rotation_receivers_with_the_old_and_with_the_new_secret_are_content(stage: Stage) -> None:
    receiver = Receiver()
    with serving(receiver, tls=False) as server, stage.worker():
        subscription = stage.subscribe(server.url)
        old = subscription["delivery"]["secret"]
        new = stage.client.post(f"/v1/subscriptions/{subscription['id']}/rotate-secret", {"overlap": "1h"})["secret"]
        stage.issue("a")
        receiver.wait_for(1)
    (asked,) = receiver.asked
    assert old != new
    for secret in (old, new):
        Webhook(secret).verify(asked.body, dict(asked.headers.items()))
    assert len(asked.headers["X-ScaiVault-Signature"].split()) == 2


def test_statistics_and_the_last_answer_are_told(stage: Stage) -> None:
    with serving(
        lambda asked: Answer(200 if b"cert_b" in asked.body else 503, body=b"try token=abc later"), tls=False
    ) as server:
        subscription = stage.subscribe(server.url)
        with stage.worker():
            stage.issue("b")
            wait_until(lambda: bool(stage.deliveries(subscription, status="delivered")), what="one was taken")
            stage.issue("c")
            wait_until(lambda: stage.deliveries(subscription)[-1]["attempts"] > 0, what="one was refused")

            def statistics() -> Any:
                return stage.client.get(f"/v1/subscriptions/{subscription['id']}")["statistics"]

            wait_until(lambda: statistics()["deliveries_24h"] >= 2, what="both are counted")
            told = statistics()
    assert 0 < told["success_rate_24h"] < 1
    assert told["mean_latency_ms_24h"] > 0
    assert told["last_delivery_at"] is not None
    refused = stage.deliveries(subscription)[-1]
    assert refused["last_attempt"]["status"] == 503
    assert refused["response_body"] == "try token=[hidden] later"


def test_the_lines_of_the_document_do_what_it_says(stage: Stage, folder: Path) -> None:
    with serving(Receiver(), tls=False) as server, stage.worker():
        subscription = stage.subscribe(server.url)
        stage.issue("a")
        wait_until(lambda: bool(stage.deliveries(subscription, status="delivered")), what="it was taken")
        (delivery,) = stage.deliveries(subscription)
        variables = {"SUBSCRIPTION_ID": subscription["id"], "DELIVERY_ID": delivery["id"]}
        address = {"SCAIVAULT_URL": stage.client.url, "SCAIVAULT_TOKEN": stage.client.token}
        lines = [block for block in blocks("bash") if "curl" in block and "while" not in block]
        for block in lines:
            typed(block.replace("https://hooks.acme.example", server.url), folder, **variables, **address)
        polled = stage.client.get("/v1/subscriptions")["data"][-1]
        assert polled["delivery"]["type"] == "polling"
        stage.renew("a")
        (told,) = stage.client.get(f"/v1/subscriptions/{polled['id']}/poll", timeout=30)["data"]
        assert told["event_type"] == "certificate.renewed"


def test_an_address_of_our_own_network_is_refused_at_creation(folder: Path) -> None:
    with running_database(folder) as settings:
        strict = {**settings, "SCAIVAULT_EGRESS_ALLOW": "10.99.0.0/16"}
        with Process(folder / "api", "api", strict) as api, Client(api.url, api.token("pki:admin")) as client:
            for url in ("https://127.0.0.1/", "https://[::ffff:127.0.0.1]/", "https://2130706433/", "http://8.8.8.8/"):
                refused = client.try_post(
                    "/v1/subscriptions",
                    {
                        "name": "inside",
                        "paths": ["pki/**"],
                        "events": ["certificate.issued"],
                        "delivery": {"type": "webhook", "url": url},
                    },
                )
                (field,) = refused.json()["error"]["details"]["fields"]
                assert (refused.status_code, field["code"]) == (422, "forbidden_address")
