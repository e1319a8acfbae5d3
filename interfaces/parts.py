"""What `main.py` puts together, for the commands to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from application.event_store import Decisions, EventStore
from application.process.todo import Process, TodoList
from application.tokens import Tokens
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.http.services import Services
from interfaces.postgres.measurements import PostgresMeasurements
from interfaces.postgres.pool import Pool
from interfaces.postgres.recorder import PostgresRecorder
from interfaces.settings import Settings
from projections.catch_up import Follower, Read


@dataclass(frozen=True)
class Parts:
    """`history` reads all events; `processes` with how many steps of each may be in flight; `followers` want to be kept up
    to date with what is read; `dns` is there when it is configured."""

    settings: Settings
    conninfo: str
    pool: Pool
    store: EventStore
    history: PostgresRecorder
    todo: TodoList
    decisions: Decisions
    processes: Sequence[tuple[Process, int]]
    followers: Sequence[tuple[Follower, Read]]
    tokens: Tokens
    measurements: PostgresMeasurements
    services: Services
    dns: EmbeddedDns | None
