"""Who is owed which event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from application.errors import StoreUnavailable
from application.process.fan_out import TOGETHER
from application.process.todo import MOST_IN_A_LANE
from application.wishes import Changes
from domain.announcement import Announced
from domain.delivery import Delivery
from domain.provenance import Provenance
from tests.application.calls import Death, Killed
from tests.application.world import OWNER, STRANGER, FakeCursor, World
from tests.fakes import ALL

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> World:
    return World()


def positions(world: World, subscription_id: str) -> list[int]:
    return [event.position for event in world.owed(subscription_id)]


def revise(world: World, subscription_id: str, **changes: object) -> None:
    world.subscriptions.revise(subscription_id, Changes(**changes), OWNER)  # type: ignore[arg-type]


def disable(world: World, subscription_id: str) -> None:
    subscription = world.subscription(subscription_id)
    subscription.disable("gone", world.clock.now())
    world.store.record(subscription, by=OWNER.provenance)


def enable(world: World, subscription_id: str) -> None:
    revise(world, subscription_id, status="active")


# --- who ------------------------------------------------------------------------------------------------------------


def test_an_event_is_owed_to_each_subscription_that_wants_it(world: World) -> None:
    wanting = [
        world.subscribe("pki/certificates/*"),
        world.subscribe("pki/**", "secrets/**", events=("order.invalid", "certificate.issued")),
    ]
    world.subscribe("pki/acme/**")
    world.subscribe("pki/*")
    world.subscribe(events=("certificate.renewed",))
    announced = world.announce()
    world.follow()
    assert [event.subscription_id for event in world.owed()] == wanting
    assert {(event.event_type, event.position) for event in world.owed()} == {
        ("certificate.issued", announced.position)
    }
    assert [(item.process, item.step) for item in world.todo] == [("delivery", "Attempt")] * 2


def test_a_delivery_knows_its_event_and_is_due_at_once(world: World) -> None:
    subscription_id = world.subscribe(ordered=True)
    announced = world.announce()
    world.clock.advance(HOUR)
    world.follow()
    (owed,) = world.owed()
    assert (owed.timestamp, world.delivery(owed.originator_id).due_at) == (world.clock.now(), world.clock.now())
    assert (owed.subscription_id, owed.ordered, owed.replay_id) == (subscription_id, True, None)
    assert (owed.position, owed.event_id, owed.event_type, owed.path) == (
        announced.position,
        announced.event_id,
        announced.event_type,
        announced.path,
    )


def test_nothing_is_owed_across_tenants(world: World) -> None:
    mine, theirs = world.subscribe(), world.subscribe(caller=STRANGER)
    told, untold = world.announce(), world.announce(caller=STRANGER)
    world.follow()
    assert (positions(world, mine), positions(world, theirs)) == ([told.position], [untold.position])
    assert {event.tenant_id for event in world.owed(theirs)} == {STRANGER.tenant_id}


def test_a_filter_of_names_lets_through_what_has_one_of_them(world: World) -> None:
    filtered = world.subscribe(domains=["*.edge.example", "only.example"])
    world.announce("acme.example")
    wanted = [world.announce("acme.example", "a.edge.example"), world.announce("only.example")]
    world.follow()
    assert positions(world, filtered) == [announced.position for announced in wanted]


def test_who_polls_is_owed_nothing(world: World) -> None:
    world.subscribe(url=None)
    world.announce()
    world.follow()
    assert world.owed() == []


def test_who_owes_and_why_is_on_record(world: World) -> None:
    subscription_id = world.subscribe()
    announced = world.announce()
    world.follow()
    (recorded,) = (each for each in world.recorder.history if isinstance(each.event, Delivery.Owed))
    cause = world.recorder.history[announced.position - 1].event
    assert recorded.by == Provenance(
        OWNER.tenant_id,
        "system",
        "delivery",
        request_id=OWNER.request_id,
        causation=f"{cause.originator_id}@{cause.originator_version}",
    )
    assert positions(world, subscription_id) == [announced.position]


# --- at which positions ---------------------------------------------------------------------------------------------


def early(world: World) -> None:
    """The fan-out keeps up."""
    world.follow()


def late(_: World) -> None:
    """The fan-out looks when all is over."""


@pytest.fixture(params=[early, late])
def keep_up(request: pytest.FixtureRequest, world: World) -> Callable[[], None]:
    return lambda: request.param(world)


def test_what_happened_before_the_subscription_is_not_owed(world: World, keep_up: Callable[[], None]) -> None:
    world.announce()
    keep_up()
    subscription_id = world.subscribe()
    since = world.announce()
    world.follow()
    assert positions(world, subscription_id) == [since.position]


def test_a_change_of_terms_holds_from_its_own_position_on(world: World, keep_up: Callable[[], None]) -> None:
    subscription_id = world.subscribe("pki/**")
    first = world.announce()
    keep_up()
    revise(world, subscription_id, paths=["secrets/**"])
    world.announce()
    keep_up()
    revise(world, subscription_id, paths=["pki/certificates/*"], events=["certificate.renewed"])
    third = world.announce()
    renewed = world.announce_renewal(third)
    keep_up()
    revise(world, subscription_id, events=["certificate.issued"], domains=["edge.example"])
    world.announce("acme.example")
    fifth = world.announce("edge.example")
    world.follow()
    assert positions(world, subscription_id) == [first.position, renewed.position, fifth.position]


def test_whether_an_order_is_kept_holds_from_the_changes_own_position_on(
    world: World, keep_up: Callable[[], None]
) -> None:
    subscription_id = world.subscribe()
    world.announce()
    keep_up()
    revise(world, subscription_id, ordered=True)
    world.announce()
    world.follow()
    assert [event.ordered for event in world.owed(subscription_id)] == [False, True]


def test_what_happens_during_a_pause_is_owed_all_the_same(world: World, keep_up: Callable[[], None]) -> None:
    subscription_id = world.subscribe()
    revise(world, subscription_id, status="paused")
    during = world.announce()
    keep_up()
    revise(world, subscription_id, status="active")
    after = world.announce()
    world.follow()
    assert positions(world, subscription_id) == [during.position, after.position]


def test_what_happens_while_it_is_disabled_is_not_owed(world: World, keep_up: Callable[[], None]) -> None:
    subscription_id = world.subscribe()
    before = world.announce()
    keep_up()
    disable(world, subscription_id)
    world.announce()
    keep_up()
    enable(world, subscription_id)
    after = world.announce()
    world.follow()
    assert positions(world, subscription_id) == [before.position, after.position]


def test_terms_that_were_changed_while_it_was_disabled_hold_when_it_is_enabled(
    world: World, keep_up: Callable[[], None]
) -> None:
    subscription_id = world.subscribe("secrets/**")
    disable(world, subscription_id)
    revise(world, subscription_id, paths=["pki/**"])
    world.announce()
    keep_up()
    enable(world, subscription_id)
    after = world.announce()
    world.follow()
    assert positions(world, subscription_id) == [after.position]


def test_what_happens_after_its_end_is_not_owed(world: World, keep_up: Callable[[], None]) -> None:
    subscription_id = world.subscribe()
    before = world.announce()
    keep_up()
    world.subscriptions.unsubscribe(subscription_id, OWNER)
    world.announce()
    world.follow()
    assert positions(world, subscription_id) == [before.position]


# --- once -----------------------------------------------------------------------------------------------------------


def tell(world: World, *announced: Announced) -> None:
    world.fan_out.apply(FakeCursor(), announced)


def test_an_event_that_is_read_again_is_owed_once(world: World) -> None:
    world.subscribe()
    world.subscribe()
    first, second = world.announce(), world.announce()
    tell(world, first)
    tell(world, first, second)
    assert [event.position for event in world.owed()] == [first.position] * 2 + [second.position] * 2
    world.run_until_quiet()
    with world.records_nothing():
        tell(world, first, second)
    assert len(world.sender.sent) == 4


def test_two_halves_owe_what_the_whole_does(world: World) -> None:
    world.subscribe()
    world.subscribe("pki/**", events=("certificate.renewed",))
    announced = [world.announce(), world.announce()]
    announced.append(world.announce_renewal(announced[0]))
    for each in announced:
        tell(world, each)
    assert [event.position for event in world.owed()] == [each.position for each in announced]


def test_so_many_are_owed_in_one_append_and_the_follower_shows_that_it_lives(world: World) -> None:
    subscribers = [world.subscribe() for _ in range(3)]
    for _ in range(TOGETHER):
        world.announce()
    world.calls.made.clear()
    cursor = FakeCursor()
    world.fan_out.apply(cursor, world.views.announced(0, ALL))
    assert world.calls.made.count("store.insert_events") == 3
    assert cursor.executed == TOGETHER + 3
    assert {len(world.owed(each)) for each in subscribers} == {TOGETHER}
    owed = world.owed()
    assert len({event.originator_id for event in owed}) == len(owed) == 3 * TOGETHER


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(3))
@pytest.mark.parametrize("of", [Killed(), StoreUnavailable("gone")], ids=["killed", "store"])
def test_all_is_owed_once_whenever_the_follower_dies(
    world: World, call: int, of: BaseException, *, acted: bool
) -> None:
    subscribers = [world.subscribe(), world.subscribe()]
    announced = [world.announce() for _ in range(TOGETHER // 2 + 5)]
    world.calls.kill(Death(call, acted, of))
    with pytest.raises(type(of)):
        world.follow()
    late = world.announce()
    world.follow()
    assert world.calls.deaths == 1
    expected = [each.position for each in (*announced, late)]
    for subscription_id in subscribers:
        assert sorted(positions(world, subscription_id)) == expected


def test_the_follower_makes_as_many_calls_as_are_tried_here(world: World) -> None:
    world.subscribe()
    world.subscribe()
    for _ in range(TOGETHER // 2 + 5):
        world.announce()
    world.calls.made.clear()
    world.follow()
    assert world.calls.made == ["views.all_terms", "store.insert_events", "store.insert_events"]


def test_two_followers_at_once_owe_once(world: World) -> None:
    world.subscribe()
    world.subscribe()
    announced = [world.announce() for _ in range(3)]
    world.calls.before("store.insert_events", lambda: tell(world, *announced[:2]))
    tell(world, *announced)
    assert sorted(event.position for event in world.owed()) == sorted(2 * [each.position for each in announced])


# --- whose turn it is -----------------------------------------------------------------------------------------------


def test_a_subscription_s_deliveries_stand_in_its_lane(world: World) -> None:
    for _ in range(2):
        world.subscribe()
    for _ in range(10):
        world.announce()
    world.follow()
    claims = world.claim("delivery", 100).claims
    lanes = [world.delivery(claim.subject).subscription_id for claim in claims]
    assert len(lanes) == 2 * MOST_IN_A_LANE
    assert {lanes.count(lane) for lane in lanes} == {MOST_IN_A_LANE}
