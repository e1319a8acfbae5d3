"""Connecting and verifying DNS providers, and which credentials reach their zones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from application.errors import EgressRefused, Failure, ZoneRefused, ZoneThrottled, ZoneUnreachable
from domain.dns_provider import DnsProvider
from domain.errors import InvalidFields, NameInUse, NotFound, ProviderVerificationFailed
from tests.application.world import OWNER, STRANGER, ZONE, World, field_codes


@pytest.fixture
def world() -> World:
    return World()


def connect(world: World, **wrong: Any) -> str:
    right: dict[str, Any] = {
        "name": "main",
        "provider_type": "fake",
        "credentials": {"api_token": "1234"},
        "credentials_path": None,
        "config": {},
        "managed_zones": [ZONE],
        "verify": False,
        "caller": OWNER,
    }
    return world.providers.connect(**{**right, **wrong})


def last_token(world: World) -> str:
    return world.zones.connected[-1].credentials["api_token"].reveal_text()


# --- whose credentials they are ---


def test_the_host_s_role_is_not_had_by_emptying_a_secret_afterwards(world: World) -> None:
    provider_id = connect(world, caller=STRANGER)
    provider = world.providers.load(provider_id)
    provider.provider_type = "route53"
    provider.sealed_credentials_id, provider.credentials_path = None, "dns/main"
    world.secrets.write("dns/main", {}, "json", {}, STRANGER)
    with pytest.raises(InvalidFields, match="first tenant"):
        world.providers.reach(provider)


# --- connecting ---


def test_others_code_is_run_for_the_first_tenant_alone(world: World) -> None:
    with pytest.raises(InvalidFields) as refused:
        connect(world, provider_type="lexicon", caller=STRANGER)
    assert field_codes(refused) == {"provider_type": "not_allowed"}
    assert world.zones.connected == []


def test_a_provider_is_connected_with_its_zones_in_their_normal_form(world: World) -> None:
    provider_id = connect(world, managed_zones=["Acme.Example.", "*.bücher.example", "acme.example"], config={"ttl": 5})
    (connected,) = world.events(provider_id)
    assert isinstance(connected, DnsProvider.Connected)
    assert connected.managed_zones == (ZONE, "*.xn--bcher-kva.example")
    assert connected.config == {"ttl": 5}
    assert world.recorder.history[-1].by == OWNER.provenance


def test_the_credentials_are_sealed_and_in_no_event(world: World) -> None:
    provider_id = connect(world, credentials={"api_token": "hunter2"})
    assert "hunter2" not in repr(world.recorded)
    world.providers.reach(world.providers.load(provider_id))
    assert last_token(world) == "hunter2"


@pytest.mark.parametrize(
    ("wrong", "codes"),
    [
        ({"managed_zones": []}, {"managed_zones": "required"}),
        (
            {"managed_zones": [ZONE, "example", "a.*.example"]},
            {"managed_zones[1]": "invalid_name", "managed_zones[2]": "invalid_name"},
        ),
        ({"config": {"ttl": 0}}, {"config.ttl": "invalid"}),
        (
            {"config": {"ttl": "60", "propagation": "soon"}},
            {"config.ttl": "invalid", "config.propagation": "invalid"},
        ),
        (
            {"config": {"propagation_timeout": "5 minutes", "nameservers": ["127.0.0.1:53", "ns1", "ns1:99999"]}},
            {
                "config.propagation_timeout": "invalid_duration",
                "config.nameservers[1]": "invalid",
                "config.nameservers[2]": "invalid",
            },
        ),
        ({"provider_type": "carrier-pigeon"}, {"provider_type": "unknown"}),
        ({"credentials": {}}, {"credentials.api_token": "required"}),
        ({"credentials": None}, {"credentials.api_token": "required"}),
        ({"credentials": {"api_token": 1234}}, {"credentials": "invalid"}),
        ({"credentials_path": "dns/main"}, {"credentials_path": "unexpected"}),
        ({"credentials": None, "credentials_path": "dns/main"}, {"credentials_path": "not_found"}),
    ],
)
def test_each_wrong_field_is_named(world: World, wrong: Mapping[str, Any], codes: dict[str, str]) -> None:
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        connect(world, **wrong)
    assert field_codes(refusal) == codes
    assert world.sealed.sealed == 0


def test_a_name_is_used_once_in_a_tenant(world: World) -> None:
    connect(world)
    with world.records_nothing(), pytest.raises(NameInUse):
        connect(world)
    connect(world, name="second")
    connect(world, caller=STRANGER)


def test_secrets_of_another_tenant_are_no_credentials(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": "1"}, "json", {}, STRANGER)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        connect(world, credentials=None, credentials_path="dns/main")
    assert field_codes(refusal) == {"credentials_path": "not_found"}


def test_a_stored_secret_that_is_no_set_of_strings_is_no_credentials(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": {"nested": 1}}, "json", {}, OWNER)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        connect(world, credentials=None, credentials_path="dns/main")
    assert field_codes(refusal) == {"credentials": "invalid"}


def test_the_newest_version_of_a_stored_secret_is_used_from_the_next_call_on(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": "old"}, "json", {}, OWNER)
    provider_id = connect(world, credentials=None, credentials_path="dns/main")
    assert last_token(world) == "old"
    world.secrets.write("dns/main", {"api_token": "new"}, "json", {}, OWNER)
    world.providers.reach(world.providers.load(provider_id))
    assert last_token(world) == "new"


def test_an_order_in_progress_uses_the_newest_credentials(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": "old"}, "json", {}, OWNER)
    order_id = world.placed(credentials_path="dns/main")
    world.calls.before("zone.remove", lambda: world.secrets.write("dns/main", {"api_token": "new"}, "json", {}, OWNER))
    world.zones.of(ZONE).fail("remove", ZoneUnreachable("502"))
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    assert last_token(world) == "new"


# --- verifying ---

FAILURES: list[tuple[Failure, str]] = [
    (ZoneRefused("credentials_rejected", "no"), "credentials_rejected"),
    (ZoneRefused("permission_missing", "no"), "permission_missing"),
    (ZoneRefused("zone_not_found", "no"), "zone_not_found"),
    (ZoneThrottled("no", 7), "throttled"),
    (ZoneUnreachable("no"), "unreachable"),
    (EgressRefused("no"), "permission_missing"),
]


@pytest.mark.parametrize(("failure", "reason"), FAILURES)
def test_a_provider_that_does_not_list_its_zones_is_not_connected(world: World, failure: Failure, reason: str) -> None:
    world.zones.of(ZONE).failure = failure
    with world.records_nothing(), pytest.raises(ProviderVerificationFailed) as refusal:
        connect(world, verify=True)
    assert (refusal.value.reason, refusal.value.detail) == (reason, "no")
    assert world.sealed.sealed == 0


def test_a_provider_that_lists_its_zones_is_connected_and_verified(world: World) -> None:
    provider_id = connect(world, managed_zones=[ZONE, "*.other.example"], verify=True)
    _, verified = world.events(provider_id)
    assert isinstance(verified, DnsProvider.Verified)
    assert (verified.zones, verified.missing_zones) == ((ZONE, "other.example"), ())


def test_verifying_tells_the_zones_and_which_are_missing(world: World) -> None:
    provider_id = connect(world, managed_zones=[ZONE, "other.example"])
    world.zones.of(ZONE, "other.example").lacks.add("other.example")
    verification = world.providers.verify(provider_id, write_test=True, caller=OWNER)
    assert (verification.verified, verification.zones) == (False, [ZONE])
    assert verification.missing_zones == ("other.example",)
    assert [(check.name, check.ok) for check in verification.checks] == [
        ("list_zones", True),
        (f"write_test {ZONE}", True),
    ]


def test_a_write_test_leaves_nothing_behind(world: World) -> None:
    provider_id = connect(world, managed_zones=[f"*.{ZONE}"])
    verification = world.providers.verify(provider_id, write_test=True, caller=OWNER)
    assert verification.verified
    (added, what), (removed, same) = world.zones.of(f"*.{ZONE}").changes
    assert (added, removed, [value.record_name for value in what]) == ("add", "remove", [f"_acme-canary.{ZONE}"])
    assert what == same
    assert world.zones.held == set()


def test_nothing_is_written_unless_asked_for(world: World) -> None:
    assert world.providers.verify(connect(world), write_test=False, caller=OWNER).verified
    assert world.zones.of(ZONE).attempts == 0


@pytest.mark.parametrize("change", ["add", "remove"])
def test_a_write_test_that_fails_is_no_verification(world: World, change: str) -> None:
    provider_id = connect(world)
    world.zones.of(ZONE).fail("add" if change == "add" else "remove", ZoneRefused("permission_missing", "read only"))
    verification = world.providers.verify(provider_id, write_test=True, caller=OWNER)
    assert not verification.verified
    last = verification.checks[-1]
    assert not last.ok
    assert last.detail == f"read only (a value may be left at _acme-canary.{ZONE})"


@pytest.mark.parametrize(("failure", "reason"), FAILURES)
def test_a_failed_verification_is_on_record(world: World, failure: Failure, reason: str) -> None:
    provider_id = connect(world)
    world.zones.of(ZONE).failure = failure
    verification = world.providers.verify(provider_id, write_test=True, caller=OWNER)
    (check,) = verification.checks
    assert (verification.verified, verification.missing_zones, check.ok) == (False, (ZONE,), False)
    failed = world.events(provider_id)[-1]
    assert isinstance(failed, DnsProvider.VerificationFailed)
    assert failed.reason == reason


def test_a_verification_without_credentials_fails(world: World) -> None:
    world.secrets.write("dns/main", {"api_token": "1"}, "json", {}, OWNER)
    provider_id = connect(world, credentials=None, credentials_path="dns/main")
    world.secrets.write("dns/main", {"renamed": "1"}, "json", {}, OWNER)
    assert not world.providers.verify(provider_id, write_test=False, caller=OWNER).verified


def test_a_provider_of_another_tenant_is_not_found(world: World) -> None:
    provider_id = connect(world)
    with world.records_nothing(), pytest.raises(NotFound):
        world.providers.verify(provider_id, write_test=False, caller=STRANGER)
