"""Subscribing to events."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from application.caller import Caller
from application.secret_value import SecretValue
from application.subscriptions import SEALED_KIND
from domain.errors import Denied, InvalidFields
from domain.subscription import EVENT_TYPES, Subscription
from domain.token import Scope
from tests.application.world import OWNER, World, caller, field_codes
from tests.servers.https import ca_bundle_pem

BUNDLE = ca_bundle_pem()

OWN = SecretValue("sixteen letters!")


@pytest.fixture
def world() -> World:
    return World()


def subscribe(world: World, caller: Caller = OWNER, **wrong: Any) -> tuple[str, SecretValue | None]:
    right: dict[str, Any] = {
        "name": "edges",
        "paths": ["pki/certificates/*"],
        "events": ["certificate.renewed"],
        "url": "https://hooks.acme.example/a?b=c",
        "secret": OWN,
        "ca_bundle_pem": None,
    }
    return world.subscriptions.subscribe(**{**right, **wrong}, caller=caller)


def test_a_subscription_is_kept_with_whose_it_is(world: World) -> None:
    subscription_id, _ = subscribe(world, ca_bundle_pem=BUNDLE, events=["order.invalid", *EVENT_TYPES])
    (subscribed,) = world.events(subscription_id)
    assert isinstance(subscribed, Subscription.Subscribed)
    assert (subscribed.tenant_id, subscribed.identity_id) == (OWNER.tenant_id, OWNER.token_id)
    assert (subscribed.paths, subscribed.event_types) == (("pki/certificates/*",), EVENT_TYPES)
    assert (subscribed.target.url, subscribed.target.ca_bundle_pem) == (
        "https://hooks.acme.example/a?b=c",
        BUNDLE,
    )


def test_a_secret_of_ones_own_is_sealed_and_not_shown(world: World) -> None:
    subscription_id, shown = subscribe(world)
    assert shown is None
    assert sealed_secret(world, subscription_id) == OWN
    assert OWN.reveal_text() not in repr(world.recorded)


def test_a_generated_secret_is_shown_this_once(world: World) -> None:
    subscription_id, shown = subscribe(world, secret=None)
    assert shown is not None
    text = shown.reveal_text()
    assert text.startswith("whsec_")
    assert len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) == 32
    assert sealed_secret(world, subscription_id) == shown
    assert text not in repr(world.recorded)
    assert subscribe(world, secret=None)[1] != shown


def sealed_secret(world: World, subscription_id: str) -> SecretValue:
    target = world.store.load(Subscription, subscription_id).target
    return world.sealed.open(SEALED_KIND, OWNER.tenant_id, subscription_id, target.sealed_secret_id)


@pytest.mark.parametrize(
    ("wrong", "codes"),
    [
        ({"paths": []}, {"paths": "required"}),
        ({"paths": ["pki/**", "/pki", "pki/a**"]}, {"paths[1]": "invalid_glob", "paths[2]": "invalid_glob"}),
        ({"paths": [""]}, {"paths[0]": "invalid_glob"}),
        ({"events": []}, {"events": "required"}),
        ({"events": ["certificate.renewed", "certificate.*"]}, {"events[1]": "unknown"}),
        ({"url": "ftp://hooks.acme.example"}, {"delivery.url": "invalid"}),
        ({"url": "https://"}, {"delivery.url": "invalid"}),
        ({"url": "hooks.acme.example"}, {"delivery.url": "invalid"}),
        ({"url": "https://user:pass@hooks.acme.example"}, {"delivery.url": "invalid"}),
        ({"url": "https://[::1"}, {"delivery.url": "invalid"}),
        ({"url": "https://[acme]/"}, {"delivery.url": "invalid"}),
        ({"url": "https://hooks.acme.example:99999/"}, {"delivery.url": "invalid"}),
        ({"url": "https://hooks.acme.example:port/"}, {"delivery.url": "invalid"}),
        ({"secret": SecretValue("fifteen letters")}, {"delivery.secret": "too_short"}),
        ({"paths": [], "url": ""}, {"paths": "required", "delivery.url": "invalid"}),
    ],
)
def test_each_wrong_field_is_named(world: World, wrong: dict[str, Any], codes: dict[str, str]) -> None:
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        subscribe(world, **wrong)
    assert field_codes(refusal) == codes
    assert world.sealed.sealed == 0


@pytest.mark.parametrize("paths", [["pki/**"], ["pki/certificates/cert_1", "pki/acme/orders/*"]])
def test_pki_admin_may_subscribe_below_pki(world: World, paths: list[str]) -> None:
    subscribe(world, caller("pki:admin"), paths=paths)


@pytest.mark.parametrize(
    ("scope", "paths"),
    [
        ("pki:admin", ["**"]),
        ("pki:admin", ["*/certificates/*"]),
        ("pki:admin", ["pki"]),
        ("pki:admin", ["pkix/**"]),
        ("pki:admin", ["pk?/**"]),
        ("pki:admin", ["pki/**", "secrets/**"]),
        ("pki:issue", ["pki/**"]),
        ("subscriptions:read", ["pki/**"]),
    ],
)
def test_more_than_that_needs_the_scope_for_it(world: World, scope: Scope, paths: list[str]) -> None:
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        subscribe(world, caller(scope), paths=paths)
    assert (refusal.value.code, refusal.value.required) == ("insufficient_scope", "subscriptions:write")
    subscribe(world, caller("subscriptions:write"), paths=paths)
