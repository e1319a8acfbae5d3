"""Accounts, DNS providers, secrets and tokens as the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from eventsourcing.domain import BaseAggregate

from domain.dns_provider import ManagedZones
from interfaces.postgres.pool import Pool
from projections.accounts import ACCOUNTS, AccountView, CapabilitiesView
from projections.dns_providers import DNS_PROVIDERS, DnsProviderView, HealthView, embedded_zones, managed_zones
from projections.documents import DocumentView
from projections.secrets import SECRETS, SecretView
from projections.subscriptions import SUBSCRIPTIONS
from projections.tokens import TOKENS, TokenView, usable
from tests.projections.folding import apply, document, recorded
from tests.projections.story import (
    BEGIN,
    BY_OTHER,
    CA,
    OTHER_TENANT,
    TENANT,
    account,
    provider,
    stored_secret,
    subscription,
    token,
)

NOW = BEGIN
WHOLE = NOW.replace(microsecond=0)
LATER = timedelta(seconds=5)


def test_an_account_shows_what_the_ca_offered(pool: Pool) -> None:
    assert document(pool, ACCOUNTS, account("acme_account_1", NOW)) == AccountView(
        id="acme_account_1",
        name="letsencrypt",
        provider="letsencrypt",
        environment="staging",
        status="active",
        email="ops@a.example",
        directory_url=CA,
        account_url="https://ca.example/acct/1",
        key_thumbprint="thumb",
        capabilities=CapabilitiesView(True, {"classic": "as ever"}, False, ["ca.example"]),
        created_at=WHOLE,
    )


# --- DNS providers --------------------------------------------------------------------------------------------------


def test_a_provider_shows_its_settings_and_no_credentials(pool: Pool) -> None:
    assert document(pool, DNS_PROVIDERS, provider("dns_1", NOW)) == DnsProviderView(
        id="dns_1",
        name="route53",
        provider_type="route53",
        managed_zones=["a.example", "*.b.example"],
        is_active=True,
        config={"region": "eu-1", "nested": {"b": [1, 2], "a": None}},
        credentials_path=None,
        verified_at=None,
        health=HealthView("unknown"),
        created_at=WHOLE,
    )


def test_the_health_of_a_provider_is_that_of_its_last_verification(pool: Pool) -> None:
    connected = provider("dns_1", NOW)
    connected.verified(["a.example"], NOW + LATER)
    view = document(pool, DNS_PROVIDERS, connected)
    assert (view.health, view.verified_at) == (HealthView("healthy"), WHOLE + LATER)

    connected.verification_failed("credentials_rejected", "wrong key", NOW + 2 * LATER)
    apply(pool, DNS_PROVIDERS, recorded(connected, after=10))
    view = DNS_PROVIDERS.one(pool, TENANT, "dns_1")
    assert view.health == HealthView("failing", "credentials_rejected", "wrong key")
    assert view.verified_at == WHOLE + LATER

    connected.verified(["a.example"], NOW + 3 * LATER)
    apply(pool, DNS_PROVIDERS, recorded(connected, after=20))
    view = DNS_PROVIDERS.one(pool, TENANT, "dns_1")
    assert (view.health, view.verified_at) == (HealthView("healthy"), WHOLE + 3 * LATER)


def test_the_managed_zones_are_those_of_the_tenants_own_providers(pool: Pool) -> None:
    apply(pool, DNS_PROVIDERS, recorded(provider("dns_1", NOW), provider("dns_2", NOW, name="second")))
    other = provider("dns_3", NOW, OTHER_TENANT, managed_zones=("c.example",))
    apply(pool, DNS_PROVIDERS, recorded(other, by=BY_OTHER, after=10))

    zones = ("a.example", "*.b.example")
    assert managed_zones(pool, TENANT) == [ManagedZones("dns_1", zones, WHOLE), ManagedZones("dns_2", zones, WHOLE)]
    assert managed_zones(pool, OTHER_TENANT) == [ManagedZones("dns_3", ("c.example",), WHOLE)]


def test_the_embedded_zones_are_those_of_all_tenants_without_the_asterisk(pool: Pool) -> None:
    mine = provider("dns_1", NOW, provider_type="embedded")
    theirs = provider("dns_2", NOW, OTHER_TENANT, provider_type="embedded", managed_zones=("c.example",))
    elsewhere = provider("dns_3", NOW, name="elsewhere", managed_zones=("d.example",))
    apply(pool, DNS_PROVIDERS, recorded(mine, elsewhere))
    apply(pool, DNS_PROVIDERS, recorded(theirs, by=BY_OTHER, after=10))

    assert sorted(embedded_zones(pool)) == ["a.example", "b.example", "c.example"]


# --- secrets, tokens ------------------------------------------------------------------------------------------------


def test_a_secret_shows_its_newest_version_and_no_value(pool: Pool) -> None:
    secret = stored_secret("app/db", NOW)
    first = SecretView("app/db", 1, "kv", {"owner": "me"}, WHOLE, WHOLE)
    assert document(pool, SECRETS, secret) == first

    secret.add_version("json", {"owner": "you"}, "sealed_2", NOW + LATER)
    secret.add_version("json", {}, "sealed_3", NOW + 2 * LATER)
    apply(pool, SECRETS, recorded(secret, after=10))

    newest = SecretView("app/db", 3, "json", {}, WHOLE, WHOLE + 2 * LATER)
    assert SECRETS.one(pool, TENANT, secret.id) == newest


def test_a_token_is_active_until_it_is_revoked(pool: Pool) -> None:
    issued = token("tok_1", NOW)
    expires_at = WHOLE + timedelta(days=90)
    active = TokenView("tok_1", "edge", ["pki:read", "pki:export"], "active", expires_at, WHOLE)
    assert document(pool, TOKENS, issued) == active

    issued.revoke(NOW + LATER)
    apply(pool, TOKENS, recorded(issued, after=10))

    revoked = TokenView("tok_1", "edge", ["pki:read", "pki:export"], "revoked", expires_at, WHOLE)
    assert TOKENS.one(pool, TENANT, "tok_1") == revoked


def test_usable_are_the_tokens_that_are_neither_revoked_nor_expired(pool: Pool) -> None:
    expires_at = WHOLE + timedelta(days=90)
    revoked = token("tok_2", NOW)
    revoked.revoke(NOW + LATER)
    apply(pool, TOKENS, recorded(token("tok_1", NOW), revoked, token("tok_3", NOW)))
    apply(pool, TOKENS, recorded(token("tok_4", NOW, OTHER_TENANT), by=BY_OTHER, after=10))
    apply(pool, TOKENS, recorded(token("tok_5", NOW + timedelta(days=1)), after=20))
    asked = ["tok_1", "tok_2", "tok_4", "tok_5", "tok_nobody"]

    assert usable(pool, asked, NOW) == {"tok_1", "tok_4", "tok_5"}
    assert usable(pool, asked, expires_at - timedelta(microseconds=1)) == {"tok_1", "tok_4", "tok_5"}
    assert usable(pool, asked, expires_at) == {"tok_5"}
    assert usable(pool, [], NOW) == frozenset()


@pytest.mark.parametrize(
    ("view", "make"),
    [(ACCOUNTS, account), (DNS_PROVIDERS, provider), (SUBSCRIPTIONS, subscription), (TOKENS, token)],
    ids=["accounts", "dns_providers", "subscriptions", "tokens"],
)
def test_no_view_shows_a_tenant_what_is_anothers(
    view: DocumentView, make: Callable[[str, datetime], BaseAggregate[str]], pool: Pool
) -> None:
    apply(pool, view, recorded(make("x_1", NOW)))

    assert view.one(pool, TENANT, "x_1") is not None
    assert view.one(pool, OTHER_TENANT, "x_1") is None
    assert view.page(pool, OTHER_TENANT, 0, 10, {}) == []
