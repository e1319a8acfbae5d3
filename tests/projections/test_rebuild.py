from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from msgspec.structs import replace

from application.event_store import Taken
from application.process import delivery, issuance, upkeep
from application.process.issuance import next_step
from application.process.todo import Claim, Decision, Step
from domain.order import Order
from interfaces.postgres.migrate import is_migrated, migrate
from interfaces.postgres.rebuild import Difference, compare_todo, compare_view, rebuild_view, replace_todo
from interfaces.postgres.todo_list import PostgresTodoList
from projections.audit_log import AUDIT_LOG
from projections.tokens import TOKENS
from projections.views import FOLLOWING, INLINE, View
from tests.projections.live import Live
from tests.projections.story import BEGIN, BY, DECISIONS, Story, account, placed

EVERY_VIEW = pytest.mark.parametrize("view", [*INLINE, *FOLLOWING], ids=lambda view: view.name)
CHANGE = "tenant_id = 'tnt_x'"
CHANGES = {
    "polling_cursors": "position = position + 1",
    "rate_limits": "blocked_until = now()",
    "delivery_statistics": "attempts = attempts + 1",
    "order_statistics": "amount = amount + 1",
}
DEADLINE_SECONDS = 30.0
LEASE = timedelta(minutes=1)


@pytest.fixture
def told(live: Live) -> Live:
    """A store with a history that all views have taken."""
    for number in range(2):
        Story(live.store, number).tell()
    live.catch_up()
    return live


def compare(live: Live, view: View) -> Difference:
    return compare_view(live.pool, view, live.recorder.read, live.catch_up)


def rebuild(live: Live, view: View) -> None:
    rebuild_view(live.pool, view, live.recorder.read)


# --- views ----------------------------------------------------------------------------------------------------------


@EVERY_VIEW
def test_a_rebuilt_view_equals_the_live_one_row_by_row(view: View, told: Live) -> None:
    before = told.views()

    difference = compare(told, view)
    rebuild(told, view)

    assert difference == Difference(view.name, len(before[view.name]), 0, 0)
    assert difference.is_equal
    assert told.views() == before


@EVERY_VIEW
def test_comparing_leaves_nothing_behind(view: View, told: Live) -> None:
    before = told.everything()

    compare(told, view)

    assert told.everything() == before
    assert told.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'rebuilding'") == 0


@EVERY_VIEW
def test_a_changed_row_is_found_and_repaired(view: View, told: Live) -> None:
    before = told.views()
    rows = len(before[view.name])
    change = f"UPDATE {view.name} SET {CHANGES.get(view.name, CHANGE)} WHERE ctid = (SELECT min(ctid) FROM {view.name})"
    assert told.execute(change) == 1

    assert compare(told, view) == Difference(view.name, rows, 1, 1)
    rebuild(told, view)
    assert told.views() == before
    assert compare(told, view).is_equal


@EVERY_VIEW
def test_a_missing_row_is_found_and_repaired(view: View, told: Live) -> None:
    before = told.views()
    rows = len(before[view.name])
    assert told.execute("DELETE FROM {0} WHERE ctid = (SELECT min(ctid) FROM {0})".format(view.name)) == 1  # noqa: UP032

    assert compare(told, view) == Difference(view.name, rows, 0, 1)
    rebuild(told, view)
    assert told.views() == before


@EVERY_VIEW
def test_a_view_that_was_dropped_is_made_anew(view: View, told: Live) -> None:
    before = told.views()
    told.execute(f"DROP TABLE {view.name}")

    rebuild(told, view)

    assert told.views() == before


def test_one_character_in_one_document_is_found(told: Live) -> None:
    told.execute("UPDATE tokens SET document = replace(document::text, 'revoked', 'active')::json")

    difference = compare(told, TOKENS)

    assert (difference.only_live, difference.only_rebuilt) == (2, 2)
    assert not difference.is_equal


def test_a_follower_that_is_behind_is_brought_up_before_it_is_compared(told: Live) -> None:
    Story(told.store, 2).tell()

    assert compare(told, AUDIT_LOG).is_equal


def test_a_rebuilt_follower_goes_on_at_the_end(told: Live) -> None:
    Story(told.store, 2).tell()
    rebuild(told, AUDIT_LOG)
    rebuilt = told.table("audit_log")

    told.catch_up()
    assert told.table("audit_log") == rebuilt
    told.store.record(account("acme_account_x", BEGIN, name="x"), by=BY)
    told.catch_up()
    assert len(told.table("audit_log")) == len(rebuilt) + 1
    assert compare(told, AUDIT_LOG).is_equal


def test_constraints_hold_after_rebuilds_as_before(told: Live) -> None:
    for view in (*INLINE, *INLINE):
        rebuild(told, view)
    told.store.record(account("acme_account_x", BEGIN, name="x"), placed("acme_order_x", BEGIN, "cert_x"), by=BY)

    with pytest.raises(Taken, match="accounts_name"):
        told.store.record(account("acme_account_y", BEGIN, name="x"), by=BY)
    with pytest.raises(Taken, match="orders_running"):
        told.store.record(placed("acme_order_y", BEGIN, "cert_y"), by=BY)


@contextmanager
def somebody_appending(live: Live) -> Iterator[None]:
    """Tells one story after the other, and lets the audit log follow, until the block ends."""
    stop = threading.Event()

    def tell() -> int:
        number = 100
        while not stop.is_set():
            Story(live.store, number).tell()
            number += 1
        return number - 100

    def follow() -> None:
        while not stop.is_set():
            live.catch_up()

    with ThreadPoolExecutor(2) as threads:
        teller, follower = threads.submit(tell), threads.submit(follow)
        try:
            yield
        finally:
            stop.set()
        assert teller.result(DEADLINE_SECONDS) > 0
        follower.result(DEADLINE_SECONDS)


def test_a_rebuild_loses_nothing_while_others_append(told: Live) -> None:
    with somebody_appending(told):
        for view in (*INLINE, *FOLLOWING):
            assert compare(told, view).is_equal
            rebuild(told, view)
            assert compare(told, view).is_equal
        assert compare_todo(told.pool, told.store, DECISIONS).is_equal
        replace_todo(told.pool, told.store, DECISIONS)

    for view in (*INLINE, *FOLLOWING):
        assert compare(told, view).is_equal, view.name
    assert compare_todo(told.pool, told.store, DECISIONS).is_equal


def test_a_view_whose_form_changed_is_rebuilt_by_a_migration(told: Live) -> None:
    before = told.views()
    assert is_migrated(told.pool, DECISIONS)
    assert migrate(told.pool, told.recorder.read, told.store, DECISIONS) == []
    told.execute("UPDATE views SET fingerprint = 'of an older form' WHERE name IN ('orders', 'audit_log')")
    told.execute("DELETE FROM orders")
    assert not is_migrated(told.pool, DECISIONS)

    assert migrate(told.pool, told.recorder.read, told.store, DECISIONS) == ["built orders", "built audit_log"]

    assert told.views() == before
    assert is_migrated(told.pool, DECISIONS)


# --- the to-do list -------------------------------------------------------------------------------------------------


def todo(live: Live) -> list[tuple[str, str, str, str | None, str | None, int]]:
    """Each row's process, subject and step, and what it waits for beside its time."""
    query = "SELECT process, subject, step, lane, queue, place FROM todo ORDER BY subject, process"
    with live.pool.connection() as connection:
        return connection.execute(query).fetchall()


def claim_one(live: Live) -> Claim:
    (claim,) = todo_list(live).claim(issuance.NAME, 1, LEASE).claims
    return claim


def todo_list(live: Live) -> PostgresTodoList:
    return PostgresTodoList(live.pool, in_lanes=[delivery.NAME])


def test_the_folded_list_equals_the_live_one(told: Live) -> None:
    before = told.table("todo")

    difference = compare_todo(told.pool, told.store, DECISIONS)
    replace_todo(told.pool, told.store, DECISIONS)

    assert difference == Difference("todo", len(before), 0, 0)
    assert len(before) >= 4
    assert told.table("todo") == before


@pytest.mark.parametrize(
    ("damage", "only_live", "only_rebuilt"),
    [
        ("UPDATE todo SET step = 'SealKey' WHERE step = 'RemoveRecords' AND subject ~ '_000'", 1, 1),
        ("UPDATE todo SET version = version + 1 WHERE step = 'RemoveRecords' AND subject ~ '_000'", 1, 1),
        ("UPDATE todo SET due_at = due_at - interval '1 s' WHERE subject ~ 'del_000.*2$'", 1, 1),
        ("UPDATE todo SET lane = 'sub_x' WHERE subject ~ 'del_000.*2$'", 1, 1),
        ("UPDATE todo SET lane = NULL WHERE subject ~ 'del_000.*5$'", 1, 1),
        ("UPDATE todo SET queue = NULL WHERE subject ~ 'del_000.*2$'", 1, 1),
        ("UPDATE todo SET place = 99 WHERE subject ~ 'del_000.*2$'", 1, 1),
        ("DELETE FROM todo WHERE process = 'issuance' AND subject ~ '_000'", 0, 4),
        ("INSERT INTO todo VALUES ('issuance', 'acme_order_x', 1, 'SealKey', now())", 1, 0),
    ],
    ids=["step", "version", "due sooner", "lane", "no lane", "no queue", "place", "missing", "left over"],
)
def test_a_wrong_row_is_found_and_repaired(damage: str, only_live: int, only_rebuilt: int, told: Live) -> None:
    before = todo(told)
    assert told.execute(damage) == max(only_live, only_rebuilt)

    found = compare_todo(told.pool, told.store, DECISIONS)
    assert (found.only_live, found.only_rebuilt) == (only_live, only_rebuilt)

    replace_todo(told.pool, told.store, DECISIONS)
    assert todo(told) == before
    assert compare_todo(told.pool, told.store, DECISIONS).is_equal


def test_a_list_that_was_emptied_comes_back(told: Live) -> None:
    before = todo(told)
    told.execute("DELETE FROM todo")

    replace_todo(told.pool, told.store, DECISIONS)

    assert todo(told) == before
    assert {row[0] for row in before} == {decision.process for deciding in DECISIONS.values() for decision in deciding}


def test_what_comes_back_can_be_claimed(told: Live) -> None:
    told.execute("DELETE FROM todo")

    replace_todo(told.pool, told.store, DECISIONS)

    for process in (issuance.NAME, delivery.NAME, upkeep.NAME):
        due = [subject for name, subject, *_ in todo(told) if name == process]
        claims = todo_list(told).claim(process, 100, LEASE).claims
        assert {claim.subject for claim in claims} == set(due)
        assert due


def test_with_nothing_to_do_the_list_is_emptied(live: Live) -> None:
    live.execute("INSERT INTO todo VALUES ('issuance', 'acme_order_x', 1, 'SealKey', now())")

    replace_todo(live.pool, live.store, DECISIONS)

    assert todo(live) == []


def test_a_step_that_is_put_off_to_be_tried_again_is_no_difference(told: Live) -> None:
    todo_list(told).release(claim_one(told), timedelta(minutes=5))

    assert compare_todo(told.pool, told.store, DECISIONS).is_equal


def test_a_lease_outlives_the_replacing_of_the_list(told: Live) -> None:
    claim = claim_one(told)

    replace_todo(told.pool, told.store, DECISIONS)

    assert list(todo_list(told).extend([claim], LEASE)) == [claim]


def test_what_is_recorded_while_the_list_is_folded_stays_on_it(told: Live) -> None:
    late = placed("acme_order_late", BEGIN, "cert_late", "late.example")
    changed = told.store.load(Order, Story(told.store, 0).id("acme_order", 5))

    def next_step_and_somebody_appends(order: Order) -> Step | None:
        if late.pending_events:
            changed.cancel(BEGIN)
            told.store.record(late, changed, by=BY)
        return next_step(order)

    replace_todo(
        told.pool,
        told.store,
        {**DECISIONS, Order: [Decision(issuance.NAME, next_step_and_somebody_appends)]},
    )

    subjects = [row[1] for row in todo(told)]
    assert "acme_order_late" in subjects
    assert changed.id not in subjects
    assert compare_todo(told.pool, told.store, DECISIONS).is_equal


def test_a_difference_is_equal_only_without_any_row_of_its_own() -> None:
    same = Difference("tokens", 3, 0, 0)

    assert same.is_equal
    assert not replace(same, only_live=1).is_equal
    assert not replace(same, only_rebuilt=1).is_equal
    assert not replace(same, only_live=1, only_rebuilt=1).is_equal
