"""`GET /v1/metrics`: who may ask, that each figure is right, and that nobody can overload the service with it."""

from __future__ import annotations

import asyncio
import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from application.errors import StoreUnavailable
from domain.order import Order
from domain.provenance import DEFAULT_TENANT
from interfaces.cli.arguments import arguments
from interfaces.http.metrics import FAMILIES, Metrics
from interfaces.measurements import CA_SECONDS, DNS_SECONDS, QUERY_FAILURES, Measurements
from interfaces.postgres import figures as figures_module
from interfaces.postgres.figures import QUERIES, Figures
from interfaces.postgres.measurements import PostgresMeasurements
from interfaces.postgres.pool import Pool
from projections.order_statistics import ORDER_STATISTICS
from tests.interfaces.http.client import (
    Api,
    connect_provider,
    error_code,
    record_account,
    record_certificate,
    record_order,
    refused,
    subscribe,
)
from tests.projections.folding import apply
from tests.projections.live import Live
from tests.projections.story import BY, Story
from tests.projections.test_order_statistics import Told, began

DOCUMENT = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
TABLE_ROW = re.compile(r"^\| `(scaivault_\w+)` \| (\w+) \|", re.MULTILINE)
ALERT = re.compile(r"expr: (?:\|\n)?(.*?)\n +for:", re.DOTALL)

Samples = Mapping[tuple[str, ...], float]
"""By the name of the sample and the labels' values in the order of their names."""


def samples(text: str) -> Samples:
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def families(text: str) -> Mapping[str, str]:
    """By name, as Prometheus shows them, the type."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(text)
    }


def scraped(api: Api) -> str:
    answer = api.ask("GET /v1/metrics", api.token("audit:read", tenant_id=DEFAULT_TENANT))
    assert answer.status_code == 200, answer.text
    return answer.text


def measured(pool: Pool, measurements: Measurements | None = None) -> Figures:
    of_events = ["audit_log", "order_statistics"]
    return Figures(pool, measurements or Measurements(), ["issuance", "delivery"], of_events, ["delivery_fan_out"])


def told(pool: Pool) -> Samples:
    """All that is told now of a database."""

    async def ask() -> bytes:
        with ThreadPoolExecutor(1) as thread:
            return await Metrics(measured(pool).read, "1.2.3", thread).exposition()

    return samples(asyncio.run(ask()).decode())


@pytest.fixture
def live(pool: Pool) -> Live:
    return Live(pool)


# --- who may ask ----------------------------------------------------------------------------------------------------


def test_it_is_served_in_the_text_format_of_prometheus(api: Api) -> None:
    answer = api.ask("GET /v1/metrics", api.token("audit:read", tenant_id=DEFAULT_TENANT))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    found = samples(answer.text)
    version = api.ask("GET /v1/version").json()["version"]
    assert found["scaivault_build_info", version] == 1
    assert found["scaivault_events_total",] > 0


def test_without_the_scope_nobody_is_told(api: Api) -> None:
    assert refused(api.ask("GET /v1/metrics")) == (401, "authentication_required")
    token = api.token("pki:admin", "pki:issue", "secrets:read", tenant_id=DEFAULT_TENANT)
    assert refused(api.ask("GET /v1/metrics", token)) == (403, "insufficient_scope")


def test_another_tenant_is_not_told_what_is_of_all(api: Api) -> None:
    answer = api.ask("GET /v1/metrics", api.token("audit:read", "admin"))
    assert (answer.status_code, error_code(answer)) == (403, "access_denied")
    assert "scaivault_" not in answer.text


def test_while_the_database_is_away_it_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise StoreUnavailable("PostgreSQL: OperationalError", 2)

    metrics = api.parts.services.metrics
    monkeypatch.setattr(metrics, "_read", away)
    monkeypatch.setattr(metrics, "_collecting", None)
    token = api.token("audit:read", tenant_id=DEFAULT_TENANT)
    assert refused(api.ask("GET /v1/metrics", token)) == (503, "service_unavailable")

    monkeypatch.undo()
    assert api.ask("GET /v1/metrics", token).status_code == 200


# --- what is told ---------------------------------------------------------------------------------------------------


def test_there_is_a_rule_for_every_query_and_the_other_way_round() -> None:
    assert set(FAMILIES) == set(QUERIES)


def test_the_document_tells_of_every_family_that_is_served_and_of_no_other(api: Api) -> None:
    documented = dict(TABLE_ROW.findall(DOCUMENT))
    assert documented == families(scraped(api))


def test_the_documented_way_to_a_token_is_one() -> None:
    (line,) = re.findall(r"^scaivault (token create .*) > ", DOCUMENT, re.MULTILINE)
    wanted = arguments(shlex.split(line))
    assert (wanted.scopes, wanted.tenant) == (("audit:read",), DEFAULT_TENANT)


def test_the_alerts_ask_for_what_there_is(api: Api) -> None:
    served = set(families(scraped(api)))
    rules = ALERT.findall(DOCUMENT)
    assert len(rules) == 5
    for rule in rules:
        names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"scaivault_\w+", rule)}
        assert names, rule
        assert names <= served, rule


def test_what_a_history_did_is_told(live: Live) -> None:
    Story(live.store).tell()
    behind = told(live.pool)
    live.catch_up()
    found = told(live.pool)

    last, events = live.history[-1].position, [recorded.event for recorded in live.history]
    assert found["scaivault_events_total",] == last
    assert behind["scaivault_follower_behind_events", "audit_log"] == last
    assert found["scaivault_follower_behind_events", "audit_log"] == 0
    assert found["scaivault_follower_behind_events", "delivery_fan_out"] > 0
    ended = Counter(e.error.code for e in events if isinstance(e, Order.Failed))
    assert ended
    assert {code: found["scaivault_orders_ended_total", code, "failed"] for code in ended} == ended
    assert found["scaivault_orders_ended_total", "order_expired", "failed"] == 0
    completed = sum(isinstance(event, Order.Completed) for event in events)
    assert found["scaivault_orders_ended_total", "", "completed"] == completed > 0
    placed = sum(isinstance(event, Order.Placed) for event in events)
    running = sum(value for (name, *_), value in found.items() if name == "scaivault_orders_running")
    assert running == placed - completed - sum(ended.values()) > 0
    deliveries = Counter(delivery_states(live))
    assert found["scaivault_webhook_deliveries", "dead"] == deliveries["dead"] > 0
    assert found["scaivault_webhook_deliveries", "pending"] == deliveries["pending"] > 0


def delivery_states(live: Live) -> list[str]:
    with live.pool.connection() as connection:
        return [state for (state,) in connection.execute("SELECT document->>'status' FROM deliveries").fetchall()]


def test_the_phases_of_orders_are_told_as_histograms(live: Live) -> None:
    live.store.record(Told().completed().order, by=BY)
    live.catch_up()
    found = told(live.pool)

    name = "scaivault_order_phase_duration_seconds"
    buckets = {bound: found[name + "_bucket", bound, "validating"] for bound in ("5.0", "10.0", "21600.0", "+Inf")}
    assert buckets == {"5.0": 0, "10.0": 1, "21600.0": 1, "+Inf": 1}
    assert (found[name + "_count", "validating"], found[name + "_sum", "validating"]) == (1, 8)


def test_values_that_are_left_are_told_with_their_age(live: Live) -> None:
    assert told(live.pool)["scaivault_orphan_txt_oldest_seconds",] == 0
    order = Told().completed()
    live.store.record(order.order, by=BY)
    live.catch_up()
    found = told(live.pool)

    age = (datetime.now(UTC) - order.now).total_seconds()
    assert found["scaivault_orphan_txt_values",] == 2
    assert found["scaivault_orphan_txt_oldest_seconds",] == pytest.approx(age, abs=60)


def test_renewals_are_told_by_whether_they_began_in_their_window(live: Live) -> None:
    apply(live.pool, ORDER_STATISTICS, [began(automatic=True, in_window=each) for each in (True, True, False)])
    found = told(live.pool)

    assert [found["scaivault_renewals_total", each] for each in ("yes", "no", "none")] == [2, 1, 0]


def test_a_follower_of_announcements_that_has_taken_all_of_them_is_not_behind(live: Live) -> None:
    Story(live.store).tell()
    live.execute("INSERT INTO positions SELECT 'delivery_fan_out', max(position) FROM announcements")

    assert told(live.pool)["scaivault_follower_behind_events", "delivery_fan_out"] == 0


def test_certificates_are_told_apart_by_the_time_left_to_them(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_time_left() -> Mapping[str, float]:
        monkeypatch.setattr(api.parts.services.metrics, "_collecting", None)
        return {left: value for (name, left, *_), value in samples_with_labels(api) if name == "scaivault_certificates"}

    before = by_time_left()
    for days in (-1, 0.5, 2, 6, 10, 20, 45, 61, 1000):
        record_certificate(api, valid_for=timedelta(days=days), with_key=False)
    after = by_time_left()

    assert {left: after[left] - before[left] for left in after} == {
        "expired": 1,
        "<1d": 1,
        "<7d": 2,
        "<14d": 1,
        "<30d": 1,
        "<60d": 1,
        ">=60d": 2,
    }


def samples_with_labels(api: Api) -> Sequence[tuple[tuple[str, ...], float]]:
    return [(key, value) for key, value in samples(scraped(api)).items() if len(key) > 1]


ROW = "INSERT INTO todo (process, subject, version, step, due_at, lease_until, lane, queue, place) VALUES "


def add_row(
    live: Live,
    subject: str,
    due_in: int,
    *,
    process: str = "issuance",
    lease_for: int | None = None,
    queue: str | None = None,
    place: int = 0,
) -> None:
    live.execute(
        ROW + "(%s, %s, 1, 'x', now() + %s * interval '1 s', now() + %s * interval '1 s', %s, %s, %s)",
        *(process, subject, due_in, lease_for, queue, queue, place),
    )


def todo(pool: Pool, process: str) -> tuple[float, float, float, int]:
    """Due, waiting, held, and for how long the oldest has been due, in tens of seconds."""
    found = told(pool)
    due, waiting, held = (found["scaivault_todo", process, state] for state in ("due", "waiting", "held"))
    return due, waiting, held, round(found["scaivault_todo_oldest_due_seconds", process] / 10)


def test_a_row_of_the_todo_list_is_due_or_waits_or_is_held(live: Live) -> None:
    assert todo(live.pool, "issuance") == (0, 0, 0, 0)
    add_row(live, "due", -100)
    add_row(live, "later", 100)
    add_row(live, "held", -500, lease_for=10)
    add_row(live, "held before its time", 500, lease_for=10)
    add_row(live, "lease lost", -300, lease_for=-10)
    add_row(live, "other", -1000, process="renewal")

    assert todo(live.pool, "issuance") == (2, 1, 2, 30)
    assert todo(live.pool, "renewal") == (1, 0, 0, 100)
    assert todo(live.pool, "delivery") == (0, 0, 0, 0)


def test_what_stands_behind_another_in_its_queue_waits(live: Live) -> None:
    """Its receiver is what it waits for, no worker."""
    add_row(live, "first", 100, process="delivery", queue="a", place=1)
    add_row(live, "second", -900, process="delivery", queue="a", place=2)
    add_row(live, "third", -800, process="delivery", queue="a", place=3)
    add_row(live, "first of another", -200, process="delivery", queue="b", place=7)
    add_row(live, "second of another", -200, process="delivery", queue="b", place=8)

    assert todo(live.pool, "delivery") == (1, 4, 0, 20)


def test_what_was_measured_by_all_processes_is_told_as_histograms(live: Live) -> None:
    for seconds in (0.2, 0.2, 20, 100):
        measurements = Measurements()
        measurements.observe(CA_SECONDS, seconds, ca="ca.example", outcome="2xx")
        measurements.observe(DNS_SECONDS, seconds, provider_type="route53", operation="add", outcome="throttled")
        PostgresMeasurements(live.pool, measurements).flush()
    found = told(live.pool)

    buckets = {
        bound: found["scaivault_ca_request_duration_seconds_bucket", "ca.example", bound, "2xx"] for bound in BOUNDS
    }
    assert buckets == {"0.1": 0, "0.25": 2, "10.0": 2, "30.0": 3, "60.0": 3, "+Inf": 4}
    assert found["scaivault_ca_request_duration_seconds_count", "ca.example", "2xx"] == 4
    assert found["scaivault_ca_request_duration_seconds_sum", "ca.example", "2xx"] == pytest.approx(120.4)
    assert found["scaivault_dns_request_duration_seconds_count", "add", "throttled", "route53"] == 4


BOUNDS = ("0.1", "0.25", "10.0", "30.0", "60.0", "+Inf")


def test_a_bound_of_an_earlier_version_still_counts(live: Live) -> None:
    live.execute(
        "INSERT INTO measurements VALUES"
        """ (%s, '{"ca": "ca.example", "outcome": "2xx", "le": "0.07"}', 3),"""
        """ (%s, '{"ca": "ca.example", "outcome": "2xx", "le": "0.1"}', 2)""",
        CA_SECONDS,
        CA_SECONDS,
    )
    found = told(live.pool)

    name = "scaivault_ca_request_duration_seconds_bucket"
    assert [found[name, "ca.example", bound, "2xx"] for bound in ("0.05", "0.07", "0.1", "+Inf")] == [0, 3, 5, 5]


def test_every_replica_tells_the_same(live: Live) -> None:
    Story(live.store).tell()
    live.catch_up()
    measurements = Measurements()
    measurements.observe(CA_SECONDS, 1, ca="ca.example", outcome="2xx")
    PostgresMeasurements(live.pool, measurements).flush()

    one, other = told(live.pool), told(live.pool)

    moving = {"scaivault_todo_oldest_due_seconds", "scaivault_orphan_txt_oldest_seconds"}
    assert {key for key in one if one[key] != other[key]} <= {key for key in one if key[0] in moving}
    assert one.keys() == other.keys()


def test_no_label_tells_of_a_tenant_a_name_a_domain_a_secret_or_a_token(api: Api) -> None:
    token = api.token("pki:admin", "subscriptions:write")
    account_id = record_account(api, name="account-of-somebody")
    things = [
        api.tenant_id,
        token,
        account_id,
        record_order(api, name="order.secret-name.example"),
        record_certificate(api, account_id=account_id),
        connect_provider(api, token, "provider-of-somebody", "zone.secret-name.example"),
        subscribe(api, token, name="subscription-of-somebody")["id"],
    ]
    api.parts.services.catch_up_audit()

    text = scraped(api)
    said = {
        value for family in text_string_to_metric_families(text) for s in family.samples for value in s.labels.values()
    }

    for thing in (*things, "secret-name", "of-somebody", "acme.example", "hooks.example", DEFAULT_TENANT):
        assert thing not in text
    assert all(re.fullmatch(r"[a-z0-9_]*|[<>=]*\d+d|[\d.+]+|\+Inf|ca\.example", each) for each in said), said


# --- what fails -----------------------------------------------------------------------------------------------------


def test_a_query_that_fails_leaves_its_family_out_and_is_counted(live: Live) -> None:
    live.execute("ALTER TABLE order_statistics RENAME TO gone")
    measurements = Measurements()
    found = measured(live.pool, measurements).read()
    assert set(QUERIES) - set(found) == {"orders", "orders_running", "values_left"}

    PostgresMeasurements(live.pool, measurements).flush()
    said = told(live.pool)
    assert {
        key[1]: value for key, value in said.items() if key[0] == f"scaivault_{QUERY_FAILURES}_total" and value
    } == {
        "orders": 1,
        "orders_running": 1,
        "values_left": 1,
    }
    assert not any(name.startswith("scaivault_orders") for name, *_ in said)
    assert ("scaivault_events_total",) in said


@contextmanager
def held(live: Live, table: str) -> Iterator[None]:
    with live.pool.connection() as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table}".encode())
        yield


def test_a_query_that_takes_too_long_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "QUERY_SECONDS", 0.05)
    with held(live, "certificates"):
        found = measured(live.pool).read()
    assert set(QUERIES) - set(found) == {"certificates"}


def test_all_queries_together_have_an_end_too(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "ALL_SECONDS", 0)
    measurements = Measurements()
    assert measured(live.pool, measurements).read() == {}
    assert len(measurements.take()) == len(QUERIES)


def test_no_limit_of_a_query_is_left_on_the_connection(live: Live) -> None:
    def settings() -> set[Any]:
        with live.pool.connection() as connection:
            names = ("statement_timeout", "jit", "max_parallel_workers_per_gather")
            return {connection.execute(f"SHOW {name}".encode()).fetchone() for name in names}

    before = settings()
    measured(live.pool).read()
    assert settings() == before


def test_a_lost_database_is_no_failed_query(pool: Pool) -> None:
    measurements = Measurements()
    pool.close()
    with pytest.raises(StoreUnavailable):
        measured(pool, measurements).read()
    assert measurements.take() == {}


# --- how often ------------------------------------------------------------------------------------------------------


class Slow:
    """A collection that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.running = 0
        self.most_running = 0
        self.may_end = threading.Event()
        self.failure: Exception | None = None
        self.now = 0.0

    def __call__(self) -> Mapping[str, Sequence[tuple[Any, ...]]]:
        self.begun += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.may_end.wait(30)
        self.running -= 1
        if self.failure is not None:
            raise self.failure
        return {"events": [(self.begun,)]}

    def monotonic(self) -> float:
        return self.now


def events_in(exposition: bytes) -> float:
    return samples(exposition.decode())["scaivault_events_total",]


def test_however_many_ask_at_once_one_collection_serves_them_all() -> None:
    slow = Slow()

    async def ask() -> Sequence[bytes]:
        with ThreadPoolExecutor(8) as threads:
            metrics = Metrics(slow, "1", threads)
            asking = [asyncio.create_task(metrics.exposition()) for _ in range(50)]
            await asyncio.sleep(0)
            slow.may_end.set()
            return await asyncio.gather(*asking)

    assert {events_in(answer) for answer in asyncio.run(ask())} == {1}
    assert (slow.begun, slow.most_running) == (1, 1)


def test_who_comes_within_a_second_gets_the_same_and_who_comes_later_a_new_one() -> None:
    slow = Slow()
    slow.may_end.set()

    async def ask() -> Sequence[float]:
        with ThreadPoolExecutor(1) as thread:
            metrics = Metrics(slow, "1", thread, slow.monotonic)
            answers = []
            for slow.now in (0.0, 0.9, 1.0, 1.5, 2.5):
                answers.append(events_in(await metrics.exposition()))
            return answers

    assert asyncio.run(ask()) == [1, 1, 2, 2, 3]


def test_who_hangs_up_spoils_it_for_nobody() -> None:
    slow = Slow()

    async def ask() -> bytes:
        with ThreadPoolExecutor(1) as thread:
            metrics = Metrics(slow, "1", thread)
            gone, staying = (asyncio.create_task(metrics.exposition()) for _ in range(2))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            slow.may_end.set()
            return await staying

    assert events_in(asyncio.run(ask())) == 1


def test_a_collection_that_failed_is_not_kept() -> None:
    slow = Slow()
    slow.may_end.set()

    async def ask() -> bytes:
        with ThreadPoolExecutor(1) as thread:
            metrics = Metrics(slow, "1", thread, slow.monotonic)
            slow.failure = StoreUnavailable("away")
            with pytest.raises(StoreUnavailable):
                await metrics.exposition()
            slow.failure = None
            return await metrics.exposition()

    assert events_in(asyncio.run(ask())) == 2
