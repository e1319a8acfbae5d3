from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ulid import ULID

from domain.delivery import RETRY_DELAYS, Delivery, delivery_id
from domain.ulid import CROCKFORD, ulid_text
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
ALMOST_ONE = 0.9999999999


def owed() -> Delivery:
    delivery = Delivery.owe(
        "del_1", tenant_id="tnt_default", subscription_id="sub_1", position=7, event_type="certificate.renewed", now=NOW
    )
    delivery.collect_events()
    return delivery


def after_failures(times: int) -> Delivery:
    delivery = owed()
    for _ in range(times):
        delivery.attempt_failed(503, "the receiver answered 503", None, 0.5, NOW)
    delivery.collect_events()
    return delivery


def delay(delivery: Delivery, chance: float = 0.5, retry_after_seconds: float | None = None) -> timedelta:
    """What lies between a failed attempt and the next one."""
    delivery.attempt_failed(503, "the receiver answered 503", retry_after_seconds, chance, NOW)
    return delivery.due_at - NOW


def test_an_event_is_owed_from_when_it_happened() -> None:
    delivery = Delivery.owe(
        "del_1", tenant_id="tnt_default", subscription_id="sub_1", position=7, event_type="certificate.renewed", now=NOW
    )
    assert recorded(delivery, NOW) == [
        (
            Delivery.Owed,
            {
                "tenant_id": "tnt_default",
                "subscription_id": "sub_1",
                "position": 7,
                "event_type": "certificate.renewed",
            },
        )
    ]
    assert (delivery.due_at, delivery.attempts, delivery.ended) == (NOW, 0, None)


def test_a_delivery_that_was_taken_has_ended() -> None:
    delivery = owed()
    delivery.delivered(204, NOW)
    assert recorded(delivery, NOW) == [(Delivery.Delivered, {"status": 204})]
    assert (delivery.ended, delivery.attempts) == ("delivered", 1)


def test_a_failed_attempt_tells_why_and_when_the_next_one_is() -> None:
    delivery = owed()
    delivery.attempt_failed(None, "the connection was refused", None, 0.5, NOW)
    assert recorded(delivery, NOW) == [
        (
            Delivery.AttemptFailed,
            {"status": None, "detail": "the connection was refused", "retry_at": NOW + timedelta(seconds=5)},
        )
    ]
    assert (delivery.due_at, delivery.attempts, delivery.ended) == (NOW + timedelta(seconds=5), 1, None)


@pytest.mark.parametrize(("chance", "hours"), [(0, 79.7 * 0.8), (0.5, 79.7), (ALMOST_ONE, 79.7 * 1.2)])
def test_thirteen_attempts_stretch_over_three_days_give_or_take_a_fifth(chance: float, hours: float) -> None:
    delivery, waited, attempts = owed(), timedelta(), 0
    while delivery.ended is None:
        before = delivery.due_at
        delivery.attempt_failed(500, "the receiver answered 500", None, chance, before)
        waited, attempts = waited + (delivery.due_at - before), attempts + 1
    assert attempts == len(RETRY_DELAYS) == 13
    assert waited / timedelta(hours=1) == pytest.approx(hours, abs=0.1)


@pytest.mark.parametrize(("chance", "seconds"), [(0, 4), (0.25, 4.5), (0.5, 5), (ALMOST_ONE, 6)])
def test_chance_spreads_an_attempt_by_a_fifth(chance: float, seconds: float) -> None:
    assert delay(owed(), chance) / timedelta(seconds=1) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("retry_after_seconds", "granted"),
    [
        (90, timedelta(seconds=90)),
        (86400, timedelta(days=1)),
        (10**9, timedelta(days=1)),
        (1, timedelta(seconds=5)),
        (0, timedelta(seconds=5)),
    ],
)
def test_a_receiver_s_wish_to_wait_longer_is_granted_up_to_a_day(
    retry_after_seconds: float, granted: timedelta
) -> None:
    assert delay(owed(), retry_after_seconds=retry_after_seconds) == granted


def test_the_twelfth_failure_is_not_the_last() -> None:
    assert delay(after_failures(11)) == timedelta(days=1)


def test_the_thirteenth_failure_makes_a_dead_letter() -> None:
    delivery = after_failures(12)
    delivery.attempt_failed(503, "the receiver answered 503", 60, 0.5, NOW)
    assert recorded(delivery, NOW) == [(Delivery.GivenUp, {"status": 503, "detail": "the receiver answered 503"})]
    assert (delivery.ended, delivery.attempts) == ("dead", 13)


def taken() -> Delivery:
    delivery = owed()
    delivery.delivered(200, NOW)
    delivery.collect_events()
    return delivery


@pytest.mark.parametrize("ended", [taken, lambda: after_failures(13)], ids=["taken", "given up"])
def test_what_comes_after_the_end_changes_nothing(ended: Callable[[], Delivery]) -> None:
    delivery = ended()
    delivery.delivered(200, NOW)
    delivery.attempt_failed(500, "the receiver answered 500", None, 0.5, NOW)
    assert recorded(delivery, NOW) == []


def test_the_same_event_and_subscription_have_the_same_delivery() -> None:
    assert delivery_id("sub_1", 7, NOW) == delivery_id("sub_1", 7, NOW) == "del_01m844dzkve6j1fftenw84fqzq"


def test_another_event_or_subscription_has_another_delivery() -> None:
    ids = {delivery_id("sub_1", 7, NOW), delivery_id("sub_1", 8, NOW), delivery_id("sub_2", 7, NOW)}
    assert len(ids | {delivery_id("sub_17", 1, NOW), delivery_id("sub_1", 71, NOW)}) == 5


def test_a_delivery_s_id_is_a_lower_case_ulid_of_the_event_s_time() -> None:
    prefix, _, ulid = delivery_id("sub_1", 7, NOW).partition("_")
    assert (prefix, len(ulid)) == ("del", 26)
    assert re.fullmatch(f"[{CROCKFORD}]+", ulid)
    assert ULID.from_str(ulid.upper()).datetime == NOW.replace(microsecond=123000)


@settings(deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001  made aware
    st.binary(min_size=10, max_size=10),
)
def test_a_ulid_holds_the_milliseconds_and_the_randomness(timestamp: datetime, randomness: bytes) -> None:
    milliseconds = (timestamp - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    ulid = ULID.from_str(ulid_text(timestamp, randomness).upper())
    assert (ulid.milliseconds, ulid.bytes[6:]) == (milliseconds, randomness)
