"""Webhooks: who is owed what, and handing it over until it is taken or given up."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from application.errors import EgressRefused, EndpointUnreachable, Failure, StoreUnavailable
from application.ports import WebhookResponse
from application.process.delivery import Attempt, next_step
from application.process.worker import LEASE
from application.secret_value import SecretValue
from domain.delivery import RETRY_DELAYS, Delivery
from domain.provenance import Recorded
from tests.application.calls import Death, Killed
from tests.application.world import OWNER, STRANGER, World
from tests.servers.https import ca_bundle_pem

BUNDLE = ca_bundle_pem()

SECRET = "correct horse battery staple"
URL = "https://hooks.acme.example/"
DAY = timedelta(days=1)


@pytest.fixture
def world() -> World:
    return World()


def subscribe(
    world: World, *paths: str, events: Sequence[str] = ("certificate.issued",), stranger: bool = False
) -> str:
    subscription_id, _ = world.subscriptions.subscribe(
        name="edges",
        paths=paths or ["pki/**"],
        events=events,
        url=URL,
        secret=SecretValue(SECRET),
        ca_bundle_pem=BUNDLE,
        caller=STRANGER if stranger else OWNER,
    )
    return subscription_id


def fan_out(world: World, after: int = 0) -> None:
    world.fan_out.apply(None, world.recorder.read(after, 10_000))


def owed(world: World) -> list[Delivery.Owed]:
    return [event for event in world.recorded if isinstance(event, Delivery.Owed)]


def owing(world: World) -> str:
    """One delivery, of the first certificate there is, owed just now."""
    subscribe(world)
    world.issued()
    fan_out(world)
    (delivery,) = owed(world)
    return delivery.originator_id


def attempts(world: World, delivery_id: str) -> list[Recorded]:
    return [
        recorded
        for recorded in world.recorder.history
        if recorded.event.originator_id == delivery_id and not isinstance(recorded.event, Delivery.Owed)
    ]


# --- owing ---


def test_an_event_is_owed_to_each_subscription_that_wants_it(world: World) -> None:
    wanting = [
        subscribe(world, "pki/certificates/*"),
        subscribe(world, "pki/**", "secrets/**", events=("order.invalid", "certificate.issued")),
    ]
    subscribe(world, "pki/acme/**")
    subscribe(world, "pki/*")
    subscribe(world, events=("certificate.renewed",))
    subscribe(world, stranger=True)
    world.issued()
    fan_out(world)
    assert [event.subscription_id for event in owed(world)] == wanting
    assert {event.event_type for event in owed(world)} == {"certificate.issued"}
    assert [(item.process, item.step) for item in world.recorder.todo] == [("delivery", "Attempt")] * 2


def test_what_happened_before_the_subscription_is_not_owed(world: World) -> None:
    world.issued()
    subscribe(world)
    fan_out(world)
    assert owed(world) == []


def test_an_event_read_twice_is_owed_once(world: World) -> None:
    owing(world)
    with world.records_nothing():
        fan_out(world)
        fan_out(world, after=5)
    world.run_until_quiet()
    with world.records_nothing():
        fan_out(world)
    assert len(world.sender.sent) == 1


def test_two_halves_owe_what_the_whole_does(world: World) -> None:
    subscribe(world)
    world.issued()
    history = world.recorder.history
    for recorded in history:
        world.fan_out.apply(None, [recorded])
    assert len(owed(world)) == 1


def test_who_owes_is_on_record(world: World) -> None:
    delivery_id = owing(world)
    (recorded,) = (each for each in world.recorder.history if each.event.originator_id == delivery_id)
    cause = world.recorder.history[owed(world)[0].position - 1].event
    assert (recorded.by.tenant_id, recorded.by.identity_id) == (OWNER.tenant_id, "delivery")
    assert recorded.by.causation == f"{cause.originator_id}@{cause.originator_version}"


# --- handing over ---


def test_a_delivery_is_signed_over_what_is_sent(world: World) -> None:
    delivery_id = owing(world)
    world.clock.advance(timedelta(seconds=3))
    world.run_until_quiet()
    (request,) = world.sender.sent
    assert (request.url, request.ca_bundle_pem) == (URL, BUNDLE)
    timestamp = request.headers["X-ScaiVault-Timestamp"]
    assert int(timestamp) == int(world.clock.now().timestamp())
    digest = hmac.new(SECRET.encode(), timestamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-ScaiVault-Signature"] == f"sha256={digest}"
    body = msgspec.json.decode(request.body)
    assert body["event_id"] == request.headers["X-ScaiVault-Event-Id"] == request.headers["webhook-id"]
    assert (body["event_type"], body["sequence"]) == ("certificate.issued", owed(world)[0].position)
    (taken,) = attempts(world, delivery_id)
    assert isinstance(taken.event, Delivery.Delivered)
    assert world.recorder.todo == []


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_is_success(world: World, status: int) -> None:
    delivery_id = owing(world)
    world.sender.answers.append(WebhookResponse(status, 60))
    world.run_until_quiet()
    (taken,) = attempts(world, delivery_id)
    assert isinstance(taken.event, Delivery.Delivered)
    assert taken.event.status == status


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
    delivery_id = owing(world)
    world.sender.answers.append(answer)
    began = world.clock.now()
    world.run_until_quiet()
    failed, taken = (recorded.event for recorded in attempts(world, delivery_id))
    assert isinstance(failed, Delivery.AttemptFailed)
    assert isinstance(taken, Delivery.Delivered)
    assert failed.status == status
    assert failed.detail == (answer.detail if isinstance(answer, Failure) else f"the receiver answered {status}")
    assert failed.retry_at == taken.timestamp == began + timedelta(seconds=5)


@pytest.mark.parametrize(("chance", "spread"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_thirteen_attempts_are_made_on_the_contracts_schedule(world: World, chance: float, spread: float) -> None:
    delivery_id = owing(world)
    world.chance = chance
    world.sender.answers.extend([WebhookResponse(500, None)] * 20)
    began = world.clock.now()
    world.run_until_quiet()
    events = [recorded.event for recorded in attempts(world, delivery_id)]
    assert len(world.sender.sent) == len(events) == 13
    waited = [after.timestamp - before.timestamp for before, after in itertools.pairwise(events)]
    assert events[0].timestamp == began
    for wait, planned in zip(waited, RETRY_DELAYS[1:], strict=True):
        assert wait / planned == pytest.approx(spread, rel=1e-3)
    *failed, given_up = events
    assert all(isinstance(event, Delivery.AttemptFailed) for event in failed)
    assert isinstance(given_up, Delivery.GivenUp)
    assert (given_up.status, given_up.detail) == (500, "the receiver answered 500")
    assert world.recorder.todo == []


def test_the_schedule_is_the_contracts() -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    seconds = [timedelta(seconds=each) for each in (0, 5, 30)]
    assert [*seconds, 2 * minute, 10 * minute, 30 * minute, *(each * hour for each in (1, 2, 4, 8, 16, 24, 24))] == [
        *RETRY_DELAYS
    ]


@pytest.mark.parametrize(
    ("retry_after_seconds", "waits"),
    [(0.0, timedelta(seconds=5)), (90.0, timedelta(seconds=90)), (1e9, DAY)],
)
def test_a_receivers_wish_to_wait_is_granted_up_to_a_day(
    world: World, retry_after_seconds: float, waits: timedelta
) -> None:
    delivery_id = owing(world)
    world.sender.answers.append(WebhookResponse(503, retry_after_seconds))
    world.run_until_quiet()
    failed, taken = (recorded.event.timestamp for recorded in attempts(world, delivery_id))
    assert taken - failed == waits


def test_each_attempt_is_signed_anew_under_the_same_id(world: World) -> None:
    owing(world)
    world.sender.answers.extend([WebhookResponse(500, None)] * 2)
    world.run_until_quiet()
    assert len({request.body for request in world.sender.sent}) == 1
    assert len({request.headers["X-ScaiVault-Event-Id"] for request in world.sender.sent}) == 1
    assert len({request.headers["X-ScaiVault-Timestamp"] for request in world.sender.sent}) == 3
    assert len({request.headers["X-ScaiVault-Signature"] for request in world.sender.sent}) == 3


def test_the_body_is_that_of_its_own_event(world: World) -> None:
    subscribe(world, events=("certificate.issued", "certificate.renewed"))
    first = world.issued()
    world.renewal_of(first)
    world.run_until_quiet()
    fan_out(world)
    world.run_until_quiet()
    bodies = [msgspec.json.decode(request.body) for request in world.sender.sent]
    assert sorted((body["event_type"], body["data"]["version"]) for body in bodies) == [
        ("certificate.issued", 1),
        ("certificate.renewed", 2),
    ]


def test_one_receiver_that_is_down_does_not_hold_up_another(world: World) -> None:
    subscribe(world)
    subscribe(world)
    world.issued()
    fan_out(world)
    world.sender.answers.append(EndpointUnreachable("down"))
    world.run_for(timedelta(seconds=1))
    assert len(world.sender.sent) == 1
    world.run_until_quiet()
    assert len(world.sender.sent) == 2


# --- dying ---


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(7))
@pytest.mark.parametrize("of", [Killed(), StoreUnavailable("gone")], ids=["killed", "store"])
def test_a_delivery_survives_the_death_of_its_process(
    world: World, call: int, of: BaseException, *, acted: bool
) -> None:
    delivery_id = owing(world)
    world.calls.made.clear()
    world.calls.kill(Death(call, acted, of))
    world.run_until_quiet()
    assert world.calls.deaths == 1
    assert len(world.sender.sent) in {1, 2}
    assert len({request.headers["webhook-id"] for request in world.sender.sent}) == 1
    (taken,) = attempts(world, delivery_id)
    assert isinstance(taken.event, Delivery.Delivered)


def test_a_delivery_makes_as_many_calls_as_are_tried_here(world: World) -> None:
    owing(world)
    world.calls.made.clear()
    world.run_until_quiet()
    assert world.calls.made == [
        "store.select_events",
        "store.origin",
        "store.select_events",
        "store.read",
        "keys.open",
        "webhook.send",
        "store.insert_events",
    ]


def test_a_delivery_that_crashes_again_and_again_counts_as_a_failed_attempt(world: World) -> None:
    delivery_id = owing(world)
    (claim,) = world.recorder.claim(1, LEASE)
    world.processes["delivery"].give_up(claim)
    (failed,) = attempts(world, delivery_id)
    assert isinstance(failed.event, Delivery.AttemptFailed)
    assert failed.event.status is None
    world.run_until_quiet()
    assert len(world.sender.sent) == 1


def test_a_worker_that_lost_its_lease_reports_nothing(world: World) -> None:
    delivery_id = owing(world)

    def stall() -> None:
        world.clock.advance(LEASE + timedelta(seconds=1))
        world.run_until_quiet()

    world.calls.before("webhook.send", stall)
    world.run_until_quiet()
    assert len(attempts(world, delivery_id)) == 1
    assert len(world.sender.sent) == 2


# --- deciding ---


def test_there_is_something_to_do_until_it_was_taken_or_given_up() -> None:
    now = World().clock.now()

    def delivery() -> Delivery:
        return Delivery.owe(
            "del_1", tenant_id="tnt", subscription_id="sub_1", position=1, event_type="order.invalid", now=now
        )

    taken, failed, dead = delivery(), delivery(), delivery()
    assert next_step(taken) == Attempt(now)
    taken.delivered(200, now)
    assert next_step(taken) is None
    failed.attempt_failed(None, "down", None, 0.5, now)
    assert next_step(failed) == Attempt(now + timedelta(seconds=5))
    for _ in RETRY_DELAYS:
        assert next_step(dead) is not None
        dead.attempt_failed(None, "down", None, 0.5, now)
    assert next_step(dead) is None
