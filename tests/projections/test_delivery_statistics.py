from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from domain.delivery import Delivery
from interfaces.postgres.pool import Pool
from projections.delivery_statistics import DELIVERY_STATISTICS, Statistics
from tests.projections.folding import apply, recorded, rows
from tests.projections.live import Live
from tests.projections.story import BEGIN, BY, owed

NOON = datetime.combine(BEGIN.date(), datetime.min.time(), BEGIN.tzinfo) + timedelta(hours=12)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=24)
MANY_FAILURES = 5


def success(at: datetime, duration_ms: int = 20, of: str = "sub_1") -> Delivery:
    """What was owed at noon and then taken."""
    delivery = owed("del_1", NOON, subscription_id=of)
    delivery.delivered(204, duration_ms, at)
    return delivery


def failure(at: datetime, duration_ms: int | None = 100, of: str = "sub_1") -> Delivery:
    delivery = owed("del_1", NOON, subscription_id=of)
    delivery.attempt_failed(503, "the receiver answered 503", None, duration_ms, 0.5, at)
    return delivery


def given_up(at: datetime, of: str = "sub_1") -> Delivery:
    delivery = owed("del_1", NOON, subscription_id=of)
    delivery.give_up(410, "gone", 60, at)
    return delivery


def tell(pool: Pool, *deliveries: Delivery) -> None:
    apply(pool, DELIVERY_STATISTICS, recorded(*deliveries))


def at(pool: Pool, now: datetime) -> Statistics:
    return DELIVERY_STATISTICS.one(pool, "sub_1", now)


def failing_since(pool: Pool) -> datetime | None:
    return DELIVERY_STATISTICS.failing_since(pool, "sub_1")


# --- sums -----------------------------------------------------------------------------------------------------------


def test_without_any_attempt_there_is_nothing_to_tell(pool: Pool) -> None:
    tell(pool, success(NOON, of="sub_2"))

    assert at(pool, NOON) == Statistics(0, None, None, None)
    assert failing_since(pool) is None


def test_what_is_no_attempt_does_not_count(pool: Pool) -> None:
    waiting, abandoned, reopened = owed("del_1", NOON), owed("del_2", NOON), owed("del_3", NOON)
    abandoned.abandon("the subscription is ended", NOON)
    reopened.reopen(NOON)

    tell(pool, waiting, abandoned, reopened)

    assert rows(pool, DELIVERY_STATISTICS) == []


def test_the_attempts_of_a_minute_are_one_row_of_sums(pool: Pool) -> None:
    tell(pool, success(NOON, 10), failure(NOON + 59 * SECOND, 40), given_up(NOON + 30 * SECOND), success(NOON + MINUTE))

    assert len(rows(pool, DELIVERY_STATISTICS)) == 2
    assert at(pool, NOON + MINUTE) == Statistics(4, 0.5, (10 + 40 + 60 + 20) / 4, NOON + MINUTE)


def test_each_attempt_counts_and_a_second_append_adds_to_the_first(pool: Pool) -> None:
    delivery = owed("del_1", NOON)
    for number in range(MANY_FAILURES):
        delivery.attempt_failed(503, "503", None, 10, 0.5, NOON + number * SECOND)
        tell(pool, delivery)
        delivery.collect_events()
    delivery.delivered(200, 40, NOON + 30 * SECOND)
    tell(pool, delivery)

    assert len(rows(pool, DELIVERY_STATISTICS)) == 1
    assert at(pool, NOON + MINUTE) == Statistics(6, round(1 / 6, 4), 15.0, NOON + 30 * SECOND)


def test_an_attempt_that_nobody_measured_has_no_part_in_the_mean(pool: Pool) -> None:
    tell(pool, success(NOON, 30), failure(NOON, None), failure(NOON, None))
    assert at(pool, NOON) == Statistics(3, round(1 / 3, 4), 30.0, NOON)


def test_without_any_that_was_measured_there_is_no_mean(pool: Pool) -> None:
    tell(pool, failure(NOON, None))
    assert at(pool, NOON) == Statistics(1, 0.0, None, None)


def test_one_that_took_no_time_at_all_is_measured_all_the_same(pool: Pool) -> None:
    tell(pool, success(NOON, 0), success(NOON, 10))
    assert at(pool, NOON).mean_latency_ms_24h == 5.0


def test_the_sums_are_those_of_a_day_and_the_last_success_is_that_of_all_times(pool: Pool) -> None:
    tell(pool, success(NOON + 20 * SECOND, 10), success(NOON + MINUTE, 30))

    assert at(pool, NOON + DAY - SECOND) == Statistics(2, 1.0, 20.0, NOON + MINUTE)
    assert at(pool, NOON + DAY) == Statistics(1, 1.0, 30.0, NOON + MINUTE)
    assert at(pool, NOON + DAY + MINUTE) == Statistics(0, None, None, NOON + MINUTE)


def test_the_last_success_is_in_whole_seconds_and_no_failure(pool: Pool) -> None:
    tell(pool, success(NOON + timedelta(milliseconds=1900)), failure(NOON + 5 * SECOND), failure(NOON + 5 * MINUTE))

    assert at(pool, NOON + DAY).last_delivery_at == NOON + SECOND


def test_each_subscription_has_sums_of_its_own(pool: Pool) -> None:
    tell(pool, success(NOON, 10), failure(NOON, 90, of="sub_2"))

    assert DELIVERY_STATISTICS.one(pool, "sub_1", NOON) == Statistics(1, 1.0, 10.0, NOON)
    assert DELIVERY_STATISTICS.one(pool, "sub_2", NOON) == Statistics(1, 0.0, 90.0, None)


# --- failing since --------------------------------------------------------------------------------------------------


def test_it_fails_since_the_first_failure_after_the_last_success(pool: Pool) -> None:
    tell(pool, failure(NOON), success(NOON + MINUTE), failure(NOON + 2 * MINUTE + SECOND), failure(NOON + 3 * MINUTE))

    assert failing_since(pool) == NOON + 2 * MINUTE + SECOND


def test_one_that_never_succeeded_fails_since_its_first_attempt(pool: Pool) -> None:
    tell(pool, failure(NOON + SECOND), failure(NOON + 2 * SECOND), given_up(NOON + 2 * MINUTE))

    assert failing_since(pool) == NOON + SECOND


def test_after_a_success_it_fails_no_longer(pool: Pool) -> None:
    tell(pool, failure(NOON), given_up(NOON + MINUTE), success(NOON + 2 * MINUTE))

    assert failing_since(pool) is None


@pytest.mark.parametrize("order", [1, -1], ids=["success first", "failure first"])
def test_a_success_in_the_same_minute_speaks_for_it(pool: Pool, order: int) -> None:
    first, second = [success, failure][::order]
    tell(pool, first(NOON + SECOND), second(NOON + 2 * SECOND))
    assert failing_since(pool) is None

    tell(pool, failure(NOON + MINUTE))
    assert failing_since(pool) == NOON + MINUTE


def test_events_that_come_out_of_their_order_in_time_say_the_same(pool: Pool) -> None:
    """Workers decide by clocks of their own: an earlier time can have a later position."""
    tell(pool, failure(NOON + 3 * MINUTE), success(NOON + MINUTE), failure(NOON + 2 * MINUTE))

    assert failing_since(pool) == NOON + 2 * MINUTE
    assert at(pool, NOON + DAY - MINUTE) == Statistics(3, round(1 / 3, 4), round(220 / 3, 1), NOON + MINUTE)


def test_each_subscription_fails_for_itself(pool: Pool) -> None:
    tell(pool, failure(NOON), success(NOON + MINUTE, of="sub_2"))

    assert failing_since(pool) == NOON
    assert DELIVERY_STATISTICS.failing_since(pool, "sub_2") is None


def test_it_follows_behind_the_history(live: Live) -> None:
    live.store.record(failure(NOON), by=BY)
    assert failing_since(live.pool) is None

    live.catch_up()
    live.catch_up()

    assert failing_since(live.pool) == NOON
    assert at(live.pool, NOON).deliveries_24h == 1
