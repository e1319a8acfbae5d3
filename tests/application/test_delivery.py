"""Handing over what is owed, until it was taken or given up."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from application import webhooks
from application.errors import EgressRefused, EndpointUnreachable, Failure, StoreUnavailable
from application.ports import WebhookResponse
from application.process.breaker import FIRST_PAUSE_SECONDS, WASTED_SECONDS
from application.process.delivery import MOST_CONFLICTS, NAME, Attempt, next_step, turn
from application.process.todo import MOST_IN_A_LANE, Turn
from application.process.worker import LEASE
from application.redaction import HIDDEN
from application.wishes import Changes
from domain.delivery import RETRY_DELAYS, Delivery
from domain.event import DomainEvent
from domain.provenance import Provenance
from domain.subscription import ONLY_FAILURES_FOR, Subscription
from tests.application.calls import Death, Killed
from tests.application.world import HOOK, OWNER, SIGNED_WITH, World
from tests.servers.https import ca_bundle_pem

BUNDLE = ca_bundle_pem()
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
GONE, BROKEN = WebhookResponse(410, None), WebhookResponse(500, None)


@pytest.fixture
def world() -> World:
    return World()


def attempts(world: World, delivery_id: str) -> list[DomainEvent]:
    return [event for event in world.events(delivery_id) if not isinstance(event, Delivery.Owed)]


def subscription_of(world: World, delivery_id: str) -> Subscription:
    return world.subscription(world.delivery(delivery_id).subscription_id)


def outcomes(world: World, subscription_id: str) -> list[str | None]:
    """Of all that is owed to it, in the order of the events."""
    owed = sorted(world.owed(subscription_id), key=lambda event: event.position)
    return [world.delivery(event.originator_id).ended for event in owed]


def revise(world: World, subscription_id: str, **changes: Any) -> None:
    world.subscriptions.revise(subscription_id, Changes(**changes), OWNER)


def announce(world: World, number: int = 1) -> list[int]:
    """Their positions. All are owed now."""
    positions = [world.announce().position for _ in range(number)]
    world.follow()
    return positions


def sent_positions(world: World) -> list[int]:
    return [msgspec.json.decode(request.body)["sequence"] for request in world.sender.sent]


# --- handing over ---


def test_a_delivery_is_signed_over_what_is_sent(world: World) -> None:
    delivery_id = world.owe(ca_bundle_pem=BUNDLE)
    world.clock.advance(timedelta(seconds=3))
    world.run_until_quiet()
    (request,) = world.sender.sent
    assert (request.url, request.ca_bundle_pem) == (HOOK, BUNDLE)
    timestamp = request.headers["X-ScaiVault-Timestamp"]
    assert int(timestamp) == int(world.clock.now().timestamp())
    digest = hmac.new(SIGNED_WITH.reveal(), timestamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-ScaiVault-Signature"] == f"sha256={digest}"
    body = msgspec.json.decode(request.body)
    assert body["event_id"] == request.headers["X-ScaiVault-Event-Id"] == request.headers["webhook-id"]
    assert (body["event_type"], body["sequence"]) == ("certificate.issued", world.owed()[0].position)
    (taken,) = attempts(world, delivery_id)
    assert isinstance(taken, Delivery.Delivered)
    assert world.todo == []


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_is_success(world: World, status: int) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(WebhookResponse(status, 60))
    world.run_until_quiet()
    (taken,) = attempts(world, delivery_id)
    assert isinstance(taken, Delivery.Delivered)
    assert taken.status == status


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (WebhookResponse(301, None), 301),
        (WebhookResponse(404, None), 404),
        (WebhookResponse(503, None), 503),
        (EndpointUnreachable("connection refused"), None),
        (EgressRefused("10.0.0.1 must not be dialled"), None),
    ],
)
def test_anything_else_is_tried_again(world: World, answer: WebhookResponse | Failure, status: int | None) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(answer)
    began = world.clock.now()
    world.run_until_quiet()
    failed, taken = attempts(world, delivery_id)
    assert isinstance(failed, Delivery.AttemptFailed)
    assert isinstance(taken, Delivery.Delivered)
    assert failed.status == status
    assert failed.detail == (answer.detail if isinstance(answer, Failure) else f"the receiver answered {status}")
    assert failed.retry_at == taken.timestamp == began + timedelta(seconds=5)


@pytest.mark.parametrize(("chance", "spread"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_thirteen_attempts_are_made_on_the_contracts_schedule(world: World, chance: float, spread: float) -> None:
    delivery_id = world.owe()
    world.chance = chance
    world.sender.answers.extend([BROKEN] * 20)
    began = world.clock.now()
    world.run_until_quiet()
    events = attempts(world, delivery_id)
    assert len(world.sender.sent) == len(events) == 13
    waited = [after.timestamp - before.timestamp for before, after in itertools.pairwise(events)]
    assert events[0].timestamp == began
    for wait, planned in zip(waited, RETRY_DELAYS[1:], strict=True):
        assert wait / planned == pytest.approx(spread, rel=1e-3)
    *failed, given_up = events
    assert all(isinstance(event, Delivery.AttemptFailed) for event in failed)
    assert isinstance(given_up, Delivery.GivenUp)
    assert (given_up.status, given_up.detail) == (500, "the receiver answered 500")
    assert world.todo == []


def test_the_schedule_is_the_contracts() -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    seconds = [timedelta(seconds=each) for each in (0, 5, 30)]
    assert [*seconds, 2 * minute, 10 * minute, 30 * minute, *(each * hour for each in (1, 2, 4, 8, 16, 24, 24))] == [
        *RETRY_DELAYS
    ]
    assert sum(RETRY_DELAYS, timedelta()) / hour == pytest.approx(79.7, abs=0.05)


@pytest.mark.parametrize(
    ("retry_after_seconds", "waits"),
    [(0.0, timedelta(seconds=5)), (90.0, timedelta(seconds=90)), (1e9, DAY)],
)
def test_a_receivers_wish_to_wait_is_granted_up_to_a_day(
    world: World, retry_after_seconds: float, waits: timedelta
) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(WebhookResponse(503, retry_after_seconds))
    world.run_until_quiet()
    failed, taken = (event.timestamp for event in attempts(world, delivery_id))
    assert taken - failed == waits


def test_each_attempt_is_signed_anew_under_the_same_id(world: World) -> None:
    world.owe()
    world.sender.answers.extend([BROKEN] * 2)
    world.run_until_quiet()
    assert len({request.body for request in world.sender.sent}) == 1
    assert len({request.headers["X-ScaiVault-Event-Id"] for request in world.sender.sent}) == 1
    assert len({request.headers["X-ScaiVault-Timestamp"] for request in world.sender.sent}) == 3
    assert len({request.headers["X-ScaiVault-Signature"] for request in world.sender.sent}) == 3


def test_the_body_is_that_of_its_own_event(world: World) -> None:
    world.subscribe(events=("certificate.issued", "certificate.renewed"))
    world.announce_renewal(world.announce())
    world.follow()
    world.run_until_quiet()
    bodies = [msgspec.json.decode(request.body) for request in world.sender.sent]
    assert sorted((body["event_type"], body["data"]["version"]) for body in bodies) == [
        ("certificate.issued", 1),
        ("certificate.renewed", 2),
    ]


def test_what_the_receiver_said_is_kept_without_secrets_and_in_no_event(world: World) -> None:
    delivery_id = world.owe()
    said = b"no: " + SIGNED_WITH.reveal() + b" token=abc"
    world.sender.answers.append(WebhookResponse(500, None, said))
    world.run_for(timedelta(seconds=1))
    assert world.responses.kept == {delivery_id: (500, f"no: {HIDDEN} token={HIDDEN}")}
    assert "no: " not in repr(world.recorded)
    world.sender.answers.append(WebhookResponse(204, None))
    world.run_until_quiet()
    assert world.responses.kept == {delivery_id: (204, "")}


def test_an_attempt_after_a_change_of_address_goes_to_the_new_one(world: World) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(BROKEN)
    world.run_for(SECOND)
    revise(world, subscription_of(world, delivery_id).id, url="https://new.acme.example/")
    world.run_until_quiet()
    assert [request.url for request in world.sender.sent] == [HOOK, "https://new.acme.example/"]


def test_a_wish_to_wait_holds_for_its_own_delivery_only(world: World) -> None:
    world.owe()
    world.sender.answers.append(WebhookResponse(429, 3600))
    world.run_for(SECOND)
    announce(world)
    world.run_for(SECOND)
    assert len(world.sender.sent) == 2


def test_who_delivered_is_on_record_with_the_state_that_made_it_act(world: World) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(BROKEN)
    world.run_until_quiet()
    _, *told = [recorded.by for recorded in world.recorder.history if recorded.event.originator_id == delivery_id]
    assert told == [
        Provenance(OWNER.tenant_id, "system", "delivery", OWNER.request_id, f"{delivery_id}@{version}")
        for version in (2, 3)
    ]


# --- the end of a subscription ---


def test_a_receiver_that_is_gone_ends_the_delivery_and_the_subscription_in_one_append(world: World) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(GONE)
    world.run_until_quiet()
    (given_up,) = attempts(world, delivery_id)
    assert isinstance(given_up, Delivery.GivenUp)
    assert given_up.status == 410
    *_, last, disabled = world.recorder.history
    assert (last.event, disabled.event) == (given_up, world.events(subscription_of(world, delivery_id).id)[-1])
    assert isinstance(disabled.event, Subscription.Disabled)
    assert disabled.event.reason == "gone"


def test_several_that_hear_it_at_once_disable_once(world: World) -> None:
    subscription_id = world.subscribe()
    for _ in range(3):
        world.announce()
    world.follow()
    world.sender.answers.extend([GONE] * 3)
    claims = world.claim(NAME).claims
    assert len(claims) == 3

    def others() -> None:
        for claim in claims[1:]:
            world.work(claim)

    world.calls.before("webhook.send", others)
    world.work(claims[0])
    ends = [event for event in world.events(subscription_id) if isinstance(event, Subscription.Disabled)]
    assert len(ends) == 1
    assert {world.delivery(event.originator_id).ended for event in world.owed()} == {"dead"}


def test_what_a_disabled_or_ended_subscription_was_owed_is_abandoned_unsent(world: World) -> None:
    first = world.subscribe()
    second = world.subscribe()
    world.announce()
    world.follow()
    disabled = world.subscription(first)
    disabled.disable("gone", world.clock.now())
    world.store.record(disabled, by=OWNER.provenance)
    world.subscriptions.unsubscribe(second, OWNER)
    world.run_until_quiet()
    assert world.sender.sent == []
    for event, why in zip(world.owed(), ("disabled", "ended"), strict=True):
        (abandoned,) = attempts(world, event.originator_id)
        assert isinstance(abandoned, Delivery.Abandoned)
        assert abandoned.detail == f"the subscription is {why}"


def test_410_of_a_subscription_that_has_ended_meanwhile_is_told_all_the_same(world: World) -> None:
    delivery_id = world.owe()
    subscription_id = subscription_of(world, delivery_id).id
    world.sender.answers.append(GONE)
    world.calls.before("webhook.send", lambda: world.subscriptions.unsubscribe(subscription_id, OWNER))
    world.run_until_quiet()
    assert [type(event) for event in attempts(world, delivery_id)] == [Delivery.GivenUp]
    assert world.subscription(subscription_id).status == "ended"


def test_what_was_to_be_tried_again_is_abandoned_when_it_falls_due(world: World) -> None:
    delivery_id = world.owe()
    world.sender.answers.append(BROKEN)
    world.run_for(SECOND)
    world.subscriptions.unsubscribe(subscription_of(world, delivery_id).id, OWNER)
    world.run_until_quiet()
    assert len(world.sender.sent) == 1
    assert (world.delivery(delivery_id).ended, world.delivery(delivery_id).attempts) == ("dead", 1)


def test_what_was_announced_before_the_end_and_is_owed_late_is_abandoned(world: World) -> None:
    subscription_id = world.subscribe()
    world.announce()
    world.subscriptions.unsubscribe(subscription_id, OWNER)
    world.follow()
    world.run_until_quiet()
    assert outcomes(world, subscription_id) == ["dead"]
    assert world.sender.sent == []


def fail_one(world: World) -> None:
    """One event is announced, and the first attempt to hand it over fails. It is not tried again."""
    announce(world)
    world.sender.answers.append(BROKEN)
    (claim,) = (claim for claim in world.claim(NAME).claims if not world.delivery(claim.subject).attempts)
    world.work(claim)
    delivery = world.delivery(claim.subject)
    delivery.abandon("a test has seen enough of it", world.clock.now())
    world.store.record(delivery, by=OWNER.provenance)


def status_after_failures(world: World, subscription_id: str, *, apart: timedelta) -> str:
    fail_one(world)
    world.clock.advance(apart)
    fail_one(world)
    return world.subscription(subscription_id).status


@pytest.mark.parametrize(
    ("apart", "status"),
    [(5 * DAY - HOUR, "active"), (5 * DAY - SECOND, "active"), (5 * DAY, "disabled"), (6 * DAY, "disabled")],
)
def test_a_failure_five_days_after_the_first_without_a_success_disables(
    world: World, apart: timedelta, status: str
) -> None:
    assert status_after_failures(world, world.subscribe(), apart=apart) == status


def test_what_disables_is_told_in_the_append_of_the_failure(world: World) -> None:
    status_after_failures(world, world.subscribe(), apart=5 * DAY)
    failed, disabled, _ = world.recorded[-3:]
    assert isinstance(failed, Delivery.AttemptFailed)
    assert isinstance(disabled, Subscription.Disabled)
    assert disabled.reason == "only_failures"


def test_a_success_in_between_begins_anew(world: World) -> None:
    subscription_id = world.subscribe()
    fail_one(world)
    world.clock.advance(4 * DAY)
    announce(world)
    world.run_until_quiet()
    world.clock.advance(HOUR)
    assert status_after_failures(world, subscription_id, apart=5 * DAY - HOUR) == "active"
    world.clock.advance(HOUR)
    fail_one(world)
    assert world.subscription(subscription_id).status == "disabled"


def test_a_success_after_five_days_disables_nobody(world: World) -> None:
    subscription_id = world.subscribe()
    fail_one(world)
    world.clock.advance(9 * DAY)
    announce(world)
    world.run_until_quiet()
    assert world.subscription(subscription_id).status == "active"


def test_who_is_enabled_again_has_five_days_again(world: World) -> None:
    subscription_id = world.subscribe()
    assert status_after_failures(world, subscription_id, apart=5 * DAY) == "disabled"
    world.clock.advance(DAY)
    revise(world, subscription_id, status="active")
    assert status_after_failures(world, subscription_id, apart=5 * DAY - SECOND) == "active"
    world.clock.advance(SECOND)
    fail_one(world)
    assert world.subscription(subscription_id).status == "disabled"


def test_a_pause_is_no_time_of_failures(world: World) -> None:
    subscription_id = world.subscribe()
    fail_one(world)
    revise(world, subscription_id, status="paused")
    world.clock.advance(6 * DAY)
    revise(world, subscription_id, status="active")
    fail_one(world)
    assert world.subscription(subscription_id).status == "active"


@pytest.mark.parametrize(
    ("failing_for", "ends"), [(ONLY_FAILURES_FOR, True), (ONLY_FAILURES_FOR - timedelta(hours=1), False)]
)
def test_so_many_days_of_failures_alone_disable(world: World, failing_for: timedelta, *, ends: bool) -> None:
    world.sender.answers.extend([BROKEN] * 100)
    subscription_id = subscription_of(world, world.owe()).id
    world.run_for(failing_for)
    world.announce()
    world.follow()
    world.run_for(timedelta(seconds=1))
    assert (world.subscription(subscription_id).status == "disabled") is ends


def test_a_success_in_between_and_enabling_again_begin_anew(world: World) -> None:
    world.sender.answers.extend([BROKEN] * 20)
    subscription_id = subscription_of(world, world.owe()).id
    world.run_for(ONLY_FAILURES_FOR - DAY)
    world.sender.answers.clear()
    world.announce()
    world.follow()
    world.run_for(timedelta(minutes=2))
    world.sender.answers.extend([BROKEN] * 100)
    for _ in range(2):
        world.announce()
        world.follow()
        world.run_for(2 * DAY)
    assert world.subscription(subscription_id).status == "active"
    world.run_for(2 * DAY)
    world.announce()
    world.follow()
    world.run_for(timedelta(seconds=1))
    assert world.subscription(subscription_id).status == "disabled"
    world.subscriptions.revise(subscription_id, Changes(status="active"), OWNER)
    world.announce()
    world.follow()
    world.run_for(timedelta(hours=1))
    assert world.subscription(subscription_id).status == "active"


# --- waiting for each other ---


def test_one_receiver_that_is_down_does_not_hold_up_another(world: World) -> None:
    world.subscribe()
    world.subscribe()
    world.announce()
    world.follow()
    world.sender.answers.append(EndpointUnreachable("down"))
    world.run_for(timedelta(seconds=1))
    assert len(world.sender.sent) == 1
    world.run_until_quiet()
    assert len(world.sender.sent) == 2


def test_a_lane_is_a_subscriptions(world: World) -> None:
    world.subscribe()
    world.subscribe()
    for _ in range(MOST_IN_A_LANE + 1):
        world.announce()
    world.follow()
    lanes = [world.delivery(claim.subject).subscription_id for claim in world.claim(NAME, 100).claims]
    assert sorted(lanes.count(lane) for lane in set(lanes)) == [MOST_IN_A_LANE] * 2


def test_an_endpoint_that_wastes_time_is_left_alone_and_the_breaker_forgets_it_with_a_success(world: World) -> None:
    subscription_id = world.subscribe()
    world.breaker.failed(subscription_id, WASTED_SECONDS)
    world.announce()
    world.follow()
    assert world.claim(NAME).claims == []
    world.clock.advance(timedelta(seconds=10))
    world.work(world.claim_one(NAME))
    assert len(world.sender.sent) == 1
    assert world.processes[NAME].lane_limits() == {}


@pytest.fixture
def time_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long an attempt takes is told by the clock of the test."""
    monkeypatch.setattr(webhooks, "monotonic", lambda: world.clock.now().timestamp())


def time_out(world: World, times: int) -> None:
    """So many attempts are made, and nobody answers for ten seconds."""
    for _ in range(times):
        world.sender.answers.append(EndpointUnreachable("no answer in time"))
        world.calls.before("webhook.send", lambda: world.clock.advance(10 * SECOND))
        world.work(world.claim_one(NAME))


@pytest.mark.usefixtures("time_passes")
def test_an_endpoint_that_lets_attempts_time_out_gets_a_pause_then_one_at_a_time_and_all_after_a_success(
    world: World,
) -> None:
    world.subscribe()
    announce(world, 20)
    time_out(world, int(WASTED_SECONDS / 10))
    assert world.claim(NAME).claims == []
    world.clock.advance(FIRST_PAUSE_SECONDS * SECOND)
    world.work(world.claim_one(NAME))
    assert len(world.sender.sent) == 1
    assert len(world.claim(NAME).claims) == MOST_IN_A_LANE


@pytest.mark.usefixtures("time_passes")
def test_an_endpoint_that_answers_nobody_costs_another_no_attempt(world: World) -> None:
    silent = world.subscribe()
    announce(world, 20)
    time_out(world, int(WASTED_SECONDS / 10))
    lively = world.subscribe()
    announce(world, 3)
    world.run_for(SECOND)
    assert outcomes(world, lively) == ["delivered"] * 3
    assert set(outcomes(world, silent)) == {None}


def test_an_endpoint_that_refuses_at_once_gets_no_pause(world: World) -> None:
    world.subscribe()
    announce(world, 20)
    world.sender.answers.extend([BROKEN] * 20)
    world.run_for(SECOND)
    assert len(world.sender.sent) == 20


def test_without_an_order_a_later_event_does_not_wait_for_an_earlier_one(world: World) -> None:
    world.subscribe(events=("certificate.issued", "certificate.renewed"))
    issued = world.announce()
    renewed = world.announce_renewal(issued)
    world.follow()
    world.sender.answers.append(EndpointUnreachable("down"))
    world.run_until_quiet()
    assert sent_positions(world) == [renewed.position, issued.position]


def test_in_order_an_event_waits_for_the_earlier_ones_of_its_path_and_for_no_others(world: World) -> None:
    world.subscribe(ordered=True, events=("certificate.issued", "certificate.renewed"))
    first, other = world.announce(), world.announce()
    renewed = [world.announce_renewal(first) for _ in range(2)]
    world.follow()
    world.sender.answers.append(EndpointUnreachable("down"))
    world.run_for(SECOND)
    assert sent_positions(world) == [other.position]
    world.run_until_quiet()
    assert sent_positions(world) == [each.position for each in (other, first, *renewed)]


def test_in_order_a_dead_letter_lets_the_next_one_go(world: World) -> None:
    subscription_id = world.subscribe(ordered=True, events=("certificate.issued", "certificate.renewed"))
    world.announce_renewal(world.announce())
    world.follow()
    world.sender.answers.extend([BROKEN] * 13)
    world.run_until_quiet()
    assert outcomes(world, subscription_id) == ["dead", "delivered"]
    assert len(world.sender.sent) == 14


def test_in_order_one_that_is_asked_for_again_goes_before_those_that_wait(world: World) -> None:
    subscription_id = world.subscribe(ordered=True, events=("certificate.issued", "certificate.renewed"))
    first = world.announce()
    world.follow()
    world.run_until_quiet()
    revise(world, subscription_id, status="paused")
    renewed = world.announce_renewal(first)
    world.follow()
    world.subscriptions.redeliver(subscription_id, world.owed()[0].originator_id, OWNER)
    revise(world, subscription_id, status="active")
    world.run_until_quiet()
    assert sent_positions(world) == [first.position, first.position, renewed.position]


def test_in_order_the_next_is_sent_when_the_one_before_was_taken_or_given_up(world: World) -> None:
    subscription_id = world.subscribe(events=("certificate.issued", "certificate.renewed"), ordered=True)
    first = world.announce()
    for _ in range(2):
        world.announce_renewal(first)
    other = world.announce()
    world.follow()
    world.sender.answers.extend([BROKEN] * 13)
    world.run_until_quiet()
    sent = [msgspec.json.decode(request.body) for request in world.sender.sent]
    of_first = [body["sequence"] for body in sent if body["path"] == first.path]
    assert of_first == sorted(of_first)
    assert {body["path"] for body in sent} == {first.path, other.path}
    assert [world.delivery(event.originator_id).ended for event in world.owed(subscription_id)].count("dead") <= 1


def test_a_paused_subscription_is_sent_nothing_until_it_is_resumed(world: World) -> None:
    subscription_id = world.subscribe()
    world.subscriptions.revise(subscription_id, Changes(status="paused"), OWNER)
    for _ in range(3):
        world.announce()
    world.follow()
    world.run_for(DAY)
    assert world.sender.sent == []
    world.subscriptions.revise(subscription_id, Changes(status="active"), OWNER)
    world.run_until_quiet()
    assert len(world.sender.sent) == 3


def test_after_a_pause_all_of_it_is_sent_in_order(world: World) -> None:
    subscription_id = world.subscribe(ordered=True, events=("certificate.issued", "certificate.renewed"))
    revise(world, subscription_id, status="paused")
    first = world.announce()
    announced = [first, *(world.announce_renewal(first) for _ in range(2 * MOST_IN_A_LANE))]
    world.follow()
    world.run_for(9 * DAY)
    assert (world.sender.sent, len(world.todo)) == ([], len(announced))
    revise(world, subscription_id, status="active")
    world.run_until_quiet()
    assert sent_positions(world) == [each.position for each in announced]
    assert set(outcomes(world, subscription_id)) == {"delivered"}


def test_a_pause_ends_no_delivery_and_costs_no_attempt(world: World) -> None:
    delivery_id = world.owe()
    subscription_id = subscription_of(world, delivery_id).id
    world.sender.answers.append(BROKEN)
    world.run_for(SECOND)
    revise(world, subscription_id, status="paused")
    world.run_for(30 * DAY)
    assert world.delivery(delivery_id).attempts == 1
    revise(world, subscription_id, status="active")
    resumed_at = world.clock.now()
    world.run_until_quiet()
    assert [event.timestamp for event in attempts(world, delivery_id)][1:] == [resumed_at]


def test_one_that_is_paused_does_not_hold_up_another(world: World) -> None:
    paused, active = world.subscribe(), world.subscribe()
    revise(world, paused, status="paused")
    announce(world, 2)
    world.run_until_quiet()
    assert outcomes(world, paused) == [None, None]
    assert outcomes(world, active) == ["delivered", "delivered"]


# --- dying ---


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(8))
@pytest.mark.parametrize("of", [Killed(), StoreUnavailable("gone")], ids=["killed", "store"])
def test_a_delivery_survives_the_death_of_its_process(
    world: World, call: int, of: BaseException, *, acted: bool
) -> None:
    delivery_id = world.owe()
    world.calls.made.clear()
    world.calls.kill(Death(call, acted, of))
    world.run_until_quiet()
    assert world.calls.deaths == 1
    assert len(world.sender.sent) in {1, 2}
    assert len({request.headers["webhook-id"] for request in world.sender.sent}) == 1
    assert isinstance(attempts(world, delivery_id)[-1], Delivery.Delivered)


def test_a_delivery_makes_as_many_calls_as_are_tried_here(world: World) -> None:
    world.owe()
    world.calls.made.clear()
    world.run_until_quiet()
    assert world.calls.made == [
        "store.select_events",
        "store.select_events",
        "views.announced_at",
        "keys.open",
        "webhook.send",
        "store.origin",
        "store.insert_events",
        "responses.keep",
    ]


def test_an_attempt_that_was_cut_off_counts_and_is_made_again_at_once(world: World) -> None:
    delivery_id = world.owe()
    world.claim_one(NAME)
    world.clock.advance(LEASE + timedelta(seconds=1))
    world.work(world.claim_one(NAME))
    cut_off, taken = attempts(world, delivery_id)
    assert isinstance(cut_off, Delivery.AttemptFailed)
    assert isinstance(taken, Delivery.Delivered)
    assert (cut_off.status, cut_off.detail) == (None, "the worker ended during the attempt")
    assert cut_off.retry_at == cut_off.timestamp == taken.timestamp


def test_a_delivery_on_which_every_worker_dies_is_given_up_after_thirteen(world: World) -> None:
    delivery_id = world.owe()
    world.calls.fail_while("webhook.send", lambda: True, Killed())
    claims = 0
    while world.delivery(delivery_id).ended is None:
        world.work(world.claim_one(NAME))
        claims += 1
        world.clock.advance(LEASE + timedelta(seconds=1))
    assert world.sender.sent == []
    assert world.delivery(delivery_id).ended == "dead"
    assert claims == len(RETRY_DELAYS) + 1


def die() -> None:
    raise Killed


def test_deaths_and_failures_count_together(world: World) -> None:
    delivery_id = world.owe()
    for _ in range(6):
        world.calls.before("webhook.send", die)
        world.calls.before("webhook.send", lambda: world.sender.answers.append(BROKEN))
    world.calls.before("webhook.send", lambda: world.sender.answers.append(BROKEN))
    world.run_until_quiet()
    assert world.calls.made.count("webhook.send") == 13
    assert (world.delivery(delivery_id).ended, world.delivery(delivery_id).attempts) == ("dead", 13)


def test_a_worker_whose_lease_ends_with_the_report_of_a_cut_off_attempt_makes_no_further_one(world: World) -> None:
    delivery_id = world.owe()
    world.calls.before("webhook.send", die)
    world.work(world.claim_one(NAME))
    world.clock.advance(LEASE)
    claim = world.claim_one(NAME)
    behind = world.clock.now() - SECOND
    world.calls.before("store.insert_events", lambda: world.clock.set(behind))  # the store's clock is behind ours
    world.work(claim)
    assert world.sender.sent == []
    assert [type(event) for event in attempts(world, delivery_id)] == [Delivery.AttemptFailed]
    world.run_until_quiet()
    assert world.delivery(delivery_id).ended == "delivered"
    assert len(world.sender.sent) == 1


# --- somebody else changes the same meanwhile ---


def retried_once(world: World) -> str:
    """A delivery that waits for its second attempt, which is due now."""
    delivery_id = world.owe()
    world.sender.answers.append(BROKEN)
    world.run_for(5 * SECOND)
    return delivery_id


def reopen(world: World, delivery_id: str) -> None:
    world.subscriptions.redeliver(subscription_of(world, delivery_id).id, delivery_id, OWNER)


def test_what_the_receiver_said_is_reported_although_somebody_asked_for_it_again(world: World) -> None:
    delivery_id = retried_once(world)
    world.calls.before("webhook.send", lambda: reopen(world, delivery_id))
    world.run_until_quiet()
    assert [type(event) for event in attempts(world, delivery_id)] == [
        Delivery.AttemptFailed,
        Delivery.Reopened,
        Delivery.Delivered,
    ]
    assert len(world.sender.sent) == 2


def test_a_failure_counts_as_the_first_where_somebody_asked_for_it_again(world: World) -> None:
    delivery_id = retried_once(world)
    world.sender.answers.append(BROKEN)
    world.calls.before("webhook.send", lambda: reopen(world, delivery_id))
    world.run_for(SECOND)
    delivery = world.delivery(delivery_id)
    assert (delivery.attempts, delivery.due_at) == (1, attempts(world, delivery_id)[-1].timestamp + RETRY_DELAYS[1])


@pytest.mark.parametrize("status", [200, 500, 410])
def test_what_the_receiver_said_is_reported_although_its_subscription_was_changed(world: World, status: int) -> None:
    delivery_id = world.owe()
    subscription_id = subscription_of(world, delivery_id).id
    world.sender.answers.append(WebhookResponse(status, None))
    world.calls.before("webhook.send", lambda: revise(world, subscription_id, name="another", status="paused"))
    world.run_until_quiet()
    (told,) = attempts(world, delivery_id)
    assert isinstance(told, Delivery.Delivered | Delivery.AttemptFailed | Delivery.GivenUp)
    assert told.status == status
    subscription = world.subscription(subscription_id)
    assert (subscription.name, subscription.status) == ("another", "disabled" if status == 410 else "paused")


def test_a_worker_that_is_overtaken_at_each_report_begins_anew(world: World) -> None:
    delivery_id = world.owe()
    left = iter(range(MOST_CONFLICTS))

    def overtake() -> None:
        delivery = world.delivery(delivery_id)
        delivery.attempt_cut_off(world.clock.now())
        world.store.record(delivery, by=OWNER.provenance)
        if next(left, None) is not None:
            world.calls.before("store.insert_events", overtake)

    next(left)
    world.calls.before("store.insert_events", overtake)
    world.run_until_quiet()
    assert next(left, None) is None
    assert len(world.sender.sent) == 2
    assert world.delivery(delivery_id).ended == "delivered"


def test_a_secret_that_was_rotated_during_an_attempt_is_destroyed_all_the_same(world: World) -> None:
    delivery_id = world.owe()
    subscription_id = subscription_of(world, delivery_id).id
    world.calls.before("webhook.send", lambda: world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER))
    world.run_until_quiet()
    assert (world.delivery(delivery_id).ended, world.sealed.sealed) == ("delivered", 1)


def test_an_outcome_is_reported_although_somebody_changed_the_same_meanwhile(world: World) -> None:
    delivery_id = world.owe()
    subscription_id = subscription_of(world, delivery_id).id
    world.sender.answers.append(GONE)

    def meanwhile() -> None:
        world.subscriptions.revise(subscription_id, Changes(name="another"), OWNER)

    world.calls.before("webhook.send", meanwhile)
    world.run_until_quiet()
    assert world.delivery(delivery_id).ended == "dead"
    assert world.subscription(subscription_id).status == "disabled"
    assert world.subscription(subscription_id).name == "another"


def test_what_a_subscription_is_about_to_do_survives_a_report_that_read_it_before(world: World) -> None:
    delivery_id = world.owe()
    subscription_id = subscription_of(world, delivery_id).id
    position = world.owed()[0].position

    def replay() -> None:
        world.subscriptions.replay(subscription_id, position, None, OWNER, dry_run=False)

    world.calls.before("webhook.send", replay)
    world.work(world.claim_one(NAME))
    world.run_until_quiet()
    assert len(world.owed(subscription_id)) == 2
    assert len(world.sender.sent) == 2


def test_a_delivery_that_the_service_fails_at_again_and_again_is_abandoned(world: World) -> None:
    delivery_id = world.owe()
    world.processes[NAME].give_up(world.claim_one(NAME))
    (abandoned,) = attempts(world, delivery_id)
    assert isinstance(abandoned, Delivery.Abandoned)
    world.run_until_quiet()
    assert world.sender.sent == []


def test_a_worker_that_lost_its_lease_reports_nothing(world: World) -> None:
    delivery_id = world.owe()

    def stall() -> None:
        world.clock.advance(LEASE + timedelta(seconds=1))
        world.run_until_quiet()

    world.calls.before("webhook.send", stall)
    world.work(world.claim_one(NAME))
    assert isinstance(attempts(world, delivery_id)[-1], Delivery.Delivered)
    assert len([event for event in attempts(world, delivery_id) if isinstance(event, Delivery.Delivered)]) == 1
    assert len(world.sender.sent) == 2


# --- deciding ---


def test_there_is_something_to_do_until_it_was_taken_or_given_up(world: World) -> None:
    now = world.clock.now()
    delivery = world.delivery(world.owe())
    assert next_step(delivery) == Attempt(now)
    delivery.attempt_failed(None, "down", None, 5, 0.5, now)
    assert next_step(delivery) == Attempt(now + timedelta(seconds=5))
    delivery.delivered(200, 5, now)
    assert next_step(delivery) is None
    delivery.reopen(now)
    assert next_step(delivery) == Attempt(now)
    delivery.abandon("why", now)
    assert next_step(delivery) is None


def test_its_turn_is_in_the_lane_of_its_subscription_and_in_order_behind_those_of_its_path(world: World) -> None:
    subscription_id = world.subscribe()
    ordered_id = world.subscribe(ordered=True)
    announced = world.announce()
    world.follow()
    turns = [turn(world.delivery(event.originator_id)) for event in world.owed()]
    assert turns == [
        Turn(subscription_id, None, announced.position),
        Turn(ordered_id, f"{ordered_id}/{announced.path}", announced.position),
    ]
