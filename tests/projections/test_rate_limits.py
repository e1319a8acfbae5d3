"""The ledger on PostgreSQL: folded from orders, the same in one batch and in many, and the same as in memory."""

from __future__ import annotations

from datetime import timedelta

from domain.acme import ERROR_NAMESPACE, Problem
from domain.order import ErrorAtName, OrderError
from domain.rate_limit import FULL, Bucket, Level, after, limits_of, set_digest
from interfaces.postgres.pool import Pool
from projections.accounts import ACCOUNTS
from projections.certificates import CERTIFICATES, of_account, was_issued
from projections.orders import ORDERS, failed_renewals
from projections.rate_limits import RATE_LIMITS, entries_of
from tests.projections.folding import apply, recorded
from tests.projections.story import BEGIN, CA, account, issued, placed, told_in_memory

ACCOUNT = "acme_account_1"
NAMES = ("a.example", "*.a.example")
ORDERS_BUCKET = Bucket(CA, "new_orders", ACCOUNT)
PER_SET = Bucket(CA, "certificates_per_set", set_digest(NAMES))
REFILL = {limit: known.refill for limit, known in limits_of(CA).items()}


def levels(pool: Pool, *buckets: Bucket) -> list[Level]:
    found = RATE_LIMITS.levels(pool, buckets)
    return [found.get(bucket, FULL) for bucket in buckets]


def test_an_order_is_counted_when_it_is_placed_and_a_certificate_when_it_is_issued(pool: Pool) -> None:
    order = placed("acme_order_1", BEGIN, "cert_1")
    apply(pool, RATE_LIMITS, recorded(order))
    assert levels(pool, ORDERS_BUCKET, PER_SET) == [Level(BEGIN + REFILL["new_orders"]), FULL]
    order.complete(1, BEGIN + timedelta(hours=1))
    apply(pool, RATE_LIMITS, recorded(order, after=10))
    issued_at = BEGIN + timedelta(hours=1)
    assert levels(pool, PER_SET) == [Level(issued_at + REFILL["certificates_per_set"])]


def test_an_order_that_fails_gives_back_what_the_ca_never_saw_and_counts_its_failures(pool: Pool) -> None:
    order = placed("acme_order_1", BEGIN, "cert_1")
    problem = Problem(ERROR_NAMESPACE + "unauthorized", "wrong value")
    at_name = ErrorAtName("*.a.example", "challenge_failed", "wrong value", problem)
    error = OrderError("challenge_failed", "wrong value")
    order.fail(error, BEGIN + timedelta(hours=1), [at_name], lost_names=["*.a.example"])
    apply(pool, RATE_LIMITS, recorded(order))
    failures = Bucket(CA, "failed_authorizations", f"{ACCOUNT} a.example")
    hour_later = BEGIN + timedelta(hours=1)
    assert levels(pool, ORDERS_BUCKET, PER_SET, failures) == [
        Level(BEGIN),
        FULL,
        Level(hour_later + REFILL["failed_authorizations"]),
    ]
    shown = RATE_LIMITS.failures_of(pool, CA, ACCOUNT, 10)
    assert all(bucket.subject == f"{ACCOUNT} a.example" for bucket in shown)


def test_what_the_ca_says_is_kept_and_a_reset_takes_it_away(pool: Pool) -> None:
    consecutive = Bucket(CA, "consecutive_failed_authorizations", f"{ACCOUNT} a.example")
    order = placed("acme_order_1", BEGIN, "cert_1")
    order.throttled(consecutive, BEGIN + timedelta(days=1), BEGIN)
    apply(pool, RATE_LIMITS, recorded(order))
    assert levels(pool, consecutive)[0].blocked_until == BEGIN + timedelta(days=1)
    order.complete(1, BEGIN)
    apply(pool, RATE_LIMITS, recorded(order, after=10))
    assert levels(pool, consecutive) == [FULL]


def test_it_is_the_same_as_folding_each_entry_in_memory(pool: Pool) -> None:
    history = told_in_memory()
    in_memory: dict[Bucket, Level] = {}
    for each in history:
        for entry in entries_of(each):
            in_memory[entry.bucket] = after(in_memory.get(entry.bucket, FULL), entry, each.event.timestamp)
    apply(pool, RATE_LIMITS, history[:20])
    apply(pool, RATE_LIMITS, history[20:])
    assert len(in_memory) >= 5
    assert {bucket: level for bucket, level in in_memory.items() if level != FULL} == RATE_LIMITS.levels(
        pool, in_memory
    )


def test_whether_the_ca_has_issued_for_a_set_of_names_of_late(pool: Pool) -> None:
    apply(pool, ACCOUNTS, recorded(account(ACCOUNT, BEGIN)))
    apply(pool, CERTIFICATES, recorded(issued("cert_1", BEGIN, "acme_order_1"), after=10))
    digest, whole = set_digest(NAMES), BEGIN.replace(microsecond=0)
    assert was_issued(pool, CA, digest, whole)
    assert not was_issued(pool, CA, digest, whole + timedelta(seconds=1))
    assert not was_issued(pool, "https://other.example/directory", digest, whole)
    assert not was_issued(pool, CA, set_digest(NAMES[:1]), whole)


def test_the_lines_of_an_account_that_are_renewed_before_a_time(pool: Pool) -> None:
    apply(pool, CERTIFICATES, recorded(issued("cert_1", BEGIN, "acme_order_1")))
    due = issued("cert_1", BEGIN, "acme_order_1").plan.at
    assert [line.id for line in of_account(pool, ACCOUNT, due + timedelta(seconds=1), 9)] == ["cert_1"]
    assert of_account(pool, ACCOUNT, due - timedelta(seconds=1), 9) == []
    assert of_account(pool, "acme_account_2", due + timedelta(days=1), 9) == []


def test_the_latest_failed_orders_for_a_line_come_first(pool: Pool) -> None:
    for number in (1, 2, 3):
        order = placed(f"acme_order_{number}", BEGIN, "cert_1", f"{number}.example", reason="ari")
        if number != 2:
            order.fail(OrderError("backend_error", "down"), BEGIN)
        apply(pool, ORDERS, recorded(order, after=10 * number))
    assert failed_renewals(pool, "cert_1", 9) == ["acme_order_3", "acme_order_1"]
    assert failed_renewals(pool, "cert_1", 1) == ["acme_order_3"]
