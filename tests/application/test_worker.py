from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from queue import Queue
from typing import Any

import pytest
from structlog.testing import capture_logs

from application.errors import StoreUnavailable
from application.event_store import EventStore
from application.process import worker
from application.process.delivery import DECISION
from application.process.todo import NO_LIMITS, Claim, Claimed, LeaseLost
from application.process.worker import (
    CRASHED_RETRY,
    LEASE,
    LONGEST_CRASHED_RETRY,
    LONGEST_IDLE_SECONDS,
    MOST_CRASHES,
    Worker,
)
from domain.delivery import Delivery
from domain.errors import VersionConflict
from domain.provenance import DEFAULT_TENANT, Provenance
from tests.fakes import FakeClock, MemoryStore

DEADLINE_SECONDS = 10.0
BY = Provenance(DEFAULT_TENANT, "system", DECISION.process)
MOMENT = timedelta(milliseconds=1)
AWAY = StoreUnavailable("PostgreSQL is away")


class WatchedTodo:
    """The list of a store. Says what is asked of it, and fails as often as a test wants."""

    def __init__(self, store: MemoryStore) -> None:
        self.asked = 0
        self.claims: Queue[tuple[int, int, Sequence[Claim]]] = Queue()  # the how-manieth asking, the limit, the claims
        self.releases: Queue[tuple[Claim, timedelta]] = Queue()
        self.beats: Queue[Sequence[Claim]] = Queue()
        self.failures: dict[str, list[Exception]] = {"claim": [], "extend": [], "release": []}
        self._store = store

    def claim(self, process: str, limit: int, lease: timedelta, lane_limits: Mapping[str, int] = NO_LIMITS) -> Claimed:
        assert (process, lease) == (Errands.name, LEASE)
        self.asked += 1
        claimed = Claimed([], None)
        try:
            self._fail("claim")
            claimed = self._store.claim(process, limit, lease, lane_limits)
        finally:
            self.claims.put((self.asked, limit, claimed.claims))
        return claimed

    def extend(self, claims: Collection[Claim], lease: timedelta) -> Collection[Claim]:
        assert lease == LEASE
        self._fail("extend")
        held = self._store.extend(claims, lease)
        self.beats.put(list(held))
        return held

    def release(self, claim: Claim, retry_in: timedelta, *, counted: bool = True) -> None:
        try:
            self._fail("release")
            self._store.release(claim, retry_in, counted=counted)
        finally:
            self.releases.put((claim, retry_in))

    def hasten(self, process: str) -> None:
        self._store.hasten(process)

    def _fail(self, what: str) -> None:
        if self.failures[what]:
            raise self.failures[what].pop(0)


class Errands:
    """A process manager that does what the test says."""

    name = DECISION.process

    def __init__(self, do: Callable[[Claim], None]) -> None:
        self._do = do
        self.given_up: list[str] = []
        self.limits: dict[str, int] = {}

    def perform(self, claim: Claim) -> None:
        self._do(claim)

    def give_up(self, claim: Claim) -> None:
        self.given_up.append(claim.subject)

    def lane_limits(self) -> Mapping[str, int]:
        return self.limits


class Rig:
    """A worker on a store in memory, with as many deliveries due as a test wants. It delivers them, or does `do`."""

    def __init__(self, do: Callable[[Claim], None] | None = None, slots: int = 1, due: int = 1) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStore(self.clock)
        self.store = EventStore(self.memory, {Delivery: [DECISION]})
        self.todo = WatchedTodo(self.memory)
        self.wake, self.stop = threading.Event(), threading.Event()
        self.errands = Errands(do or self.deliver)
        self.worker = Worker(self.todo, self.errands, slots, self.wake)
        for number in range(due):
            self.owe(f"del_{number:02}")

    def owe(self, delivery_id: str, due_in: timedelta = timedelta()) -> None:
        delivery = Delivery.owe(
            delivery_id,
            tenant_id=DEFAULT_TENANT,
            subscription_id="sub_1",
            position=1,
            event_type="order.invalid",
            event_id="evt_1",
            path="pki/acme/orders/acme_order_1",
            ordered=False,
            replay_id=None,
            now=self.clock.now() + due_in,
        )
        self.store.record(delivery, by=BY)

    def deliver(self, claim: Claim) -> None:
        delivery = self.store.load(Delivery, claim.subject)
        delivery.delivered(200, 5, self.clock.now())
        self.store.record(delivery, by=BY, claim=claim)

    @contextmanager
    def running(self) -> Iterator[threading.Thread]:
        thread = threading.Thread(target=self.worker.run, args=[self.stop])
        thread.start()
        try:
            yield thread
        finally:
            self.end(thread)

    def end(self, thread: threading.Thread) -> None:
        self.stop.set()
        self.wake.set()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()

    def released(self) -> tuple[Claim, timedelta]:
        return self.todo.releases.get(timeout=DEADLINE_SECONDS)

    def look(self) -> Sequence[Claim]:
        """What the worker has claimed since the last look, and claims when it is woken now."""
        asked, number, found = self.todo.asked, 0, list[Claim]()
        self.wake.set()
        while number <= asked:
            number, _, claims = self.todo.claims.get(timeout=DEADLINE_SECONDS)
            found.extend(claims)
        return found


class Doing:
    """Says what it is at, and goes on only when it is let go."""

    def __init__(self) -> None:
        self.then: Callable[[Claim], None] = fail_with()
        self.begun: Queue[Claim] = Queue()
        self.let_go = threading.Semaphore(0)

    def __call__(self, claim: Claim) -> None:
        self.begun.put(claim)
        assert self.let_go.acquire(timeout=DEADLINE_SECONDS)
        self.then(claim)

    def next(self) -> Claim:
        return self.begun.get(timeout=DEADLINE_SECONDS)


@pytest.fixture
def fast_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.002)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def outcomes(logs: Sequence[Any]) -> list[str]:
    return [entry["outcome"] for entry in logs if entry["event"] == "claim_worked_off"]


def fail_with(*failures: Exception) -> Callable[[Claim], None]:
    """Fails so often, and does nothing from then on."""
    left = list(failures)

    def do(_: Claim) -> None:
        if left:
            raise left.pop(0)

    return do


# --- performing -----------------------------------------------------------------------------------------------------


def test_what_is_due_is_performed_once_and_is_off_the_list(logs: list[Any]) -> None:
    rig = Rig(slots=2, due=5)

    with rig.running():
        released = {rig.released()[0].subject for _ in range(5)}

    assert len(released) == 5
    assert rig.memory.todo == []
    assert outcomes(logs) == ["done"] * 5
    assert len(rig.memory.history) == 10


def test_what_falls_due_later_is_performed_then() -> None:
    rig = Rig(due=0)
    rig.owe("del_1", due_in=LEASE)

    with rig.running():
        assert rig.look() == []
        rig.clock.advance(LEASE)
        assert [claim.subject for claim in rig.look()] == ["del_1"]
        rig.released()

    assert rig.memory.todo == []


def test_no_more_steps_are_in_flight_than_there_are_slots() -> None:
    doing = Doing()
    rig = Rig(doing, slots=3, due=12)
    doing.then = rig.deliver

    with rig.running():
        begun = [doing.next() for _ in range(3)]
        for _ in range(9):
            assert doing.begun.empty()
            doing.let_go.release()
            rig.released()
            begun.append(doing.next())
        for _ in range(3):
            doing.let_go.release()
            rig.released()

    assert len({claim.subject for claim in begun}) == 12
    held = 0
    while not rig.todo.claims.empty():
        _, limit, claims = rig.todo.claims.get()
        assert limit <= 3
        held += len(claims)
    assert held == 12


@pytest.mark.parametrize(
    ("due_in", "idle_seconds"),
    [
        (None, LONGEST_IDLE_SECONDS),
        (timedelta(hours=1), LONGEST_IDLE_SECONDS),
        (timedelta(seconds=0.3), 0.3),
        (timedelta(seconds=0.001), 0.01),
    ],
)
def test_the_worker_is_idle_until_the_next_row_is_due(due_in: timedelta | None, idle_seconds: float) -> None:
    rig = Rig(fail_with(), due=0)
    if due_in is not None:
        rig.owe("del_1", due_in)

    assert rig.worker._hand_out(lambda *_: None) == pytest.approx(idle_seconds)


def test_with_every_slot_taken_nothing_is_asked_for() -> None:
    rig = Rig(fail_with(), slots=2, due=3)
    handed_out: list[Claim] = []

    def submit(_: object, claim: Claim) -> None:
        handed_out.append(claim)

    assert rig.worker._hand_out(submit) == LONGEST_IDLE_SECONDS
    assert rig.worker._hand_out(submit) == LONGEST_IDLE_SECONDS

    assert len(handed_out) == 2
    assert rig.todo.claims.qsize() == 1


# --- what goes wrong in a step --------------------------------------------------------------------------------------


def test_a_step_that_crashes_is_tried_again_later_and_later(logs: list[Any]) -> None:
    rig = Rig(fail_with(*(ZeroDivisionError() for _ in range(12))))
    waits = []

    with rig.running():
        rig.todo.claims.get(timeout=DEADLINE_SECONDS)
        for attempt in range(1, 13):
            claim, retry_in = rig.released()
            assert claim.attempts == attempt
            waits.append(retry_in)
            rig.clock.advance(retry_in - MOMENT)
            assert rig.look() == []
            rig.clock.advance(MOMENT)
            assert [claim.attempts for claim in rig.look()] == [attempt + 1]
        rig.released()

    doubled = [CRASHED_RETRY * 2**attempt for attempt in range(1, 8)]
    assert waits == [*doubled, *[LONGEST_CRASHED_RETRY] * 5]
    assert outcomes(logs)[:12] == ["crashed"] * 12
    assert sum(entry["event"] == "step_crashed" for entry in logs) == 12


@pytest.mark.usefixtures("logs")
def test_a_step_that_crashes_for_ever_is_given_up() -> None:
    rig = Rig(fail_with(*(ZeroDivisionError() for _ in range(MOST_CRASHES))))

    with rig.running():
        for attempt in range(1, MOST_CRASHES + 1):
            claim, retry_in = rig.released()
            assert rig.errands.given_up == ([claim.subject] if attempt == MOST_CRASHES else [])
            rig.clock.advance(retry_in)
            rig.wake.set()
        rig.released()


@pytest.mark.parametrize(
    ("problem", "outcome"), [(LeaseLost(), "lease_lost"), (VersionConflict(), "changed_meanwhile")]
)
def test_being_overtaken_is_no_crash_and_is_tried_again_at_once(
    problem: Exception, outcome: str, logs: list[Any]
) -> None:
    rig = Rig(fail_with(problem))

    with rig.running():
        first, second = rig.released(), rig.released()

    assert [first[1], second[1]] == [timedelta(), timedelta()]
    assert second[0].attempts == 1
    assert outcomes(logs)[:2] == [outcome, "done"]
    assert not [entry for entry in logs if entry["log_level"] in {"error", "warning"}]


def test_a_step_without_the_store_is_tried_again_soon(logs: list[Any]) -> None:
    rig = Rig(fail_with(AWAY))

    with rig.running():
        assert rig.released()[1] == CRASHED_RETRY

    assert outcomes(logs) == ["store_unavailable"]
    assert not [entry for entry in logs if entry["log_level"] == "error"]


def test_a_crash_while_giving_up_is_in_the_log_and_holds_nothing_up(logs: list[Any]) -> None:
    rig = Rig(fail_with(*(ZeroDivisionError() for _ in range(MOST_CRASHES))))
    rig.errands.given_up = None  # type: ignore[assignment]  # so that nothing can be noted there

    with rig.running():
        for _ in range(MOST_CRASHES):
            rig.clock.advance(rig.released()[1])
            rig.wake.set()
        rig.released()

    assert [entry["attempts"] for entry in logs if entry["event"] == "giving_up_crashed"] == [MOST_CRASHES]
    assert rig.memory.todo != []


def test_rows_whose_lane_is_closed_are_left_until_it_opens() -> None:
    rig = Rig(due=2)
    rig.errands.limits = {"sub_1": 0}
    assert rig.worker._hand_out(lambda *_: None) == LONGEST_IDLE_SECONDS  # and not asked for again and again

    with rig.running():
        assert rig.look() == []
        rig.errands.limits = {}
        assert len(rig.look()) == 1
        rig.released()


# --- what goes wrong with the list ----------------------------------------------------------------------------------

EVERY_FAILURE = pytest.mark.parametrize("failure", [AWAY, ZeroDivisionError()], ids=["unavailable", "unexpected"])


@EVERY_FAILURE
def test_the_worker_survives_that_nothing_can_be_claimed(failure: Exception, logs: list[Any]) -> None:
    rig = Rig()
    rig.todo.failures["claim"] = [failure] * 3

    with rig.running():
        while not rig.look():
            assert rig.todo.asked <= 4
        rig.released()

    assert rig.memory.todo == []
    assert sum(entry["log_level"] in {"warning", "error"} for entry in logs) == 3


@EVERY_FAILURE
def test_the_worker_survives_that_nobody_can_say_how_far_lanes_may_be_filled(
    failure: Exception, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [failure] * 3

    def lane_limits() -> Mapping[str, int]:
        if failures:
            raise failures.pop()
        return NO_LIMITS

    rig = Rig()
    monkeypatch.setattr(rig.errands, "lane_limits", lane_limits)

    with rig.running():
        while failures:
            rig.wake.set()
        rig.wake.set()
        rig.released()

    assert rig.memory.todo == []
    assert sum(entry["log_level"] in {"warning", "error"} for entry in logs) == 3


@EVERY_FAILURE
@pytest.mark.usefixtures("fast_heart")
def test_a_row_that_cannot_be_given_back_blocks_no_slot(failure: Exception, logs: list[Any]) -> None:
    rig = Rig(fail_with(), slots=1, due=2)
    rig.todo.failures["release"] = [failure]

    with rig.running():
        stuck, other = rig.released()[0], rig.released()[0]
        assert {stuck.subject, other.subject} == {"del_00", "del_01"}
        rig.clock.advance(LEASE)  # nobody keeps it any longer
        again = rig.released()[0]
        while again.subject != stuck.subject:
            again = rig.released()[0]

    assert again.attempts == 2
    assert sum(entry["log_level"] in {"warning", "error"} for entry in logs) == 1


@EVERY_FAILURE
@pytest.mark.usefixtures("fast_heart")
def test_the_heart_goes_on_after_a_missed_beat(failure: Exception, logs: list[Any]) -> None:
    doing = Doing()
    rig = Rig(doing)
    rig.todo.failures["extend"] = [failure] * 2

    with rig.running():
        claim = doing.next()
        assert rig.todo.beats.get(timeout=DEADLINE_SECONDS) == [claim]
        doing.let_go.release()
        rig.stop.set()

    assert sum(entry["log_level"] in {"warning", "error"} for entry in logs) == 2


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fast_heart")
def test_stopping_waits_for_the_step_in_flight_and_keeps_its_lease() -> None:
    doing = Doing()
    rig = Rig(doing, slots=2, due=1)
    doing.then = rig.deliver

    with rig.running() as thread:
        claim = doing.next()
        rig.stop.set()
        rig.owe("del_too_late")
        rig.wake.set()
        for _ in range(5):  # longer in all than a lease
            rig.clock.advance(LEASE * 0.6)
            while not rig.todo.beats.empty():
                rig.todo.beats.get()
            for _ in range(2):  # the first may have begun before
                assert rig.todo.beats.get(timeout=DEADLINE_SECONDS) == [claim]
        assert thread.is_alive()
        doing.let_go.release()
        rig.end(thread)

    assert [item.subject for item in rig.memory.todo] == ["del_too_late"]
    assert rig.store.load(Delivery, claim.subject).ended == "delivered"


def test_a_worker_that_is_stopped_before_it_begins_claims_nothing() -> None:
    rig = Rig(fail_with())
    rig.stop.set()

    with rig.running():
        pass

    assert rig.todo.claims.empty()
