from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.provenance import Recorded
from interfaces.postgres import follow
from interfaces.postgres.follow import Followers, Listener
from projections.announcements import ANNOUNCEMENTS
from projections.audit_log import AUDIT_LOG, RULES
from projections.catch_up import BATCH, Read, catch_up
from tests.projections.live import Live
from tests.projections.story import BEGIN, BY, Story, issued, stored_secret, token, version

DEADLINE_SECONDS = 20.0


class Notebook:
    """A follower that writes down each position it is given, and cannot take those in `poison`."""

    def __init__(self, name: str = "notebook") -> None:
        self.name = name
        self.poison: set[int] = set()
        self.batches: list[int] = []

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        cursor.executemany("INSERT INTO notes VALUES (%s, %s)", [[self.name, recorded.position] for recorded in events])
        if self.poison & {recorded.position for recorded in events}:
            raise ValueError("cannot take this")
        self.batches.append(len(events))


@pytest.fixture
def store(live: Live) -> Live:
    """Positions are written down in the table `notes`, which does not mind one twice."""
    live.execute("CREATE TABLE notes (name text, position bigint, taken bigint GENERATED ALWAYS AS IDENTITY)")
    return live


def notes(live: Live, notebook: Notebook) -> list[int]:
    with live.pool.connection() as connection:
        query = "SELECT position FROM notes WHERE name = %s ORDER BY taken"
        return [position for (position,) in connection.execute(query, [notebook.name]).fetchall()]


def position_of(live: Live, name: str) -> int | None:
    with live.pool.connection() as connection:
        row = connection.execute("SELECT position FROM positions WHERE reader = %s", [name]).fetchone()
    return row[0] if row else None


def append(live: Live, events: int, path: str = "a") -> None:
    secret = stored_secret(path, BEGIN)
    for number in range(2, events + 1):
        secret.add_version("kv", {}, f"sealed_{number}", BEGIN)
    live.store.record(secret, by=BY)


def follow_to_the_end(live: Live, notebook: Notebook) -> int:
    return catch_up(live.pool, notebook, live.recorder.read)


def test_a_follower_gets_every_event_once_in_order_and_in_batches(store: Live) -> None:
    append(store, 2 * BATCH + 1)
    notebook = Notebook()

    assert follow_to_the_end(store, notebook) == 2 * BATCH + 1
    assert notebook.batches == [BATCH, BATCH, 1]
    assert notes(store, notebook) == list(range(1, 2 * BATCH + 2))


def test_a_whole_number_of_batches_is_no_reason_for_an_empty_one(store: Live) -> None:
    append(store, BATCH)
    notebook = Notebook()

    assert follow_to_the_end(store, notebook) == BATCH
    assert notebook.batches == [BATCH]


def test_a_follower_goes_on_from_where_it_was(store: Live) -> None:
    notebook = Notebook()
    assert follow_to_the_end(store, notebook) == 0

    for number in range(3):
        append(store, 2, f"path_{number}")
        assert follow_to_the_end(store, notebook) == follow_to_the_end(store, notebook) == 2 * number + 2

    assert notes(store, notebook) == [1, 2, 3, 4, 5, 6]
    assert notebook.batches == [2, 2, 2]


def test_a_batch_that_fails_leaves_nothing_and_is_tried_again_whole(store: Live) -> None:
    append(store, BATCH + 200)
    notebook = Notebook()
    notebook.poison = {BATCH + 100}

    for _ in range(3):
        with pytest.raises(ValueError, match="cannot take this"):
            follow_to_the_end(store, notebook)
        assert notes(store, notebook) == list(range(1, BATCH + 1))
        assert position_of(store, notebook.name) == BATCH

    notebook.poison = set()
    assert follow_to_the_end(store, notebook) == BATCH + 200
    assert notes(store, notebook) == list(range(1, BATCH + 201))


def test_a_follower_may_read_what_was_made_of_events_and_keeps_a_position_of_its_own(store: Live) -> None:
    append(store, 3)
    certificate = issued("cert_1", BEGIN, "acme_order_1")
    certificate.renew(version(2, "acme_order_2"), "manual", BEGIN)
    store.store.record(certificate, by=BY)
    append(store, 3, "b")
    notebook, whole = Notebook(), Notebook("whole")

    for _ in range(2):
        assert catch_up(store.pool, notebook, partial(ANNOUNCEMENTS.read, store.pool)) == 5
        assert follow_to_the_end(store, whole) == 8

    assert notes(store, notebook) == [4, 5]
    assert (position_of(store, "notebook"), position_of(store, "whole")) == (5, 8)


def test_several_replicas_at_once_take_each_event_once(store: Live) -> None:
    append(store, 3 * BATCH)
    for number in range(3):
        Story(store.store, number).tell()
    end = len(store.history)
    notebooks = [Notebook(), Notebook(), Notebook()]
    all_at_once = threading.Barrier(3)

    def replica(notebook: Notebook) -> tuple[int, int]:
        all_at_once.wait(timeout=DEADLINE_SECONDS)
        return follow_to_the_end(store, notebook), store.catch_up()

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(replica, notebooks)) == [(end, end)] * 3

    assert notes(store, notebooks[0]) == list(range(1, end + 1))
    acts = sum(type(recorded.event) in RULES for recorded in store.history)
    assert len(store.table("audit_log")) == acts


def test_followers_miss_nothing_while_others_append(store: Live) -> None:
    writing_is_over = threading.Event()

    def write(writer: int) -> None:
        for number in range(20):
            append(store, 3, f"path_{writer}_{number}")

    def replica(notebook: Notebook) -> None:
        while not writing_is_over.is_set():
            follow_to_the_end(store, notebook)

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(replica, Notebook()) for _ in range(2)]
        writers = [threads.submit(write, writer) for writer in range(2)]
        for writer in writers:
            writer.result(timeout=DEADLINE_SECONDS)
        writing_is_over.set()
        for reader in readers:
            reader.result(timeout=DEADLINE_SECONDS)

    assert follow_to_the_end(store, Notebook()) == 120
    assert notes(store, Notebook()) == list(range(1, 121))


# --- the loop -------------------------------------------------------------------------------------------------------


@contextmanager
def running(run: Callable[[threading.Event], None], wake: threading.Event | None = None) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        if wake is not None:
            wake.set()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


class Watched:
    """A follower that says when it has taken something, or refused it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_broken = False
        self.took, self.refused = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def apply(self, _: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        if self.is_broken:
            self.refused.set()
            raise ValueError("cannot take this")
        self.seen.extend(recorded.position for recorded in events)
        self.took.set()


def test_a_follower_that_fails_parks_alone_and_goes_on_after_its_repair(store: Live) -> None:
    broken, sound = Watched("broken"), Watched("sound")
    broken.is_broken = True
    wake = threading.Event()
    append(store, 3)

    followers = [(broken, store.recorder.read), (sound, store.recorder.read)]
    with running(Followers(store.pool, followers, wake).run, wake):
        assert sound.took.wait(DEADLINE_SECONDS)
        sound.took.clear()
        append(store, 1, "b")
        wake.set()
        assert sound.took.wait(DEADLINE_SECONDS)
        assert broken.refused.wait(DEADLINE_SECONDS)
        assert position_of(store, "broken") is None

        broken.is_broken = False
        wake.set()
        assert broken.took.wait(DEADLINE_SECONDS)

    assert sound.seen == [1, 2, 3, 4]
    assert broken.seen == [1, 2, 3, 4]
    assert position_of(store, "broken") == position_of(store, "sound") == 4


def test_each_follower_is_given_what_it_reads(store: Live) -> None:
    of_events, of_announcements = Watched("of_events"), Watched("of_announcements")
    append(store, 2)
    store.store.record(issued("cert_1", BEGIN, "acme_order_1"), by=BY)
    wake = threading.Event()
    followers: Sequence[tuple[Watched, Read]] = [
        (of_events, store.recorder.read),
        (of_announcements, partial(ANNOUNCEMENTS.read, store.pool)),
    ]

    with running(Followers(store.pool, followers, wake).run, wake):
        assert of_events.took.wait(DEADLINE_SECONDS)
        assert of_announcements.took.wait(DEADLINE_SECONDS)

    assert of_events.seen == [1, 2, 3]
    assert of_announcements.seen == [3]


def test_a_listener_wakes_everybody_at_each_append_and_after_each_lost_connection(
    store: Live, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LISTEN_SECONDS", 0.05)
    monkeypatch.setattr(follow, "RECONNECT_SECONDS", 0.01)
    first, second = threading.Event(), threading.Event()

    def both_are_woken() -> None:
        for woken in (first, second):
            assert woken.wait(DEADLINE_SECONDS)
            woken.clear()

    with running(Listener(database, [first.set, second.set]).run):
        both_are_woken()
        for number in range(3):
            store.store.record(token(f"tok_{number}", BEGIN), by=BY)
            both_are_woken()
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'scaivault listener'"
        assert store.execute(kill) == 1
        both_are_woken()
        store.store.record(token("tok_9", BEGIN), by=BY)
        both_are_woken()


def test_a_lively_history_reaches_the_audit_log_from_many_replicas(store: Live) -> None:
    with ThreadPoolExecutor(3) as threads:
        tellers = [threads.submit(Story(store.store, number).tell) for number in range(2)]
        while not all(teller.done() for teller in tellers):
            store.catch_up()
        for teller in tellers:
            teller.result()

    assert catch_up(store.pool, AUDIT_LOG, store.recorder.read) == len(store.history)
    acts = sum(type(recorded.event) in RULES for recorded in store.history)
    assert len(store.table("audit_log")) == acts
