"""The event store's table: appends in one call, reads one aggregate or the history of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from uuid import UUID

import msgspec
import psycopg
from eventsourcing.persistence import (
    ApplicationRecorder,
    Mapper,
    Notification,
    NotSupportedError,
    RecordConflictError,
    StoredEvent,
    Subscription,
)
from psycopg.rows import TupleRow

from application.event_store import Append, InlineView, Taken
from application.process.todo import LeaseLost
from domain.errors import NotFound
from domain.event import DomainEvent
from domain.provenance import Provenance, Recorded
from interfaces.postgres.pool import Pool

LEASE_LOST = "SV001"

APPEND = """
SELECT * FROM append_events(%s, %s, %s, %s::json[], %s::json[], %s, %s, %s, %s, %s::timestamptz[], %s, %s, %s, %s, %s, %s)
"""
ONE_AGGREGATE = """
SELECT originator_id, originator_version, topic, state::text FROM events
WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s ORDER BY originator_version
"""
ORIGIN = "SELECT provenance::text FROM events WHERE originator_id = %s AND originator_version = 1"
HISTORY = """
SELECT originator_id, originator_version, topic, state::text, position, provenance::text FROM events
WHERE position > %s AND position <= %s ORDER BY position LIMIT %s
"""
HISTORY_OF_ONE = """
SELECT originator_id, originator_version, topic, state::text, position, provenance::text FROM events
WHERE originator_id = %s ORDER BY originator_version
"""
ALL = 2**62


class PostgresRecorder(ApplicationRecorder):
    """`inline_views` are written in the same transaction, each with all events of the append."""

    def __init__(self, pool: Pool, mapper: Mapper[str], inline_views: Sequence[InlineView] = ()) -> None:
        self._pool = pool
        self._mapper = mapper
        self._inline_views = inline_views

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        append: Append = kwargs["append"]
        try:
            with (
                self._pool.connection() as connection,
                connection.pipeline() as pipeline,
                connection.transaction(),
                connection.cursor() as cursor,
            ):
                last, append.still_held = _append(cursor, stored_events, append)
                pipeline.sync()  # without it the server takes us for busy, and its time-outs do not run
                positions = range(last - len(stored_events) + 1, last + 1)
                recorded = [
                    Recorded(position, event, by)
                    for position, event, by in zip(positions, append.events, append.by, strict=True)
                ]
                for view in self._inline_views:
                    view.apply(cursor, recorded)
        except psycopg.Error as problem:
            _translate(problem)
        return positions

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with self._pool.connection() as connection:
            rows = connection.execute(ONE_AGGREGATE, [originator_id, gt or 0, lte or ALL]).fetchall()
        events = [StoredEvent(subject, version, topic, state.encode()) for subject, version, topic, state in rows]
        if desc:
            events.reverse()
        return events[:limit]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = (start or 0) - (1 if inclusive_of_start and start is not None else 0)
        return [
            Notification(originator_id, version, topic, state.encode(), position)
            for originator_id, version, topic, state, position, _ in self._history(after, stop or ALL, limit)
            if not topics or topic in topics
        ]

    def max_notification_id(self) -> int | None:
        with self._pool.connection() as connection:
            row = connection.execute("SELECT max(position) FROM events").fetchone()
        return row[0] if row else None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:  # noqa: ARG002
        raise NotSupportedError("followers read the history and listen for its growth (interfaces/postgres/follow.py)")

    def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """See `application.event_store.History`."""
        return [self._recorded(*row) for row in self._history(after, ALL, limit)]

    def of(self, subject_id: str) -> Sequence[Recorded]:
        """See `application.event_store.History`."""
        with self._pool.connection() as connection:
            rows = connection.execute(HISTORY_OF_ONE, [subject_id]).fetchall()
        return [self._recorded(*row) for row in rows]

    def origin(self, subject_id: str) -> Provenance:
        """See `application.event_store.History`."""
        with self._pool.connection() as connection:
            row = connection.execute(ORIGIN, [subject_id]).fetchone()
        if row is None:
            raise NotFound("event", subject_id)
        return msgspec.json.decode(row[0], type=Provenance)

    def _history(self, after: int, stop: int, limit: int) -> Sequence[TupleRow]:
        with self._pool.connection() as connection:
            return connection.execute(HISTORY, [after, stop, limit]).fetchall()

    def _recorded(
        self, originator_id: str, version: int, topic: str, state: str, position: int, provenance: str
    ) -> Recorded:
        event = self._mapper.to_domain_event(StoredEvent(originator_id, version, topic, state.encode()))
        if not isinstance(event, DomainEvent):
            raise TypeError(f"{topic} is no domain event")
        return Recorded(position, event, msgspec.json.decode(provenance, type=Provenance))


def _append(cursor: psycopg.Cursor[TupleRow], stored_events: Sequence[StoredEvent], append: Append) -> tuple[int, bool]:
    claim = append.claim
    cursor.execute(
        APPEND,
        [
            [event.originator_id for event in stored_events],
            [event.originator_version for event in stored_events],
            [event.topic for event in stored_events],
            [event.state.decode() for event in stored_events],
            [msgspec.json.encode(by).decode() for by in append.by],
            [item.process for item in append.todo],
            [item.subject for item in append.todo],
            [item.version for item in append.todo],
            [item.step for item in append.todo],
            [item.due_at for item in append.todo],
            [item.turn.lane for item in append.todo],
            [item.turn.queue for item in append.todo],
            [item.turn.place for item in append.todo],
            claim.process if claim else None,
            claim.subject if claim else None,
            claim.fence if claim else None,
        ],
    )
    row = cursor.fetchone()
    if row is None:
        raise psycopg.InternalError("append_events gave no answer")
    last, still_held = row
    return last, still_held


def _translate(problem: psycopg.Error) -> NoReturn:
    if problem.sqlstate == LEASE_LOST:
        raise LeaseLost from None
    if isinstance(problem, psycopg.errors.UniqueViolation):
        constraint = problem.diag.constraint_name or ""
        if constraint == "events_version":
            raise RecordConflictError from None
        raise Taken(constraint) from None
    raise problem
