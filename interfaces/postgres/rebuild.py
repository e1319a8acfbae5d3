"""Making the read models and the to-do list anew from the events, and comparing them with the live ones.

A view is built in a schema of its own while the live one serves on. Only the last step holds the lock of the appends:
what came meanwhile is applied, then the tables change places, or are compared and thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec.structs import astuple, replace
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from application.event_store import Decisions, EventStore
from application.process.todo import TodoItem, Turn
from interfaces.postgres.pool import Pool
from projections.catch_up import Read
from projections.views import FOLLOWING, View

APPEND_LOCK = 1396785494  # the one that append_events takes
SHADOW = Identifier("rebuilding")
BATCH = 5000


class Difference(msgspec.Struct, frozen=True):
    """How many rows only the live table has, and how many only the rebuilt one."""

    name: str
    rows: int
    only_live: int
    only_rebuilt: int

    @property
    def is_equal(self) -> bool:
        return self.only_live == self.only_rebuilt == 0


def rebuild_view(pool: Pool, view: View, read: Read) -> None:
    """Replaces the live view, or makes it where there is none yet."""
    name = Identifier(view.name)
    with pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        if view in FOLLOWING:  # its follower stands still meanwhile
            cursor.execute(
                "INSERT INTO positions VALUES (%s, 0) ON CONFLICT (reader) DO UPDATE SET position = 0", [view.name]
            )
        position = _build_shadow(connection, cursor, view, read)
        cursor.execute(SQL("DROP TABLE IF EXISTS public.{}").format(name))
        cursor.execute(SQL("ALTER TABLE {}.{} SET SCHEMA public").format(SHADOW, name))
        cursor.execute(SQL("DROP SCHEMA {}").format(SHADOW))
        cursor.execute("UPDATE positions SET position = %s WHERE reader = %s", [position, view.name])


def compare_view(pool: Pool, view: View, read: Read, catch_up: Callable[[], object]) -> Difference:
    """Builds it anew, compares it with the live one row by row, and leaves nothing behind. `catch_up` brings a live
    view that follows behind up to the end."""
    name = Identifier(view.name)
    with pool.connection() as connection, connection.transaction(force_rollback=True):
        cursor = connection.cursor()
        _build_shadow(connection, cursor, view, read)
        catch_up()
        live, rebuilt = SQL("public.{}").format(name), SQL("{}.{}").format(SHADOW, name)
        cursor.execute(SQL("SELECT count(*) FROM {}").format(rebuilt))
        (rows,) = cursor.fetchone() or (0,)
        counts = []
        for one, other in ((live, rebuilt), (rebuilt, live)):
            cursor.execute(
                SQL("SELECT count(*) FROM (SELECT a::text FROM {} a EXCEPT ALL SELECT b::text FROM {} b) d").format(
                    one, other
                )
            )
            (count,) = cursor.fetchone() or (0,)
            counts.append(count)
    return Difference(view.name, rows, *counts)


def _build_shadow(connection: Connection, cursor: Cursor[TupleRow], view: View, read: Read) -> int:
    """The position of the last event in it. From its end on nothing can be appended until the transaction ends."""
    cursor.execute(SQL("CREATE SCHEMA {}").format(SHADOW))
    cursor.execute(SQL("SET LOCAL search_path = {}, public").format(SHADOW))
    cursor.execute("SET LOCAL statement_timeout = 0")
    connection.execute(view.ddl.encode())
    position = _apply_after(0, cursor, view, read)
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [APPEND_LOCK])
    return _apply_after(position, cursor, view, read)


def _apply_after(position: int, cursor: Cursor[TupleRow], view: View, read: Read) -> int:
    while events := read(position, BATCH):
        view.apply(cursor, events)
        position = events[-1].position
    return position


SUBJECTS = "SELECT DISTINCT originator_id FROM events WHERE starts_with(topic, %s) AND position > %s"
ADD_TODO = (
    "INSERT INTO todo (process, subject, version, step, due_at, lane, queue, place)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)
TODO_ROWS = "SELECT process, subject, version, step, due_at, lane, queue, place FROM todo"


def compare_todo(pool: Pool, store: EventStore, decisions: Decisions) -> Difference:
    with _folded_todo(pool, store, decisions) as (cursor, rebuilt):
        rows = cursor.execute(TODO_ROWS).fetchall()
    live = {
        (process, subject): TodoItem(process, subject, version, step, due_at, Turn(*turn))
        for process, subject, version, step, due_at, *turn in rows
    }
    equal = sum(_is_same(live.get((item.process, item.subject)), item) for item in rebuilt)
    return Difference("todo", len(rebuilt), len(live) - equal, len(rebuilt) - equal)


def _is_same(live: TodoItem | None, rebuilt: TodoItem) -> bool:
    """A live row that was given back, to be tried again, is due later than its events say."""
    if live is None or live.due_at is None or rebuilt.due_at is None:
        return False
    return live.due_at >= rebuilt.due_at and replace(live, due_at=rebuilt.due_at) == rebuilt


def replace_todo(pool: Pool, store: EventStore, decisions: Decisions) -> None:
    """The list as folded; leases of rows that stay as they are are kept."""
    with _folded_todo(pool, store, decisions) as (cursor, folded):
        cursor.execute(
            "DELETE FROM todo WHERE (process, subject) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
            [[item.process for item in folded], [item.subject for item in folded]],
        )
        cursor.executemany(
            f"{ADD_TODO} ON CONFLICT (process, subject) DO UPDATE"
            " SET version = excluded.version, step = excluded.step, due_at = excluded.due_at,"
            " lane = excluded.lane, queue = excluded.queue, place = excluded.place",
            [_row(item) for item in folded],
        )


def begin_todo(pool: Pool, store: EventStore, decisions: Decisions) -> None:
    """For process managers that are new: what there is to do for them by the events. Nothing else is touched."""
    with _folded_todo(pool, store, decisions) as (cursor, folded):
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.executemany(f"{ADD_TODO} ON CONFLICT DO NOTHING", [_row(item) for item in folded])


def _row(item: TodoItem) -> Sequence[object]:
    return [*astuple(item)[:-1], *astuple(item.turn)]


@contextmanager
def _folded_todo(
    pool: Pool, store: EventStore, decisions: Decisions
) -> Iterator[tuple[Cursor[TupleRow], Sequence[TodoItem]]]:
    """What the to-do list must hold, by the events alone. Nothing can be appended until the block ends."""
    position = store.recorder.max_notification_id() or 0
    items = _fold(pool, store, decisions, after=0)
    with pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [APPEND_LOCK])
        items |= _fold(pool, store, decisions, after=position)
        yield cursor, [item for item in items.values() if item.step is not None]


def _fold(pool: Pool, store: EventStore, decisions: Decisions, after: int) -> dict[tuple[str, str], TodoItem]:
    """What is next for each aggregate that has an event after that position."""
    items = {}
    for aggregate_class, deciding in decisions.items():
        with pool.connection() as connection, connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0")
            subjects = connection.execute(SUBJECTS, [f"{aggregate_class.TOPIC}.", after]).fetchall()  # type: ignore[attr-defined]
        for (subject,) in subjects:
            aggregate = store.load(aggregate_class, subject)
            for decision in deciding:
                item = decision.item(aggregate)
                items[item.process, item.subject] = item
    return items
