"""Given events, then rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventsourcing.domain import BaseAggregate
from psycopg.sql import SQL, Identifier

from domain.event import DomainEvent
from domain.provenance import Provenance, Recorded
from interfaces.postgres.pool import Pool
from projections.documents import DocumentView
from projections.views import View
from tests.projections.story import BY


def recorded(*subjects: BaseAggregate[str] | DomainEvent, by: Provenance = BY, after: int = 0) -> list[Recorded]:
    """What is pending in the aggregates, and the single events, as if recorded behind the position `after`."""
    events: list[Any] = []
    for subject in subjects:
        events.extend([subject] if isinstance(subject, DomainEvent) else subject.collect_events())
    return [Recorded(position, event, by) for position, event in enumerate(events, start=after + 1)]


def apply(pool: Pool, view: View, events: Sequence[Recorded]) -> None:
    with pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        view.apply(cursor, events)


def rows(pool: Pool, view: View) -> list[str]:
    with pool.connection() as connection:
        query = SQL("SELECT row::text FROM {} row ORDER BY 1").format(Identifier(view.name))
        return [text for (text,) in connection.execute(query).fetchall()]


def empty(pool: Pool, view: View) -> None:
    with pool.connection() as connection:
        connection.execute(SQL("TRUNCATE {}").format(Identifier(view.name)))


def document(pool: Pool, view: DocumentView, *subjects: BaseAggregate[str], by: Provenance = BY) -> Any:
    """What the view shows of the first aggregate, given what was pending in all of them."""
    apply(pool, view, recorded(*subjects, by=by))
    return view.one(pool, by.tenant_id, subjects[0].id)
