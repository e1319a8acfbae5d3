"""PostgreSQL for the tests: one server per test process, and for each test that asks a fresh, migrated database."""

from __future__ import annotations

import itertools
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from application.event_store import EventStore
from application.mapper import EventMapper
from interfaces.main import DECISIONS
from interfaces.postgres.embedded import NAME, EmbeddedPostgres
from interfaces.postgres.migrate import migrate
from interfaces.postgres.pool import Pool, open_pool
from interfaces.postgres.recorder import PostgresRecorder

POOL_SIZE = 8
MEMORY = Path("/dev/shm")  # on a disk, making a database takes ten times as long
ROOM_BYTES = 1 << 30

numbers = itertools.count(1)


def is_asked_outside(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or ""
    return name != "localhost" and any(character.isalpha() for character in name) and ":" not in name


@pytest.fixture(scope="session", autouse=True)
def no_lookups() -> Iterator[None]:
    """No name is looked up outside of this machine: none but `localhost` has an address."""
    lookup = socket.getaddrinfo

    def inside(host: str | bytes | None, *args: Any, **options: Any) -> Any:
        if is_asked_outside(host) and not str(host).startswith("0x"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return lookup(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", inside)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """Its database `scaivault` is migrated and empty: the template of all others. Nobody may be connected to it."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="scaivault-tests-", dir=MEMORY if in_memory else "/tmp"))
    folder.chmod(0o711)  # the server has an account of its own where root runs the tests
    try:
        with EmbeddedPostgres(folder / "data", durable=False) as server:
            with open_pool(server.dsn, 4) as pool:
                recorder = PostgresRecorder(pool, EventMapper())
                migrate(pool, recorder.read, EventStore(recorder, DECISIONS), DECISIONS)
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """How to connect to a database of this test alone."""
    name = f"test_{next(numbers)}"
    with psycopg.connect(make_conninfo(postgres.dsn, dbname="postgres"), autocommit=True) as connection:
        create = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        connection.execute(create.format(Identifier(name), Identifier(NAME)))
        try:
            yield make_conninfo(postgres.dsn, dbname=name)
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@pytest.fixture
def pool(database: str) -> Iterator[Pool]:
    with open_pool(database, POOL_SIZE) as opened:
        yield opened
