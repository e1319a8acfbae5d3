"""What the application relies on at any DNS provider: held against the fake, our own responder, BIND, Knot and Route 53."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from application.errors import ZoneRefused, ZoneThrottled, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.dns.locks import ThreadLocks
from interfaces.dns.providers import Providers
from interfaces.dns.txt_strings import quoted
from interfaces.egress import Egress
from tests.fakes_dns import AwsError, FakeZone, MemoryValues
from tests.servers.authoritative import AuthoritativeServer, ask_txt
from tests.servers.bind import Bind
from tests.servers.knot import Knot
from tests.servers.process import LOOPBACK, free_port
from tests.servers.route53 import MotoRoute53

ZONE = "acme.example"
OTHER_ZONE = "other.example"
LOCKS = ThreadLocks()


@dataclass
class World:
    """`zone` and `second` reach the same provider as two processes would. `txt` and `write` are somebody else's view and
    hand. What a provider does not have is None."""

    zone: DnsZone
    second: DnsZone
    txt: Callable[[str], list[str]]
    write: Callable[[str, str], None]
    wrong_credentials: DnsZone | None = None
    throttled: DnsZone | None = None
    unreachable: DnsZone | None = None
    zones: list[str] = field(default_factory=lambda: [ZONE, OTHER_ZONE])


def connect(provider_type: str, config: dict[str, Any], credentials: dict[str, str], values: MemoryValues) -> DnsZone:
    """In each call as a process of its own, but for the lock that all processes share."""
    secret = {name: SecretValue(value) for name, value in credentials.items()}
    access = ProviderAccess(provider_type, [ZONE, f"*.{OTHER_ZONE}"], config, secret)
    return Providers(values, Egress([ip_network("127.0.0.0/8")]), LOCKS).connect(access)


def fake_world() -> World:
    zone, wrong, throttled, unreachable = (FakeZone([ZONE, OTHER_ZONE]) for _ in range(4))
    wrong.reject_credentials()
    throttled.throttle(retry_after_seconds=7)
    unreachable.vanish()
    return World(
        zone,
        zone,
        zone.txt,
        lambda name, value: zone.add([TxtValue(name, value)]),
        wrong_credentials=wrong,
        throttled=throttled,
        unreachable=unreachable,
    )


def embedded_world(values: MemoryValues, responder: EmbeddedDns) -> World:
    zone, second = (connect("embedded", {}, {}, values) for _ in range(2))
    return World(
        zone,
        second,
        lambda name: ask_txt(LOOPBACK, responder.port, name),
        lambda name, value: values.add([TxtValue(name, value)]),
    )


def rfc2136_world(server: AuthoritativeServer) -> World:
    config = {"server": LOOPBACK, "port": server.port}
    credentials = {"tsig_key_name": server.tsig_key_name, "tsig_secret": server.tsig_secret}
    wrong = {**credentials, "tsig_secret": "d3Jvbmc="}
    return World(
        connect("rfc2136", config, credentials, MemoryValues()),
        connect("rfc2136", config, credentials, MemoryValues()),
        server.txt,
        lambda name, value: server.add(name, "TXT", f'"{value}"'),
        wrong_credentials=connect("rfc2136", config, wrong, MemoryValues()),
        unreachable=connect("rfc2136", {**config, "port": free_port()}, credentials, MemoryValues()),
    )


def route53_world(server: MotoRoute53, rejecting: AwsError, throttling: AwsError) -> World:
    credentials = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}

    def at(endpoint_url: str) -> DnsZone:
        return connect("route53", {"endpoint_url": endpoint_url}, credentials, MemoryValues())

    def write(name: str, value: str) -> None:
        """As others do it: one UPSERT of the whole set, for which the set is read first."""
        records = [{"Value": quoted(held)} for held in {*server.txt(name), value}]
        record_set = {"Name": name, "Type": "TXT", "TTL": 60, "ResourceRecords": records}
        changes: Any = [{"Action": "UPSERT", "ResourceRecordSet": record_set}]
        server.client.change_resource_record_sets(HostedZoneId=server.zone_ids[ZONE], ChangeBatch={"Changes": changes})

    return World(
        at(server.endpoint_url),
        at(server.endpoint_url),
        server.txt,
        write,
        wrong_credentials=at(rejecting.endpoint_url),
        throttled=at(throttling.endpoint_url),
        unreachable=at(f"http://{LOOPBACK}:{free_port()}"),
    )


@pytest.fixture(scope="module")
def embedded() -> Iterator[World]:
    values = MemoryValues()
    with EmbeddedDns(LOOPBACK, free_port(), values, lambda: [ZONE, OTHER_ZONE]) as responder:
        yield embedded_world(values, responder)


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Bind(tmp_path_factory.mktemp("bind"), [ZONE, OTHER_ZONE]) as server:
        yield rfc2136_world(server)


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Knot(tmp_path_factory.mktemp("knot"), [ZONE, OTHER_ZONE]) as server:
        yield rfc2136_world(server)


@pytest.fixture(scope="module")
def route53(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        MotoRoute53(tmp_path_factory.mktemp("route53"), [ZONE, OTHER_ZONE]) as server,
        AwsError("InvalidClientTokenId", status=403) as rejecting,
        AwsError("Throttling") as throttling,
    ):
        yield route53_world(server, rejecting, throttling)


def peers(name: str) -> ParameterSet:
    return pytest.param(name, marks=pytest.mark.peers)


@pytest.fixture(params=["fake", "embedded", "route53", peers("bind"), peers("knot")])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "fake":
        return fake_world()
    found: World = request.getfixturevalue(request.param)
    return found


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
    world.zone.add([TxtValue(name, value[:length]), TxtValue(name, "short")])
    assert world.txt(name) == [value[:length], "short"]
    world.zone.remove([TxtValue(name, value[:length])])
    assert world.txt(name) == ["short"]


@pytest.mark.parametrize("value", ['quote " and \\ slash', "semi;colon", " spaces ", "0\\101"])
def test_a_value_with_special_characters_stays_as_it_is(world: World, name: str, value: str) -> None:
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


def calls(zone: DnsZone | None) -> list[Callable[[], object]]:
    assert zone is not None
    values = [TxtValue(f"_acme-challenge.www.{ZONE}", "value")]
    return [lambda: zone.add(values), lambda: zone.remove(values), zone.zones]


@pytest.mark.parametrize("world", ["fake", "route53", peers("bind"), peers("knot")], indirect=True)
def test_wrong_credentials_are_refused_at_every_call(world: World) -> None:
    for call in calls(world.wrong_credentials):
        with pytest.raises(ZoneRefused) as refused:
            call()
        assert refused.value.reason == "credentials_rejected"


@pytest.mark.parametrize("world", ["fake", "route53"], indirect=True)
def test_a_throttled_call_may_be_tried_again_later(world: World) -> None:
    """DNS itself has no word for patience."""
    for call in calls(world.throttled):
        with pytest.raises(ZoneThrottled):
            call()


@pytest.mark.parametrize("world", ["fake", "route53", peers("bind"), peers("knot")], indirect=True)
def test_a_provider_that_does_not_answer_may_be_tried_again(world: World) -> None:
    for call in calls(world.unreachable):
        with pytest.raises(ZoneUnreachable):
            call()
