"""Looking at what an order would meet: whom it asks, and what it leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from application.preflight import Preflight
from domain.dns_survey import Hop
from domain.preflight import Report
from tests.application.outside import FewSuffixes
from tests.application.world import NAMES, OWNER, STRANGER, ZONE, World
from tests.fakes_dns import FakeSurvey

CLEAR = Report(ready=True, findings=())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def survey() -> FakeSurvey:
    return FakeSurvey([ZONE, "other.example"])


def look(world: World, survey: FakeSurvey, account_id: str, *domains: str, provider_id: str | None = None) -> Report:
    preflight = Preflight(world.store, world.views, FewSuffixes(), world.rate_limits, survey, world.ids)
    with world.records_nothing():
        return preflight.look(
            account_id=account_id,
            domains=domains,
            challenge_type="dns-01",
            key_type=None,
            csr_pem=None,
            profile=None,
            dns_provider_id=provider_id,
            caller=OWNER,
        )


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_neither_the_ca_nor_the_provider_is_asked(world: World, survey: FakeSurvey) -> None:
    account_id = world.ready()
    assert look(world, survey, account_id, *NAMES) == CLEAR
    assert world.ca.requests.total() == 0
    assert [call for call in world.calls.made if call.startswith(("ca.", "zone", "keys."))] == []


def test_names_are_looked_at_in_their_normal_form_and_a_wildcard_with_its_base(
    world: World, survey: FakeSurvey
) -> None:
    account_id = world.ready()
    look(world, survey, account_id, "WWW.Acme.Example.", f"*.www.{ZONE}", ZONE)
    assert survey.asked[0][0] == [f"www.{ZONE}", ZONE]


def test_the_servers_that_the_names_own_provider_names_are_asked(world: World, survey: FakeSurvey) -> None:
    account_id = world.ready(nameservers=["192.0.2.1:53"])
    world.connect_provider("other.example", name="second")
    report = look(world, survey, account_id, ZONE, "other.example", "x.other.example")
    assert report == CLEAR
    assert {name: list(servers) for name, servers in survey.asked[0][1].items() if servers} == {ZONE: ["192.0.2.1:53"]}


def test_a_provider_of_another_tenant_manages_nothing_here(world: World, survey: FakeSurvey) -> None:
    account_id = world.ready()
    world.connect_provider("other.example", caller=STRANGER)
    assert codes(look(world, survey, account_id, "other.example")) == ["zone_not_managed"]


def test_an_alias_may_lead_to_a_zone_of_any_provider(world: World, survey: FakeSurvey) -> None:
    account_id = world.ready()
    (spotless,) = survey.look([ZONE], {})
    hop = Hop(spotless.record_name, "x.other.example")
    survey.seen[ZONE] = replace(spotless, hops=(hop,), end=hop.target)
    assert codes(look(world, survey, account_id, ZONE)) == ["cname_target_unmanaged"]
    world.connect_provider("other.example", name="second")
    assert codes(look(world, survey, account_id, ZONE)) == ["cname_target_managed"]


def test_a_running_order_is_told_of_until_it_has_ended(world: World, survey: FakeSurvey) -> None:
    account_id = world.ready()
    world.place(account_id, ZONE)
    assert codes(look(world, survey, account_id, ZONE)) == ["order_in_progress"]
    world.run_until_quiet()
    assert look(world, survey, account_id, ZONE) == CLEAR
    world.clock.advance(timedelta(days=1))
    assert look(world, survey, account_id, ZONE) == CLEAR
