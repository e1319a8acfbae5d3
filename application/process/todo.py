"""The to-do list: what a process manager has to do next for which aggregate, and from when on.

Its rows are written in the same transaction as the events that make them necessary, so nothing is ever forgotten; they
can be thrown away and folded from the events again. A worker claims rows for a short lease, keeps the lease alive while
it works, and reports under its fence: after it lost the lease it can write nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Protocol

import msgspec
import structlog
from eventsourcing.domain import BaseAggregate

log = structlog.get_logger()


class Step(msgspec.Struct, frozen=True):
    """One thing to do, not before `due_at`. Its class says what."""

    due_at: datetime


@contextmanager
def logged_step(step: Step, **about: str | None) -> Iterator[None]:
    """One line in the log when the step has been performed and reported."""
    begun = monotonic()
    with structlog.contextvars.bound_contextvars(**about):
        yield
        duration_ms = round((monotonic() - begun) * 1000)
        log.info("step", step=type(step).__name__, duration_ms=duration_ms)


class TodoItem(msgspec.Struct, frozen=True):
    """The row for one subject; `step` is None when there is nothing left to do. `version` is the aggregate's."""

    process: str
    subject: str
    version: int
    step: str | None
    due_at: datetime | None


class Claim(msgspec.Struct, frozen=True):
    """A leased row. `attempts` counts the claims of it since the last progress, this one included."""

    process: str
    subject: str
    fence: int
    attempts: int


class LeaseLost(Exception):
    """Another worker may have taken over: what was done is not reported."""


class TodoList(Protocol):
    def claim(self, limit: int, lease: timedelta) -> Sequence[Claim]:
        """At most `limit` due rows that nobody holds, each for one worker only, the longest due first."""

    def extend(self, claims: Collection[Claim], lease: timedelta) -> Collection[Claim]:
        """A heartbeat: those of the claims that are still held, their leases counted anew from now."""

    def release(self, claim: Claim, retry_in: timedelta) -> None:
        """Gives a row back without progress. Nothing happens if it is held by somebody else by now."""

    def next_due_in(self) -> timedelta | None:
        """How long until the next row that nobody holds is due; None when there is none."""


class Process(Protocol):
    """A process manager: `next_step` decides, `perform` acts through ports and reports back as commands."""

    name: str

    def perform(self, claim: Claim) -> None:
        """Does what is due for the claim's subject. May be called again for the same step after a crash."""

    def give_up(self, claim: Claim) -> None:
        """Records the end of what has crashed again and again: giving up is an event."""


class Decision(msgspec.Struct, frozen=True):
    """The deciding half of a process manager, as the event store needs it."""

    process: str
    next_step: Callable[[Any], Step | None]

    def item(self, aggregate: BaseAggregate[str]) -> TodoItem:
        step = self.next_step(aggregate)
        return TodoItem(
            process=self.process,
            subject=aggregate.id,
            version=aggregate.version,
            step=type(step).__name__ if step else None,
            due_at=step.due_at if step else None,
        )
