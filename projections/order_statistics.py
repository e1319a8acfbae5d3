"""How orders went: how many ended how, how long their phases took, which are under way, and which values are left.

All in one table, by `kind`:

ended     `subject` is `completed` or an error's code                  `amount` orders
phase     `subject` is a phase, `part` the upper bound of a bucket     `amount` orders, each in one bucket
phase_ms  `subject` is a phase                                         `amount` milliseconds
renewal   `subject` is `yes`, `no` or `none`: begun in the CA's window `amount` renewals that nobody asked for
running   `subject` is an order, in `phase` `since`                    `amount` values to be removed one day
left      `subject` is an order that ended, `since` then               `amount` values not removed yet"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec.structs import replace
from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.certificate import Certificate
from domain.event import DomainEvent
from domain.order import Order, Phase
from domain.provenance import Recorded

MEASURED_PHASES: Sequence[Phase] = ("placing", "publishing", "propagating", "validating", "finalizing", "downloading")
PHASE_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0)
"""Upper bounds, in seconds; above them is one more, without end."""

BOUNDS = (*(str(bound) for bound in PHASE_BUCKETS), "+Inf")
MILLISECOND = timedelta(milliseconds=1)

UNENDED = """
SELECT subject, kind, amount, phase, since FROM order_statistics WHERE kind IN ('running', 'left') AND subject = ANY(%s)
"""
FORGET = "DELETE FROM order_statistics WHERE kind IN ('running', 'left') AND subject = ANY(%s)"
KEEP = "INSERT INTO order_statistics (kind, subject, part, amount, phase, since) VALUES (%s, %s, '', %s, %s, %s)"
ADD = """
INSERT INTO order_statistics AS s (kind, subject, part, amount) VALUES (%s, %s, %s, %s)
ON CONFLICT (kind, subject, part) DO UPDATE SET amount = s.amount + excluded.amount
"""

Sums = Counter[tuple[str, str, str]]
"""By kind, subject and part."""


class Standing(msgspec.Struct, frozen=True):
    """Where an order stands that is not done; `values` are to be removed."""

    kind: Literal["running", "left"]
    values: int
    phase: Phase
    since: datetime


class OrderStatistics:
    name = "order_statistics"
    ddl = """
CREATE TABLE order_statistics (
    kind text NOT NULL,
    subject text NOT NULL,
    part text NOT NULL,
    amount bigint NOT NULL,
    phase text,
    since timestamptz,
    PRIMARY KEY (kind, subject, part)
)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        ids = list({r.event.originator_id: None for r in events if isinstance(r.event, Order.Event)})
        before = _standing(cursor, ids) if ids else {}
        after, sums = dict(before), Sums()
        for recorded in events:
            match recorded.event:
                case Order.Event() as event:
                    after[event.originator_id] = _after(after.get(event.originator_id), event, sums)
                case Certificate.RenewalBegan(automatic=True, in_window=in_window):
                    sums["renewal", _yes_or_no(in_window), ""] += 1
                case _:
                    continue
        changed = {subject: standing for subject, standing in after.items() if standing != before.get(subject)}
        if changed:
            cursor.execute(FORGET, [list(changed)])
        kept = [[s.kind, subject, s.values, s.phase, s.since] for subject, s in changed.items() if s is not None]
        if kept:
            cursor.executemany(KEEP, kept)
        if sums:
            cursor.executemany(ADD, [[*key, amount] for key, amount in sums.items()])


def _standing(cursor: Cursor[TupleRow], ids: Sequence[str]) -> Mapping[str, Standing | None]:
    cursor.execute(UNENDED, [ids])
    return {subject: Standing(*row) for subject, *row in cursor.fetchall()}


def _after(standing: Standing | None, event: DomainEvent, sums: Sums) -> Standing | None:
    """Where the order stands after an event; None where nothing is left to be done. What ended is added to the sums."""
    at = event.timestamp
    if isinstance(event, Order.Placed):
        return Standing("running", 0, "placing", at)
    if standing is None:
        return None
    match event:
        case Order.ChallengesOffered(challenges=challenges):
            records = {challenge.record for challenge in challenges if challenge.record is not None}
            return replace(standing, values=len(records))
        case Order.Completed():
            _add_phase(standing, at, sums)
            sums["ended", "completed", ""] += 1
            return _left(standing, at)
        case Order.Failed(error=error):
            sums["ended", error.code, ""] += 1
            return _left(standing, at)
        case Order.RecordRemoved(outstanding=outstanding) | Order.RecordLeft(outstanding=outstanding):
            is_done = standing.kind == "left" and outstanding == 0
            return None if is_done else replace(standing, values=outstanding)
        case _:
            return _entered(standing, _phase_after(event), at, sums)


def _phase_after(event: DomainEvent) -> Phase | None:
    """Which phase an event begins, or None."""
    match event:
        case Order.Accepted():
            return "publishing"
        case Order.RecordPublished():
            return "propagating"
        case Order.RecordsPropagated() | Order.ChallengesAnswered():
            return "validating"
        case Order.BecameReady() | Order.Finalized():
            return "finalizing"
        case Order.Issued():
            return "downloading"
        case _:
            return None


def _entered(standing: Standing, phase: Phase | None, at: datetime, sums: Sums) -> Standing:
    """An order goes forwards only. A phase that is passed over in the same instant took place for nobody."""
    if phase is None or MEASURED_PHASES.index(phase) <= MEASURED_PHASES.index(standing.phase):
        return standing
    _add_phase(standing, at, sums)
    return replace(standing, phase=phase, since=at)


def _add_phase(standing: Standing, at: datetime, sums: Sums) -> None:
    milliseconds = (at - standing.since) // MILLISECOND
    if milliseconds > 0:  # processes decide by clocks of their own, so it can be less
        sums["phase", standing.phase, BOUNDS[bisect_left(PHASE_BUCKETS, milliseconds / 1000)]] += 1
        sums["phase_ms", standing.phase, ""] += milliseconds


def _left(standing: Standing, at: datetime) -> Standing | None:
    return Standing("left", standing.values, standing.phase, at) if standing.values else None


def _yes_or_no(in_window: bool | None) -> str:
    return "none" if in_window is None else "yes" if in_window else "no"


ORDER_STATISTICS = OrderStatistics()
