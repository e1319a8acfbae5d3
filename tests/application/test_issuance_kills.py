"""An issuance whose process dies, at every call of every port, before and after the call did its work.

A dead process reports nothing; its lease runs out, and another one goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.errors import StoreUnavailable, ZoneUnreachable
from application.process.worker import LEASE
from domain.acme import ERROR_NAMESPACE, Problem
from domain.certificate import Certificate
from domain.errors import SealBroken
from domain.order import Order
from tests.application.calls import Death, Killed
from tests.application.world import ZONE, World

CALLS, RENEWAL_CALLS, FAILED_RENEWAL_CALLS = 46, 58, 39
"""How many an order makes after it was placed, if nobody dies."""

FORBIDDEN = Problem(ERROR_NAMESPACE + "caa", "forbidden")

WHEN = pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
SECONDS_TO_GO_ON = 60


@pytest.fixture
def world() -> World:
    return World()


def begin(world: World, death: Death | None = None) -> str:
    order_id = world.placed()
    world.calls.made.clear()
    if death is not None:
        world.calls.kill(death)
    return order_id


def end(world: World, order_id: str, deaths: int = 1) -> None:
    """Goes on after the deaths, to an end that is the same as without them."""
    began = world.clock.now()
    world.run_until_quiet()
    assert world.calls.deaths == deaths
    assert world.clock.now() - began <= timedelta(seconds=SECONDS_TO_GO_ON)
    assert world.order(order_id).ended == "valid"
    assert len(world.ca.issued) == 1 + world.order(order_id).is_renewal
    world.require_sound()


def test_the_stories_make_as_many_calls_as_are_tried_here(world: World) -> None:
    first = begin(world)
    world.run_until_quiet()
    assert len(world.calls.made) == CALLS
    world.ca.knobs.processing_polls = 1
    world.renewal_of(first)
    world.calls.made.clear()
    world.run_until_quiet()
    assert len(world.calls.made) == RENEWAL_CALLS
    world.ca.knobs.invalid[ZONE] = FORBIDDEN
    world.renewal_of(first)
    world.calls.made.clear()
    world.run_until_quiet()
    assert len(world.calls.made) == FAILED_RENEWAL_CALLS


@WHEN
@pytest.mark.parametrize("call", range(CALLS))
def test_an_issuance_survives_the_death_of_its_process(world: World, call: int, *, acted: bool) -> None:
    order_id = begin(world, Death(call, acted, Killed()))
    end(world, order_id)
    assert world.ca.requests["newOrder"] <= 2
    assert world.ca.requests["challenge"] <= 2
    assert all(attempts == 1 for attempts in world.ca.finalized.values())


@WHEN
@pytest.mark.parametrize("call", range(CALLS))
def test_an_issuance_survives_a_store_that_fails(world: World, call: int, *, acted: bool) -> None:
    order_id = begin(world, Death(call, acted, StoreUnavailable("the connection was lost")))
    end(world, order_id)
    assert not any(
        isinstance(event, Order.Postponed) for event in world.events(order_id)
    )  # it is not the order's fault


@WHEN
@pytest.mark.parametrize("call", range(RENEWAL_CALLS))
def test_a_renewal_survives_the_death_of_its_process(world: World, call: int, *, acted: bool) -> None:
    first = world.issued()
    world.ca.knobs.processing_polls = 1
    order_id = world.renewal_of(first)
    world.calls.kill(Death(call, acted, Killed()))
    end(world, order_id)
    assert [version.number for version in world.certificate(order_id).versions] == [1, 2]


@WHEN
@pytest.mark.parametrize("call", range(FAILED_RENEWAL_CALLS))
def test_a_renewal_that_fails_is_told_once_and_cleaned_up(world: World, call: int, *, acted: bool) -> None:
    first = world.issued()
    world.ca.knobs.invalid[ZONE] = FORBIDDEN
    order_id = world.renewal_of(first)
    world.calls.kill(Death(call, acted, Killed()))
    world.run_until_quiet()
    assert world.calls.deaths == 1
    assert world.order(order_id).ended == "invalid"
    assert [event.attempt for event in world.recorded if isinstance(event, Certificate.RenewalFailed)] == [1]
    world.require_sound()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12))
def test_an_issuance_survives_deaths_in_a_row(deaths: list[tuple[int, bool]]) -> None:
    world = World()
    order_id = world.placed()
    world.calls.kill(*(Death(after, acted, Killed()) for after, acted in deaths))
    world.run_until_quiet()
    world.calls.kill()
    assert world.order(order_id).ended == "valid"
    assert len(world.ca.issued) == 1
    world.require_sound()


@pytest.mark.parametrize(
    "call", ["ca.new_order", "zone.add", "ca.answer", "ca.finalize", "ca.chain", "zone.remove", "store.insert_events"]
)
def test_a_worker_that_lost_its_lease_reports_nothing(world: World, call: str) -> None:
    order_id = begin(world)
    reported: list[int] = []

    def stall() -> None:
        """The worker hangs before the call until its lease is over, and another one does all that is left."""
        world.clock.advance(LEASE + timedelta(seconds=1))
        world.run_until_quiet()
        reported.append(len(world.events(order_id)))

    world.calls.before(call, stall)
    while not reported:
        world.run_until_quiet()
    assert len(world.events(order_id)) == reported[0]
    assert world.order(order_id).ended == "valid"
    assert len(world.ca.issued) == 1
    world.require_sound()


def test_what_a_stalled_worker_wrote_stays_for_as_long_as_it_is_needed(world: World) -> None:
    world.resolver.stale.add("ns1.example:53")
    order_id = begin(world)
    world.calls.before("zone.add", lambda: world.run_for(timedelta(minutes=1)))
    world.run_for(timedelta(minutes=2))
    assert world.calls.made.count("zone.add") >= 2
    assert len(world.zones.held) == 2
    world.resolver.stale.clear()
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    world.require_sound()


# --- faults of our own ---


def test_an_order_waits_for_its_keys_to_open_again(world: World) -> None:
    order_id = begin(world)
    world.calls.kill(Death(6, acted=False, of=SealBroken("account-key", "acme_staging_1")))
    claim = world.claim_one("issuance")
    with pytest.raises(SealBroken):
        world.work(claim)
    assert world.calls.made[-1] == "keys.open"
    assert [type(event) for event in world.events(order_id)] == [Order.Placed, Order.KeySealed]
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"


def test_an_order_that_crashes_again_and_again_is_given_up_and_cleaned_up(world: World) -> None:
    world.resolver.stale.add("ns1.example:53")
    order_id = begin(world)
    world.run_for(timedelta(minutes=1))
    world.clock.advance(timedelta(minutes=1))
    claim = world.claim_one("issuance")
    world.processes["issuance"].give_up(claim)
    assert world.failure(order_id).error.code == "backend_error"
    world.run_until_quiet()
    world.require_sound()


def test_an_order_that_has_ended_is_not_given_up_before_it_is_cleaned_up(world: World) -> None:
    begin(world)
    world.outage("zone.remove", timedelta(minutes=5), ZoneUnreachable("502"))
    world.run_for(timedelta(minutes=1))
    world.clock.advance(timedelta(minutes=1))
    claim = world.claim_one("issuance")
    with world.records_nothing():
        world.processes["issuance"].give_up(claim)
    world.run_until_quiet()
    world.require_sound()
