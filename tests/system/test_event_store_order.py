"""The proof that a reader who follows positions misses nothing, whatever happens to those who write.

Eight writers append to the same few aggregates while their appends are rolled back, by version conflicts and by a read
model that refuses, and while their connections are killed before, in and after the commit. What is true is read from
the table at the end: a writer that lost its connection does not know the outcome until it looks."""

from __future__ import annotations

import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeVar

import psycopg
import pytest
from psycopg import Cursor
from psycopg.rows import TupleRow

from application.errors import StoreUnavailable
from application.event_store import EventStore
from application.mapper import EventMapper
from domain.errors import VersionConflict
from domain.provenance import DEFAULT_TENANT, Provenance, Recorded
from domain.secret import Secret, secret_id
from interfaces.postgres.pool import Pool, open_pool
from interfaces.postgres.recorder import PostgresRecorder

SEED = 8555
WRITERS = 8
READERS = 3
APPENDS = 150
PATHS = [f"shared/{number}" for number in range(12)]
REFUSED_SHARE, KILLED_IN_TRANSACTION_SHARE, KILLED_AT_COMMIT_SHARE = 0.06, 0.03, 0.05
DEADLINE_SECONDS = 90.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BY = Provenance(DEFAULT_TENANT, "operator", "root")

Answer = TypeVar("Answer")
Victims = queue.SimpleQueue[int | None]


class Refused(Exception): ...


class MoodyView:
    """Writes down the positions, and then it may refuse, or ask for its connection to be killed."""

    def __init__(self, mood: random.Random, victims: Victims) -> None:
        self._mood = mood
        self._victims = victims

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        cursor.executemany("INSERT INTO inline VALUES (%s)", [[recorded.position] for recorded in events])
        mood = self._mood.random()
        for share, act in (
            (REFUSED_SHARE, self._refuse),
            (KILLED_IN_TRANSACTION_SHARE, self._wait_for_the_killer),
            (KILLED_AT_COMMIT_SHARE, self._race_with_the_killer),
        ):
            if mood < share:
                act(cursor)
                return
            mood -= share

    def _refuse(self, _: Cursor[TupleRow]) -> None:
        raise Refused

    def _wait_for_the_killer(self, cursor: Cursor[TupleRow]) -> None:
        self._race_with_the_killer(cursor)
        cursor.execute("SELECT pg_sleep(60)").fetchone()

    def _race_with_the_killer(self, cursor: Cursor[TupleRow]) -> None:
        self._victims.put(cursor.connection.info.backend_pid)


class Writer:
    """`committed` and `rolled_back` hold the marks of the events of each append."""

    def __init__(self, number: int, conninfo: str, victims: Victims) -> None:
        self.committed: list[list[str]] = []
        self.rolled_back: list[list[str]] = []
        self.outcomes: Counter[str] = Counter()
        self._number = number
        self._conninfo = conninfo
        self._chance = random.Random(f"{SEED}/{number}")
        self._view = MoodyView(random.Random(f"{SEED}/mood/{number}"), victims)

    def run(self) -> None:
        with open_pool(self._conninfo, 2) as pool:
            store = EventStore(PostgresRecorder(pool, EventMapper(), [self._view]), {})
            for number in range(APPENDS):
                self._append(store, number)

    def _append(self, store: EventStore, number: int) -> None:
        secrets = [load(store, path) for path in self._chance.sample(PATHS, self._chance.choice([1, 1, 2]))]
        marks: list[str] = []
        for secret in secrets:
            for _ in range(self._chance.randint(1, 3)):
                marks.append(f"{self._number}/{number}/{len(marks)}")
                secret.add_version("kv", {}, marks[-1], NOW)
        outcome = self._record(store, secrets)
        if outcome == "connection lost":
            there = [mark in marks_of(load(store, secret.path)) for secret in secrets for mark in marks_in(secret)]
            assert all(there) or not any(there)
            outcome += ", but recorded" if any(there) else ""
        self.outcomes[outcome] += 1
        is_recorded = outcome in {"recorded", "connection lost, but recorded"}
        (self.committed if is_recorded else self.rolled_back).append(marks)

    def _record(self, store: EventStore, secrets: Sequence[Secret]) -> str:
        try:
            store.record(*secrets, by=BY)
        except VersionConflict:
            return "conflict"
        except Refused:
            return "refused"
        except StoreUnavailable:
            return "connection lost"
        return "recorded"


def load(store: EventStore, path: str) -> Secret:
    return patiently(lambda: store.load(Secret, secret_id(DEFAULT_TENANT, path)))


def marks_of(secret: Secret) -> set[str]:
    return {version.sealed_id for version in secret.versions}


def marks_in(secret: Secret) -> list[str]:
    """Of what is still pending."""
    return [event.sealed_id for event in secret.pending_events if isinstance(event, Secret.VersionAdded)]


def patiently(ask: Callable[[], Answer]) -> Answer:
    """A connection may have been killed after its last use."""
    while True:
        with suppress(StoreUnavailable):
            return ask()


def kill(conninfo: str, victims: Victims) -> int:
    """Until the last victim (None). How many were still alive."""
    killed = 0
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while (pid := victims.get()) is not None:
            row = connection.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone()
            killed += bool(row and row[0])
    return killed


def follow(conninfo: str, page: int, writing_is_over: threading.Event) -> list[tuple[int, str]]:
    """Position and mark of everything that a reader sees who asks for so many at a time."""
    seen: list[tuple[int, str]] = []
    with open_pool(conninfo, 1) as pool:
        recorder = PostgresRecorder(pool, EventMapper())
        while True:
            is_last_look = writing_is_over.is_set()
            after = seen[-1][0] if seen else 0
            events = patiently(lambda after=after: recorder.read(after, page))  # type: ignore[misc]
            seen.extend((recorded.position, mark_of(recorded)) for recorded in events)
            if not events and is_last_look:
                return seen
            if not events:
                writing_is_over.wait(0.001)


def mark_of(recorded: Recorded) -> str:
    assert isinstance(recorded.event, Secret.Stored | Secret.VersionAdded)
    return recorded.event.sealed_id


@pytest.mark.timeout(DEADLINE_SECONDS + 10)
def test_readers_see_each_committed_event_once_and_in_order_and_nothing_else(database: str, pool: Pool) -> None:
    with pool.connection() as connection:
        connection.execute("CREATE TABLE inline (position bigint)")
    begin(pool)
    victims: Victims = queue.SimpleQueue()
    writers = [Writer(number, database, victims) for number in range(WRITERS)]
    writing_is_over = threading.Event()

    with ThreadPoolExecutor(WRITERS + READERS + 1) as threads:
        killer = threads.submit(kill, database, victims)
        readers = [threads.submit(follow, database, 3 * 7**number, writing_is_over) for number in range(READERS)]
        writing = [threads.submit(writer.run) for writer in writers]
        wait(writing, DEADLINE_SECONDS)
        victims.put(None)
        writing_is_over.set()
        for written in writing:
            written.result()
        seen = [reader.result(DEADLINE_SECONDS) for reader in readers]
        killed = killer.result(DEADLINE_SECONDS)

    outcomes = sum((writer.outcomes for writer in writers), Counter[str]())
    assert sum(outcomes.values()) == WRITERS * APPENDS
    assert killed > 20
    assert min(outcomes[what] for what in ("recorded", "conflict", "refused", "connection lost")) > 10, outcomes

    truth = recorded_marks(pool)
    assert [position for position, _ in truth] == list(range(1, len(truth) + 1))
    for reader in seen:
        assert reader == truth

    positions = {mark: position for position, mark in truth}
    assert len(positions) == len(truth)
    for writer in writers:
        for marks in writer.committed:
            at = [positions[mark] for mark in marks]
            assert all(later == earlier + 1 for earlier, later in pairwise(at)), "an append stands together"
        assert not [mark for marks in writer.rolled_back for mark in marks if mark in positions]
    committed = sum(len(marks) for writer in writers for marks in writer.committed)
    assert committed + len(PATHS) == len(truth)
    assert inline_positions(pool) == list(range(len(PATHS) + 1, len(truth) + 1))


def test_whatever_error_a_lost_connection_leaves_is_the_store_out_of_reach(pool: Pool) -> None:
    left_over = psycopg.ProgrammingError("the last operation didn't produce records")  # as a pipeline may say it

    def fail(end: Callable[[psycopg.Connection], None]) -> None:
        with pool.connection() as connection:
            end(connection)
            raise left_over

    with pytest.raises(StoreUnavailable):
        fail(lambda connection: connection.close())
    with pytest.raises(psycopg.ProgrammingError):
        fail(lambda _: None)


def begin(pool: Pool) -> None:
    store = EventStore(PostgresRecorder(pool, EventMapper()), {})
    for path in PATHS:
        store.record(
            Secret.store(
                tenant_id=DEFAULT_TENANT,
                path=path,
                secret_type="kv",
                metadata={},
                sealed_id=path,
                now=NOW,
            ),
            by=BY,
        )


def recorded_marks(pool: Pool) -> list[tuple[int, str]]:
    with pool.connection() as connection:
        query = "SELECT position, state ->> 'sealed_id' FROM events ORDER BY position"
        return connection.execute(query).fetchall()


def inline_positions(pool: Pool) -> list[int]:
    with pool.connection() as connection:
        return [position for (position,) in connection.execute("SELECT position FROM inline ORDER BY 1").fetchall()]
