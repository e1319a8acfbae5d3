"""Events for those who ask: what was not acknowledged is given out again, and nothing is passed over."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import announcements, polling
from application.wishes import Changes
from domain.acknowledgement import Acknowledged
from domain.announcement import Announced
from domain.errors import Denied, InvalidFields, NotFound
from domain.token import Limits
from tests.application.world import OWNER, STRANGER, World, caller, field_codes


@pytest.fixture
def world() -> World:
    return World()


def subscribed(world: World, **details: object) -> str:
    return world.subscribe(url=None, **details)  # type: ignore[arg-type]


def given_out(world: World, subscription_id: str, since: str | None = None, most: int = 100) -> list[int]:
    pending = world.polling.pending(subscription_id, since, most, OWNER)
    return [announced.position for announced in pending.events]


def acknowledge(world: World, subscription_id: str, *announced: Announced) -> None:
    world.polling.acknowledge(subscription_id, [each.event_id for each in announced], OWNER)


def test_what_is_not_acknowledged_comes_again(world: World) -> None:
    world.announce()
    subscription_id = subscribed(world)
    first, second = world.announce(), world.announce()
    assert given_out(world, subscription_id) == given_out(world, subscription_id) == [first.position, second.position]
    acknowledge(world, subscription_id, first)
    assert given_out(world, subscription_id) == [second.position]
    acknowledge(world, subscription_id, second)
    assert given_out(world, subscription_id) == []


def test_acknowledging_again_records_nothing(world: World) -> None:
    subscription_id = subscribed(world)
    first, second = world.announce(), world.announce()
    acknowledge(world, subscription_id, second)
    with world.records_nothing():
        acknowledge(world, subscription_id, second)
    acknowledge(world, subscription_id, first)
    with world.records_nothing():
        acknowledge(world, subscription_id, first, second)


def test_no_more_than_asked_for_or_than_the_buffer_holds_is_given_out(world: World) -> None:
    subscription_id = subscribed(world, buffer_size=2)
    announced = [world.announce() for _ in range(5)]
    pending = world.polling.pending(subscription_id, None, 1, OWNER)
    assert (len(pending.events), pending.has_more) == (1, True)
    assert given_out(world, subscription_id) == [each.position for each in announced[:2]]
    acknowledge(world, subscription_id, announced[1])
    assert given_out(world, subscription_id) == [announced[0].position, announced[2].position]


def test_those_who_keep_their_own_place_are_given_all_behind_it(world: World) -> None:
    subscription_id = subscribed(world, buffer_size=1)
    announced = [world.announce() for _ in range(4)]
    acknowledge(world, subscription_id, *announced)
    assert given_out(world, subscription_id, since=announced[0].event_id) == [each.position for each in announced[1:]]


def test_acknowledgements_that_cross_each_other_commute(world: World) -> None:
    subscription_id = subscribed(world)
    first, second, third = (world.announce() for _ in range(3))
    world.calls.before("store.insert_events", lambda: acknowledge(world, subscription_id, first, third))
    acknowledge(world, subscription_id, second)
    assert given_out(world, subscription_id) == []


def test_however_acknowledgements_overtake_each_other_what_is_left_is_given_out(world: World) -> None:
    subscription_id = subscribed(world, buffer_size=2)
    first, second, third, fourth = (world.announce() for _ in range(4))

    def meanwhile() -> None:
        acknowledge(world, subscription_id, first)
        acknowledge(world, subscription_id, third)

    world.calls.before("store.insert_events", meanwhile)
    acknowledge(world, subscription_id, second)
    assert given_out(world, subscription_id) == [fourth.position]
    acknowledge(world, subscription_id, fourth)
    assert given_out(world, subscription_id) == []


def test_one_that_is_acknowledged_out_of_order_is_not_given_out_again_and_the_others_are(world: World) -> None:
    subscription_id = subscribed(world)
    first, second, third = (world.announce() for _ in range(3))
    acknowledge(world, subscription_id, third)
    acknowledge(world, subscription_id, first)
    assert given_out(world, subscription_id) == [second.position]


def test_an_acknowledgement_is_a_stream_of_its_own_by_whom_it_came(world: World) -> None:
    subscription_id = subscribed(world)
    first, second = world.announce(), world.announce()
    acknowledge(world, subscription_id, first)
    acknowledge(world, subscription_id, second)
    told = [each for each in world.recorder.history if isinstance(each.event, Acknowledged)]
    assert [(each.event.originator_version, each.by) for each in told] == [(1, OWNER.provenance)] * 2
    assert len({each.event.originator_id for each in told}) == 2


def test_only_what_is_wanted_is_given_out(world: World) -> None:
    subscription_id = subscribed(world, domains=["*.edge.example"])
    world.announce("acme.example")
    wanted = world.announce("a.edge.example")
    world.announce("a.edge.example", caller=STRANGER)
    world.announce_renewal(wanted)
    assert given_out(world, subscription_id) == [wanted.position]


def test_an_event_of_another_tenant_is_not_known(world: World) -> None:
    subscription_id = subscribed(world)
    theirs = world.announce(caller=STRANGER)
    with pytest.raises(InvalidFields):
        given_out(world, subscription_id, since=theirs.event_id)
    with world.records_nothing(), pytest.raises(InvalidFields):
        acknowledge(world, subscription_id, theirs)


def test_who_ended_a_subscription_polls_it_no_more(world: World) -> None:
    subscription_id = subscribed(world)
    announced = world.announce()
    world.subscriptions.unsubscribe(subscription_id, OWNER)
    with pytest.raises(NotFound):
        given_out(world, subscription_id)
    with world.records_nothing(), pytest.raises(NotFound):
        acknowledge(world, subscription_id, announced)


def test_who_was_handed_a_subscription_goes_on_where_the_other_was(world: World) -> None:
    subscription_id = subscribed(world)
    first, second = world.announce(), world.announce()
    acknowledge(world, subscription_id, first)
    world.tokens.issue(
        tenant_id=OWNER.tenant_id,
        name=None,
        scopes=("subscriptions:read",),
        limits=Limits(),
        valid_for=timedelta(days=1),
        by=OWNER.provenance,
    )
    heir = msgspec.structs.replace(OWNER, token_id=world.recorded[-1].originator_id)
    world.subscriptions.revise(subscription_id, Changes(identity_id=heir.token_id), OWNER)
    with pytest.raises(Denied):
        given_out(world, subscription_id)
    assert list(world.polling.pending(subscription_id, None, 10, heir).events) == [second]


def test_what_is_to_be_waited_for_is_behind_all_that_was_looked_at(world: World) -> None:
    subscription_id = subscribed(world)
    world.announce()
    last = world.announce(caller=STRANGER)
    pending = world.polling.pending(subscription_id, None, 100, OWNER)
    assert pending.upto == last.position
    assert pending.terms == world.subscription(subscription_id).terms()


def test_so_many_may_be_acknowledged_ahead_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "MOST_AHEAD", 2)
    subscription_id = subscribed(world)
    first, *others = (world.announce() for _ in range(4))
    acknowledge(world, subscription_id, *others[:2])
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        acknowledge(world, subscription_id, others[2])
    assert field_codes(refusal) == {"event_ids": "too_far"}
    assert given_out(world, subscription_id) == [first.position, others[2].position]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_acknowledged_in_whatever_order_the_rest_is_given_out(data: st.DataObject) -> None:
    world = World()
    subscription_id = subscribed(world, buffer_size=data.draw(st.integers(1, 6)))
    left = [world.announce() for _ in range(data.draw(st.integers(1, 8)))]
    while left:
        out = given_out(world, subscription_id)
        assert out == [each.position for each in left][: len(out)]
        assert out
        chosen = data.draw(st.lists(st.sampled_from(left), min_size=1, unique=True))
        acknowledge(world, subscription_id, *chosen)
        left = [each for each in left if each not in chosen]
        if data.draw(st.booleans()):
            world.subscriptions.revise(subscription_id, Changes(buffer_size=data.draw(st.integers(1, 6))), OWNER)
    assert given_out(world, subscription_id) == []


def test_a_replay_gives_out_again_what_was_acknowledged_and_passes_over_nothing(world: World) -> None:
    subscription_id = subscribed(world)
    announced = [world.announce() for _ in range(4)]
    acknowledge(world, subscription_id, *announced[:3])
    world.subscriptions.replay(subscription_id, announced[1].position, None, OWNER, dry_run=False)
    assert given_out(world, subscription_id) == [each.position for each in announced[1:]]
    world.subscriptions.replay(subscription_id, 10**6, None, OWNER, dry_run=False)
    assert given_out(world, subscription_id) == [each.position for each in announced[1:]]


def test_a_replay_that_is_only_tried_is_counted_and_gives_out_nothing(world: World) -> None:
    subscription_id = subscribed(world)
    announced = [world.announce() for _ in range(3)]
    acknowledge(world, subscription_id, *announced)
    with world.records_nothing():
        tried = world.subscriptions.replay(subscription_id, announced[1].at, None, OWNER, dry_run=True)
    assert given_out(world, subscription_id) == []
    assert world.subscriptions.replay(subscription_id, announced[1].at, None, OWNER, dry_run=False) == tried
    assert len(given_out(world, subscription_id)) == tried.count


@pytest.mark.parametrize("dry_run", [True, False])
def test_who_polls_is_given_everything_again_up_to_the_end(world: World, *, dry_run: bool) -> None:
    subscription_id = subscribed(world)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.subscriptions.replay(subscription_id, 1, 5, OWNER, dry_run=dry_run)
    assert field_codes(refusal) == {"to": "invalid"}


def test_a_new_subscriber_goes_back_to_the_very_beginning(world: World) -> None:
    announced = [world.announce() for _ in range(3)]
    subscription_id = subscribed(world)
    assert given_out(world, subscription_id) == []
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    assert given_out(world, subscription_id) == [each.position for each in announced]


def test_each_subscription_is_acknowledged_by_itself(world: World) -> None:
    one, other = subscribed(world), subscribed(world)
    announced = world.announce()
    acknowledge(world, one, announced)
    assert (given_out(world, one), given_out(world, other)) == ([], [announced.position])
    (event,) = (event for event in world.recorded if isinstance(event, Acknowledged))
    assert event.subscription_id == one


def test_nobody_but_its_owner_polls_it(world: World) -> None:
    subscription_id = subscribed(world)
    announced = world.announce()
    another = msgspec.structs.replace(OWNER, token_id="tok_2")
    limited = caller(limits=Limits(certificate_ids=("cert_x",)))
    for who, refusal in ((another, Denied), (limited, Denied), (STRANGER, NotFound)):
        with pytest.raises(refusal):
            world.polling.pending(subscription_id, None, 1, who)
        with world.records_nothing(), pytest.raises(refusal):
            world.polling.acknowledge(subscription_id, [announced.event_id], who)


def test_what_cannot_be_asked_is_refused(world: World) -> None:
    subscription_id, webhook = subscribed(world), world.subscribe()
    for since, most, codes in (
        (None, 0, {"max_events": "out_of_range"}),
        (None, 1001, {"max_events": "out_of_range"}),
        ("evt_none", 1, {"since_event_id": "unknown"}),
    ):
        with pytest.raises(InvalidFields) as refusal:
            world.polling.pending(subscription_id, since, most, OWNER)
        assert field_codes(refusal) == codes
    with pytest.raises(InvalidFields) as refusal:
        world.polling.pending(webhook, None, 1, OWNER)
    assert field_codes(refusal) == {"delivery.type": "not_polling"}
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.polling.acknowledge(subscription_id, ["evt_none"], OWNER)
    assert field_codes(refusal) == {"event_ids": "unknown"}


# --- terms that change ---


def test_other_terms_do_not_reach_into_the_past(world: World) -> None:
    subscription_id = subscribed(world, domains=["*.a.example"])
    wanted, unwanted = world.announce("x.a.example"), world.announce("x.b.example")
    world.subscriptions.revise(subscription_id, Changes(domains=["*.b.example"]), OWNER)
    assert given_out(world, subscription_id) == [wanted.position]
    world.announce("x.a.example")
    new = world.announce("x.b.example")
    assert given_out(world, subscription_id) == [wanted.position, new.position]
    assert given_out(world, subscription_id, since=wanted.event_id) == [new.position]
    acknowledge(world, subscription_id, wanted)
    assert given_out(world, subscription_id) == [new.position]
    assert unwanted.position < new.position


def test_narrower_terms_take_nothing_away_that_was_owed(world: World) -> None:
    subscription_id = subscribed(world)
    first = world.announce("x.a.example")
    for _ in range(2):
        world.subscriptions.revise(subscription_id, Changes(domains=["*.b.example"]), OWNER)
        world.subscriptions.revise(subscription_id, Changes(domains=[]), OWNER)
    second = world.announce("x.a.example")
    assert given_out(world, subscription_id) == [first.position, second.position]


def test_a_replay_goes_by_the_terms_of_today_from_there_on(world: World) -> None:
    subscription_id = subscribed(world, domains=["*.a.example"])
    a1, b1, a2, b2 = (world.announce(name) for name in ("x.a.example", "x.b.example", "y.a.example", "y.b.example"))
    world.subscriptions.revise(subscription_id, Changes(domains=["*.b.example"]), OWNER)
    world.subscriptions.replay(subscription_id, a2.position, None, OWNER, dry_run=False)
    assert given_out(world, subscription_id) == [a1.position, b2.position]
    world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)
    assert given_out(world, subscription_id) == [b1.position, b2.position]


# --- what is not wanted ---


def test_what_nobody_wants_is_looked_through_once(world: World) -> None:
    subscription_id = subscribed(world, domains=["*.edge.example"])
    for _ in range(3):
        world.announce()
    assert given_out(world, subscription_id) == []
    world.calls.made.clear()
    for _ in range(3):
        assert given_out(world, subscription_id) == []
    assert "views.candidates" not in world.calls.made
    wanted = world.announce("a.edge.example")
    assert given_out(world, subscription_id) == given_out(world, subscription_id) == [wanted.position]
    assert world.calls.made.count("views.candidates") == 1


def test_the_cursor_passes_what_was_never_wanted_with_what_is_acknowledged(world: World) -> None:
    subscription_id = subscribed(world, domains=["*.edge.example"])
    wanted, last = world.announce("a.edge.example"), world.announce()
    acknowledge(world, subscription_id, wanted)
    (event,) = (event for event in world.recorded if isinstance(event, Acknowledged))
    assert event.cursor == last.position


def test_what_was_looked_through_is_remembered_of_so_many_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "MOST_SUBSCRIPTIONS", 1)
    monkeypatch.setattr(polling, "MOST_POSITIONS", 2)
    one, other = subscribed(world), subscribed(world)
    announced = [world.announce() for _ in range(5)]
    for _ in range(2):
        for subscription_id in (one, other):
            assert given_out(world, subscription_id) == [each.position for each in announced]
    acknowledge(world, one, *announced[:4])
    assert given_out(world, one) == [announced[4].position]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_happens_each_is_given_out_that_was_wanted_in_its_time(data: st.DataObject) -> None:
    """Against a model: of each announcement, whether it was wanted when it came and is not acknowledged."""
    world, names = World(), ["x.a.example", "x.b.example"]
    domains = data.draw(st.sampled_from([["*.a.example"], ["*.b.example"], []]))
    subscription_id = subscribed(world, domains=domains, buffer_size=data.draw(st.sampled_from([2, 1000])))
    told: list[tuple[Announced, bool]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(announcements, "PAGE", data.draw(st.integers(1, 3)))
        patch.setattr(polling, "MOST_POSITIONS", data.draw(st.integers(0, 3)))
        for _ in range(data.draw(st.integers(1, 25))):
            match data.draw(st.sampled_from(["announce", "announce", "revise", "acknowledge", "poll", "replay"])):
                case "announce":
                    name = data.draw(st.sampled_from(names))
                    told.append((world.announce(name), not domains or domains == ["*" + name[1:]]))
                case "revise":
                    domains = data.draw(st.sampled_from([["*.a.example"], ["*.b.example"], []]))
                    world.subscriptions.revise(subscription_id, Changes(domains=domains), OWNER)
                case "acknowledge" if left := [each for each, is_left in told if is_left]:
                    chosen = data.draw(st.lists(st.sampled_from(left), min_size=1, unique=True))
                    acknowledge(world, subscription_id, *chosen)
                    told = [(each, is_left and each not in chosen) for each, is_left in told]
                case "replay" if told:
                    since = data.draw(st.sampled_from([each for each, _ in told])).position
                    world.subscriptions.replay(subscription_id, since, None, OWNER, dry_run=False)
                    told = [
                        (
                            each,
                            is_left
                            if each.position < since
                            else not domains or domains[0].removeprefix("*") == each.dns_names[0].removeprefix("x"),
                        )
                        for each, is_left in told
                    ]
                case _:
                    out = given_out(world, subscription_id)
                    assert out == [each.position for each, is_left in told if is_left][: len(out)]
        while out := given_out(world, subscription_id):
            assert out == [each.position for each, is_left in told if is_left][: len(out)]
            acknowledge(world, subscription_id, *(each for each, _ in told if each.position in out))
            told = [(each, is_left and each.position not in out) for each, is_left in told]
        assert not any(is_left for _, is_left in told)
