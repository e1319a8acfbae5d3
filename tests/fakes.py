"""The inside ports in memory: clock, ids, the event store with its to-do list, and the key store.

The last two are held to the same contracts as PostgreSQL's (`tests/contracts`)."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    Notification,
    NotSupportedError,
    RecordConflictError,
    StoredEvent,
    Subscription,
)
from msgspec.structs import replace

from application.event_store import Append
from application.mapper import EventMapper
from application.ports import Clock, Ids
from application.process.todo import MOST_IN_A_LANE, NO_LIMITS, Claim, Claimed, LeaseLost, TodoItem
from application.secret_value import SecretValue
from domain.errors import NotFound, SealBroken
from domain.provenance import Provenance, Recorded

NEW_YEAR = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALL = 2**62


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self, at: datetime = NEW_YEAR) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    def set(self, at: datetime) -> None:
        self._at = at

    def advance(self, by: timedelta) -> datetime:
        self._at += by
        return self._at


class CountingIds:
    """`cert_00000000000000000000000001`, then `…2`, whatever the prefix: ULIDs in form, and in the order of their making."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):026}"


@dataclass
class _Row:
    item: TodoItem
    due_at: datetime
    lease_until: datetime | None = None
    fence: int = 0
    attempts: int = 0

    def is_held(self, now: datetime) -> bool:
        return self.lease_until is not None and self.lease_until > now

    @property
    def order(self) -> tuple[datetime, int]:
        """The longest due first."""
        return self.due_at, self.item.turn.place


class MemoryStore(ApplicationRecorder):
    """Recorder, History and TodoList. There are no inline views, so nothing but a version is ever in conflict.

    The mapper is the real one: an event that does not survive its JSON fails here too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mapper = EventMapper()
        self._lock = threading.RLock()
        self._stored: list[tuple[StoredEvent, Provenance]] = []
        self._versions: set[tuple[UUID | str, int]] = set()
        self._rows: dict[tuple[str, str], _Row] = {}
        self._fences = itertools.count(1)

    # --- what a test may look at ---

    @property
    def todo(self) -> Sequence[TodoItem]:
        """The to-do list, the longest due first; `due_at` also where a release has put it off."""
        with self._lock:
            rows = sorted(self._rows.values(), key=lambda row: row.due_at)
            return [replace(row.item, due_at=row.due_at) for row in rows]

    @property
    def history(self) -> Sequence[Recorded]:
        return self.read(0, ALL)

    # --- ApplicationRecorder ---

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        append: Append = kwargs["append"]
        with self._lock:
            if append.claim is not None and not self._is_held(append.claim):
                raise LeaseLost
            fresh = {(stored.originator_id, stored.originator_version) for stored in stored_events}
            if self._versions & fresh or len(fresh) < len(stored_events):
                raise RecordConflictError
            self._versions |= fresh
            first = len(self._stored) + 1
            self._stored.extend(zip(stored_events, append.by, strict=True))
            for item in append.todo:
                self._write(item, append.claim)
            append.still_held = append.claim is not None and self._is_held(append.claim)
        return range(first, first + len(stored_events))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with self._lock:
            events = [
                stored
                for stored, _ in self._stored
                if stored.originator_id == originator_id and (gt or 0) < stored.originator_version <= (lte or ALL)
            ]
        events.sort(key=lambda stored: stored.originator_version, reverse=desc)
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
        with self._lock:
            page = list(enumerate(self._stored, start=1))[max(0, after) : stop][:limit]
        return [
            Notification(stored.originator_id, stored.originator_version, stored.topic, stored.state, position)
            for position, (stored, _) in page
            if not topics or stored.topic in topics
        ]

    def max_notification_id(self) -> int | None:
        with self._lock:
            return len(self._stored) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:  # noqa: ARG002
        raise NotSupportedError("followers read the history")

    # --- History ---

    def read(self, after: int, limit: int) -> Sequence[Recorded]:
        with self._lock:
            page = self._stored[after : after + limit]
        return [
            Recorded(position, self._mapper.to_domain_event(stored), by)
            for position, (stored, by) in enumerate(page, start=after + 1)
        ]

    def of(self, subject_id: str) -> Sequence[Recorded]:
        return [recorded for recorded in self.history if recorded.event.originator_id == subject_id]

    def origin(self, subject_id: str) -> Provenance:
        with self._lock:
            for stored, by in self._stored:
                if stored.originator_id == subject_id:
                    return by
        raise NotFound("event", subject_id)

    # --- TodoList ---

    def claim(self, process: str, limit: int, lease: timedelta, lane_limits: Mapping[str, int] = NO_LIMITS) -> Claimed:
        with self._lock:
            now = self._clock.now()
            rows = [row for row in self._rows.values() if row.item.process == process]
            claimed = _whose_turn_it_is(rows, now, limit, lane_limits)
            for row in claimed:
                row.lease_until = now + lease
                row.fence = next(self._fences)
                row.attempts += 1
            waits = [at - now for row in rows for at in (row.due_at, row.lease_until) if at is not None and at > now]
            claims = [Claim(process, row.item.subject, row.fence, row.attempts) for row in claimed]
            return Claimed(claims, min(waits, default=None))

    def extend(self, claims: Collection[Claim], lease: timedelta) -> Collection[Claim]:
        with self._lock:
            held = [claim for claim in claims if self._is_held(claim)]
            for claim in held:
                self._rows[claim.process, claim.subject].lease_until = self._clock.now() + lease
            return held

    def release(self, claim: Claim, retry_in: timedelta, *, counted: bool = True) -> None:
        with self._lock:
            row = self._rows.get((claim.process, claim.subject))
            if row is not None and row.fence == claim.fence:
                row.lease_until = None
                row.attempts -= 0 if counted or row.attempts == 0 else 1
                if retry_in:
                    row.due_at = max(row.due_at, self._clock.now() + retry_in)

    def hasten(self, process: str) -> None:
        with self._lock:
            now = self._clock.now()
            for row in self._rows.values():
                if row.item.process == process and (row.lease_until is None or row.lease_until < now):
                    row.due_at = min(row.due_at, now)

    def _is_held(self, claim: Claim) -> bool:
        row = self._rows.get((claim.process, claim.subject))
        return row is not None and row.fence == claim.fence and row.is_held(self._clock.now())

    def _write(self, item: TodoItem, claim: Claim | None) -> None:
        key = (item.process, item.subject)
        if item.step is None or item.due_at is None:
            self._rows.pop(key, None)
            return
        row = self._rows.setdefault(key, _Row(item, item.due_at))
        row.item, row.due_at = item, item.due_at
        if claim is not None and key == (claim.process, claim.subject):
            is_due = item.due_at <= self._clock.now()
            row.attempts = 1 if is_due else 0
            row.lease_until = row.lease_until if is_due else None


def _whose_turn_it_is(
    rows: Sequence[_Row], now: datetime, limit: int, lane_limits: Mapping[str, int]
) -> Sequence[_Row]:
    """Of the rows that are due and free, those for which there is room in their lanes."""
    filled = Counter(row.item.turn.lane for row in rows if row.is_held(now))
    with_room: list[tuple[int, _Row]] = []
    for row in sorted(rows, key=lambda row: row.order):
        if row.due_at > now or row.is_held(now) or not _is_first_in_queue(row, rows):
            continue
        lane, fullness = row.item.turn.lane, 0
        if lane is not None:
            most = lane_limits.get(lane, MOST_IN_A_LANE)
            if filled[lane] >= most:
                continue
            filled[lane] += 1
            fullness = filled[lane] + MOST_IN_A_LANE - most
        with_room.append((fullness, row))
    with_room.sort(key=lambda each: (each[0], each[1].order))
    return sorted((row for _, row in with_room[:limit]), key=lambda row: row.order)


def _is_first_in_queue(row: _Row, rows: Sequence[_Row]) -> bool:
    turn = row.item.turn
    return turn.queue is None or not any(
        other.item.turn.queue == turn.queue and other.item.turn.place < turn.place for other in rows
    )


class MemoryKeyStore:
    """KeyStore. `sealed` counts what can still be opened."""

    def __init__(self, ids: Ids | None = None) -> None:
        self._ids = ids or CountingIds()
        self._values: dict[str, tuple[tuple[str, str, str], SecretValue]] = {}

    @property
    def sealed(self) -> int:
        return len(self._values)

    def seal(self, kind: str, tenant_id: str, owner_id: str, plaintext: SecretValue) -> str:
        sealed_id = self._ids.new("sealed")
        self._values[sealed_id] = ((kind, tenant_id, owner_id), plaintext)
        return sealed_id

    def open(self, kind: str, tenant_id: str, owner_id: str, sealed_id: str) -> SecretValue:
        label, plaintext = self._values.get(sealed_id, (None, SecretValue(b"")))
        if label != (kind, tenant_id, owner_id):
            raise SealBroken(kind, owner_id)
        return plaintext

    def shred(self, sealed_ids: Sequence[str]) -> None:
        for sealed_id in sealed_ids:
            self._values.pop(sealed_id, None)
