"""PowerDNS beyond what every provider is held to: what else a set holds, and how it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from application.ports import DnsZone, TxtValue
from tests.contracts.dns_worlds import ZONE, connect
from tests.dns_stand_ins.powerdns import PowerDns
from tests.fakes_dns import MemoryValues
from tests.servers.pdns import Pdns, Tenant

SUB_ZONE = f"sub.{ZONE}"
NAME = f"_acme-challenge.www.{ZONE}"
OURS = TxtValue(NAME, "ours")
FOREIGN = [
    {"content": '"fo" "re\\195\\188ign"', "disabled": False},
    {"content": '"off"', "disabled": True},
]


@contextmanager
def stand_in(_folder: Path, version: str) -> Iterator[Tenant]:
    with PowerDns([ZONE, SUB_ZONE], version=version) as api:
        yield Tenant(api.url, api.key, [ZONE, SUB_ZONE])


@contextmanager
def server(folder: Path) -> Iterator[Tenant]:
    with Pdns(folder, [ZONE, SUB_ZONE]) as running:
        yield running.tenant


@pytest.fixture(
    params=[
        pytest.param(lambda folder: stand_in(folder, "4.7.3"), id="4.7.3"),
        pytest.param(lambda folder: stand_in(folder, "5.0.2"), id="5.0.2"),
        pytest.param(server, id="server", marks=pytest.mark.peers),
    ]
)
def tenant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tenant]:
    begin: Callable[[Path], AbstractContextManager[Tenant]] = request.param
    with begin(tmp_path / "pdns") as running:
        yield running


def zone_of(url: str, key: str, **more: Any) -> DnsZone:
    return connect("powerdns", {"base_url": url, **more}, {"api_key": key}, MemoryValues())


def content(*records: dict[str, Any]) -> list[tuple[str, bool]]:
    return sorted((record["content"], record["disabled"]) for record in records)


def test_what_others_wrote_stays_as_they_wrote_it_with_its_ttl_and_its_comments(tenant: Tenant) -> None:
    comments = [{"account": "hostmaster", "content": "do not touch", "modified_at": 1700000000}]
    tenant.replace(NAME, FOREIGN, ttl_seconds=77, comments=comments)
    zone = zone_of(tenant.url, tenant.key)
    zone.add([OURS])
    added = tenant.rrset(NAME)
    zone.remove([OURS])
    left = tenant.rrset(NAME)
    assert content(*added["records"]) == content(*FOREIGN, {"content": '"ours"', "disabled": False})
    assert content(*left["records"]) == content(*FOREIGN)
    assert (left["ttl"], left["comments"]) == (added["ttl"], added["comments"]) == (77, comments)


def test_a_disabled_record_alone_is_no_value_and_stays(tenant: Tenant) -> None:
    tenant.replace(NAME, FOREIGN[1:])
    zone = zone_of(tenant.url, tenant.key)
    zone.remove([TxtValue(NAME, "off")])
    zone.add([OURS])
    zone.remove([OURS])
    assert tenant.rrset(NAME)["records"] == FOREIGN[1:]


def test_a_value_whose_record_is_disabled_is_enabled_by_adding_it(tenant: Tenant) -> None:
    tenant.replace(NAME, FOREIGN)
    zone_of(tenant.url, tenant.key).add([TxtValue(NAME, "off")])
    assert content(*tenant.rrset(NAME)["records"]) == content(FOREIGN[0], {"content": '"off"', "disabled": False})


def test_a_value_of_any_characters_is_taken_and_found_again(tenant: Tenant) -> None:
    values = [TxtValue(NAME, value) for value in ("ümlaut\n\x7f", "", 'q"\\', "x" * 256)]
    zone = zone_of(tenant.url, tenant.key)
    zone.add(values)
    zone.add(values)
    assert len(tenant.rrset(NAME)["records"]) == 4
    zone.remove(values)
    assert tenant.rrset(NAME) is None


def test_a_value_is_written_to_the_longest_zone_and_with_the_configs_ttl(tenant: Tenant) -> None:
    deeper = f"_acme-challenge.{SUB_ZONE}"
    zone_of(tenant.url, tenant.key, ttl=7).add([TxtValue(deeper, "value")])
    assert tenant.rrset(deeper)["ttl"] == 7


@pytest.mark.parametrize(("version", "whole"), [("4.7.3", True), ("4.9.12", True), ("5.0.2", False), ("10.1", False)])
def test_one_name_is_asked_for_where_that_shows_disabled_records(version: str, whole: bool) -> None:
    with PowerDns([ZONE], version=version) as api:
        zone_of(api.url, api.key).add([OURS])
        reads = [each for each in api.asked if each.method == "GET" and each.path.endswith(f"/zones/{ZONE}.")]
        assert ["rrset_name" not in each.query for each in reads] == [whole]
