"""DigitalOcean beyond what every provider is held to: names, pages, limits, and a database that gives up."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import httpx
import pytest

from application.errors import ZoneConflict, ZoneRefused, ZoneThrottled
from application.ports import TxtValue
from interfaces.dns.digitalocean import (
    ATTEMPTS,
    DigitalOceanApi,
    DigitalOceanConfig,
    DigitalOceanCredentials,
    wait_seconds,
)
from interfaces.dns.held_zones import HeldZone
from interfaces.dns.locks import ThreadLocks
from interfaces.dns.provider_types import Surroundings
from interfaces.dns.single_records import SingleRecordsZone
from interfaces.egress import Egress
from tests.dns_stand_ins.api import acting, answering
from tests.dns_stand_ins.digitalocean import DigitalOcean
from tests.fakes_dns import MemoryValues

ZONE, SUB_ZONE = "acme.example", "sub.acme.example"
NAME = f"_acme-challenge.www.{ZONE}"
ONE = TxtValue(NAME, "one")
DEADLOCK = answering(
    422,
    {
        "id": "unprocessable_entity",
        "message": "Error 1213 (40001): Deadlock found when trying to get lock; try restarting transaction",
    },
)


@pytest.fixture
def api() -> Iterator[DigitalOcean]:
    with DigitalOcean([ZONE, SUB_ZONE], records_a_page=2) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def records(api: DigitalOcean, pauses: list[float]) -> DigitalOceanApi:
    around = Surroundings(Egress([ip_network("127.0.0.0/8")]), ThreadLocks(), MemoryValues())
    config, credentials = DigitalOceanConfig(api.base_url), DigitalOceanCredentials(api.token)
    return DigitalOceanApi(config, credentials, 7, around, pauses.append)


@pytest.fixture
def zone(records: DigitalOceanApi) -> SingleRecordsZone:
    return SingleRecordsZone(records)


@pytest.mark.parametrize(
    ("record_name", "domain", "shown"),
    [
        (NAME, ZONE, "_acme-challenge.www"),
        (f"_acme-challenge.www.{SUB_ZONE}", SUB_ZONE, "_acme-challenge.www"),
        (SUB_ZONE, SUB_ZONE, "@"),
    ],
)
def test_a_record_is_named_relative_to_the_longest_domain(
    api: DigitalOcean, zone: SingleRecordsZone, record_name: str, domain: str, shown: str
) -> None:
    zone.add([TxtValue(record_name, "value")])
    zone.add([TxtValue(record_name, "value")])
    (record,) = api.records.values()
    assert (record.domain, record.name) == (domain, shown)
    zone.remove([TxtValue(record_name, "value")])
    assert not api.records


def test_a_ttl_below_digitaloceans_shortest_becomes_that(api: DigitalOcean, zone: SingleRecordsZone) -> None:
    zone.add([ONE])
    assert [record.ttl for record in api.records.values()] == [30]


def test_values_on_later_pages_are_found(api: DigitalOcean, zone: SingleRecordsZone) -> None:
    for number in range(5):
        api.write(NAME, f"foreign-{number}")
    api.write(NAME, "one")
    zone.add([ONE])
    zone.remove([ONE])
    assert api.txt(NAME) == [f"foreign-{number}" for number in range(5)]


def test_a_record_that_came_twice_is_removed_twice(api: DigitalOcean, zone: SingleRecordsZone) -> None:
    api.write(NAME, "one")
    api.write(NAME, "one")
    zone.remove([ONE])
    assert api.txt(NAME) == []


def test_a_record_that_has_gone_is_deleted_without_harm(records: DigitalOceanApi) -> None:
    records.delete(HeldZone(ZONE, ZONE), "7")


def test_a_domain_that_has_gone_is_not_found(records: DigitalOceanApi) -> None:
    with pytest.raises(ZoneRefused) as refused:
        records.create(HeldZone("gone.example", "gone.example"), "x.gone.example", "value")
    assert refused.value.reason == "zone_not_found"


def test_a_write_that_met_another_one_is_made_again(
    api: DigitalOcean, zone: SingleRecordsZone, pauses: list[float]
) -> None:
    api.faults.extend([acting, acting, *[DEADLOCK] * (ATTEMPTS - 1)])
    zone.add([ONE])
    assert api.txt(NAME) == ["one"]
    api.faults.extend([acting, DEADLOCK])
    zone.remove([ONE])
    assert api.txt(NAME) == []
    assert pauses == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.2])


def test_a_write_that_always_meets_another_one_is_a_conflict(api: DigitalOcean, zone: SingleRecordsZone) -> None:
    api.faults.extend([acting, acting, *[DEADLOCK] * ATTEMPTS])
    with pytest.raises(ZoneConflict, match="Deadlock"):
        zone.add([ONE])


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ({"ratelimit-reset": "1795485630", "ratelimit-remaining": "0"}, 30),
        ({"ratelimit-reset": "1795485630", "retry-after": "7"}, 7),
        ({"ratelimit-reset": "1795485000"}, 0),
        ({"ratelimit-reset": "9999999999"}, 86400),
        ({"ratelimit-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_the_limit_an_hour_is_waited_for_until_its_reset(said: dict[str, str], waits: float | None) -> None:
    assert wait_seconds(httpx.Headers({"date": "Tue, 24 Nov 2026 02:00:00 GMT", **said})) == waits


def test_who_made_too_many_requests_is_told_until_when(api: DigitalOcean, zone: SingleRecordsZone) -> None:
    body = {"id": "too_many_requests", "message": "API Rate limit exceeded."}
    api.always = answering(429, body, RateLimit_Reset="9999999999")
    with pytest.raises(ZoneThrottled) as throttled:
        zone.add([ONE])
    assert throttled.value.retry_after_seconds == 86400
