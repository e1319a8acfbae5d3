"""What the application relies on when it looks at DNS: held against the fake, and against zones of real servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from application.ports import DnsSurvey
from interfaces.dns.survey import ResolvingSurvey
from interfaces.egress import Egress
from tests.fakes_dns import FakeSurvey
from tests.prove.preflight_fixtures import FIRST, HOSTS, served

ZONE = "good.example"
CUT = "sub.cut.example"
NAME = f"www.{ZONE}"

pytestmark = pytest.mark.allow_hosts(HOSTS)


@dataclass(frozen=True)
class World:
    """`server` is one that serves the zones, as `host:port`."""

    survey: DnsSurvey
    server: str


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.peers)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if request.param == "fake":
        yield World(FakeSurvey([ZONE, "cut.example", CUT]), f"{FIRST}:53")
        return
    with served(tmp_path_factory.mktemp("zones")) as zones:
        egress = Egress([ip_network("127.0.0.0/8")])
        survey = ResolvingSurvey(egress, [zones.resolver], timeout_seconds=1.0, port=zones.port)
        yield World(survey, zones.authority)


def test_each_name_is_told_of_in_its_order(world: World) -> None:
    names = [NAME, f"www.{CUT}", ZONE]
    seen = world.survey.look(names, {})
    assert [each.dns_name for each in seen] == names
    assert [each.record_name for each in seen] == [f"_acme-challenge.{name}" for name in names]
    assert [each.zone for each in seen] == [ZONE, CUT, ZONE]
    assert world.survey.look([], {}) == []


def test_where_nothing_is_wrong_there_is_all_that_is_needed_to_say_so(world: World) -> None:
    (seen,) = world.survey.look([NAME], {})
    assert [step.dns_name for step in seen.caa] == [NAME, ZONE, "example"]
    assert [step.records for step in seen.caa] == [(), (), ()]
    assert (seen.look_ups, seen.hops, seen.chain_end, seen.end, seen.wildcard) == (
        (),
        (),
        "end",
        seen.record_name,
        None,
    )
    assert seen.zone_seen is not None
    assert seen.zone_seen.apex == ZONE
    assert {(server.status, server.serial, server.over_tcp) for server in seen.zone_seen.servers} == {
        ("authoritative", 1, True)
    }
    assert seen.zone_seen.ds.status == "empty"
    assert [each.server for each in seen.txt] == [server.server for server in seen.zone_seen.servers]
    assert {(each.status, each.values) for each in seen.txt} == {("absent", ())}


def test_servers_that_are_given_for_a_name_are_asked_in_place_of_its_own(world: World) -> None:
    given, own = world.survey.look([NAME, ZONE], {NAME: [world.server]})
    assert given.zone_seen is not None
    assert own.zone_seen is not None
    assert [server.server for server in given.zone_seen.servers] == [world.server]
    assert world.server not in [server.server for server in own.zone_seen.servers]
