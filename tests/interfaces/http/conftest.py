"""One running application for all tests of a process; each test is a tenant of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from interfaces.postgres.embedded import NAME, EmbeddedPostgres
from tests.interfaces.http.client import Api, running_api


@pytest.fixture(scope="session")
def shared_api(postgres: EmbeddedPostgres) -> Iterator[Api]:
    with psycopg.connect(make_conninfo(postgres.dsn, dbname="postgres"), autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE http TEMPLATE {} STRATEGY WAL_LOG").format(Identifier(NAME)))
    with running_api(make_conninfo(postgres.dsn, dbname="http")) as running:
        yield running


@pytest.fixture
def api(shared_api: Api) -> Api:
    return replace(shared_api, tenant_id=shared_api.new_id("tnt"))


@pytest.fixture
def elsewhere(shared_api: Api) -> str:
    """Another tenant."""
    return shared_api.new_id("tnt")
