"""The daily canary: who can no longer write is told of once, before a certificate needs it, and so is the recovery."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.dns_providers import Changes
from application.errors import Failure, ZoneRefused, ZoneThrottled, ZoneUnreachable
from application.process.dns_health import NAME
from domain.dns_provider import DnsProvider
from tests.application.outside import Change
from tests.application.world import OWNER, ZONE, World

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
EXPIRED = ZoneRefused("credentials_rejected", "expired")


@pytest.fixture
def world() -> World:
    world = World()
    world.look_after_dns()
    return world


def told(world: World) -> list[str]:
    """Of health, in words."""
    health = DnsProvider.CanaryPassed | DnsProvider.CanaryFailed | DnsProvider.Degraded | DnsProvider.Recovered
    return [type(event).__name__ for event in world.recorded if isinstance(event, health)]


def fail(world: World, failure: Failure, change: Change = "add", times: int = 1) -> None:
    world.zones.of(ZONE).fail(change, *[failure] * times)


def test_daily_a_value_is_written_and_removed_in_each_managed_zone(world: World) -> None:
    world.connect_provider(ZONE, "*.shop.example")
    world.run_for(3 * DAY + MINUTE)
    assert told(world) == ["CanaryPassed"] * 3
    changes = world.zones.of(ZONE, "*.shop.example").changes
    assert [change for change, _ in changes] == ["add", "remove"] * 6
    names = {value.record_name for _, values in changes for value in values}
    assert names == {f"_acme-canary.{ZONE}", "_acme-canary.shop.example"}
    assert len({value.value for _, values in changes for value in values}) == 1
    assert world.zones.held == set()


@pytest.mark.parametrize("change", ["add", "remove"])
def test_a_provider_that_refuses_is_told_of_once_and_tried_hourly(world: World, change: Change) -> None:
    world.connect_provider(ZONE)
    fail(world, EXPIRED, change, times=8)
    world.run_for(DAY + 5 * HOUR)
    assert told(world) == ["CanaryFailed", "Degraded"]
    world.run_for(DAY)
    assert told(world)[:4] == ["CanaryFailed", "Degraded", "CanaryPassed", "Recovered"]
    assert world.zones.held == set()


@pytest.mark.parametrize("failure", [ZoneUnreachable("502"), ZoneThrottled("slow down", 7)])
def test_what_may_be_a_matter_of_the_moment_is_told_of_when_it_lasts(world: World, failure: Failure) -> None:
    world.connect_provider(ZONE)
    fail(world, failure, times=2)
    world.run_for(DAY + HOUR)
    assert told(world) == ["CanaryFailed", "CanaryFailed", "CanaryPassed"]
    fail(world, failure, times=3)
    world.run_for(DAY)
    assert told(world)[3:] == ["CanaryFailed", "CanaryFailed", "CanaryFailed", "Degraded"]


def test_an_order_that_is_refused_tells_of_its_provider_at_once_and_one_that_is_served_of_the_recovery(
    world: World,
) -> None:
    account_id = world.ready()
    fail(world, EXPIRED, times=2)
    orders = [world.place(account_id, f"{label}.{ZONE}")[0] for label in ("a", "b", "c")]
    world.run_for(MINUTE)
    assert [world.order(order_id).ended for order_id in orders] == ["invalid", "invalid", "valid"]
    assert told(world) == ["Degraded", "Recovered"]


def test_who_is_given_other_credentials_is_tried_at_once(world: World) -> None:
    provider_id = world.connect_provider(ZONE)
    fail(world, EXPIRED)
    world.run_for(DAY + MINUTE)
    assert told(world) == ["CanaryFailed", "Degraded"]
    world.providers.revise(provider_id, Changes(credentials={"api_token": "another"}), OWNER)
    world.run_for(MINUTE)
    assert told(world)[2:] == ["CanaryPassed", "Recovered"]


def test_credentials_that_are_gone_are_noticed(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": "1"}, "json", {}, OWNER)
    world.connect_provider(ZONE, credentials_path="dns/main")
    world.secrets.write("dns/main", {"another": "2"}, "json", {}, OWNER)
    world.run_for(DAY + MINUTE)
    assert told(world) == ["CanaryFailed", "Degraded"]


def test_what_the_provider_does_not_hold_is_not_tried(world: World) -> None:
    """Names may be managed only to lead elsewhere."""
    world.connect_provider(ZONE, "elsewhere.example")
    world.zones.of(ZONE, "elsewhere.example").lacks.add("elsewhere.example")
    world.run_for(DAY + MINUTE)
    assert told(world) == ["CanaryPassed"]
    world.zones.of(ZONE, "elsewhere.example").lacks.add(ZONE)
    world.run_for(DAY + MINUTE)
    degraded = [event for event in world.recorded if isinstance(event, DnsProvider.Degraded)]
    assert [event.reason for event in degraded] == ["zone_not_found"]


def test_who_wishes_no_canary_has_none(world: World) -> None:
    world.connect_provider(ZONE, canary=False)
    world.run_for(3 * DAY)
    assert told(world) == []
    assert NAME not in {item.process for item in world.todo}


def test_other_events_of_the_provider_make_no_canary_due(world: World) -> None:
    world.place(world.ready(), ZONE)
    world.run_for(2 * HOUR)
    assert any(isinstance(event, DnsProvider.Swept) for event in world.recorded)
    assert told(world) == []
