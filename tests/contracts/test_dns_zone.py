"""What the application relies on at any DNS provider, held against all of them (`dns_worlds.py`)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from application.errors import Failure, ZoneRefused, ZoneThrottled, ZoneUnreachable
from application.ports import DnsZone, TxtValue
from tests.contracts.dns_worlds import OTHER_ZONE, PEERS, WORLDS, ZONE, World
from tests.dns_stand_ins.api import StandIn, acting, answering, no_answer_after_acting

LONGEST_LABEL = 63


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """Each is begun when it is asked for the first time."""
    with ExitStack() as running:
        begun: dict[str, World] = {}

        def world(provider: str) -> World:
            if provider not in begun:
                begun[provider] = running.enter_context(WORLDS[provider](tmp_path_factory.mktemp(provider)))
            return begun[provider]

        yield world


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.peers if each in PEERS else ()) for each in WORLDS])
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> Iterator[World]:
    world = worlds(request.param)
    if request.function.__name__ in world.cannot:
        pytest.skip(world.cannot[request.function.__name__])
    world.afresh()
    yield world
    if world.api is not None:
        world.api.faults.clear()
        world.api.always = None


@pytest.fixture
def name() -> str:
    """A name that no other test uses: the servers outlive a test."""
    return f"_acme-challenge.{secrets.token_hex(6)}.{ZONE}"


def test_two_values_at_one_name_are_added_in_one_call_and_live_together(world: World, name: str) -> None:
    world.zone.add([TxtValue(name, "apex"), TxtValue(name, "wildcard")])
    assert world.txt(name) == ["apex", "wildcard"]


def test_values_at_names_of_different_zones_are_added_in_one_call(world: World, name: str) -> None:
    elsewhere = name.replace(ZONE, OTHER_ZONE)
    world.zone.add([TxtValue(name, "here"), TxtValue(elsewhere, "there")])
    assert (world.txt(name), world.txt(elsewhere)) == (["here"], ["there"])


def test_adding_again_what_is_there_changes_nothing(world: World, name: str) -> None:
    world.zone.add([TxtValue(name, "one")])
    world.zone.add([TxtValue(name, "one"), TxtValue(name, "two"), TxtValue(name, "two")])
    assert world.txt(name) == ["one", "two"]


def test_a_value_that_somebody_else_wrote_survives_adding_and_removing(world: World, name: str) -> None:
    world.write(name, "foreign")
    world.zone.add([TxtValue(name, "ours")])
    assert world.txt(name) == ["foreign", "ours"]
    world.zone.remove([TxtValue(name, "ours")])
    assert world.txt(name) == ["foreign"]


def test_a_value_that_came_between_adding_and_removing_survives(world: World, name: str) -> None:
    world.zone.add([TxtValue(name, "ours")])
    world.write(name, "foreign")
    world.zone.remove([TxtValue(name, "ours")])
    assert world.txt(name) == ["foreign"]


def test_of_many_that_add_to_one_name_at_once_all_values_live(world: World, name: str) -> None:
    values = [f"value-{number}" for number in range(8)]
    zones = [world.zone, world.second]
    with ThreadPoolExecutor(len(values)) as pool:
        list(pool.map(lambda number: zones[number % 2].add([TxtValue(name, values[number])]), range(len(values))))
    assert world.txt(name) == values


def test_of_many_that_remove_from_one_name_at_once_each_removes_its_own(world: World, name: str) -> None:
    values = [TxtValue(name, f"value-{number}") for number in range(8)]
    world.zone.add([*values, TxtValue(name, "stays")])
    zones = [world.zone, world.second]
    with ThreadPoolExecutor(len(values)) as pool:
        list(pool.map(lambda number: zones[number % 2].remove([values[number]]), range(len(values))))
    assert world.txt(name) == ["stays"]


def test_the_last_value_can_be_removed_and_removed_again(world: World, name: str) -> None:
    world.zone.add([TxtValue(name, "one"), TxtValue(name, "two")])
    world.zone.remove([TxtValue(name, "one"), TxtValue(name, "two")])
    assert world.txt(name) == []
    world.zone.remove([TxtValue(name, "one"), TxtValue(name, "two")])
    assert world.txt(name) == []


def test_what_is_not_there_is_removed_without_harm(world: World, name: str) -> None:
    world.zone.add([TxtValue(name, "one")])
    world.zone.remove([TxtValue(name, "another"), TxtValue(f"_acme-challenge.never.{name}", "one")])
    assert world.txt(name) == ["one"]


def test_a_value_can_come_back_after_its_removal(world: World, name: str) -> None:
    for _ in range(2):
        world.zone.add([TxtValue(name, "again")])
        world.zone.add([TxtValue(name, "beside")])
        assert world.txt(name) == ["again", "beside"]
        world.zone.remove([TxtValue(name, "beside")])
        assert world.txt(name) == ["again"]
        world.zone.remove([TxtValue(name, "again")])
        assert world.txt(name) == []


@pytest.mark.parametrize("length", [255, 256, 600])
def test_a_long_value_stays_whole(world: World, name: str, length: int) -> None:
    value = "0123456789" * 60
    if not world.holds(value[:length]):
        pytest.skip("it has no room for that")
    world.zone.add([TxtValue(name, value[:length]), TxtValue(name, "short")])
    assert world.txt(name) == [value[:length], "short"]
    world.zone.remove([TxtValue(name, value[:length])])
    assert world.txt(name) == ["short"]


@pytest.mark.parametrize("value", ['quote " and \\ slash', "semi;colon", " spaces ", "0\\101"])
def test_a_value_with_special_characters_stays_as_it_is(world: World, name: str, value: str) -> None:
    if not world.holds(value):
        pytest.skip("it has no room for that")
    world.zone.add([TxtValue(name, value)])
    assert world.txt(name) == [value]
    world.zone.remove([TxtValue(name, value)])
    assert world.txt(name) == []


def test_nothing_is_added_and_removed_without_harm(world: World) -> None:
    world.zone.add([])
    world.zone.remove([])


def test_a_name_in_no_zone_of_the_provider_is_refused(world: World) -> None:
    foreign = [TxtValue("_acme-challenge.www.elsewhere.example", "value")]
    for change in (world.zone.add, world.zone.remove):
        with pytest.raises(ZoneRefused) as refused:
            change(foreign)
        assert refused.value.reason == "zone_not_found"


def test_the_zones_are_listed(world: World) -> None:
    assert list(world.zone.zones()) == world.zones


@pytest.mark.parametrize("labels", [1, 3])
def test_a_name_may_be_as_long_as_names_are(world: World, labels: int) -> None:
    room = 253 - len(f"_acme-challenge.{secrets.token_hex(4)}..{ZONE}")
    padding = ("x" * LONGEST_LABEL + ".") * labels if labels == 1 else _padded(room)
    name = f"_acme-challenge.{secrets.token_hex(4)}.{padding.rstrip('.')}.{ZONE}"
    assert len(name) <= 253
    world.zone.add([TxtValue(name, "value")])
    assert world.txt(name) == ["value"]
    world.zone.remove([TxtValue(name, "value")])
    assert world.txt(name) == []


def _padded(room: int) -> str:
    """Labels of so many characters together, with the dots between them."""
    labels = []
    while room > LONGEST_LABEL + 1:
        labels.append("x" * LONGEST_LABEL)
        room -= LONGEST_LABEL + 1
    return ".".join([*labels, "x" * max(room, 1)])


@pytest.mark.parametrize("label", ["_under", "a_b", "xn--bcher-kva"])
def test_names_of_underscores_and_of_other_alphabets_are_names(world: World, name: str, label: str) -> None:
    name = name.replace("_acme-challenge.", f"_acme-challenge.{label}.")
    world.zone.add([TxtValue(name, "value")])
    assert world.txt(name) == ["value"]
    world.zone.remove([TxtValue(name, "value")])
    assert world.txt(name) == []


def test_a_value_that_somebody_else_removed_is_removed_without_harm(world: World, name: str) -> None:
    world.zone.add([TxtValue(name, "one"), TxtValue(name, "two")])
    world.second.remove([TxtValue(name, "one")])
    world.zone.remove([TxtValue(name, "one"), TxtValue(name, "two")])
    assert world.txt(name) == []


def test_a_test_that_cannot_hold_is_one_of_these(world: World) -> None:
    assert set(world.cannot) <= set(globals())


# --- what goes wrong ---


def calls(world: World, zone: DnsZone | None) -> list[Callable[[], object]]:
    if zone is None:
        pytest.skip("it has no word for that")
    values = [TxtValue(f"_acme-challenge.www.{ZONE}", "value")]
    called = {"add": lambda: zone.add(values), "remove": lambda: zone.remove(values), "zones": zone.zones}
    return [call for name, call in called.items() if name not in world.asks_nobody]


def api_of(world: World) -> StandIn:
    if world.api is None:
        pytest.skip("no stand-in")
    return world.api


def test_wrong_credentials_are_refused_at_every_call(world: World) -> None:
    for call in calls(world, world.wrong_credentials):
        with pytest.raises(ZoneRefused) as refused:
            call()
        assert refused.value.reason == "credentials_rejected"


def test_credentials_that_may_only_look_list_the_zones_and_write_nothing(world: World, name: str) -> None:
    if world.read_only is None:
        pytest.skip("there are none")
    assert world.read_only.zones()
    world.zone.add([TxtValue(name, "value")])
    for change, value in ((world.read_only.add, "another"), (world.read_only.remove, "value")):
        with pytest.raises(ZoneRefused) as refused:
            change([TxtValue(name, value)])
        assert refused.value.reason == "permission_missing"
    assert world.txt(name) == ["value"]


def test_a_throttled_call_may_be_tried_again_later(world: World) -> None:
    """DNS itself has no word for patience."""
    for call in calls(world, world.throttled):
        with pytest.raises(ZoneThrottled):
            call()


def test_a_provider_that_does_not_answer_may_be_tried_again(world: World) -> None:
    for call in calls(world, world.unreachable):
        with pytest.raises(ZoneUnreachable):
            call()


@pytest.mark.parametrize(("said", "waits"), [({"Retry_After": "7"}, 7), ({}, None)])
def test_an_api_that_asks_for_patience_is_told_of_with_its_time(
    world: World, said: dict[str, str], waits: float | None
) -> None:
    api_of(world).always = answering(429, {"message": "slow down"}, **said)
    for call in calls(world, world.zone):
        with pytest.raises(ZoneThrottled) as throttled:
            call()
        assert throttled.value.retry_after_seconds == waits


@pytest.mark.parametrize(
    "fault",
    [answering(500, {"message": "broken"}), answering(502, "<html>"), answering(200, "<html>"), lambda *_: None],
    ids=["500", "502", "no JSON", "no answer"],
)
def test_an_api_that_is_broken_may_be_tried_again(world: World, fault: object) -> None:
    api_of(world).always = fault  # type: ignore[assignment]
    for call in calls(world, world.zone):
        with pytest.raises(ZoneUnreachable):
            call()


@pytest.mark.parametrize("lost", range(6))
def test_a_change_whose_answer_was_lost_is_made_again_without_harm(world: World, name: str, lost: int) -> None:
    """Each answer in turn; a change that makes fewer requests loses none."""
    api = api_of(world)
    world.write(name, "foreign")
    for change, left in ((world.zone.add, ["foreign", "ours"]), (world.zone.remove, ["foreign"])):
        api.faults.extend([acting] * lost)
        api.faults.append(no_answer_after_acting)
        with suppress(ZoneUnreachable):
            change([TxtValue(name, "ours")])
        api.faults.clear()
        change([TxtValue(name, "ours")])
        assert world.txt(name) == left


@pytest.mark.parametrize("body", [{}, [], {"errors": None}, {"result": 1, "result_info": {"total_pages": 10**9}}, None])
def test_an_api_that_answers_in_another_form_may_be_tried_again(world: World, body: object) -> None:
    api_of(world).always = answering(200, body)
    for call in calls(world, world.zone):
        with suppress(Failure):  # and nothing else: some forms are an empty list to some
            call()


def test_what_an_api_says_is_told_without_its_credentials_and_in_one_line(world: World) -> None:
    api = api_of(world)
    api.always = lambda request, _act: answering(400, f"no\n\x1b[31m {request.headers} {request.body}")(request, _act)
    for call in calls(world, world.zone):
        with pytest.raises(Failure) as failure:
            call()
        assert failure.value.detail.isprintable()
        assert len(failure.value.detail) <= 1000
        assert not any(secret in failure.value.detail for secret in world.secrets)
