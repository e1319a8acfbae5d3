from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.dns_provider import DnsProvider, ManagedZones, missing_zones, provider_for
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def connected() -> DnsProvider:
    provider = DnsProvider.connect(
        "dnsp_1",
        tenant_id="tnt_default",
        name="route53 prod",
        provider_type="route53",
        managed_zones=("acme.example", "*.shop.example"),
        config={"region": "us-east-1"},
        sealed_credentials_id="sealed_1",
        credentials_path=None,
        now=NOW,
    )
    provider.collect_events()
    return provider


def managing(dns_provider_id: str, *managed_zones: str, connected_at: datetime = NOW) -> ManagedZones:
    return ManagedZones(dns_provider_id, managed_zones, connected_at)


def test_a_provider_is_connected_with_its_zones_and_where_its_credentials_are() -> None:
    config = {"hosted_zone_id": "Z1"}
    provider = DnsProvider.connect(
        "dnsp_1",
        tenant_id="tnt_default",
        name="route53 prod",
        provider_type="route53",
        managed_zones=("acme.example",),
        config=config,
        sealed_credentials_id=None,
        credentials_path="dns/route53",
        now=NOW,
    )
    config["hosted_zone_id"] = "changed by the caller afterwards"
    assert recorded(provider, NOW) == [
        (
            DnsProvider.Connected,
            {
                "tenant_id": "tnt_default",
                "name": "route53 prod",
                "provider_type": "route53",
                "managed_zones": ("acme.example",),
                "config": {"hosted_zone_id": "Z1"},
                "sealed_credentials_id": None,
                "credentials_path": "dns/route53",
            },
        )
    ]


def test_a_verification_tells_which_zones_there_are_and_which_are_missing() -> None:
    provider = connected()
    provider.verified(["acme.example", "other.example"], LATER)
    assert recorded(provider, LATER) == [
        (DnsProvider.Verified, {"zones": ("acme.example", "other.example"), "missing_zones": ("*.shop.example",)})
    ]


def test_each_verification_is_on_record() -> None:
    provider = connected()
    provider.verified(["acme.example"], LATER)
    provider.verified(["acme.example"], LATER)
    assert len(recorded(provider, LATER)) == 2


def test_a_failed_verification_tells_why() -> None:
    provider = connected()
    provider.verification_failed("credentials_rejected", "InvalidClientTokenId", LATER)
    assert recorded(provider, LATER) == [
        (DnsProvider.VerificationFailed, {"reason": "credentials_rejected", "detail": "InvalidClientTokenId"})
    ]


@pytest.mark.parametrize(
    ("zones", "missing"),
    [
        ([], ("acme.example", "*.dev.acme.example")),
        (["acme.example"], ()),
        (["dev.acme.example"], ("acme.example",)),
        (["example"], ()),
        (["notacme.example"], ("acme.example", "*.dev.acme.example")),
    ],
)
def test_a_managed_zone_is_missing_where_no_zone_holds_it(zones: list[str], missing: tuple[str, ...]) -> None:
    assert missing_zones(["acme.example", "*.dev.acme.example"], zones) == missing


def test_a_name_below_no_managed_zone_has_no_provider() -> None:
    assert provider_for("elsewhere.example", [managing("dnsp_1", "acme.example")], "dnsp_1") is None
    assert provider_for("acme.example", [], None) is None


@pytest.mark.parametrize(
    ("dns_name", "dns_provider_id"),
    [
        ("acme.example", "dnsp_wide"),
        ("www.acme.example", "dnsp_wide"),
        ("dev.acme.example", "dnsp_narrow"),
        ("a.b.dev.acme.example", "dnsp_narrow"),
        ("*.dev.acme.example", "dnsp_narrow"),
        ("*.acme.example", "dnsp_wide"),
    ],
)
def test_the_longest_match_wins_over_preference_and_age(dns_name: str, dns_provider_id: str) -> None:
    providers = [
        managing("dnsp_wide", "acme.example", connected_at=NOW),
        managing("dnsp_narrow", "other.example", "dev.acme.example", connected_at=LATER),
    ]
    assert provider_for(dns_name, providers, "dnsp_wide") == dns_provider_id


def test_a_tie_is_for_the_preferred_provider() -> None:
    providers = [
        managing("dnsp_1", "acme.example", connected_at=NOW),
        managing("dnsp_2", "acme.example", connected_at=LATER),
    ]
    assert provider_for("www.acme.example", providers, "dnsp_2") == "dnsp_2"


@pytest.mark.parametrize("preferred_id", [None, "dnsp_of_other_zones"])
def test_another_tie_is_for_the_provider_connected_first(preferred_id: str | None) -> None:
    providers = [
        managing("dnsp_1", "acme.example", connected_at=LATER),
        managing("dnsp_2", "acme.example", connected_at=NOW),
        managing("dnsp_of_other_zones", "other.example", connected_at=NOW - timedelta(days=1)),
    ]
    assert provider_for("www.acme.example", providers, preferred_id) == "dnsp_2"


def test_a_zone_and_its_wildcard_match_alike_below() -> None:
    providers = [managing("dnsp_zone", "acme.example"), managing("dnsp_below", "*.acme.example")]
    assert provider_for("www.acme.example", providers, "dnsp_below") == "dnsp_below"
    assert provider_for("www.acme.example", providers, "dnsp_zone") == "dnsp_zone"


def test_a_wildcard_zone_does_not_cover_its_own_name() -> None:
    providers = [managing("dnsp_below", "*.acme.example")]
    assert provider_for("acme.example", providers, "dnsp_below") is None
    assert provider_for("www.acme.example", providers, None) == "dnsp_below"
