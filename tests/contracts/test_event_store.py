"""The event store's recorder, its history and the to-do list: the fake and PostgreSQL mean the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from eventsourcing.persistence import NotSupportedError

from application.event_store import EventStore
from application.mapper import EventMapper
from application.process.delivery import DECISION, Attempt
from application.process.todo import Claim, Decision, LeaseLost, TodoItem, TodoList
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
PROCESS = DECISION.process


class MemoryWorld:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.recorder = MemoryStore(self.clock)
        self.todo: TodoList = self.recorder
        self.store = self.decide_by(DECISION)

    def now(self) -> datetime:
        return self.clock.now()

    def pass_a_moment(self) -> None:
        """Afterwards it is a little later."""
        self.clock.advance(timedelta(milliseconds=1))

    def end_lease(self, claim: Claim) -> None:
        self.recorder._rows[claim.process, claim.subject].lease_until = self.now() - timedelta(seconds=1)

    def make_due(self, subject: str) -> None:
        self.recorder._rows[PROCESS, subject].due_at = self.now()

    def rows(self) -> Sequence[TodoItem]:
        """By subject."""
        return sorted(self.recorder.todo, key=lambda item: item.subject)

    def decide_by(self, decision: Decision) -> EventStore:
        return EventStore(self.recorder, {Delivery: decision})


class PostgresWorld:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.recorder = PostgresRecorder(pool, EventMapper(), INLINE)
        self.todo: TodoList = PostgresTodoList(pool)
        self.store = self.decide_by(DECISION)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def pass_a_moment(self) -> None:
        """Real time does so by itself."""

    def end_lease(self, claim: Claim) -> None:
        self._execute("UPDATE todo SET lease_until = clock_timestamp() - interval '1 s' WHERE subject = %s", claim)

    def make_due(self, subject: str) -> None:
        self._execute("UPDATE todo SET due_at = clock_timestamp() WHERE subject = %s", subject)

    def rows(self) -> Sequence[TodoItem]:
        with self.pool.connection() as connection:
            rows = connection.execute("SELECT process, subject, version, step, due_at FROM todo ORDER BY subject")
            return [TodoItem(*row) for row in rows.fetchall()]

    def decide_by(self, decision: Decision) -> EventStore:
        return EventStore(self.recorder, {Delivery: decision})

    def _execute(self, statement: str, about: Claim | str) -> None:
        with self.pool.connection() as connection:
            subject = about.subject if isinstance(about, Claim) else about
            assert connection.execute(statement.encode(), [subject]).rowcount == 1


World = MemoryWorld | PostgresWorld


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> World:
    return MemoryWorld() if request.param == "memory" else PostgresWorld(request.getfixturevalue("pool"))


def owed(subject: str, due_at: datetime, position: int = 1) -> Delivery:
    """A delivery whose first attempt is due at the given time."""
    return Delivery.owe(
        subject,
        tenant_id="tnt_default",
        subscription_id="sub_1",
        position=position,
        event_type="certificate.issued",
        now=due_at,
    )


def fail_attempt(delivery: Delivery, now: datetime) -> None:
    """The next attempt is due some seconds after `now`."""
    delivery.attempt_failed(503, "the receiver answered 503", None, 0.5, now)


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


def claim_one(world: World) -> Claim:
    (claim,) = world.todo.claim(1, LEASE)
    return claim


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
    second.delivered(200, world.now())

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
        delivery.delivered(status, world.now())
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
    assert world.rows() == [TodoItem(PROCESS, "del_1", 1, "Attempt", due_at)]

    fail_attempt(delivery, due_at)
    world.store.record(delivery, by=BY)
    assert world.rows() == [TodoItem(PROCESS, "del_1", 2, "Attempt", due_at + timedelta(seconds=5))]

    delivery.delivered(200, world.now())
    world.store.record(delivery, by=BY)
    assert world.rows() == []


def test_an_aggregate_that_nobody_decides_about_has_no_row(world: World) -> None:
    world.store.record(token("tok_1", world.now()), by=BY)

    assert world.rows() == []


def test_what_is_not_due_is_not_claimed(world: World) -> None:
    record_owed(world, "del_1", due_in=HOUR)

    assert world.todo.claim(10, LEASE) == []


def test_the_longest_due_are_claimed_first(world: World) -> None:
    for subject, hours in (("del_1", 2), ("del_2", 9), ("del_3", 1), ("del_4", 5)):
        record_owed(world, subject, due_in=-hours * HOUR)

    assert [claim.subject for claim in world.todo.claim(3, LEASE)] == ["del_2", "del_4", "del_1"]
    assert [claim.subject for claim in world.todo.claim(3, LEASE)] == ["del_3"]


def test_each_row_is_claimed_by_one_worker_only(world: World) -> None:
    subjects = [f"del_{number:02}" for number in range(40)]
    record_owed(world, *subjects)
    all_at_once = Barrier(4)

    def work(_: int) -> list[Claim]:
        all_at_once.wait(timeout=10)
        return [claim for _ in range(5) for claim in world.todo.claim(3, LEASE)]

    with ThreadPoolExecutor(4) as threads:
        claims = [claim for claims in threads.map(work, range(4)) for claim in claims]

    claims.extend(world.todo.claim(40, LEASE))  # two that looked at the same rows may both have come away with fewer
    assert sorted(claim.subject for claim in claims) == subjects
    assert len({claim.fence for claim in claims}) == 40
    assert {claim.attempts for claim in claims} == {1}


# --- leases ---------------------------------------------------------------------------------------------------------


def test_a_lease_that_ended_is_claimed_by_another_under_a_new_fence(world: World) -> None:
    record_owed(world, "del_1")
    first = claim_one(world)
    assert world.todo.claim(1, LEASE) == []
    world.end_lease(first)

    second = claim_one(world)

    assert second.subject == first.subject
    assert second.fence > first.fence
    assert second.attempts == 2


def test_a_lease_is_as_long_as_it_was_asked_for(world: World) -> None:
    record_owed(world, "del_1")
    world.todo.claim(1, timedelta(microseconds=1))
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
    lapsed, taken_over, held = world.todo.claim(3, LEASE)
    world.end_lease(lapsed)
    world.end_lease(taken_over)
    (again,) = [claim for claim in world.todo.claim(2, LEASE) if claim.subject == taken_over.subject]
    world.todo.release(Claim(PROCESS, lapsed.subject, lapsed.fence + 100, 1), timedelta())

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

    assert world.todo.claim(1, LEASE) == []
    due_in = world.todo.next_due_in()
    assert due_in is not None
    assert HOUR - timedelta(seconds=30) < due_in <= HOUR


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

    assert world.todo.claim(1, LEASE) == []
    assert list(world.todo.extend([held], LEASE)) == [held]


def test_a_reporter_keeps_its_lease_while_the_next_step_is_due(world: World) -> None:
    record_owed(world, "del_1")
    claim = claim_one(world)

    assert report_failed_attempt(world, claim, world.now() - HOUR)

    assert world.todo.claim(1, LEASE) == []
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
    last.delivered(200, world.now())
    fail_attempt(other, world.now() - HOUR)

    assert not world.store.record(other, by=BY)
    assert not world.store.record(last, by=BY, claim=claim)


def test_the_lease_of_one_row_lets_nobody_write_under_that_of_another(world: World) -> None:
    record_owed(world, "del_1", "del_2")
    first, second = world.todo.claim(2, LEASE)

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
    delivery.delivered(200, world.now())
    world.store.record(delivery, by=BY)

    with pytest.raises(LeaseLost):
        world.store.record(private_key_read("acc_1", "cert_1", 1, world.now()), by=BY, claim=claim)
    assert list(world.todo.extend([claim], LEASE)) == []
    world.todo.release(claim, timedelta())


# --- fences and attempts --------------------------------------------------------------------------------------------


def on_even_attempts(delivery: Delivery) -> Attempt | None:
    return Attempt(delivery.due_at) if delivery.attempts % 2 == 0 else None


def test_no_fence_comes_again_even_where_a_row_was_deleted_and_came_again(world: World) -> None:
    store = world.decide_by(Decision(PROCESS, on_even_attempts))
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


def test_an_empty_list_has_no_next_row(world: World) -> None:
    assert world.todo.next_due_in() is None


def test_the_next_row_is_the_soonest_that_will_be_free(world: World) -> None:
    record_owed(world, "del_1", due_in=2 * HOUR)
    record_owed(world, "del_2", due_in=HOUR)
    later = world.todo.next_due_in()
    record_owed(world, "del_3")
    now = world.todo.next_due_in()
    world.todo.claim(1, LEASE)
    when_the_lease_ends = world.todo.next_due_in()

    assert later is not None
    assert now is not None
    assert when_the_lease_ends is not None
    assert HOUR - timedelta(seconds=30) < later <= HOUR
    assert now <= timedelta()
    assert timedelta() < when_the_lease_ends <= LEASE
