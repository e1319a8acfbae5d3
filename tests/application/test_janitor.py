"""What orders have removed is removed once more, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.errors import ZoneThrottled
from application.ports import TxtValue
from application.process.janitor import EVERY, NAME, SETTLED, TOGETHER
from domain.dns_provider import DnsProvider
from domain.order import Order
from tests.application.world import RECORD, ZONE, World

HOUR = timedelta(hours=1)
FOREIGN = TxtValue(RECORD, "of another client")


@pytest.fixture
def world() -> World:
    return World()


def written_by(world: World, order_id: str) -> list[TxtValue]:
    removed = [event for event in world.events(order_id) if isinstance(event, Order.RecordRemoved)]
    return [TxtValue(event.record.name, event.record.value) for event in removed]


def late(world: World, order_id: str) -> list[TxtValue]:
    """Its values come although the order has ended and removed them: whoever wrote them was killed in the middle of it."""
    values = written_by(world, order_id)
    world.zones.of(ZONE).add(values)
    return values


def sweeps(world: World) -> list[DnsProvider.Swept]:
    return [event for event in world.recorded if isinstance(event, DnsProvider.Swept)]


def sweep(world: World) -> None:
    """Now, as at a start."""
    world.recorder.hasten(NAME)
    world.work(world.claim_one(NAME))


def test_a_value_that_came_after_its_removal_is_gone_within_the_hour(world: World) -> None:
    order_id = world.issued()
    world.zones.of(ZONE).add([FOREIGN])
    values = late(world, order_id)
    assert world.zones.held == {FOREIGN, *values}
    world.look_after_dns()
    world.run_for(EVERY + timedelta(minutes=1))
    assert world.zones.held == {FOREIGN}


def test_at_a_start_it_does_not_wait_for_its_hour(world: World) -> None:
    late(world, world.issued())
    sweep(world)
    assert world.zones.held == set()
    assert sweeps(world) == []


def test_what_was_removed_just_now_is_looked_at_again(world: World) -> None:
    order_id = world.issued()
    sweep(world)
    late(world, order_id)
    world.clock.advance(SETTLED)
    sweep(world)
    assert world.zones.held == set()
    assert len(sweeps(world)) == 1


def test_what_has_settled_is_looked_at_no_more(world: World) -> None:
    order_id = world.issued()
    world.clock.advance(SETTLED)
    sweep(world)
    values = late(world, order_id)
    attempts = world.zones.of(ZONE).attempts
    world.clock.advance(HOUR)
    with world.records_nothing():
        sweep(world)
    assert world.zones.of(ZONE).attempts == attempts
    assert world.zones.held == set(values)


def test_a_value_that_another_order_shows_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.issued()
    values = written_by(world, first)
    world.zones.of(ZONE).add(values)
    monkeypatch.setattr(world.views, "is_shown_for_another", lambda _order_id, value: value == values[0].value)
    sweep(world)
    assert world.zones.held == {values[0]}


def test_a_zone_that_is_gone_keeps_no_other_from_being_swept(world: World) -> None:
    world.connect_provider(ZONE, "gone.example")
    account_id = world.register_account()
    for name in (ZONE, "gone.example"):
        world.place(account_id, name)
    world.run_until_quiet()
    zone = world.zones.of(ZONE, "gone.example")
    zone.add([value for _, values in zone.changes[:2] for value in values if value.record_name == RECORD])
    zone._zones = (ZONE,)
    world.clock.advance(SETTLED)
    sweep(world)
    assert world.zones.held == set()
    assert len(sweeps(world)) == 1


def test_a_provider_that_fails_is_swept_later(world: World) -> None:
    order_id = world.issued()
    world.clock.advance(SETTLED)
    late(world, order_id)
    world.zones.of(ZONE).fail("remove", ZoneThrottled("slow down", 7))
    with world.records_nothing():
        sweep(world)
    assert len(world.zones.held) == 2
    sweep(world)
    assert world.zones.held == set()


def test_many_are_removed_in_turns_and_put_on_record_once(world: World) -> None:
    account_id = world.ready()
    for number in range(TOGETHER // 2 + 1):
        world.place(account_id, f"n{number}.{ZONE}", f"*.n{number}.{ZONE}")
    world.run_until_quiet()
    orders = {event.originator_id for event in world.recorded if isinstance(event, Order.Placed)}
    for order_id in orders:
        late(world, order_id)
    world.clock.advance(SETTLED)
    changes = len(world.zones.of(ZONE).changes)
    sweep(world)
    assert world.zones.held == set()
    assert [len(values) for _, values in world.zones.of(ZONE).changes[changes:]] == [TOGETHER, 2]
    assert len(sweeps(world)) == 1


def test_zones_without_orders_are_left_alone(world: World) -> None:
    world.connect_provider(ZONE)
    with world.records_nothing():
        sweep(world)
    assert world.zones.of(ZONE).attempts == 0
