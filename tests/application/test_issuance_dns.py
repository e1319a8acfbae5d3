"""An issuance while DNS fails: providers that refuse or stall, servers that lag behind, values that will not go."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.errors import (
    EgressRefused,
    Failure,
    ResolverFailed,
    ZoneConflict,
    ZoneRefused,
    ZoneThrottled,
    ZoneUnreachable,
)
from application.ports import Alias, TxtValue
from domain.errors import OrderInProgress
from domain.order import Order
from tests.application.outside import Change
from tests.application.world import NAMES, OWNER, RECORD, ZONE, World
from tests.fakes import NEW_YEAR

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STALE = "ns2.example:53"
TRANSIENT = [ZoneThrottled("slow down", 7), ZoneUnreachable("502"), ZoneConflict("changed meanwhile")]


@pytest.fixture
def world() -> World:
    return World()


# --- providers ---


@pytest.mark.parametrize("change", ["add", "remove"])
@pytest.mark.parametrize("failure", TRANSIENT, ids=lambda failure: type(failure).__name__)
def test_a_change_that_fails_for_a_moment_is_made_later(world: World, failure: Failure, change: Change) -> None:
    world.zones.of(ZONE).fail(change, failure)
    world.issued()
    assert [made for made, _ in world.zones.of(ZONE).changes] == ["add", "remove"]
    world.require_sound()


@pytest.mark.parametrize("change", ["add", "remove"])
def test_a_change_whose_answer_was_lost_is_made_again_without_harm(world: World, change: Change) -> None:
    world.foreign = {TxtValue(RECORD, "of another client")}
    world.zones.of(ZONE).add(list(world.foreign))
    world.zones.of(ZONE).lose_answer(change, ZoneUnreachable("time-out"))
    world.issued()
    world.require_sound()


def test_a_provider_that_asks_for_patience_is_left_alone_for_as_long(world: World) -> None:
    world.zones.of(ZONE).fail("add", ZoneThrottled("slow down", 600))
    order_id = world.placed()
    world.run_for(timedelta(seconds=599))
    assert world.zones.of(ZONE).attempts == 1
    (waits,) = (event for event in world.events(order_id) if isinstance(event, Order.Postponed))
    assert waits.error is not None
    assert (waits.error.code, waits.error.message) == ("provider_error", "slow down")
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ZoneRefused("credentials_rejected", "InvalidClientTokenId"), "credentials_rejected: InvalidClientTokenId"),
        (ZoneRefused("permission_missing", "AccessDenied"), "permission_missing: AccessDenied"),
        (ZoneRefused("zone_not_found", "no hosted zone"), "zone_not_found: no hosted zone"),
        (EgressRefused("10.0.0.1 must not be dialled"), "permission_missing: 10.0.0.1 must not be dialled"),
    ],
)
def test_a_provider_that_refuses_ends_the_order_at_once(world: World, failure: Failure, message: str) -> None:
    world.zones.of(ZONE).fail("add", failure)
    order_id = world.placed()
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert (failed.error.code, failed.error.message) == ("provider_error", message)
    assert failed.timestamp == NEW_YEAR
    assert world.ca.requests["challenge"] == 0
    world.require_sound()


def test_rejected_credentials_start_no_storm(world: World) -> None:
    world.zones.of(ZONE).reject_credentials()
    order_id = world.placed()
    world.run_for(HOUR)
    assert world.failure(order_id).error.code == "provider_error"
    assert 10 <= world.zones.of(ZONE).attempts <= 25  # whether a value was written cannot be known


def test_values_that_will_not_go_are_removed_once_it_is_possible_again(world: World) -> None:
    order_id = world.placed()
    world.outage("zone.remove", HOUR, ZoneUnreachable("502"))
    world.run_for(HOUR)
    assert world.order(order_id).ended == "valid"
    assert len(world.zones.held) == 2
    attempts = world.calls.made.count("zone.remove")
    assert attempts <= 25
    world.run_for(timedelta(minutes=15))
    assert world.todo == []
    world.require_sound()


def test_one_provider_that_fails_does_not_keep_the_values_of_another(world: World) -> None:
    world.connect_provider("other.example", name="second")
    order_id = world.placed(ZONE, "other.example")
    world.zones.of(ZONE).fail("remove", *[ZoneRefused("credentials_rejected", "expired")] * 10)
    world.run_for(MINUTE)
    assert world.order(order_id).ended == "valid"
    assert {value.record_name for value in world.zones.held} == {RECORD}
    world.run_until_quiet()
    world.require_sound()


def test_a_name_that_no_provider_manages_costs_nothing(world: World) -> None:
    order_id = world.placed(ZONE, "www.other.example")
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "zone_not_managed"
    assert [error.dns_name for error in failed.name_errors] == ["www.other.example"]
    assert world.ca.requests.total() == 0
    world.require_sound()


def test_an_order_whose_credentials_are_gone_says_so(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": "1"}, "json", {}, OWNER)
    order_id = world.placed(credentials_path="dns/main")
    world.secrets.write("dns/main", {"another": "2"}, "json", {}, OWNER)
    world.run_for(MINUTE)
    failed = world.failure(order_id)
    assert failed.error.code == "provider_error"
    assert "dns/main" not in failed.error.message
    assert "credentials_path" in failed.error.message


# --- aliases ---

TARGET = "acme.challenges.example"


def led_to(world: World, alias: Alias, zone: str = "challenges.example") -> None:
    """The challenge's name is an alias, and that zone is managed."""
    world.connect_provider(zone, name="second")
    world.resolver.led[RECORD] = alias


def test_a_value_is_written_where_the_alias_of_its_name_leads_and_removed_there(world: World) -> None:
    led_to(world, Alias(TARGET))
    order_id = world.placed(*NAMES)
    world.run_until_quiet()
    assert world.zones.of(ZONE).changes == []
    assert {value.record_name for _, values in world.zones.of("challenges.example").changes for value in values} == {
        TARGET
    }
    (offered,) = (event for event in world.events(order_id) if isinstance(event, Order.ChallengesOffered))
    assert {challenge.record.name for challenge in offered.challenges if challenge.record} == {TARGET}
    assert world.resolver.looked_up == 1
    assert world.zones.held == set()


def test_an_alias_within_the_same_zone_is_written_by_the_same_provider(world: World) -> None:
    world.resolver.led[RECORD] = Alias(f"here.{ZONE}")
    world.placed(*NAMES)
    world.run_until_quiet()
    assert {value.record_name for _, values in world.zones.of(ZONE).changes for value in values} == {f"here.{ZONE}"}


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        (Alias("there.unmanaged.example"), "there.unmanaged.example, which no active DNS provider manages"),
        (Alias(None, "the CNAMEs run in a circle"), "circle"),
    ],
)
def test_an_alias_that_leads_nowhere_of_ours_ends_the_order_at_its_names(
    world: World, alias: Alias, message: str
) -> None:
    led_to(world, alias)
    order_id = world.placed(*NAMES, f"www.{ZONE}")
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert (failed.error.code, {error.code for error in failed.name_errors}) == (
        "zone_not_managed",
        {"zone_not_managed"},
    )
    assert {error.dns_name for error in failed.name_errors} == set(NAMES)
    assert all(message in error.message for error in failed.name_errors)
    assert world.zones.of(ZONE).attempts == 0
    world.require_sound()


def test_a_name_is_looked_up_again_while_nobody_knows_whether_it_is_an_alias(world: World) -> None:
    led_to(world, Alias(TARGET))
    world.resolver.unknown.add(RECORD)
    order_id = world.placed(*NAMES)
    world.run_for(timedelta(seconds=2))
    assert world.zones.of(ZONE).attempts == 0
    world.resolver.unknown.clear()
    world.run_until_quiet()
    assert world.zones.of(ZONE).attempts == 0
    assert world.zones.held == set()
    assert [type(event) for event in world.events(order_id)].count(Order.ChallengesOffered) == 1


def test_a_name_that_nobody_can_look_up_for_long_is_taken_for_no_alias(world: World) -> None:
    world.resolver.unknown.add(RECORD)
    order_id = world.placed(*NAMES)
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    assert world.resolver.looked_up == 6
    assert world.clock.now() - NEW_YEAR < MINUTE
    world.require_sound()


def test_where_nobody_is_to_be_asked_a_failed_look_up_is_not_waited_for(world: World) -> None:
    world.resolver.unknown.add(RECORD)
    order_id = world.placed(*NAMES, propagation="skip")
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    assert world.resolver.looked_up == 1


# --- propagation ---


def test_no_challenge_is_answered_while_one_server_is_behind(world: World) -> None:
    world.resolver.stale.add(STALE)
    order_id = world.placed()
    world.run_for(4 * MINUTE)
    assert world.ca.requests["challenge"] == 0
    assert len(world.resolver.asked) <= 12
    world.resolver.stale.clear()
    world.run_until_quiet()
    (event,) = (event for event in world.events(order_id) if isinstance(event, Order.RecordsPropagated))
    assert event.unseen == ()
    assert world.order(order_id).ended == "valid"
    world.require_sound()


def test_the_advisory_limit_lets_the_order_go_on_with_the_server_on_record(world: World) -> None:
    world.resolver.stale.add(STALE)
    order_id = world.issued(propagation="advisory", propagation_timeout="3m")
    (event,) = (event for event in world.events(order_id) if isinstance(event, Order.RecordsPropagated))
    assert event.unseen == (STALE,)
    assert event.timestamp == NEW_YEAR + 3 * MINUTE
    world.require_sound()


def test_the_strict_limit_ends_the_order(world: World) -> None:
    world.resolver.stale.add(STALE)
    order_id = world.placed(propagation="strict", propagation_timeout="3m")
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "propagation_timeout"
    assert STALE in failed.error.message
    assert {error.dns_name for error in failed.name_errors} == set(NAMES)
    assert failed.timestamp == NEW_YEAR + 3 * MINUTE
    assert world.ca.requests["challenge"] == 0
    world.require_sound()


def test_a_provider_that_says_skip_has_nobody_asked(world: World) -> None:
    world.resolver.stale.add(STALE)
    world.issued(propagation="skip")
    assert world.resolver.asked == []


def test_the_name_servers_of_the_settings_are_the_ones_asked(world: World) -> None:
    world.issued(nameservers=["127.0.0.1:5353"])
    assert [nameservers for _, nameservers in world.resolver.asked] == [("127.0.0.1:5353",)]


def test_a_question_that_fails_for_a_moment_is_asked_again(world: World) -> None:
    world.resolver.failures.extend([ResolverFailed("SERVFAIL for acme.example")] * 3)
    order_id = world.issued(propagation="strict")
    waits = [event.error for event in world.events(order_id) if isinstance(event, Order.Postponed)]
    assert [error and error.message for error in waits] == ["SERVFAIL for acme.example"] * 3
    world.require_sound()


def test_servers_that_cannot_be_found_hold_the_order_back_to_the_advisory_limit(world: World) -> None:
    order_id = world.placed(propagation_timeout="3m")
    world.outage("resolver.unseen", HOUR, ResolverFailed("SERVFAIL for acme.example"))
    world.run_for(timedelta(minutes=2, seconds=59))
    assert world.ca.requests["challenge"] == 0
    world.run_until_quiet()
    (event,) = (event for event in world.events(order_id) if isinstance(event, Order.RecordsPropagated))
    assert "SERVFAIL for acme.example" in event.unseen[0]
    assert world.order(order_id).ended == "valid"
    world.require_sound()


def test_servers_that_cannot_be_found_end_a_strict_order_at_its_limit(world: World) -> None:
    order_id = world.placed(propagation="strict", propagation_timeout="3m")
    world.outage("resolver.unseen", HOUR, ResolverFailed("SERVFAIL for acme.example"))
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "propagation_timeout"
    assert "SERVFAIL for acme.example" in failed.error.message
    assert world.ca.requests["challenge"] == 0
    world.require_sound()


# --- cancelling ---


def test_a_cancelled_order_leaves_nothing_behind(world: World) -> None:
    world.resolver.stale.add(STALE)
    order_id = world.placed()
    world.run_for(MINUTE)
    assert len(world.zones.held) == 2
    world.orders.cancel(order_id, OWNER)
    world.run_until_quiet()
    assert world.failure(order_id).error.code == "cancelled"
    assert world.ca.requests["challenge"] == 0
    world.require_sound()


@pytest.mark.parametrize("call", ["ca.finalize", "ca.chain"])
def test_an_order_that_the_ca_may_fulfil_at_any_moment_is_not_cancelled(world: World, call: str) -> None:
    order_id = world.placed()

    def cancel() -> None:
        with pytest.raises(OrderInProgress):
            world.orders.cancel(order_id, OWNER)

    world.calls.before(call, cancel)
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    world.require_sound()


def test_a_value_that_another_order_shows_is_left_to_that_order(world: World) -> None:
    order_id = world.placed()
    world.calls.before(
        "ca.chain", lambda: world.views.shown_by("acme_order_other", {held.value for held in world.zones.held})
    )
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    assert len(world.zones.held) == 2
    assert [type(event) for event in world.events(order_id)][-2:] == [Order.RecordLeft, Order.RecordLeft]


def test_values_that_somebody_removed_are_written_again(world: World) -> None:
    order_id = world.placed()
    world.calls.before("resolver.unseen", lambda: world.zones.of(ZONE).remove(sorted(world.zones.held)))
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    world.require_sound()


@pytest.mark.parametrize("call", ["zone.add", "ca.answer"])
def test_an_order_that_is_cancelled_in_the_middle_of_a_step_is_cleaned_up(world: World, call: str) -> None:
    order_id = world.placed()
    world.calls.before(call, lambda: world.orders.cancel(order_id, OWNER))
    world.run_until_quiet()
    assert world.failure(order_id).error.code == "cancelled"
    world.require_sound(rejected=len(world.ca.issued))
