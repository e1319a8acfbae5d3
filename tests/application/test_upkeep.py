"""Replays: what happened before is owed again, each event once, whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from application.errors import StoreUnavailable
from application.ports import WebhookResponse
from application.process.fan_out import TOGETHER
from application.process.upkeep import NAME, OweReplay, ShredSecrets, next_step
from application.process.worker import LEASE
from application.wishes import Changes
from domain.announcement import Announced
from domain.delivery import Delivery
from domain.provenance import Provenance
from domain.subscription import Subscription
from tests.application.calls import Death, Killed
from tests.application.world import OWNER, STRANGER, World

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> World:
    return World()


def history(world: World, count: int = 3) -> list[Announced]:
    announced = []
    for _ in range(count):
        world.clock.advance(HOUR)
        announced.append(world.announce())
    world.clock.advance(HOUR)
    return announced


def positions(world: World, subscription_id: str) -> list[int]:
    return [event.position for event in world.owed(subscription_id)]


def replay(world: World, subscription_id: str, since: object = 1, until: object = None) -> int:
    """How many; asked for in vain first."""
    asked = {"since": since, "until": until, "caller": OWNER}
    with world.records_nothing():
        plan = world.subscriptions.replay(subscription_id, **asked, dry_run=True)  # type: ignore[arg-type]
    assert world.subscriptions.replay(subscription_id, **asked, dry_run=False) == plan  # type: ignore[arg-type]
    world.run_until_quiet()
    return plan.count


def test_a_new_subscriber_is_owed_the_whole_history_in_the_words_of_then(world: World) -> None:
    first = world.subscribe()
    announced = history(world)
    world.announce(caller=STRANGER)
    world.follow()
    second = world.subscribe()
    assert positions(world, first) == [each.position for each in announced]
    assert replay(world, second) == 3
    assert positions(world, second) == positions(world, first)
    bodies = [request.body.decode() for request in world.sender.sent]
    assert sorted(bodies) == sorted([each.body for each in announced] * 2)


@pytest.mark.parametrize(
    ("since", "until", "which"),
    [
        (0, None, "abc"),
        (1, None, "abc"),
        ("b", None, "bc"),
        ("b", "b", "b"),
        ("a", "b", "ab"),
        (10**9, None, ""),
        ("c", "a", ""),
    ],
)
@pytest.mark.parametrize("by", ["position", "time"])
def test_both_ends_are_included_as_position_or_time(
    world: World, since: int | str, until: str | None, which: Sequence[str], by: str
) -> None:
    announced = dict(zip("abc", history(world), strict=True))

    def place(of: int | str | None) -> object:
        if isinstance(of, str):
            return announced[of].position if by == "position" else announced[of].at
        return of

    subscription_id = world.subscribe()
    assert replay(world, subscription_id, place(since), place(until)) == len(which)
    assert positions(world, subscription_id) == [announced[name].position for name in which]


def test_a_replayed_event_has_the_body_and_the_id_that_it_had_before(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    replay(world, subscription_id)
    replay(world, subscription_id)
    sent = [(request.body, request.headers["webhook-id"]) for request in world.sender.sent]
    assert sent[:3] == sent[3:]
    assert len(set(sent)) == 3


def test_where_there_is_nothing_to_replay_nothing_is_recorded(world: World) -> None:
    history(world)
    subscription_id = world.subscribe(events=("certificate.renewed",))
    with world.records_nothing():
        assert replay(world, subscription_id) == 0


def test_a_replay_from_a_time_on_has_all_events_since_whatever_their_order(world: World) -> None:
    world.clock.advance(HOUR)
    since = world.clock.now()
    first = world.announce()
    world.clock.set(
        since - timedelta(milliseconds=1)
    )  # by the clock of another process, or one that waited for its turn
    world.announce()
    subscription_id = world.subscribe()
    replay(world, subscription_id, since)
    assert first.position in positions(world, subscription_id)


def test_a_replay_is_filtered_as_what_is_new_is(world: World) -> None:
    world.announce("acme.example", caller=STRANGER)
    wanted = world.announce("acme.example")
    world.announce("other.example")
    subscription_id = world.subscribe(domains=["acme.*"])
    assert replay(world, subscription_id) == 1
    assert positions(world, subscription_id) == [wanted.position]


def test_a_replay_of_a_paused_subscription_is_sent_after_the_pause(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    world.subscriptions.revise(subscription_id, Changes(status="paused"), OWNER)
    replay(world, subscription_id)
    assert (len(positions(world, subscription_id)), world.sender.sent) == (3, [])
    world.subscriptions.revise(subscription_id, Changes(status="active"), OWNER)
    world.run_until_quiet()
    assert len(world.sender.sent) == 3


def test_a_replay_is_sent_in_order_where_an_order_is_kept(world: World) -> None:
    first = world.announce()
    announced = [first, *(world.announce_renewal(first) for _ in range(5))]
    subscription_id = world.subscribe(ordered=True, events=("certificate.issued", "certificate.renewed"))
    world.sender.answers.append(WebhookResponse(500, None))
    replay(world, subscription_id)
    _, *sent = [msgspec.json.decode(request.body)["sequence"] for request in world.sender.sent]
    assert sent == [each.position for each in announced]


def test_who_owes_again_is_on_record(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    replay(world, subscription_id)
    (replay_id,) = {event.replay_id for event in world.owed(subscription_id)}
    told = [each.by for each in world.recorder.history if isinstance(each.event, Delivery.Owed)]
    assert replay_id is not None
    version = next(
        event.originator_version
        for event in world.events(subscription_id)
        if isinstance(event, Subscription.ReplayAdvanced)
    )
    by = Provenance(OWNER.tenant_id, "system", NAME, OWNER.request_id, f"{subscription_id}@{version}")
    assert told == [by] * 3


def test_a_replay_goes_by_what_is_wanted_today(world: World) -> None:
    mine, _, other = history(world)
    subscription_id = world.subscribe(mine.path, other.path)
    world.subscriptions.revise(subscription_id, Changes(paths=[other.path]), OWNER)
    assert replay(world, subscription_id) == 1
    assert positions(world, subscription_id) == [other.position]


def test_a_second_replay_owes_everything_once_more(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    replay(world, subscription_id)
    replay(world, subscription_id)
    assert len(positions(world, subscription_id)) == len(world.sender.sent) == 6
    assert len({event.originator_id for event in world.owed()}) == 6


def test_two_at_once_are_done_one_after_the_other_and_beside_what_happens_now(world: World) -> None:
    announced = history(world)
    subscription_id = world.subscribe()
    for _ in range(2):
        world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    new = world.announce()
    world.follow()
    world.run_until_quiet()
    assert sorted(positions(world, subscription_id)) == sorted(
        [each.position for each in announced] * 2 + [new.position]
    )


def test_a_long_replay_is_owed_in_portions(world: World) -> None:
    history(world, TOGETHER + 1)
    subscription_id = world.subscribe()
    assert replay(world, subscription_id) == TOGETHER + 1
    assert len(positions(world, subscription_id)) == TOGETHER + 1
    assert world.subscription(subscription_id).replays == ()


def test_a_replay_ends_with_the_subscription(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    world.subscriptions.unsubscribe(subscription_id, OWNER)
    world.run_until_quiet()
    assert positions(world, subscription_id) == []


def test_a_replay_of_a_subscription_that_is_disabled_meanwhile_owes_nothing_more(world: World) -> None:
    history(world, TOGETHER + 1)
    subscription_id = world.subscribe()
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)

    def disable() -> None:
        subscription = world.subscription(subscription_id)
        subscription.disable("gone", world.clock.now())
        world.store.record(subscription, by=OWNER.provenance)

    world.calls.before("views.candidates", lambda: world.calls.before("views.candidates", disable))
    world.run_until_quiet()
    assert len(positions(world, subscription_id)) == TOGETHER
    assert world.subscription(subscription_id).replays == ()
    assert world.todo == []


def test_a_replay_of_a_subscription_that_is_changed_meanwhile_goes_by_the_change(world: World) -> None:
    first, *_ = history(world)
    subscription_id = world.subscribe()
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    change = Changes(paths=[first.path])
    world.calls.before("views.candidates", lambda: world.subscriptions.revise(subscription_id, change, OWNER))
    world.run_until_quiet()
    assert positions(world, subscription_id) == [first.position]


def test_a_subscription_is_never_given_up(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    claim = world.claim_one(NAME)
    with world.records_nothing():
        world.processes[NAME].give_up(claim)
    world.recorder.release(claim, timedelta())
    world.run_until_quiet()
    assert len(positions(world, subscription_id)) == 3


def test_what_is_due_by_the_lists_clock_is_destroyed_also_where_ours_is_behind(world: World) -> None:
    subscription_id = world.subscribe()
    world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER)
    world.clock.advance(HOUR)
    claim = world.claim_one(NAME)
    world.clock.advance(-timedelta(microseconds=1))  # the store's clock was ahead of ours
    world.processes[NAME].perform(claim)
    assert world.sealed.sealed == 1


def test_a_second_rotation_during_the_overlap_destroys_the_oldest_at_once(world: World) -> None:
    subscription_id = world.subscribe()
    for overlap in (2 * HOUR, HOUR):
        world.subscriptions.rotate_secret(subscription_id, None, overlap, OWNER)
    now = world.clock.now()
    world.run_for(timedelta(seconds=1))
    assert [secret.until for secret in world.subscription(subscription_id).secrets] == [None, now + HOUR]
    assert world.sealed.sealed == 2
    world.run_until_quiet()
    assert (world.sealed.sealed, world.clock.now()) == (1, now + HOUR)


CALLS = [
    "store.select_events",
    "views.candidates",
    "views.all_announced_at",
    "store.origin",
    "store.insert_events",
    "store.select_events",
    "keys.shred",
    "store.origin",
    "store.insert_events",
]


def test_a_replay_and_a_destruction_make_as_many_calls_as_are_tried_here(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    world.subscriptions.rotate_secret(subscription_id, None, timedelta(seconds=1), OWNER)
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    world.clock.advance(timedelta(seconds=1))
    world.calls.made.clear()
    for _ in range(2):
        world.work(world.claim_one(NAME))
    assert world.calls.made == CALLS


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(len(CALLS)))
@pytest.mark.parametrize("of", [Killed(), StoreUnavailable("gone")], ids=["killed", "store"])
def test_a_replay_survives_the_death_of_its_process(world: World, call: int, of: BaseException, *, acted: bool) -> None:
    announced = history(world)
    subscription_id = world.subscribe()
    world.subscriptions.rotate_secret(subscription_id, None, timedelta(seconds=1), OWNER)
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    world.clock.advance(timedelta(seconds=1))
    world.calls.made.clear()
    world.calls.kill(Death(call, acted, of))
    world.work(world.claim_one(NAME))
    world.clock.advance(LEASE + timedelta(seconds=1))
    world.run_until_quiet()
    assert world.calls.deaths == 1
    assert positions(world, subscription_id) == [each.position for each in announced]
    assert world.sealed.sealed == 1


def test_nothing_is_to_be_done_but_what_was_asked_for_the_earliest_first(world: World) -> None:
    history(world)
    subscription_id = world.subscribe()
    now = world.clock.now()
    assert next_step(world.subscription(subscription_id)) is None
    world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER)
    assert next_step(world.subscription(subscription_id)) == ShredSecrets(now + HOUR)
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    assert next_step(world.subscription(subscription_id)) == OweReplay(now)
