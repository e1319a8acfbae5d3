from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import asdict

from domain.delivery import Delivery
from interfaces.postgres.pool import Pool
from projections.deliveries import DELIVERIES, AttemptView, DeliveryView
from tests.projections.folding import apply, document, recorded
from tests.projections.story import BEGIN, OTHER_TENANT, TENANT, owed
from tests.test_golden_events import FOLDER, MAPPER, stored

NOW = BEGIN
WHOLE = NOW.replace(microsecond=0)
LATER = timedelta(seconds=40)
PENDING = DeliveryView(
    id="del_1",
    subscription_id="sub_1",
    event_id="evt_7",
    event_type="certificate.issued",
    path="pki/certificates/cert_1",
    sequence=7,
    replay_id=None,
    status="pending",
    attempts=0,
    last_attempt=None,
    abandoned_reason=None,
    next_attempt_at=WHOLE,
    created_at=WHOLE,
    completed_at=None,
)


def pending(**changes: Any) -> DeliveryView:
    return DeliveryView(**{**asdict(PENDING), **changes})


def failed(delivery: Delivery, now: datetime = NOW + LATER) -> Delivery:
    delivery.attempt_failed(503, "the receiver answered 503", None, 87, 0.5, now)
    return delivery


FAILURE = AttemptView(WHOLE + LATER, 503, "the receiver answered 503", 87)


def test_what_is_owed_is_pending_and_due_at_once(pool: Pool) -> None:
    assert document(pool, DELIVERIES, owed("del_1", NOW)) == PENDING


def test_what_is_owed_by_a_replay_says_by_which(pool: Pool) -> None:
    assert document(pool, DELIVERIES, owed("del_1", NOW, replay_id="replay_1")) == pending(replay_id="replay_1")


def test_a_delivered_one_says_how_it_was_taken(pool: Pool) -> None:
    delivery = owed("del_1", NOW)
    delivery.delivered(204, 23, NOW + LATER)

    assert document(pool, DELIVERIES, delivery) == pending(
        status="delivered",
        attempts=1,
        last_attempt=AttemptView(WHOLE + LATER, 204, None, 23),
        next_attempt_at=None,
        completed_at=WHOLE + LATER,
    )


def test_a_failed_attempt_says_why_and_when_the_next_one_comes(pool: Pool) -> None:
    assert document(pool, DELIVERIES, failed(owed("del_1", NOW))) == pending(
        attempts=1, last_attempt=FAILURE, next_attempt_at=WHOLE + LATER + timedelta(seconds=5)
    )


def test_an_attempt_without_an_answer_has_no_status(pool: Pool) -> None:
    delivery = owed("del_1", NOW)
    delivery.attempt_cut_off(NOW + LATER)

    view = document(pool, DELIVERIES, delivery)
    assert view.last_attempt == AttemptView(WHOLE + LATER, None, "the worker ended during the attempt", None)
    assert (view.attempts, view.next_attempt_at) == (1, WHOLE + LATER)


def test_one_that_was_given_up_is_dead_with_its_last_attempt_counted(pool: Pool) -> None:
    delivery = failed(owed("del_1", NOW))
    delivery.give_up(410, "the receiver answered 410", 41, NOW + 2 * LATER)

    assert document(pool, DELIVERIES, delivery) == pending(
        status="dead",
        attempts=2,
        last_attempt=AttemptView(WHOLE + 2 * LATER, 410, "the receiver answered 410", 41),
        next_attempt_at=None,
        completed_at=WHOLE + 2 * LATER,
    )


def test_one_that_was_abandoned_is_dead_without_a_further_attempt(pool: Pool) -> None:
    delivery = failed(owed("del_1", NOW))
    delivery.abandon("the subscription is ended", NOW + 2 * LATER)

    assert document(pool, DELIVERIES, delivery) == pending(
        status="dead",
        attempts=1,
        last_attempt=FAILURE,
        abandoned_reason="the subscription is ended",
        next_attempt_at=None,
        completed_at=WHOLE + 2 * LATER,
    )


def test_one_that_is_asked_for_again_begins_anew_and_remembers_its_last_attempt(pool: Pool) -> None:
    delivery = failed(owed("del_1", NOW))
    delivery.give_up(503, "the receiver answered 503", 87, NOW + LATER)
    delivery.reopen(NOW + 2 * LATER)

    again = pending(attempts=0, last_attempt=FAILURE, next_attempt_at=WHOLE + 2 * LATER)
    assert document(pool, DELIVERIES, delivery) == again


def test_one_that_is_asked_for_again_after_it_was_abandoned_is_so_no_more(pool: Pool) -> None:
    delivery = failed(owed("del_1", NOW))
    delivery.abandon("the subscription is ended", NOW + LATER)
    delivery.reopen(NOW + 2 * LATER)

    again = pending(attempts=0, last_attempt=FAILURE, next_attempt_at=WHOLE + 2 * LATER)
    assert document(pool, DELIVERIES, delivery) == again


def test_after_that_its_attempts_are_counted_from_the_first_on(pool: Pool) -> None:
    delivery = owed("del_1", NOW)
    delivery.delivered(204, 23, NOW)
    delivery.reopen(NOW)
    failed(delivery)
    delivery.delivered(200, 5, NOW + 2 * LATER)

    view = document(pool, DELIVERIES, delivery)
    assert (view.status, view.attempts, view.last_attempt.status) == ("delivered", 2, 200)


def test_one_that_was_written_in_the_first_form_is_shown_too(pool: Pool) -> None:
    """Its event's id and path stand in the event at its position alone."""
    topics = ("delivery.owed", "delivery.attempt_failed", "delivery.delivered")
    stored_events = [stored(json.loads((FOLDER / f"{topic}@1.json").read_text())) for topic in topics]
    apply(pool, DELIVERIES, recorded(*map(MAPPER.to_domain_event, stored_events)))

    delivered_at = datetime(2026, 11, 23, 12, 0, 42, tzinfo=UTC)
    assert DELIVERIES.one(pool, TENANT, "del_01m844f2wtj0dt7eh9gpx5xfdt") == DeliveryView(
        id="del_01m844f2wtj0dt7eh9gpx5xfdt",
        subscription_id="sub_01m844dzqt0gx731vmrnsbv2h5",
        event_id="",
        event_type="certificate.renewed",
        path="",
        sequence=4711,
        replay_id=None,
        status="delivered",
        attempts=2,
        last_attempt=AttemptView(delivered_at, 204, None, None),
        abandoned_reason=None,
        next_attempt_at=None,
        created_at=datetime(2026, 11, 23, 12, 0, 36, tzinfo=UTC),
        completed_at=delivered_at,
    )


def test_they_are_listed_by_subscription_and_status_in_the_order_in_which_they_were_owed(pool: Pool) -> None:
    waiting, delivered, dead, of_another = (owed(f"del_{number}", NOW, position=number) for number in range(1, 5))
    delivered.delivered(204, 23, NOW)
    dead.give_up(410, "gone", 1, NOW)
    other = owed("del_5", NOW, subscription_id="sub_2")
    apply(pool, DELIVERIES, recorded(waiting, delivered, dead, of_another, other))

    def listed(**matching: str) -> list[str]:
        return [view.id for _, view in DELIVERIES.page(pool, TENANT, -1, 100, matching)]

    assert listed(subscription_id="sub_1") == ["del_1", "del_2", "del_3", "del_4"]
    assert listed(subscription_id="sub_1", status="pending") == ["del_1", "del_4"]
    assert listed(subscription_id="sub_1", status="delivered") == ["del_2"]
    assert listed(subscription_id="sub_1", status="dead") == ["del_3"]
    assert listed(subscription_id="sub_2") == ["del_5"]
    assert DELIVERIES.page(pool, OTHER_TENANT, -1, 100, {}) == []


def test_one_that_was_asked_for_again_is_found_as_pending(pool: Pool) -> None:
    delivery = owed("del_1", NOW)
    delivery.delivered(204, 23, NOW)
    apply(pool, DELIVERIES, recorded(delivery))
    delivery.reopen(NOW)
    apply(pool, DELIVERIES, recorded(delivery, after=10))

    matching = {"subscription_id": "sub_1", "status": "pending"}
    assert [view.id for _, view in DELIVERIES.page(pool, TENANT, -1, 100, matching)] == ["del_1"]
