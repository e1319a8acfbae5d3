"""Orders as the API shows them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.acme import Problem
from domain.challenge import DNS_01, dns01_record_name
from domain.dns_provider import Removal
from domain.names import base_name
from domain.order import Challenge, ErrorAtName, Order, OrderError, Phase
from domain.provenance import Recorded
from projections.documents import Column, DocumentView, Pool
from projections.times import whole_seconds

Status = Literal["pending", "processing", "valid", "invalid"]
ShownPhase = Literal[Phase, "waiting"]


class SubproblemView(msgspec.Struct, frozen=True):
    domain: str
    type: str
    detail: str


class ChallengeErrorView(msgspec.Struct, frozen=True):
    code: str
    message: str
    type: str | None = None
    subproblems: Sequence[SubproblemView] = ()


class ErrorDetails(msgspec.Struct, frozen=True):
    """`limit` is the CA's rate limit that was met, which `refills_at` then."""

    type: str | None = None
    subproblems: Sequence[SubproblemView] = ()
    limit: str | None = None
    refills_at: datetime | None = None


class OrderErrorView(msgspec.Struct, frozen=True):
    code: str
    message: str
    retry_after: int | None
    details: ErrorDetails


class ChallengeView(msgspec.Struct, frozen=True):
    domain: str
    wildcard: bool
    type: str
    status: str
    record_name: str | None
    record_value: str | None
    dns_provider_id: str | None
    error: ChallengeErrorView | None


class OrderView(msgspec.Struct, frozen=True):
    order_id: str
    status: Status
    phase: ShownPhase
    account_id: str
    domains: Sequence[str]
    challenge_type: str
    auto_renew: bool
    certificate_id: str | None
    renews: str | None
    challenges: Sequence[ChallengeView]
    error: OrderErrorView | None
    warnings: Sequence[str]
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


def fold(order: OrderView | None, recorded: Recorded) -> OrderView:
    event = recorded.event
    at = whole_seconds(event.timestamp)
    if isinstance(event, Order.Placed):
        return _placed(event, at)
    if order is None:
        raise ValueError(f"{event} is not the first of its order")
    return replace(_after(order, event), updated_at=at)


def _placed(event: Order.Placed, at: datetime) -> OrderView:
    names = [assignment.dns_name for assignment in event.assignments]
    return OrderView(
        order_id=event.originator_id,
        status="pending",
        phase="placing",
        account_id=event.account_id,
        domains=names,
        challenge_type=event.challenge_type,
        auto_renew=event.auto_renew,
        certificate_id=event.certificate_id if event.renewal_reason is not None else None,
        renews=event.certificate_id if event.renewal_reason is not None else None,
        challenges=[
            ChallengeView(
                domain=name,
                wildcard=name != base_name(name),
                type=event.challenge_type,
                status="pending",
                record_name=dns01_record_name(base_name(name)) if event.challenge_type == DNS_01 else None,
                record_value=None,
                dns_provider_id=assignment.dns_provider_id,
                error=None,
            )
            for name, assignment in zip(names, event.assignments, strict=True)
        ],
        error=None,
        warnings=[],
        attempts=0,
        next_attempt_at=None,
        created_at=at,
        updated_at=at,
        completed_at=None,
    )


def _after(order: OrderView, event: object) -> OrderView:
    match event:
        case Order.KeySealed():
            return _progress(order, "placing")
        case Order.Accepted() | Order.Adopted():
            return _progress(order, "publishing", status="processing")
        case Order.Throttled(bucket=bucket, until=until):
            details = ErrorDetails(limit=bucket.limit, refills_at=whole_seconds(until))
            return replace(order, error=OrderErrorView("backend_rate_limited", "", None, details))
        case Order.ReplacementRefused(problem=problem):
            return replace(_progress(order, "placing"), warnings=[*order.warnings, problem.detail])
        case Order.ChallengesOffered(challenges=challenges):
            return replace(_progress(order, "publishing"), challenges=_offered(order, challenges))
        case Order.RecordPublished():
            return _progress(order, "propagating")
        case Order.RecordsPropagated(unseen=unseen):
            warnings = [f"went on although {server} did not serve the values yet" for server in unseen]
            return replace(_progress(order, "validating"), warnings=[*order.warnings, *warnings])
        case Order.ChallengesAnswered():
            return _progress(order, "validating")
        case Order.ChallengesReopened(problem=problem):
            reopened = _progress(order, "validating")
            return replace(reopened, attempts=order.attempts + 1, warnings=[*order.warnings, problem.detail])
        case Order.BecameReady():
            return replace(_progress(order, "finalizing", status="processing"), challenges=_validated(order))
        case Order.Finalized():
            return _progress(order, "finalizing")
        case Order.Issued():
            return replace(_progress(order, "downloading", status="processing"), challenges=_validated(order))
        case Order.Completed(certificate_id=certificate_id, timestamp=timestamp):
            completed = _ended(order, "valid", whole_seconds(timestamp))
            return replace(completed, certificate_id=certificate_id, error=None)
        case Order.Failed(error=error, name_errors=name_errors, timestamp=timestamp):
            failed = _ended(order, "invalid", whole_seconds(timestamp))
            return replace(failed, error=_error(error, order.error), challenges=_with_errors(order, error, name_errors))
        case Order.RecordRemoved(outstanding=outstanding) | Order.RecordLeft(outstanding=outstanding):
            return replace(order, phase="cleaning_up" if outstanding else "done", next_attempt_at=None)
        case Order.Postponed(phase=phase, until=until, error=error):
            return _postponed(order, phase, whole_seconds(until), error)
        case _:
            raise ValueError(f"no rule for {event}")


def _progress(order: OrderView, phase: Phase, status: Status | None = None) -> OrderView:
    return replace(order, phase=phase, status=status or order.status, error=None, next_attempt_at=None)


def _ended(order: OrderView, status: Literal["valid", "invalid"], at: datetime) -> OrderView:
    has_records = any(challenge.record_value is not None for challenge in order.challenges)
    return replace(
        order,
        status=status,
        phase="cleaning_up" if has_records else "done",
        completed_at=at,
        next_attempt_at=None,
    )


def _postponed(order: OrderView, phase: Phase, until: datetime, error: OrderError | None) -> OrderView:
    if order.completed_at is not None:
        return replace(order, next_attempt_at=until)  # cleaning up: what the order ended with stays
    if error is None:
        return replace(order, phase=phase, error=None, next_attempt_at=until)
    return replace(
        order, phase="waiting", error=_error(error, order.error), attempts=order.attempts + 1, next_attempt_at=until
    )


def _offered(order: OrderView, challenges: Sequence[Challenge]) -> Sequence[ChallengeView]:
    by_name = {(challenge.dns_name, challenge.wildcard): challenge for challenge in challenges}
    views = []
    for view in order.challenges:
        challenge = by_name.get((base_name(view.domain), view.wildcard))
        if challenge is None:
            views.append(view)
        elif challenge.record is None:
            views.append(replace(view, status=challenge.status))
        else:
            record = challenge.record  # an alias may have led elsewhere
            views.append(
                replace(
                    view,
                    status=challenge.status,
                    record_name=record.name,
                    record_value=record.value,
                    dns_provider_id=record.dns_provider_id,
                )
            )
    return views


def _validated(order: OrderView) -> Sequence[ChallengeView]:
    return [replace(view, status="valid") for view in order.challenges]


def _with_errors(order: OrderView, error: OrderError, at_names: Sequence[ErrorAtName]) -> Sequence[ChallengeView]:
    """Each name's own error; where none has one, the order's stands at all that were not valid."""
    by_name = {at_name.dns_name: at_name for at_name in at_names}
    ordered = {view.domain for view in order.challenges}
    views = []
    for view in order.challenges:
        base = base_name(view.domain)
        at_name = by_name.get(view.domain) or (None if base in ordered else by_name.get(base))
        if at_name is not None:
            views.append(replace(view, status="invalid", error=_challenge_error(at_name)))
        elif not at_names and view.status != "valid" and error.code != "cancelled":
            whole = ErrorAtName(view.domain, error.code, error.message, error.problem)
            views.append(replace(view, error=_challenge_error(whole)))
        else:
            views.append(view)
    return views


def _challenge_error(at_name: ErrorAtName) -> ChallengeErrorView:
    problem = at_name.problem
    return ChallengeErrorView(at_name.code, at_name.message, problem.type if problem else None, _subproblems(problem))


def _error(error: OrderError, before: OrderErrorView | None) -> OrderErrorView:
    """Which limit was met was told just before."""
    is_same = before is not None and before.code == error.code
    details = ErrorDetails(
        type=error.problem.type if error.problem else None,
        subproblems=_subproblems(error.problem),
        limit=before.details.limit if before is not None and is_same else None,
        refills_at=before.details.refills_at if before is not None and is_same else None,
    )
    return OrderErrorView(error.code, error.message, error.retry_after_seconds, details)


def _subproblems(problem: Problem | None) -> Sequence[SubproblemView]:
    return [SubproblemView(part.dns_name, part.type, part.detail) for part in problem.subproblems] if problem else []


def running_key(account_id: str, dns_names: Sequence[str]) -> str:
    """The same for two orders that would get the same certificate. A digest: an index takes no long keys."""
    return hashlib.sha256(" ".join([account_id, *sorted(dns_names)]).encode()).hexdigest()


def _running_key(order: OrderView) -> str | None:
    match order.status:
        case "pending" | "processing":
            return running_key(order.account_id, order.domains)
        case "valid" | "invalid":
            return None
        case _:
            assert_never(order.status)


ORDERS = DocumentView(
    name="orders",
    document_type=OrderView,
    event_class=Order.Event,
    fold=fold,
    columns={
        "status": Column("text NOT NULL", lambda order: order.status),
        "certificate_id": Column("text", lambda order: order.certificate_id),
        "running_key": Column("text CONSTRAINT orders_running UNIQUE", _running_key),
    },
    indexes=[
        "CREATE INDEX orders_certificate ON orders (certificate_id, first_position)",
        "CREATE INDEX orders_status ON orders (tenant_id, status, first_position)",
    ],
)


def running_order(pool: Pool, account_id: str, dns_names: Sequence[str]) -> str | None:
    """The id of the order in progress for exactly these names."""
    with pool.connection() as connection:
        row = connection.execute(
            "SELECT id FROM orders WHERE running_key = %s", [running_key(account_id, dns_names)]
        ).fetchone()
    return row[0] if row else None


def failed_renewals(pool: Pool, certificate_id: str, most: int) -> Sequence[str]:
    """The ids of the latest orders for that line that ended without a certificate, the last one first."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT id FROM orders WHERE certificate_id = %s AND status = 'invalid'"
            " ORDER BY first_position DESC LIMIT %s",
            [certificate_id, most],
        ).fetchall()
    return [order_id for (order_id,) in rows]


def order_at_provider(pool: Pool, dns_provider_id: str) -> str | None:
    """The id of an order in progress for names in the provider's zones, or of one with values there to remove."""
    with pool.connection() as connection:
        row = connection.execute(
            "SELECT id FROM orders WHERE (status IN ('pending', 'processing') OR document->>'phase' = 'cleaning_up')"
            " AND (document->'challenges')::jsonb @> %s LIMIT 1",
            [json.dumps([{"dns_provider_id": dns_provider_id}])],
        ).fetchone()
    return row[0] if row else None


REMOVALS = """
SELECT position, (state->>'timestamp')::timestamptz, originator_id, state->'record'->>'name', state->'record'->>'value' FROM events
WHERE position > %s AND topic IN ('order.record_removed', 'order.record_left')
  AND state->'record'->>'dns_provider_id' = %s AND (state->>'timestamp')::timestamptz >= %s ORDER BY position LIMIT %s
"""


def removals(pool: Pool, dns_provider_id: str, after: int, since: datetime, limit: int) -> Sequence[Removal]:
    """What orders say they have removed from the provider's zones after a position and not before `since`, in order. The
    history itself is asked: each removal is looked at a few times only."""
    with pool.connection() as connection:
        rows = connection.execute(REMOVALS, [after, dns_provider_id, since, limit]).fetchall()
    return [
        Removal(position, at.astimezone(UTC), order_id, name, value) for position, at, order_id, name, value in rows
    ]


def running_orders(pool: Pool, account_id: str, most: int) -> Sequence[str]:
    """The ids of orders of the account that are in progress."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT id FROM orders WHERE status IN ('pending', 'processing') AND document->>'account_id' = %s LIMIT %s",
            [account_id, most],
        ).fetchall()
    return [order_id for (order_id,) in rows]


def is_shown_for_another(pool: Pool, order_id: str, record_value: str) -> bool:
    """Whether an order in progress has the same TXT value to show: a CA that gives an unfinished order out again gives
    the same tokens again."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT FROM orders WHERE status IN ('pending', 'processing') AND id <> %s"
            " AND position(%s IN document::text) > 0 LIMIT 1",
            [order_id, record_value],
        )
        return rows.fetchone() is not None
