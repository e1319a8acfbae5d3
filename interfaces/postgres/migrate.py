"""Bringing the database to what this version of the service needs. Safe to run any number of times, at once too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files

import msgspec
import psycopg

from application.event_store import Decisions, EventStore
from domain.provenance import Recorded
from interfaces.postgres.pool import Pool
from interfaces.postgres.rebuild import begin_todo, rebuild_view
from projections.views import FOLLOWING, INLINE, View

MIGRATION_LOCK = 1396785496

BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS views (name text PRIMARY KEY, fingerprint text NOT NULL);
CREATE TABLE IF NOT EXISTS processes (name text PRIMARY KEY);
"""


def migrate(
    pool: Pool, read: Callable[[int, int], Sequence[Recorded]], store: EventStore, decisions: Decisions
) -> Sequence[str]:
    """What was done, one line each; empty where nothing had to be. A view whose form changed is rebuilt from events, and a
    process manager that is new finds on the to-do list what there is to do by them."""
    with pool.connection() as connection:
        connection.execute("SET lock_timeout = 0; SET statement_timeout = 0")  # the limits are for requests
        connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            connection.execute(BOOKKEEPING)
            return [
                *_apply_files(connection),
                *_make_views(pool, connection, read),
                *_begin_processes(pool, connection, store, decisions),
            ]
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
            connection.execute("RESET lock_timeout; RESET statement_timeout")


def is_migrated(pool: Pool, decisions: Decisions) -> bool:
    """Whether this version's store, views and to-do list are all there."""
    try:
        with pool.connection() as connection:
            applied = {name for (name,) in connection.execute("SELECT name FROM migrations").fetchall()}
            views = _fingerprints(connection)
            processes = _processes(connection)
    except psycopg.errors.UndefinedTable:
        return False
    wanted = {view.name: fingerprint(view) for view in (*INLINE, *FOLLOWING)}
    return (
        applied.issuperset(name for name, _ in _files())
        and wanted.items() <= views.items()
        and processes.issuperset(decision.process for deciding in decisions.values() for decision in deciding)
    )


def fingerprint(view: View) -> str:
    """Of everything that a stored row depends on: its table, and the form of its document."""
    document_type = getattr(view, "document_type", None)
    schema = msgspec.json.encode(msgspec.json.schema(document_type)) if document_type is not None else b""
    return hashlib.sha256(view.ddl.encode() + schema).hexdigest()


def _fingerprints(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, fingerprint FROM views").fetchall())


def _files() -> Sequence[tuple[str, str]]:
    folder = files("interfaces.postgres.migrations")
    return sorted((entry.name, entry.read_text()) for entry in folder.iterdir() if entry.name.endswith(".sql"))


def _apply_files(connection: psycopg.Connection) -> Sequence[str]:
    applied = {name for (name,) in connection.execute("SELECT name FROM migrations").fetchall()}
    done = []
    for name, sql in _files():
        if name not in applied:
            with connection.transaction():
                connection.execute(sql.encode())
                connection.execute("INSERT INTO migrations (name) VALUES (%s)", [name])
            done.append(f"applied {name}")
    return done


def _make_views(
    pool: Pool, connection: psycopg.Connection, read: Callable[[int, int], Sequence[Recorded]]
) -> Sequence[str]:
    known = _fingerprints(connection)
    done = []
    for view in (*INLINE, *FOLLOWING):
        if known.get(view.name) != fingerprint(view):
            rebuild_view(pool, view, read)
            connection.execute(
                "INSERT INTO views VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint",
                [view.name, fingerprint(view)],
            )
            done.append(f"built {view.name}")
    return done


def _processes(connection: psycopg.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM processes").fetchall()}


def _begin_processes(
    pool: Pool, connection: psycopg.Connection, store: EventStore, decisions: Decisions
) -> Sequence[str]:
    known = _processes(connection)
    new = {
        kind: missing
        for kind, deciding in decisions.items()
        if (missing := [decision for decision in deciding if decision.process not in known])
    }
    names = sorted(decision.process for deciding in new.values() for decision in deciding)
    if new:
        begin_todo(pool, store, new)
        connection.execute("INSERT INTO processes SELECT unnest(%s::text[])", [names])
    return [f"began {name}" for name in names]
