"""The to-do list: what a process manager has to do next for which aggregate, and from when on.

Its rows are written in the same transaction as the events that make them necessary, so nothing is ever forgotten; they
can be thrown away and folded from the events again. A worker claims rows for a short lease, keeps the lease alive while
it works, and reports under its fence: after it lost the lease it can write nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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


MOST_IN_A_LANE = 4


class Turn(msgspec.Struct, frozen=True):
    """What a row waits for beside its time: of a `lane` at most `MOST_IN_A_LANE` rows are claimed at once, and of a
    `queue` only the row with the lowest `place`."""

    lane: str | None = None
    queue: str | None = None
    place: int = 0


ANY_TIME = Turn()


class TodoItem(msgspec.Struct, frozen=True):
    """The row for one subject; `step` is None when there is nothing left to do. `version` is the aggregate's."""

    process: str
    subject: str
    version: int
    step: str | None
    due_at: datetime | None
    turn: Turn = ANY_TIME


class Claim(msgspec.Struct, frozen=True):
    """A leased row. `attempts` counts the claims of it since the last progress, this one included."""

    process: str
    subject: str
    fence: int
    attempts: int


class LeaseLost(Exception):
    """Another worker may have taken over: what was done is not reported."""


class Claimed(msgspec.Struct, frozen=True):
    """`next_due_in` is how long until a row falls due that could not be claimed yet for its time alone; None when there
    is none."""

    claims: Sequence[Claim]
    next_due_in: timedelta | None


NO_LIMITS: Mapping[str, int] = {}


class TodoList(Protocol):
    def claim(self, process: str, limit: int, lease: timedelta, lane_limits: Mapping[str, int] = NO_LIMITS) -> Claimed:
        """At most `limit` due rows that nobody holds, each for one worker only, the longest due first; in lanes, those
        of the emptiest lanes first. `lane_limits` are those below `MOST_IN_A_LANE`."""

    def extend(self, claims: Collection[Claim], lease: timedelta) -> Collection[Claim]:
        """A heartbeat: those of the claims that are still held, their leases counted anew from now."""

    def release(self, claim: Claim, retry_in: timedelta, *, counted: bool = True) -> None:
        """Gives a row back. Only what is `counted`, or never given back, is among the `attempts` of the next claim.
        Nothing happens if it is held by somebody else by now."""

    def hasten(self, process: str) -> None:
        """All its rows that nobody holds are due now."""


class Process(Protocol):
    """A process manager: `next_step` decides, `perform` acts through ports and reports back as commands."""

    name: str

    def perform(self, claim: Claim) -> timedelta | None:
        """Does what is due for the claim's subject. May be called again for the same step after a crash. Where there was
        nothing to record it says after how long to look again."""

    def give_up(self, claim: Claim) -> None:
        """Records the end of what has crashed again and again: giving up is an event."""

    def lane_limits(self) -> Mapping[str, int]:
        """The lanes that may not be filled as others now, and how far they may."""


class Decision(msgspec.Struct, frozen=True):
    """The deciding half of a process manager, as the event store needs it."""

    process: str
    next_step: Callable[[Any], Step | None]
    turn: Callable[[Any], Turn] = lambda _: ANY_TIME

    def item(self, aggregate: BaseAggregate[str]) -> TodoItem:
        step = self.next_step(aggregate)
        return TodoItem(
            process=self.process,
            subject=aggregate.id,
            version=aggregate.version,
            step=type(step).__name__ if step else None,
            due_at=step.due_at if step else None,
            turn=self.turn(aggregate),
        )
