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


def owe() -> Delivery:
    return Delivery.owe(
        "del_1",
        tenant_id="tnt_default",
        subscription_id="sub_1",
        position=7,
        event_type="certificate.renewed",
        event_id="evt_1",
        path="pki/certificates/cert_1",
        ordered=True,
        replay_id="replay_1",
        now=NOW,
    )


def owed() -> Delivery:
    delivery = owe()
    delivery.collect_events()
    return delivery


def fail(
    delivery: Delivery, retry_after_seconds: float | None = None, chance: float = 0.5, now: datetime = NOW
) -> None:
    delivery.attempt_failed(503, "the receiver answered 503", retry_after_seconds, 120, chance, now)


def after_failures(times: int) -> Delivery:
    delivery = owed()
    for _ in range(times):
        fail(delivery)
    delivery.collect_events()
    return delivery


def delay(delivery: Delivery, chance: float = 0.5, retry_after_seconds: float | None = None) -> timedelta:
    """What lies between a failed attempt and the next one."""
    fail(delivery, retry_after_seconds, chance)
    return delivery.due_at - NOW


def test_an_event_is_owed_at_once() -> None:
    delivery = owe()
    assert recorded(delivery, NOW) == [
        (
            Delivery.Owed,
            {
                "tenant_id": "tnt_default",
                "subscription_id": "sub_1",
                "position": 7,
                "event_type": "certificate.renewed",
                "event_id": "evt_1",
                "path": "pki/certificates/cert_1",
                "ordered": True,
                "replay_id": "replay_1",
            },
        )
    ]
    assert (delivery.due_at, delivery.attempts, delivery.ended) == (NOW, 0, None)


def test_a_delivery_that_was_taken_has_ended() -> None:
    delivery = owed()
    delivery.delivered(204, 30, NOW)
    assert recorded(delivery, NOW) == [
        (Delivery.Delivered, {"subscription_id": "sub_1", "status": 204, "duration_ms": 30})
    ]
    assert (delivery.ended, delivery.attempts) == ("delivered", 1)


def test_a_failed_attempt_tells_why_and_when_the_next_one_is() -> None:
    delivery = owed()
    delivery.attempt_failed(None, "the connection was refused", None, 120, 0.5, NOW)
    assert recorded(delivery, NOW) == [
        (
            Delivery.AttemptFailed,
            {
                "subscription_id": "sub_1",
                "status": None,
                "detail": "the connection was refused",
                "retry_at": NOW + timedelta(seconds=5),
                "duration_ms": 120,
            },
        )
    ]
    assert (delivery.due_at, delivery.attempts, delivery.ended) == (NOW + timedelta(seconds=5), 1, None)


@pytest.mark.parametrize(("chance", "hours"), [(0, 79.7 * 0.8), (0.5, 79.7), (ALMOST_ONE, 79.7 * 1.2)])
def test_thirteen_attempts_stretch_over_three_days_give_or_take_a_fifth(chance: float, hours: float) -> None:
    delivery, waited, attempts = owed(), timedelta(), 0
    while delivery.ended is None:
        before = delivery.due_at
        fail(delivery, chance=chance, now=before)
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
    fail(delivery, retry_after_seconds=60)
    assert recorded(delivery, NOW) == [(Delivery.GivenUp, GIVEN_UP)]
    assert (delivery.ended, delivery.attempts) == ("dead", 13)


GIVEN_UP = {
    "subscription_id": "sub_1",
    "status": 503,
    "detail": "the receiver answered 503",
    "duration_ms": 120,
}


def test_an_answer_for_good_gives_up_at_the_first_attempt() -> None:
    delivery = owed()
    delivery.give_up(410, "the receiver answered 410", 30, NOW)
    assert recorded(delivery, NOW) == [
        (
            Delivery.GivenUp,
            {
                "subscription_id": "sub_1",
                "status": 410,
                "detail": "the receiver answered 410",
                "duration_ms": 30,
            },
        )
    ]
    assert (delivery.ended, delivery.attempts) == ("dead", 1)


def test_an_attempt_that_was_cut_off_counts_and_the_next_one_may_come_at_once() -> None:
    delivery = after_failures(3)
    later = NOW + timedelta(hours=1)
    delivery.attempt_cut_off(later)
    assert recorded(delivery, later) == [
        (
            Delivery.AttemptFailed,
            {
                "subscription_id": "sub_1",
                "status": None,
                "detail": "the worker ended during the attempt",
                "retry_at": later,
                "duration_ms": None,
            },
        )
    ]
    assert (delivery.due_at, delivery.attempts, delivery.ended) == (later, 4, None)


def test_the_thirteenth_attempt_that_is_cut_off_makes_a_dead_letter() -> None:
    delivery = owed()
    for attempts in range(1, 13):
        delivery.attempt_cut_off(NOW)
        assert (delivery.attempts, delivery.ended) == (attempts, None)
    delivery.attempt_cut_off(NOW)
    assert isinstance(delivery.collect_events()[-1], Delivery.GivenUp)
    assert (delivery.attempts, delivery.ended) == (13, "dead")


def test_what_is_abandoned_is_dead_without_a_further_attempt() -> None:
    delivery = after_failures(3)
    delivery.abandon("the subscription is disabled", NOW)
    assert recorded(delivery, NOW) == [(Delivery.Abandoned, {"detail": "the subscription is disabled"})]
    assert (delivery.ended, delivery.attempts) == ("dead", 3)


def taken() -> Delivery:
    delivery = owed()
    delivery.delivered(200, 30, NOW)
    delivery.collect_events()
    return delivery


def abandoned() -> Delivery:
    delivery = owed()
    delivery.abandon("the subscription is ended", NOW)
    delivery.collect_events()
    return delivery


EVERY_END = pytest.mark.parametrize(
    "ended", [taken, lambda: after_failures(13), abandoned], ids=["taken", "given up", "abandoned"]
)


@EVERY_END
@pytest.mark.parametrize(
    "report",
    [
        lambda delivery: delivery.delivered(200, 30, NOW),
        fail,
        lambda delivery: delivery.attempt_cut_off(NOW),
        lambda delivery: delivery.give_up(410, "the receiver answered 410", 30, NOW),
        lambda delivery: delivery.abandon("the subscription is disabled", NOW),
    ],
    ids=["delivered", "attempt_failed", "attempt_cut_off", "give_up", "abandon"],
)
def test_what_comes_after_the_end_changes_nothing(
    ended: Callable[[], Delivery], report: Callable[[Delivery], None]
) -> None:
    delivery = ended()
    before = delivery.ended
    report(delivery)
    assert recorded(delivery, NOW) == []
    assert delivery.ended == before


@pytest.mark.parametrize("before", [taken, lambda: after_failures(13), abandoned, lambda: after_failures(5)])
def test_what_is_reopened_begins_with_the_first_attempt_at_once(before: Callable[[], Delivery]) -> None:
    delivery = before()
    later = NOW + timedelta(hours=1)
    delivery.reopen(later)
    assert recorded(delivery, later) == [(Delivery.Reopened, {})]
    assert (delivery.ended, delivery.attempts, delivery.due_at) == (None, 0, later)
    fail(delivery, now=later)
    assert delivery.due_at == later + RETRY_DELAYS[1]


@pytest.mark.parametrize("before", [owed, taken], ids=["not tried yet", "reopened already"])
def test_what_is_before_its_first_attempt_already_is_not_reopened(before: Callable[[], Delivery]) -> None:
    delivery = before()
    if delivery.ended is not None:
        delivery.reopen(NOW)
        delivery.collect_events()
    delivery.reopen(NOW + timedelta(seconds=1))
    assert recorded(delivery, NOW) == []


def test_the_same_event_and_subscription_have_the_same_delivery() -> None:
    assert first_time("sub_1", 7) == first_time("sub_1", 7) == "del_01m844dzkve6j1fftenw84fqzq"


def test_another_event_or_subscription_has_another_delivery() -> None:
    ids = {first_time("sub_1", 7), first_time("sub_1", 8), first_time("sub_2", 7)}
    assert len(ids | {first_time("sub_17", 1), first_time("sub_1", 71)}) == 5


def test_each_replay_has_a_delivery_of_its_own() -> None:
    again = [delivery_id("sub_1", 7, replay_id, NOW) for replay_id in ("replay_1", "replay_1", "replay_2")]
    assert again[0] == again[1]
    assert len({first_time("sub_1", 7), *again}) == 3


def first_time(subscription_id: str, position: int) -> str:
    return delivery_id(subscription_id, position, None, NOW)


def test_a_delivery_s_id_is_a_lower_case_ulid_of_the_event_s_time() -> None:
    prefix, _, ulid = first_time("sub_1", 7).partition("_")
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
