"""The event store's recorder, its history and the to-do list: the fake and PostgreSQL mean the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from eventsourcing.domain import BaseAggregate
from eventsourcing.persistence import NotSupportedError

from application.event_store import EventStore
from application.mapper import EventMapper
from application.process.delivery import DECISION, Attempt, next_step
from application.process.todo import (
    MOST_IN_A_LANE,
    NO_LIMITS,
    Claim,
    Claimed,
    Decision,
    LeaseLost,
    TodoItem,
    TodoList,
    Turn,
)
from domain.access import private_key_read
from domain.delivery import Delivery
from domain.errors import NotFound, VersionConflict
from domain.provenance import Provenance, Recorded
from domain.secret import Secret
from domain.token import Limits, Token
from interfaces.postgres.pool import Pool
from interfaces.postgres.recorder import PostgresRecorder
from interfaces.postgres.todo_list import PostgresTodoList
from projections.views import INLINE
from tests.fakes import ALL, FakeClock, MemoryStore

LEASE = timedelta(seconds=15)
HOUR = timedelta(hours=1)
BY = Provenance("tnt_default", "token", "tok_1", "req_1", "order@3", "192.0.2.1", "curl/8")
IN_LANES, ALSO_IN_LANES, ALONE = "delivery", "also in lanes", "alone"
Decisions = Mapping[type[BaseAggregate[str]], Sequence[Decision]]


class MemoryWorld:
    def __init__(self, process: str) -> None:
        self.process = process
        self.clock = FakeClock()
        self.recorder = MemoryStore(self.clock)
        self.todo: TodoList = self.recorder
        self.store = self.decide_by(decision(process))

    def now(self) -> datetime:
        return self.clock.now()

    def pass_a_moment(self) -> None:
        """Afterwards it is a little later."""
        self.clock.advance(timedelta(milliseconds=1))

    def end_lease(self, claim: Claim) -> None:
        self.recorder._rows[claim.process, claim.subject].lease_until = self.now() - timedelta(seconds=1)

    def make_due(self, subject: str) -> None:
        self.recorder._rows[self.process, subject].due_at = self.now()

    def rows(self) -> Sequence[TodoItem]:
        """By subject."""
        return sorted(self.recorder.todo, key=lambda item: item.subject)

    def decide_by(self, of_deliveries: Decision, others: Decisions | None = None) -> EventStore:
        return EventStore(self.recorder, {Delivery: [of_deliveries], **(others or {})})


class PostgresWorld:
    def __init__(self, process: str, pool: Pool) -> None:
        self.process = process
        self.pool = pool
        self.recorder = PostgresRecorder(pool, EventMapper(), INLINE)
        self.todo: TodoList = PostgresTodoList(pool, in_lanes=[IN_LANES, ALSO_IN_LANES])
        self.store = self.decide_by(decision(process))

    def now(self) -> datetime:
        return datetime.now(UTC)

    def pass_a_moment(self) -> None:
        """Real time does so by itself."""

    def end_lease(self, claim: Claim) -> None:
        self._execute("UPDATE todo SET lease_until = clock_timestamp() - interval '1 s' WHERE subject = %s", claim)

    def make_due(self, subject: str) -> None:
        self._execute("UPDATE todo SET due_at = clock_timestamp() WHERE subject = %s", subject)

    def rows(self) -> Sequence[TodoItem]:
        columns = "process, subject, version, step, due_at, lane, queue, place"
        with self.pool.connection() as connection:
            rows = connection.execute(f"SELECT {columns} FROM todo ORDER BY subject".encode())
            return [
                TodoItem(process, subject, version, step, due_at, Turn(lane, queue, place))
                for process, subject, version, step, due_at, lane, queue, place in rows.fetchall()
            ]

    def decide_by(self, of_deliveries: Decision, others: Decisions | None = None) -> EventStore:
        return EventStore(self.recorder, {Delivery: [of_deliveries], **(others or {})})

    def _execute(self, statement: str, about: Claim | str) -> None:
        with self.pool.connection() as connection:
            subject = about.subject if isinstance(about, Claim) else about
            assert connection.execute(statement.encode(), [subject]).rowcount == 1


World = MemoryWorld | PostgresWorld


def decision(process: str) -> Decision:
    return DECISION if process == IN_LANES else Decision(process, next_step)


def world_of(request: pytest.FixtureRequest, process: str, kind: str) -> World:
    return MemoryWorld(process) if kind == "memory" else PostgresWorld(process, request.getfixturevalue("pool"))


@pytest.fixture(
    params=[(process, kind) for process in (ALONE, IN_LANES) for kind in ("memory", "postgres")], ids="-".join
)
def world(request: pytest.FixtureRequest) -> World:
    """Of a process whose rows stand in no lanes, and of one where each row has a lane of its own."""
    return world_of(request, *request.param)


@pytest.fixture(params=["memory", "postgres"])
def lanes(request: pytest.FixtureRequest) -> World:
    """Of a process whose rows stand in lanes."""
    return world_of(request, IN_LANES, request.param)


def owed(subject: str, due_at: datetime, lane: str | None = None, place: int = 1, path: str | None = None) -> Delivery:
    """A delivery whose first attempt is due at the given time; in a queue where it has a path."""
    return Delivery.owe(
        subject,
        tenant_id="tnt_default",
        subscription_id=lane or f"sub_of_{subject}",
        position=place,
        event_type="certificate.issued",
        event_id="evt_1",
        path=path or "pki/certificates/cert_1",
        ordered=path is not None,
        replay_id=None,
        now=due_at,
    )


def fail_attempt(delivery: Delivery, now: datetime) -> None:
    """The next attempt is due some seconds after `now`."""
    delivery.attempt_failed(503, "the receiver answered 503", None, 120, 0.5, now)


def token(token_id: str, now: datetime) -> Token:
    return Token.issue(
        token_id,
        tenant_id="tnt_default",
        name=None,
        scopes=("pki:read",),
        limits=Limits(),
        expires_at=now + HOUR,
        sealed_verifier_id="sealed_1",
        now=now,
    )


def record_owed(world: World, *subjects: str, due_in: timedelta = -HOUR) -> None:
    for subject in subjects:
        world.store.record(owed(subject, world.now() + due_in), by=BY)


def claim(world: World, limit: int, lease: timedelta = LEASE, lane_limits: Mapping[str, int] = NO_LIMITS) -> Claimed:
    return world.todo.claim(world.process, limit, lease, lane_limits)


def claims(world: World, limit: int = 10) -> Sequence[Claim]:
    return claim(world, limit).claims


def claim_one(world: World) -> Claim:
    (only,) = claims(world, 1)
    return only


def subjects(claimed: Sequence[Claim]) -> list[str]:
    return [each.subject for each in claimed]


def many(prefix: str, number: int = 2 * MOST_IN_A_LANE + 2) -> list[str]:
    return [f"{prefix}_{each:02}" for each in range(number)]


def next_due_in(world: World) -> timedelta | None:
    """Asked by somebody who takes nothing."""
    return claim(world, 0).next_due_in


def report_failed_attempt(world: World, claim: Claim, at: datetime) -> bool:
    """Whether the claim goes on to the next step."""
    delivery = world.store.load(Delivery, claim.subject)
    fail_attempt(delivery, at)
    return world.store.record(delivery, by=BY, claim=claim)


def everything(world: World) -> tuple[Sequence[Recorded], Sequence[TodoItem]]:
    return world.recorder.read(0, ALL), world.rows()


# --- events ---------------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_loaded_again(world: World) -> None:
    delivery = owed("del_1", world.now())
    fail_attempt(delivery, world.now())
    world.store.record(delivery, by=BY)

    assert world.store.load(Delivery, "del_1") == delivery
    assert delivery.version == 2
    assert delivery.pending_events == []


def test_events_come_back_with_their_positions_and_with_who_caused_them(world: World) -> None:
    delivery = owed("del_1", world.now())
    fail_attempt(delivery, world.now())
    events = list(delivery.pending_events)
    world.store.record(delivery, by=BY)
    nobody = Provenance("tnt_2", "system", "renewal")
    access = private_key_read("acc_1", "cert_1", 1, world.now())
    world.store.record(access, by=nobody)

    assert world.recorder.read(0, ALL) == [
        Recorded(1, events[0], BY),  # type: ignore[arg-type]
        Recorded(2, events[1], BY),  # type: ignore[arg-type]
        Recorded(3, access, nobody),
    ]


def test_each_event_of_one_append_has_who_caused_it(world: World) -> None:
    nobody = Provenance("tnt_2", "system", "delivery", causation="cert_1@1")
    first, second = owed("del_1", world.now()), owed("del_2", world.now())
    fail_attempt(first, world.now())
    access = private_key_read("acc_1", "cert_1", 1, world.now())

    world.store.record_each([(first, BY), (second, nobody), (access, BY)])

    written = [(each.position, each.event.originator_id, each.by) for each in world.recorder.read(0, ALL)]
    assert written == [(1, "del_1", BY), (2, "del_1", BY), (3, "del_2", nobody), (4, "acc_1", BY)]
    assert world.recorder.origin("del_2") == nobody
    assert [item.subject for item in world.rows()] == ["del_1", "del_2"]
    assert first.pending_events == second.pending_events == []


def test_of_one_append_that_is_caused_by_several_all_is_recorded_or_nothing(world: World) -> None:
    nobody = Provenance("tnt_2", "system", "delivery")
    record_owed(world, "del_2")
    before = everything(world)

    with pytest.raises(VersionConflict):
        world.store.record_each([(owed("del_1", world.now()), BY), (owed("del_2", world.now()), nobody)])
    assert not world.store.record_each([])

    assert everything(world) == before


def test_an_aggregate_is_not_found_under_another_class_tenant_or_id(world: World) -> None:
    record_owed(world, "del_1")

    assert world.store.load(Delivery, "del_1", "tnt_default").id == "del_1"
    for aggregate_class, subject, tenant_id in (
        (Token, "del_1", None),
        (Delivery, "del_1", "tnt_2"),
        (Delivery, "del_2", None),
    ):
        with pytest.raises(NotFound):
            world.store.load(aggregate_class, subject, tenant_id)


def test_nothing_pending_records_nothing(world: World) -> None:
    world.store.record(by=BY)
    delivery = owed("del_1", world.now())
    world.store.record(delivery, by=BY)
    world.store.record(delivery, by=BY)

    assert [recorded.position for recorded in world.recorder.read(0, ALL)] == [1]


def test_a_version_conflict_records_nothing(world: World) -> None:
    record_owed(world, "del_1")
    first, second = world.store.load(Delivery, "del_1"), world.store.load(Delivery, "del_1")
    fail_attempt(first, world.now())
    world.store.record(first, by=BY)
    before = everything(world)
    second.delivered(200, 30, world.now())

    with pytest.raises(VersionConflict):
        world.store.record(second, by=BY)

    assert everything(world) == before


def test_the_same_id_again_is_a_version_conflict(world: World) -> None:
    record_owed(world, "del_1")

    with pytest.raises(VersionConflict):
        world.store.record(owed("del_1", world.now()), by=BY)


def test_two_aggregates_in_one_append_are_recorded_together_or_not_at_all(world: World) -> None:
    record_owed(world, "del_1")
    behind = world.store.load(Delivery, "del_1")
    fail_attempt(behind, world.now())
    ahead = world.store.load(Delivery, "del_1")
    fail_attempt(ahead, world.now())
    world.store.record(ahead, by=BY)
    before = everything(world)

    with pytest.raises(VersionConflict):
        world.store.record(owed("del_2", world.now()), token("tok_2", world.now()), behind, by=BY)

    assert everything(world) == before
    world.store.record(owed("del_2", world.now()), token("tok_2", world.now()), by=BY)
    assert world.store.load(Delivery, "del_2").version == world.store.load(Token, "tok_2").version == 1
    assert [item.subject for item in world.rows()] == ["del_1", "del_2"]


def test_what_could_not_be_recorded_is_still_pending(world: World) -> None:
    record_owed(world, "del_1")
    newcomer = token("tok_2", world.now())

    with pytest.raises(VersionConflict):
        world.store.record(newcomer, owed("del_1", world.now()), by=BY)

    world.store.record(newcomer, by=BY)
    assert world.store.load(Token, "tok_2") == newcomer


def test_of_many_writers_of_one_version_one_wins(world: World) -> None:
    record_owed(world, "del_1")
    everybody_has_loaded = Barrier(4)

    def write(status: int) -> bool:
        delivery = world.store.load(Delivery, "del_1")
        delivery.delivered(status, 30, world.now())
        everybody_has_loaded.wait(timeout=10)
        try:
            world.store.record(delivery, by=BY)
        except VersionConflict:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(write, [200, 201, 202, 204]))

    assert sorted(outcomes) == [False, False, False, True]
    assert [recorded.position for recorded in world.recorder.read(0, ALL)] == [1, 2]


def test_positions_have_no_gaps_after_refused_appends(world: World) -> None:
    for number in range(1, 6):
        record_owed(world, f"del_{number}")
        with pytest.raises(VersionConflict):
            record_owed(world, f"del_{number}")

    assert [recorded.position for recorded in world.recorder.read(0, ALL)] == [1, 2, 3, 4, 5]


def test_the_history_is_read_in_pages(world: World) -> None:
    assert list(world.recorder.read(0, 3)) == []
    record_owed(world, *(f"del_{number}" for number in range(7)))
    whole = list(world.recorder.read(0, ALL))

    pages = [list(world.recorder.read(after, 3)) for after in (0, 3, 6, 7, 100)]

    assert [len(page) for page in pages] == [3, 3, 1, 0, 0]
    assert [recorded for page in pages for recorded in page] == whole


def test_one_aggregate_is_read_from_a_version_to_a_version(world: World) -> None:
    secret = Secret.store(
        tenant_id="tnt_default", path="a/b", secret_type="kv", metadata={}, sealed_id="sealed_1", now=world.now()
    )
    for number in range(2, 6):
        secret.add_version("kv", {"number": number}, f"sealed_{number}", world.now())
    world.store.record(secret, by=BY)
    record_owed(world, "del_1")

    def versions(*, gt: int | None = None, lte: int | None = None, limit: int | None = None) -> list[int]:
        found = world.recorder.select_events(secret.id, gt=gt, lte=lte, limit=limit)
        backwards = world.recorder.select_events(secret.id, gt=gt, lte=lte, desc=True)
        assert limit is not None or list(reversed(backwards)) == list(found)
        return [stored.originator_version for stored in found]

    assert versions() == [1, 2, 3, 4, 5]
    assert versions(gt=2) == [3, 4, 5]
    assert versions(gt=1, lte=3) == [2, 3]
    assert versions(limit=2) == [1, 2]
    newest = world.recorder.select_events(secret.id, desc=True, limit=1)
    assert [stored.originator_version for stored in newest] == [5]


def test_notifications_are_the_history_in_the_words_of_the_library(world: World) -> None:
    assert world.recorder.max_notification_id() is None
    record_owed(world, "del_1", "del_2")
    world.store.record(token("tok_3", world.now()), by=BY)
    record_owed(world, "del_4")

    def ids(start: int | None, stop: int | None = None, *topics: str, inclusive: bool = True) -> list[int]:
        found = world.recorder.select_notifications(start, 10, stop, topics, inclusive_of_start=inclusive)
        return [notification.id for notification in found]

    assert world.recorder.max_notification_id() == 4
    assert ids(None) == ids(1) == [1, 2, 3, 4]
    assert ids(2, 3) == [2, 3]
    assert ids(2, 3, inclusive=False) == [3]
    assert ids(1, None, "token.issued") == [3]
    with pytest.raises(NotSupportedError):
        world.recorder.subscribe()


# --- the to-do list follows the events ------------------------------------------------------------------------------


def test_the_row_follows_the_next_step_and_goes_with_the_last(world: World) -> None:
    due_at = world.now() + HOUR
    delivery = owed("del_1", due_at)
    world.store.record(delivery, by=BY)
    waits_for = decision(world.process).turn(delivery)
    assert world.rows() == [TodoItem(world.process, "del_1", 1, "Attempt", due_at, waits_for)]

    fail_attempt(delivery, due_at)
    world.store.record(delivery, by=BY)
    later = due_at + timedelta(seconds=5)
    assert world.rows() == [TodoItem(world.process, "del_1", 2, "Attempt", later, waits_for)]

    delivery.delivered(200, 30, world.now())
    world.store.record(delivery, by=BY)
    assert world.rows() == []


def test_a_row_s_turn_follows_its_aggregate(world: World) -> None:
    store = world.decide_by(Decision(world.process, next_step, lambda each: Turn(f"lane {each.attempts}", "queue", 7)))
    delivery = owed("del_1", world.now())
    for attempts in range(3):
        store.record(delivery, by=BY)
        assert [item.turn for item in world.rows()] == [Turn(f"lane {attempts}", "queue", 7)]
        fail_attempt(delivery, world.now())


def test_an_aggregate_that_is_recorded_without_a_change_leaves_its_row_as_it_is(world: World) -> None:
    record_owed(world, "del_1", due_in=-HOUR)
    behind = world.store.load(Delivery, "del_1")
    ahead = world.store.load(Delivery, "del_1")
    fail_attempt(ahead, world.now())
    world.store.record(ahead, by=BY)
    before = world.rows()

    world.store.record(token("tok_1", world.now()), behind, by=BY)

    assert world.rows() == before


def test_an_aggregate_that_nobody_decides_about_has_no_row(world: World) -> None:
    world.store.record(token("tok_1", world.now()), by=BY)

    assert world.rows() == []


def test_what_is_not_due_is_not_claimed(world: World) -> None:
    record_owed(world, "del_1", due_in=HOUR)

    assert claims(world) == []


def test_the_longest_due_are_claimed_first(world: World) -> None:
    for subject, hours in (("del_1", 2), ("del_2", 9), ("del_3", 1), ("del_4", 5)):
        record_owed(world, subject, due_in=-hours * HOUR)

    assert subjects(claims(world, 3)) == ["del_2", "del_4", "del_1"]
    assert subjects(claims(world, 3)) == ["del_3"]


def test_each_row_is_claimed_by_one_worker_only(world: World) -> None:
    rows = many("del", 40)
    record_owed(world, *rows)
    all_at_once = Barrier(4)

    def work(_: int) -> Sequence[Claim]:
        all_at_once.wait(timeout=10)
        return [each for _ in range(5) for each in claims(world, 3)]

    with ThreadPoolExecutor(4) as threads:
        claimed = [each for found in threads.map(work, range(4)) for each in found]

    claimed.extend(claims(world, 40))  # two that looked at the same rows may both have come away with fewer
    assert sorted(subjects(claimed)) == rows
    assert len({each.fence for each in claimed}) == 40
    assert {each.attempts for each in claimed} == {1}


# --- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_that_ended_is_claimed_by_another_under_a_new_fence(world: World) -> None:
    record_owed(world, "del_1")
    first = claim_one(world)
    assert claims(world, 1) == []
    world.end_lease(first)

    second = claim_one(world)

    assert second.subject == first.subject
    assert second.fence > first.fence
    assert second.attempts == 2


def test_a_lease_is_as_long_as_it_was_asked_for(world: World) -> None:
    record_owed(world, "del_1")
    claim(world, 1, timedelta(microseconds=1))
    world.pass_a_moment()

    assert claim_one(world).attempts == 2


def test_a_worker_that_lost_its_lease_writes_nothing(world: World) -> None:
    record_owed(world, "del_1")
    lost = claim_one(world)
    world.end_lease(lost)
    before = everything(world)

    with pytest.raises(LeaseLost):
        report_failed_attempt(world, lost, world.now())
    held = claim_one(world)
    with pytest.raises(LeaseLost):
        report_failed_attempt(world, lost, world.now())
    assert everything(world) == before

    report_failed_attempt(world, held, world.now())
    assert world.store.load(Delivery, "del_1").attempts == 1


def test_a_lost_lease_is_told_before_a_version_conflict(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)
    behind = world.store.load(Delivery, "del_1")
    fail_attempt(behind, world.now())
    report_failed_attempt(world, claim, world.now() - HOUR)
    world.end_lease(claim)

    with pytest.raises(LeaseLost):
        world.store.record(behind, by=BY, claim=claim)


def test_a_heartbeat_keeps_what_is_held_and_names_it(world: World) -> None:
    record_owed(world, "del_1", "del_2", "del_3")
    lapsed, taken_over, held = claims(world, 3)
    world.end_lease(lapsed)
    world.end_lease(taken_over)
    (again,) = [claim for claim in claims(world, 2) if claim.subject == taken_over.subject]
    world.todo.release(Claim(world.process, lapsed.subject, lapsed.fence + 100, 1), timedelta())

    assert list(world.todo.extend([lapsed, taken_over, held, again], LEASE)) == [held, again]
    assert list(world.todo.extend([], LEASE)) == []


def test_a_heartbeat_counts_the_lease_anew(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)

    assert list(world.todo.extend([claim], timedelta(microseconds=1))) == [claim]
    world.pass_a_moment()
    assert list(world.todo.extend([claim], LEASE)) == []
    assert claim_one(world).attempts == 2


def test_a_row_given_back_is_free_at_once(world: World) -> None:
    record_owed(world, "del_1")
    first = claim_one(world)
    world.todo.release(first, timedelta())

    second = claim_one(world)

    assert (second.attempts, second.fence > first.fence) == (2, True)


def test_a_row_given_back_for_later_is_not_due_before(world: World) -> None:
    record_owed(world, "del_1")
    world.todo.release(claim_one(world), HOUR)

    assert claims(world, 1) == []
    due_in = next_due_in(world)
    assert due_in is not None
    assert HOUR - timedelta(seconds=30) < due_in <= HOUR


def test_hastened_rows_are_due_now_but_for_those_that_are_held_and_those_of_others(world: World) -> None:
    record_owed(world, "del_1")
    world.todo.release(claim_one(world), HOUR)
    record_owed(world, "del_2")
    held = claim_one(world)

    world.todo.hasten("another")
    assert claims(world, 2) == []
    world.todo.hasten(world.process)
    (hastened,) = claims(world, 2)

    assert (hastened.subject, held.subject) == ("del_1", "del_2")


def test_giving_back_for_later_never_makes_a_row_due_sooner(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)
    report_failed_attempt(world, claim, world.now() + HOUR)
    before = world.rows()

    world.todo.release(claim, timedelta(seconds=2))

    assert world.rows() == before


def test_giving_back_what_another_holds_changes_nothing(world: World) -> None:
    record_owed(world, "del_1")
    lost = claim_one(world)
    world.end_lease(lost)
    held = claim_one(world)

    world.todo.release(lost, timedelta())
    world.todo.release(lost, HOUR)

    assert claims(world, 1) == []
    assert list(world.todo.extend([held], LEASE)) == [held]


def test_a_reporter_keeps_its_lease_while_the_next_step_is_due(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)

    assert report_failed_attempt(world, claim, world.now() - HOUR)

    assert claims(world, 1) == []
    assert report_failed_attempt(world, claim, world.now() - HOUR)
    assert world.store.load(Delivery, "del_1").attempts == 2


def test_a_reporter_gives_its_lease_back_when_the_next_step_is_for_later(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)

    assert not report_failed_attempt(world, claim, world.now() + HOUR)

    assert list(world.todo.extend([claim], LEASE)) == []
    with pytest.raises(LeaseLost):
        report_failed_attempt(world, claim, world.now())


def test_there_is_no_next_step_for_who_reports_the_last_or_holds_no_claim(world: World) -> None:
    record_owed(world, "del_1", "del_2")
    claim = claim_one(world)
    last, other = world.store.load(Delivery, "del_1"), world.store.load(Delivery, "del_2")
    last.delivered(200, 30, world.now())
    fail_attempt(other, world.now() - HOUR)

    assert not world.store.record(other, by=BY)
    assert not world.store.record(last, by=BY, claim=claim)


def test_the_lease_of_one_row_lets_nobody_write_under_that_of_another(world: World) -> None:
    record_owed(world, "del_1", "del_2")
    first, second = claims(world, 2)

    with pytest.raises(LeaseLost):
        report_failed_attempt(world, Claim(first.process, first.subject, second.fence, 1), world.now())


def test_somebody_elses_change_leaves_the_lease_to_its_holder(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)
    behind, other = world.store.load(Delivery, "del_1"), world.store.load(Delivery, "del_1")
    fail_attempt(other, world.now() + HOUR)
    world.store.record(other, by=BY)
    fail_attempt(behind, world.now())

    with pytest.raises(VersionConflict):
        world.store.record(behind, by=BY, claim=claim)

    assert list(world.todo.extend([claim], LEASE)) == [claim]
    report_failed_attempt(world, claim, world.now())


def test_a_worker_whose_row_is_gone_writes_nothing(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)
    delivery = world.store.load(Delivery, "del_1")
    delivery.delivered(200, 30, world.now())
    world.store.record(delivery, by=BY)

    with pytest.raises(LeaseLost):
        world.store.record(private_key_read("acc_1", "cert_1", 1, world.now()), by=BY, claim=claim)
    assert list(world.todo.extend([claim], LEASE)) == []
    world.todo.release(claim, timedelta())


# --- fences and attempts --------------------------------------------------------------------------------------------


def on_even_attempts(delivery: Delivery) -> Attempt | None:
    return Attempt(delivery.due_at) if delivery.attempts % 2 == 0 else None


def test_no_fence_comes_again_even_where_a_row_was_deleted_and_came_again(world: World) -> None:
    store = world.decide_by(Decision(world.process, on_even_attempts, decision(world.process).turn))
    delivery = owed("del_1", world.now() - HOUR)
    store.record(delivery, by=BY)
    first = claim_one(world)
    for rows in (0, 1):
        fail_attempt(delivery, world.now() - HOUR)
        store.record(delivery, by=BY)
        assert len(world.rows()) == rows

    second = claim_one(world)

    assert second.fence > first.fence
    assert second.attempts == 1
    with pytest.raises(LeaseLost):
        report_failed_attempt(world, first, world.now())


def claim_and_crash(world: World) -> None:
    world.todo.release(claim_one(world), timedelta())


def claim_and_lose(world: World) -> None:
    world.end_lease(claim_one(world))


@pytest.mark.parametrize("waste", [claim_and_crash, claim_and_lose])
def test_attempts_count_the_claims_since_the_last_progress(world: World, waste: Callable[[World], None]) -> None:
    record_owed(world, "del_1")
    waste(world)
    waste(world)
    claim = claim_one(world)
    assert claim.attempts == 3

    report_failed_attempt(world, claim, world.now() + HOUR)
    world.make_due("del_1")
    assert claim_one(world).attempts == 1


def test_attempts_of_a_step_begun_in_the_same_claim_count_that_claim(world: World) -> None:
    record_owed(world, "del_1")
    claim_and_crash(world)
    claim = claim_one(world)
    report_failed_attempt(world, claim, world.now() - HOUR)
    world.end_lease(claim)

    assert claim_one(world).attempts == 2


def test_somebody_elses_change_is_no_progress_of_the_step(world: World) -> None:
    record_owed(world, "del_1")
    claim_and_crash(world)
    delivery = world.store.load(Delivery, "del_1")
    fail_attempt(delivery, world.now() - HOUR)
    world.store.record(delivery, by=BY)

    assert claim_one(world).attempts == 2


# --- when to look again ---------------------------------------------------------------------------------------------


def is_about(wait: timedelta | None, expected: timedelta) -> bool:
    """The clock of PostgreSQL goes on."""
    return wait is not None and expected - timedelta(seconds=30) < wait <= expected


def test_an_empty_list_has_no_next_row(world: World) -> None:
    assert next_due_in(world) is None


def test_the_next_row_is_the_soonest_that_falls_due(world: World) -> None:
    record_owed(world, "del_1", due_in=2 * HOUR)
    record_owed(world, "del_2", due_in=HOUR)

    assert is_about(next_due_in(world), HOUR)


def test_a_lease_that_will_end_is_looked_at_again(world: World) -> None:
    record_owed(world, "del_1", due_in=HOUR)
    record_owed(world, "del_2")

    assert is_about(claim(world, 1).next_due_in, LEASE)
    assert is_about(next_due_in(world), LEASE)


def test_what_is_due_already_and_was_not_asked_for_is_nothing_to_wait_for(world: World) -> None:
    record_owed(world, "del_1", "del_2")
    record_owed(world, "del_3", due_in=HOUR)

    assert is_about(next_due_in(world), HOUR)


def test_what_was_given_back_for_later_is_waited_for(world: World) -> None:
    record_owed(world, "del_1")
    world.todo.release(claim_one(world), HOUR)

    assert is_about(next_due_in(world), HOUR)


# --- one process and another ----------------------------------------------------------------------------------------


def until_it_expires(token: Token) -> Attempt | None:
    return None if token.is_revoked else Attempt(token.expires_at)


def expiry(process: str, waits_for: Callable[[Any], Turn]) -> Decisions:
    return {Token: [Decision(process, until_it_expires, waits_for)]}


@pytest.mark.parametrize("other", [ALONE, IN_LANES])
def test_a_worker_claims_the_rows_of_its_own_process_only(world: World, other: str) -> None:
    other += " too"
    store = world.decide_by(decision(world.process), expiry(other, lambda _: Turn()))
    store.record(owed("del_1", world.now() - HOUR), token("tok_1", world.now() - 2 * HOUR), by=BY)

    (mine,) = claims(world)
    (theirs,) = world.todo.claim(other, 10, LEASE).claims

    assert (mine.process, mine.subject) == (world.process, "del_1")
    assert (theirs.process, theirs.subject) == (other, "tok_1")
    assert claims(world) == world.todo.claim(other, 10, LEASE).claims == []


def test_when_a_row_of_another_process_falls_due_is_not_told(world: World) -> None:
    store = world.decide_by(decision(world.process), expiry("another", lambda _: Turn()))
    store.record(token("tok_1", world.now()), by=BY)

    assert next_due_in(world) is None
    assert is_about(world.todo.claim("another", 10, LEASE).next_due_in, HOUR)


def test_lanes_and_queues_of_another_process_stand_in_nobody_s_way(lanes: World) -> None:
    def the_same(_: Token) -> Turn:
        return Turn("sub_1", "sub_1/a", 0)

    store = lanes.decide_by(DECISION, expiry(ALSO_IN_LANES, the_same))
    for number in range(MOST_IN_A_LANE):
        store.record(token(f"tok_{number}", lanes.now() - 2 * HOUR), by=BY)
    assert len(lanes.todo.claim(ALSO_IN_LANES, 10, LEASE).claims) == MOST_IN_A_LANE
    stand(lanes, "del_1", path="a")

    assert subjects(claims(lanes)) == ["del_1"]


# --- lanes ----------------------------------------------------------------------------------------------------------


def stand(
    world: World,
    *subjects: str,
    lane: str = "sub_1",
    due_in: timedelta = -HOUR,
    path: str | None = None,
    places: Sequence[int] | None = None,
) -> None:
    """In a lane, each a little later than the one before; with a path also in its queue, at the places given."""
    for number, subject in enumerate(subjects):
        place = places[number] if places else number + 1
        due_at = world.now() + due_in + timedelta(seconds=number)
        world.store.record(owed(subject, due_at, lane, place, path), by=BY)


def test_of_a_lane_so_many_are_held_at_once_the_longest_due(lanes: World) -> None:
    rows = many("del")
    stand(lanes, *rows)

    assert subjects(claims(lanes, 3)) == rows[:3]
    assert subjects(claims(lanes, 3)) == rows[3:MOST_IN_A_LANE]
    assert claims(lanes) == []


def test_of_rows_that_fell_due_together_the_lower_place_comes_first(lanes: World) -> None:
    due_at = lanes.now() - HOUR
    for place in (30, 10, 20):
        lanes.store.record(owed(f"del_{place}", due_at, "sub_1", place), by=BY)

    assert subjects(claims(lanes, 2)) == ["del_10", "del_20"]


def give_back(world: World, claim: Claim) -> None:
    world.todo.release(claim, HOUR)


def end(world: World, claim: Claim) -> None:
    delivery = world.store.load(Delivery, claim.subject)
    delivery.delivered(200, 30, world.now())
    world.store.record(delivery, by=BY, claim=claim)


def put_off(world: World, claim: Claim) -> None:
    report_failed_attempt(world, claim, world.now() + HOUR)


@pytest.mark.parametrize("leave", [give_back, end, put_off])
def test_a_row_that_is_no_longer_held_makes_room_for_one(lanes: World, leave: Callable[[World, Claim], None]) -> None:
    rows = many("del")
    stand(lanes, *rows)
    held = claims(lanes)
    leave(lanes, held[1])

    assert subjects(claims(lanes)) == [rows[MOST_IN_A_LANE]]


def test_a_lease_that_ended_makes_room_for_its_own_row(lanes: World) -> None:
    stand(lanes, *many("del"))
    first, *_ = claims(lanes)
    lanes.end_lease(first)

    assert [(each.subject, each.attempts) for each in claims(lanes)] == [(first.subject, 2)]


def test_two_workers_that_claim_at_the_same_moment_do_not_both_fill_a_lane(lanes: World) -> None:
    for lane in ("sub_1", "sub_2", "sub_3"):
        stand(lanes, *many(f"del_of_{lane}"), lane=lane)
    all_at_once = Barrier(4)

    def work(_: int) -> Sequence[Claim]:
        all_at_once.wait(timeout=10)
        return [each for _ in range(3) for each in claims(lanes, 6)]

    with ThreadPoolExecutor(4) as threads:
        claimed = [each for found in threads.map(work, range(4)) for each in found]

    per_lane = Counter(each.subject.rpartition("_")[0] for each in claimed)
    assert set(per_lane.values()) == {MOST_IN_A_LANE}
    assert len({each.subject for each in claimed}) == len(claimed) == 3 * MOST_IN_A_LANE


def test_the_emptiest_lanes_come_first_however_long_others_wait(lanes: World) -> None:
    stand(lanes, *many("busy"), lane="sub_1", due_in=-9 * HOUR)
    stand(lanes, "calm_1", "calm_2", lane="sub_2", due_in=-2 * HOUR)
    stand(lanes, "quiet_1", lane="sub_3")

    assert subjects(claims(lanes, 3)) == ["busy_00", "calm_1", "quiet_1"]
    assert subjects(claims(lanes, 1)) == ["busy_01"]
    assert subjects(claims(lanes, 1)) == ["calm_2"]
    assert subjects(claims(lanes)) == ["busy_02", "busy_03"]


def test_a_lane_that_holds_many_yields_to_one_that_holds_few(lanes: World) -> None:
    stand(lanes, *many("busy"), lane="sub_1", due_in=-9 * HOUR)
    claims(lanes, 2)
    stand(lanes, *many("calm"), lane="sub_2")

    assert subjects(claims(lanes, 2)) == ["calm_00", "calm_01"]


def test_of_a_closed_lane_nothing_is_claimed(lanes: World) -> None:
    stand(lanes, "del_1", lane="sub_1", due_in=-2 * HOUR)
    stand(lanes, "del_2", lane="sub_2")

    assert subjects(claim(lanes, 10, lane_limits={"sub_1": 0, "sub_9": 0}).claims) == ["del_2"]
    assert subjects(claims(lanes)) == ["del_1"]


def test_a_lane_can_be_narrowed_to_one_at_a_time(lanes: World) -> None:
    stand(lanes, "del_1", "del_2", "del_3", lane="sub_1", due_in=-2 * HOUR)
    stand(lanes, *many("other"), lane="sub_2")

    def narrowed() -> Sequence[Claim]:
        return claim(lanes, 20, lane_limits={"sub_1": 1}).claims

    first, *others = narrowed()
    assert first.subject == "del_1"
    assert subjects(others) == many("other")[:MOST_IN_A_LANE]
    assert narrowed() == []
    end(lanes, first)
    assert subjects(narrowed()) == ["del_2"]


def test_a_lane_that_holds_more_than_it_may_now_gets_nothing(lanes: World) -> None:
    stand(lanes, *many("del"))
    first, second, *_ = claims(lanes, 3)

    for _ in range(2):
        assert claim(lanes, 10, lane_limits={"sub_1": 1}).claims == []
        end(lanes, first)
        first = second


def test_a_narrowed_lane_comes_after_one_that_is_not(lanes: World) -> None:
    stand(lanes, "del_1", lane="sub_1", due_in=-2 * HOUR)
    stand(lanes, "del_2", "del_3", lane="sub_2")

    assert subjects(claim(lanes, 2, lane_limits={"sub_1": 1}).claims) == ["del_2", "del_3"]


def test_rows_that_wait_for_room_are_not_waited_for(lanes: World) -> None:
    stand(lanes, *many("del"))
    stand(lanes, "other", lane="sub_2", due_in=HOUR)
    claim(lanes, 10, lease=3 * HOUR)

    found = claim(lanes, 10)

    assert found.claims == []
    assert is_about(found.next_due_in, HOUR)


def test_a_closed_lane_is_never_waited_for(lanes: World) -> None:
    stand(lanes, *many("del"))

    assert claim(lanes, 10, lane_limits={"sub_1": 0}) == Claimed([], None)


# --- queues ---------------------------------------------------------------------------------------------------------


def test_of_a_queue_only_the_lowest_place_is_claimed(lanes: World) -> None:
    stand(lanes, "second", "first", "third", path="a", places=[5, 2, 9])

    assert subjects(claims(lanes)) == ["first"]
    assert claims(lanes) == []


def test_the_next_in_a_queue_comes_when_the_row_before_it_is_gone(lanes: World) -> None:
    stand(lanes, "first", "second", "third", path="a")

    for subject in ("first", "second", "third"):
        (next_one,) = claims(lanes)
        assert next_one.subject == subject
        end(lanes, next_one)


def test_a_queue_waits_for_its_first_also_while_that_is_not_due(lanes: World) -> None:
    stand(lanes, "first", "second", path="a")
    put_off(lanes, claim_one(lanes))

    found = claim(lanes, 10)

    assert found.claims == []
    assert is_about(found.next_due_in, HOUR + timedelta(seconds=5))


def test_one_that_comes_back_at_a_lower_place_goes_first_again(lanes: World) -> None:
    stand(lanes, "later", path="a", places=[5])
    stand(lanes, "earlier", path="a", places=[2])

    assert subjects(claims(lanes)) == ["earlier"]


def test_equal_places_do_not_wait_for_each_other(lanes: World) -> None:
    stand(lanes, "first", "replayed", "second", path="a", places=[3, 3, 4])

    assert subjects(claims(lanes)) == ["first", "replayed"]


def test_one_queue_does_not_wait_for_another_in_the_same_lane(lanes: World) -> None:
    stand(lanes, "a1", "a2", path="a")
    stand(lanes, "b1", "b2", path="b")
    stand(lanes, "free")

    assert sorted(subjects(claims(lanes))) == ["a1", "b1", "free"]


def test_a_queue_s_first_waits_for_room_in_its_lane(lanes: World) -> None:
    stand(lanes, *many("del", MOST_IN_A_LANE), due_in=-2 * HOUR)
    stand(lanes, "first", path="a")
    held = claims(lanes)

    assert claims(lanes) == []
    end(lanes, held[0])
    assert subjects(claims(lanes)) == ["first"]
