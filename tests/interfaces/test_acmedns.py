"""What of acme-dns the contract suite cannot show, because nothing is ever removed there."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from application.errors import ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns.providers import Providers
from interfaces.egress import Egress
from tests.contracts.dns_worlds import challenge
from tests.dns_stand_ins.acmedns import AcmeDns
from tests.dns_stand_ins.api import acting, answering, no_answer_after_acting
from tests.fakes_dns import MemoryValues

NAME = "_acme-challenge.www.acme.example"
ONE, TWO, THREE = sorted(map(challenge, ("one", "two", "three")))


@pytest.fixture
def api() -> Iterator[AcmeDns]:
    with AcmeDns() as api:
        yield api


@pytest.fixture
def zone(api: AcmeDns) -> DnsZone:
    return zone_of(api, api.subdomain)


def zone_of(api: AcmeDns, subdomain: str) -> DnsZone:
    given = {"username": api.username, "password": api.password, "subdomain": subdomain}
    secret = {name: SecretValue(value) for name, value in given.items()}
    access = ProviderAccess("acmedns", ["acme.example", "*.other.example"], {"base_url": api.base_url}, secret)
    return Providers(MemoryValues(), Egress([ip_network("127.0.0.0/8")])).connect(access)


@pytest.mark.parametrize("name", [NAME, NAME.upper(), "{0}.auth.elsewhere.example", "{0}"])
def test_a_value_goes_to_the_subdomain_by_the_name_of_the_alias_or_of_its_end(
    api: AcmeDns, zone: DnsZone, name: str
) -> None:
    zone.add([TxtValue(name.format(api.subdomain), ONE)])
    assert api.txt() == [ONE]


def test_a_name_that_only_begins_like_the_subdomain_is_another(api: AcmeDns, zone: DnsZone) -> None:
    with pytest.raises(ZoneRefused) as refused:
        zone.add([TxtValue(f"{api.subdomain}x.auth.elsewhere.example", ONE)])
    assert (refused.value.reason, api.asked) == ("zone_not_found", [])


def test_a_foreign_value_lives_beside_ours_until_two_newer_ones_have_come(api: AcmeDns, zone: DnsZone) -> None:
    api.write(ONE)
    zone.add([TxtValue(NAME, TWO)])
    assert api.txt() == sorted([ONE, TWO])
    zone.remove([TxtValue(NAME, TWO)])
    assert api.txt() == sorted([ONE, TWO])
    zone.add([TxtValue(NAME, THREE)])
    assert api.txt() == sorted([TWO, THREE])


def test_names_that_differ_are_refused_and_nothing_is_written(api: AcmeDns, zone: DnsZone) -> None:
    with pytest.raises(ZoneRefused, match=r"one name.*www\.acme") as refused:
        zone.add([TxtValue(NAME, ONE), TxtValue("_acme-challenge.acme.example", TWO)])
    assert (refused.value.reason, api.asked) == ("zone_not_found", [])


def test_more_values_than_are_kept_are_refused_and_nothing_is_written(api: AcmeDns, zone: DnsZone) -> None:
    with pytest.raises(ZoneRefused, match="keeps 2 values, not 3") as refused:
        zone.add([TxtValue(NAME, ONE), TxtValue(NAME, TWO), TxtValue(NAME, THREE)])
    assert (refused.value.reason, api.asked) == ("permission_missing", [])


@pytest.mark.parametrize("value", ["", "short", ONE + "x", ONE[:-1] + "+", ONE[:-1] + "\n", ONE + "\n"])
def test_a_value_of_another_form_is_refused_and_nothing_is_written(api: AcmeDns, zone: DnsZone, value: str) -> None:
    with pytest.raises(ZoneRefused, match="43 characters") as refused:
        zone.add([TxtValue(NAME, TWO), TxtValue(NAME, value)])
    assert (refused.value.reason, api.asked) == ("permission_missing", [])


@pytest.mark.parametrize("lost", [0, 1])
def test_two_values_of_which_an_answer_was_lost_are_both_there_after_the_next_try(
    api: AcmeDns, zone: DnsZone, lost: int
) -> None:
    values = [TxtValue(NAME, TWO), TxtValue(NAME, ONE)]
    api.faults.extend([acting] * lost)
    api.faults.append(no_answer_after_acting)
    with pytest.raises(ZoneUnreachable):
        zone.add(values)
    zone.add(values)
    assert api.txt() == [ONE, TWO]


def test_what_forbidden_may_mean_is_told(api: AcmeDns, zone: DnsZone) -> None:
    api.allowed = False
    for refusing in (zone, zone_of(api, "another")):
        with pytest.raises(
            ZoneRefused, match="another account's subdomain, or not allowed from our address"
        ) as refused:
            refusing.add([TxtValue(NAME, ONE)])
        assert refused.value.reason == "credentials_rejected"


@pytest.mark.parametrize("error", ["bad_txt", "bad_subdomain"])
def test_what_the_server_would_not_take_is_no_matter_of_time(api: AcmeDns, zone: DnsZone, error: str) -> None:
    api.always = answering(400, {"error": error})
    with pytest.raises(ZoneRefused, match=error) as refused:
        zone.add([TxtValue(NAME, ONE)])
    assert refused.value.reason == "permission_missing"


def test_the_managed_zones_are_the_zones_and_nobody_is_asked(api: AcmeDns, zone: DnsZone) -> None:
    assert (zone.zones(), api.asked) == (["acme.example", "other.example"], [])
