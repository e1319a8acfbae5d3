"""What `main.py` puts together, for the commands to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventsourcing.domain import BaseAggregate

from application.event_store import EventStore
from application.process.todo import Decision, Process, TodoList
from application.tokens import Tokens
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.http.services import Services
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
    decisions: Mapping[type[BaseAggregate[str]], Decision]
    processes: Sequence[tuple[Process, int]]
    followers: Sequence[tuple[Follower, Read]]
    tokens: Tokens
    services: Services
    dns: EmbeddedDns | None
