"""A database of the first release, whose deliveries know nothing of lanes, goes on as one of today's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from application.process import delivery, issuance
from application.process.fan_out import FanOut
from domain.certificate import Certificate
from domain.delivery import Delivery, delivery_id
from interfaces.postgres.embedded import EmbeddedPostgres
from interfaces.postgres.migrate import BOOKKEEPING, _files, is_migrated, migrate
from interfaces.postgres.pool import Pool, open_pool
from interfaces.postgres.rebuild import compare_todo, compare_view
from interfaces.postgres.todo_list import PostgresTodoList
from projections.announcements import ANNOUNCEMENTS
from projections.catch_up import catch_up
from projections.deliveries import DELIVERIES
from projections.subscriptions import SUBSCRIPTIONS
from projections.terms import TERMS
from projections.views import FOLLOWING, INLINE
from tests.fakes import FakeClock
from tests.projections.live import Live
from tests.projections.story import BY, DECISIONS, TENANT, version
from tests.test_golden_events import FOLDER

FIRST_RELEASE = ("0001_event_store.sql", "0002_sealed.sql", "0003_embedded_dns.sql")
LEASE = timedelta(minutes=1)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 13, tzinfo=UTC)
SUBSCRIPTION_ID = "sub_01m844dzqt0gx731vmrnsbv2h5"
CERTIFICATE_ID = "cert_01m844dzqt5syjr0x9a1xe4sfc"
RENEWED_AT = datetime(2026, 11, 23, 12, 0, 36, 250000, tzinfo=UTC)
WAITING, FAILED, DELIVERED = (
    delivery_id(f"{SUBSCRIPTION_ID}{suffix}", 3, None, RENEWED_AT) for suffix in ("", "b", "c")
)
OLD_APPEND = """
SELECT * FROM append_events(
    %s, %s, %s, %s::json[], %s::json, %s, %s, %s, %s, %s::timestamptz[], NULL, NULL, NULL)
"""
OLD_SUBSCRIPTIONS = """
CREATE TABLE subscriptions (id text PRIMARY KEY, tenant_id text NOT NULL, first_position bigint NOT NULL,
    position bigint NOT NULL, document json NOT NULL);
CREATE INDEX ON subscriptions (tenant_id, first_position);
INSERT INTO views VALUES ('subscriptions', 'of an older form')
"""


@pytest.fixture
def unmigrated(postgres: EmbeddedPostgres) -> Iterator[Pool]:
    """A database with nothing in it at all."""
    name = "first_release"
    with psycopg.connect(make_conninfo(postgres.dsn, dbname="postgres"), autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
        try:
            with open_pool(make_conninfo(postgres.dsn, dbname=name), 4) as pool:
                yield pool
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def golden(name: str, **columns: Any) -> dict[str, Any]:
    """What was stored by the first release, with other columns and, of `state`, other fields."""
    document = json.loads((FOLDER / f"{name}@1.json").read_text())
    return {**document, **columns, "state": document["state"] | columns.get("state", {})}


def append(pool: Pool, event: Mapping[str, Any], *todo: tuple[str, str, int, str | None, datetime]) -> None:
    """By the function of the first release."""
    rows: Sequence[Sequence[Any]] = list(zip(*todo, strict=True)) if todo else [[]] * 5
    with pool.connection() as connection:
        connection.execute(
            OLD_APPEND,
            [
                [event["originator_id"]],
                [event["originator_version"]],
                [event["topic"]],
                [json.dumps(event["state"])],
                json.dumps({"tenant_id": TENANT, "identity_type": "token", "identity_id": "tok_1"}),
                *map(list, rows),
            ],
        )


@pytest.fixture
def old(unmigrated: Pool) -> Pool:
    """A subscription, a certificate issued and renewed, three deliveries of which one was delivered, and an order."""
    by_name = dict(_files())
    with unmigrated.connection() as connection:
        connection.execute(BOOKKEEPING)
        for name in FIRST_RELEASE:
            connection.execute(by_name[name].encode())
            connection.execute("INSERT INTO migrations (name) VALUES (%s)", [name])
        connection.execute(OLD_SUBSCRIPTIONS)
    append(unmigrated, golden("subscription.subscribed"))
    append(unmigrated, golden("certificate.issued"))
    append(unmigrated, golden("certificate.renewed"))
    others = [golden("subscription.subscribed", originator_id=SUBSCRIPTION_ID + suffix) for suffix in ("b", "c")]
    owners = {WAITING: SUBSCRIPTION_ID, FAILED: SUBSCRIPTION_ID + "b", DELIVERED: SUBSCRIPTION_ID + "c"}
    for other in others:
        append(unmigrated, other)
    for subject, owner in owners.items():
        owed = golden("delivery.owed", originator_id=subject, state={"position": 3, "subscription_id": owner})
        append(unmigrated, owed, ("delivery", subject, 1, "Attempt", LONG_AGO))
    failed = golden("delivery.attempt_failed", originator_id=FAILED)
    append(unmigrated, failed, ("delivery", FAILED, 2, "Attempt", LONG_AGO + timedelta(hours=1)))
    taken = golden("delivery.delivered", originator_id=DELIVERED, originator_version=2)
    append(unmigrated, taken, ("delivery", DELIVERED, 2, None, LONG_AGO))
    order = golden("order.placed")
    append(unmigrated, order, ("issuance", order["originator_id"], 1, "SealKey", LONG_AGO))
    with unmigrated.connection() as connection:
        connection.execute("INSERT INTO positions VALUES ('delivery_fan_out', 3)")
    return unmigrated


@pytest.fixture
def migrated(old: Pool) -> Live:
    live = Live(old)
    migrate(old, live.recorder.read, live.store, DECISIONS)
    return live


def todo_list(live: Live) -> PostgresTodoList:
    return PostgresTodoList(live.pool, in_lanes=[delivery.NAME])


def fan_out(live: Live) -> int:
    follower = FanOut(live.store, partial(TERMS.since, live.pool), FakeClock(NOW))
    return catch_up(live.pool, follower, partial(ANNOUNCEMENTS.read, live.pool))


def test_what_is_missing_is_applied_and_the_views_are_built(old: Pool) -> None:
    live = Live(old)
    before = live.table("events")
    assert not is_migrated(old, DECISIONS)

    done = migrate(old, live.recorder.read, live.store, DECISIONS)

    later = [name for name, _ in _files() if name not in FIRST_RELEASE]
    assert done == [
        *(f"applied {name}" for name in later),
        *(f"built {view.name}" for view in (*INLINE, *FOLLOWING)),
        *(
            f"began {process}"
            for process in ("account", "delivery", "issuance", "renewal", "renewal_info", "subscription")
        ),
    ]
    assert "0004_lanes_and_responses.sql" in later
    assert is_migrated(old, DECISIONS)
    assert migrate(old, live.recorder.read, live.store, DECISIONS) == []
    assert live.table("events") == before


def test_each_delivery_that_is_still_owed_stands_in_the_lane_of_its_subscription(migrated: Live) -> None:
    with migrated.pool.connection() as connection:
        rows = connection.execute("SELECT process, subject, step, lane, queue FROM todo").fetchall()

    order_id = golden("order.placed")["originator_id"]
    assert set(rows) == {
        ("delivery", WAITING, "Attempt", SUBSCRIPTION_ID, None),
        ("delivery", FAILED, "Attempt", SUBSCRIPTION_ID + "b", None),
        ("issuance", order_id, "SealKey", None, None),
        ("renewal", CERTIFICATE_ID, "BeginRenewal", None, None),
        ("renewal_info", CERTIFICATE_ID, "AskRenewalInfo", golden("certificate.issued")["state"]["account_id"], None),
    }


def test_what_was_to_be_done_can_be_claimed_the_longest_due_first(migrated: Live) -> None:
    deliveries = todo_list(migrated).claim(delivery.NAME, 10, LEASE).claims
    orders = todo_list(migrated).claim(issuance.NAME, 10, LEASE).claims

    assert [claim.subject for claim in deliveries] == [WAITING, FAILED]
    assert len(orders) == 1


def test_an_attempt_is_made_and_reported_as_ever(migrated: Live) -> None:
    claims = {claim.subject: claim for claim in todo_list(migrated).claim(delivery.NAME, 10, LEASE).claims}
    last = len(migrated.history)
    waiting = migrated.store.load(Delivery, WAITING)
    failed = migrated.store.load(Delivery, FAILED)
    assert (waiting.attempts, failed.attempts) == (0, 1)

    waiting.delivered(204, 12, NOW)
    migrated.store.record(waiting, by=BY, claim=claims[WAITING])
    failed.attempt_failed(503, "the receiver answered 503", None, 12, 0.5, NOW + timedelta(days=36500))
    migrated.store.record(failed, by=BY, claim=claims[FAILED])

    assert [recorded.position for recorded in migrated.history][last:] == [last + 1, last + 2]
    with migrated.pool.connection() as connection:
        rows = connection.execute(
            "SELECT subject, version, lane, place FROM todo WHERE process = 'delivery'"
        ).fetchall()
    assert rows == [(FAILED, 3, SUBSCRIPTION_ID + "b", 3)]


def test_the_views_show_what_the_first_release_wrote(migrated: Live) -> None:
    shown = {view.id: (view.status, view.attempts) for _, view in DELIVERIES.page(migrated.pool, TENANT, -1, 9, {})}
    assert shown == {WAITING: ("pending", 0), FAILED: ("pending", 1), DELIVERED: ("delivered", 1)}
    assert [view.status for _, view in SUBSCRIPTIONS.page(migrated.pool, TENANT, -1, 9, {})] == ["active"] * 3
    assert [(terms.after, terms.upto) for terms in TERMS.since(migrated.pool, 0)] == [(1, None), (4, None), (5, None)]
    assert [announced.position for announced in ANNOUNCEMENTS.read(migrated.pool, 0, 9)] == [2, 3]
    for view in (*INLINE, *FOLLOWING):
        assert compare_view(migrated.pool, view, migrated.recorder.read, migrated.catch_up).is_equal


def test_the_same_event_is_not_owed_again_however_far_back_it_is_read(migrated: Live) -> None:
    before = migrated.table("events")
    assert fan_out(migrated) == 3

    migrated.execute("UPDATE positions SET position = 0 WHERE reader = 'delivery_fan_out'")
    assert fan_out(migrated) == 3

    assert migrated.table("events") == before


def test_what_happens_next_is_owed_to_those_who_subscribed_before(migrated: Live) -> None:
    certificate = migrated.store.load(Certificate, CERTIFICATE_ID)
    certificate.renew(version(3, "acme_order_3"), "manual", NOW)
    migrated.store.record(certificate, by=BY)

    fan_out(migrated)

    *_, renewed = ANNOUNCEMENTS.read(migrated.pool, 3, 9)
    owed = [recorded.event for recorded in migrated.history if recorded.position > renewed.position]
    assert all(isinstance(event, Delivery.Owed) and event.event_id == renewed.event_id for event in owed)
    with migrated.pool.connection() as connection:
        query = "SELECT lane FROM todo WHERE place = %s ORDER BY lane"
        lanes = connection.execute(query, [renewed.position]).fetchall()
    assert lanes == [(SUBSCRIPTION_ID,), (SUBSCRIPTION_ID + "b",), (SUBSCRIPTION_ID + "c",)]
    assert len(owed) == len(lanes)


def test_the_list_is_what_the_events_say(migrated: Live) -> None:
    with migrated.pool.connection() as connection:
        rows = connection.execute("SELECT subject, place FROM todo WHERE process = 'delivery'").fetchall()

    assert set(rows) == {(WAITING, 3), (FAILED, 3)}
    migrated.execute("UPDATE todo SET due_at = '2100-01-01T00:00:00Z'")  # whatever is due later was put off
    assert compare_todo(migrated.pool, migrated.store, DECISIONS).is_equal
