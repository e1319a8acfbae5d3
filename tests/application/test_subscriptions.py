"""Subscribing to events."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from application import announcements, subscriptions
from application.caller import Caller
from application.errors import EgressRefused, EndpointUnreachable, ResolverFailed
from application.ports import WebhookResponse
from application.secret_value import SecretValue
from application.webhooks import SEALED_KIND
from application.wishes import MOST_WILDCARDS, Changes, Wish
from domain.access import SubscriptionTested
from domain.announcement import EVENT_TYPES, TEST
from domain.delivery import DEAD_LETTERS_KEPT, Delivery
from domain.errors import Denied, InvalidFields, NotFound, TooMany
from domain.event import DomainEvent
from domain.provenance import Provenance
from domain.subscription import MOST_REPLAYS, Subscription
from domain.token import Limits, Scope
from tests.application.world import OWNER, STRANGER, World, caller, field_codes
from tests.servers.https import ca_bundle_pem

BUNDLE = ca_bundle_pem()

OWN = SecretValue("sixteen letters!")
HOUR = timedelta(hours=1)
WILD = "/".join(["*"] * MOST_WILDCARDS)


@pytest.fixture
def world() -> World:
    return World()


def subscribe(world: World, caller: Caller = OWNER, **wrong: Any) -> tuple[str, SecretValue | None]:
    right: dict[str, Any] = {
        "name": "edges",
        "paths": ["pki/certificates/*"],
        "events": ["certificate.renewed"],
        "url": "https://hooks.acme.example/a?b=c",
    }
    secret = wrong.pop("secret", OWN)
    return world.subscriptions.subscribe(Wish(**{**right, **wrong}), secret, caller)


def test_a_subscription_is_kept_with_whose_it_is(world: World) -> None:
    subscription_id, _ = subscribe(world, ca_bundle_pem=BUNDLE, events=["order.invalid", *EVENT_TYPES])
    (subscribed,) = world.events(subscription_id)
    assert isinstance(subscribed, Subscription.Subscribed)
    assert (subscribed.tenant_id, subscribed.identity_id) == (OWNER.tenant_id, OWNER.token_id)
    assert (subscribed.paths, subscribed.event_types) == (("pki/certificates/*",), EVENT_TYPES)
    subscription = world.subscription(subscription_id)
    assert (subscription.url, subscription.ca_bundle_pem) == ("https://hooks.acme.example/a?b=c", BUNDLE)


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
    (sealed_id,) = world.subscription(subscription_id).secrets_in_force(world.clock.now())
    return world.sealed.open(SEALED_KIND, OWNER.tenant_id, subscription_id, sealed_id)


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
        ({"secret": SecretValue("fifteen letters")}, {"delivery.secret": "length"}),
        ({"secret": SecretValue("x" * 513)}, {"delivery.secret": "length"}),
        ({"paths": ["pki/" + "*a" * 17]}, {"paths[0]": "invalid_glob"}),
        ({"paths": [f"{WILD}/?"]}, {"paths[0]": "invalid_glob"}),
        ({"paths": ["pki/a"] * 101}, {"paths": "too_many"}),
        ({"events": [TEST]}, {"events[0]": "unknown"}),
        ({"events": ["order.invalid"] * 101}, {"events": "too_many"}),
        ({"domains": ["a" * 254]}, {"filters.domains[0]": "invalid_glob"}),
        (
            {"domains": ["*", "[ab].example", "b*ü.example"]},
            {
                "filters.domains[1]": "invalid_glob",
                "filters.domains[2]": "invalid_glob",
            },
        ),
        ({"paths": ["a" * 512] * 33}, {"paths": "too_long"}),
        ({"paths": ["a" * 512] * 32, "domains": ["a"]}, {"paths": "too_long"}),
        ({"domains": ["*"] * 101}, {"filters.domains": "too_many"}),
        ({"buffer_size": 10_001}, {"delivery.buffer_size": "out_of_range"}),
        ({"ca_bundle_pem": "no certificate"}, {"delivery.ca_bundle_pem": "invalid"}),
        ({"domains": [""]}, {"filters.domains[0]": "invalid_glob"}),
        ({"buffer_size": 0}, {"delivery.buffer_size": "out_of_range"}),
        ({"url": None, "ca_bundle_pem": BUNDLE}, {"delivery.ca_bundle_pem": "not_a_webhook"}),
        ({"paths": [], "url": ""}, {"paths": "required", "delivery.url": "invalid"}),
    ],
)
def test_each_wrong_field_is_named(world: World, wrong: dict[str, Any], codes: dict[str, str]) -> None:
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        subscribe(world, **wrong)
    assert field_codes(refusal) == codes
    assert world.sealed.sealed == 0


@pytest.mark.parametrize(
    "right",
    [
        {"paths": [WILD]},
        {"paths": ["pki/**"] * 100},
        {"domains": ["a" * 253, "*"]},
        {"buffer_size": 1},
        {"buffer_size": 10_000},
        {"secret": SecretValue("a" * 16)},
        {"secret": SecretValue("a" * 512)},
        {"url": "http://hooks.acme.example:8080/a?b=c"},
    ],
)
def test_what_is_just_within_the_limits_is_accepted(world: World, right: dict[str, Any]) -> None:
    subscribe(world, **right)


def test_who_polls_needs_no_secret_and_no_address(world: World) -> None:
    subscription_id, shown = subscribe(world, url=None, secret=None, buffer_size=7)
    (subscribed,) = world.events(subscription_id)
    assert isinstance(subscribed, Subscription.Subscribed)
    assert (subscribed.target, subscribed.buffer_size, shown) == (None, 7, None)
    assert (world.sealed.sealed, world.network.asked) == (0, [])


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


def disable(world: World, subscription_id: str) -> None:
    subscription = world.subscription(subscription_id)
    subscription.disable("gone", world.clock.now())
    world.store.record(subscription, by=OWNER.provenance)


# --- where to ---

INSIDE, UNKNOWN = "https://inside.example/", "https://unknown.example/"


@pytest.fixture
def networked(world: World) -> World:
    world.network.failures = {INSIDE: EgressRefused("not to be dialled"), UNKNOWN: ResolverFailed("no such name")}
    return world


def test_an_address_that_must_not_be_dialled_is_refused_and_an_unknown_one_is_not(networked: World) -> None:
    with networked.records_nothing(), pytest.raises(InvalidFields) as refusal:
        subscribe(networked, url=INSIDE)
    assert field_codes(refusal) == {"delivery.url": "forbidden_address"}
    assert networked.sealed.sealed == 0
    subscribe(networked, url=UNKNOWN)


def test_a_new_address_is_looked_at_and_the_old_one_is_not_again(networked: World) -> None:
    subscription_id, _ = subscribe(networked)
    networked.network.asked.clear()
    networked.subscriptions.revise(subscription_id, Changes(name="another"), OWNER)
    assert networked.network.asked == []
    with networked.records_nothing(), pytest.raises(InvalidFields) as refusal:
        networked.subscriptions.revise(subscription_id, Changes(url=INSIDE), OWNER)
    assert field_codes(refusal) == {"delivery.url": "forbidden_address"}


# --- changing ---


def revised(world: World, subscription_id: str, **changes: Any) -> list[DomainEvent]:
    before = len(world.events(subscription_id))
    world.subscriptions.revise(subscription_id, Changes(**changes), OWNER)
    return list(world.events(subscription_id)[before:])


def test_what_is_not_said_stays(world: World) -> None:
    subscription_id, _ = subscribe(world, ca_bundle_pem=BUNDLE, domains=["*.a.example"], ordered=True)
    (event,) = revised(world, subscription_id, paths=["pki/**"], ca_bundle_pem=None)
    assert isinstance(event, Subscription.Revised)
    assert (event.paths, event.ca_bundle_pem) == (("pki/**",), None)
    assert (event.name, event.event_types, event.dns_names) == ("edges", ("certificate.renewed",), ("*.a.example",))
    assert (event.url, event.ordered, event.identity_id) == ("https://hooks.acme.example/a?b=c", True, OWNER.token_id)


def test_the_same_again_records_nothing(world: World) -> None:
    subscription_id, _ = subscribe(world)
    assert revised(world, subscription_id, name="edges", status="active") == []
    assert [type(each) for each in revised(world, subscription_id, status="paused")] == [Subscription.Paused]
    assert revised(world, subscription_id, status="paused") == []
    assert [type(each) for each in revised(world, subscription_id, status="active")] == [Subscription.Resumed]


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"name": "all edges"}, "name", "all edges"),
        ({"paths": ["pki/**"]}, "paths", ("pki/**",)),
        ({"events": ["order.invalid", "certificate.issued"]}, "event_types", ("certificate.issued", "order.invalid")),
        ({"domains": ["acme.example"]}, "dns_names", ("acme.example",)),
        ({"url": "https://new.acme.example/"}, "url", "https://new.acme.example/"),
        ({"ca_bundle_pem": BUNDLE}, "ca_bundle_pem", BUNDLE),
        ({"ordered": True}, "ordered", True),
    ],
)
def test_each_of_its_terms_can_be_changed(world: World, changes: dict[str, Any], field: str, value: object) -> None:
    subscription_id, _ = subscribe(world)
    (event,) = revised(world, subscription_id, **changes)
    assert getattr(world.subscription(subscription_id), field) == value
    assert revised(world, subscription_id, **changes) == []
    assert world.recorder.history[-1].event == event
    assert world.recorder.history[-1].by == OWNER.provenance


def test_terms_and_status_are_changed_together(world: World) -> None:
    subscription_id, _ = subscribe(world)
    events = revised(world, subscription_id, status="paused", name="another")
    assert [type(event) for event in events] == [Subscription.Revised, Subscription.Paused]


def test_a_disabled_subscription_is_enabled_again_but_not_paused(world: World) -> None:
    subscription_id, _ = subscribe(world)
    disable(world, subscription_id)
    assert revised(world, subscription_id, status="paused") == []
    assert [type(event) for event in revised(world, subscription_id, status="active")] == [Subscription.Enabled]
    assert world.subscription(subscription_id).status == "active"


@pytest.mark.parametrize(
    ("url", "changes", "codes"),
    [
        ("https://hooks.acme.example/", {"url": None}, {"delivery.url": "invalid"}),
        ("https://hooks.acme.example/", {"buffer_size": 5}, {"delivery.buffer_size": "not_polling"}),
        (None, {"url": "https://a.example/"}, {"delivery.url": "invalid"}),
        (None, {"ordered": False}, {"delivery.ordered": "not_a_webhook"}),
        (None, {"ca_bundle_pem": BUNDLE}, {"delivery.ca_bundle_pem": "not_a_webhook"}),
        (
            None,
            {"ordered": True, "status": "active"},
            {"delivery.ordered": "not_a_webhook", "status": "not_a_webhook"},
        ),
    ],
)
def test_a_subscription_stays_what_it_is(
    world: World, url: str | None, changes: dict[str, Any], codes: dict[str, str]
) -> None:
    subscription_id, _ = subscribe(world, url=url)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        revised(world, subscription_id, **changes)
    assert field_codes(refusal) == codes


def test_the_buffer_of_who_polls_can_be_changed(world: World) -> None:
    subscription_id, _ = subscribe(world, url=None)
    assert len(revised(world, subscription_id, buffer_size=5)) == 1
    assert world.subscription(subscription_id).buffer_size == 5
    assert revised(world, subscription_id, buffer_size=5) == []


def test_domains_are_kept_in_the_form_in_which_names_are(world: World) -> None:
    subscription_id, _ = subscribe(world, domains=["*.ACME.example", "Bücher.example."], events=["certificate.issued"])
    assert world.subscription(subscription_id).dns_names == ("*.acme.example", "xn--bcher-kva.example")
    world.announce("www.acme.example")
    world.follow()
    assert len(world.owed(subscription_id)) == 1
    assert revised(world, subscription_id, domains=["*.acme.EXAMPLE", "bücher.example"]) == []


# --- how many ---


def test_a_tenant_has_so_many_subscriptions_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MOST_SUBSCRIPTIONS", 2)
    first, _ = (subscribe(world)[0] for _ in range(2))
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        subscribe(world)
    assert field_codes(refusal) == {"name": "too_many"}
    assert world.sealed.sealed == 2
    subscribe(world, STRANGER)
    revised(world, first, paths=["pki/**", "pki/certificates/*"])
    world.subscriptions.unsubscribe(first, OWNER)
    subscribe(world)


def test_all_patterns_of_a_tenant_together_have_a_length(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MOST_CHARACTERS", 20)
    first, _ = subscribe(world, paths=["pki/**"], domains=["*.example"])
    second, _ = subscribe(world, paths=["pki/*"])
    for wider in (
        lambda: subscribe(world, paths=["a"]),
        lambda: revised(world, second, paths=["pki/**"]),
        lambda: revised(world, second, domains=["a"]),
    ):
        with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
            wider()
        assert field_codes(refusal) == {"paths": "too_many"}
    subscribe(world, STRANGER, paths=["pki/**"])
    revised(world, second, paths=["pki/a"])
    revised(world, first, domains=[])
    revised(world, second, paths=["pki/**"])


def test_so_many_replays_are_under_way_and_no_more(world: World) -> None:
    subscription_id = world.subscribe()
    world.announce()

    def replay() -> None:
        world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=False)

    for _ in range(MOST_REPLAYS):
        replay()
    with world.records_nothing():
        with pytest.raises(TooMany):
            replay()
        world.subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=True)
    world.run_for(timedelta(seconds=1))
    replay()


def test_what_a_replay_would_send_is_counted_for_so_long_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "PAGE", 2)
    monkeypatch.setattr(subscriptions, "MOST_PAGES", 3)
    told = [world.announce("a.example" if number < 8 else "b.example") for number in range(9)]

    def replay(domains: list[str], since: int = 1, *, dry_run: bool = True) -> tuple[int, int]:
        subscription_id = subscribe(world, domains=domains, events=["certificate.issued"])[0]
        plan = world.subscriptions.replay(subscription_id, since, None, OWNER, dry_run=dry_run)
        return plan.count, plan.counted_upto

    last = told[-1].position
    assert replay(["a.example"]) == (6, told[5].position)
    assert replay(["a.example"], since=told[5].position) == (3, last)
    assert replay(["b.example"]) == (0, told[5].position)
    assert replay(["b.example"], dry_run=False) == (0, told[5].position)
    world.run_for(timedelta(seconds=1))
    assert [owed.position for owed in world.owed()] == [last]


def test_a_change_to_more_than_pki_needs_the_scope_for_it(world: World) -> None:
    subscription_id, _ = subscribe(world)
    wider = Changes(paths=["pki/**", "secrets/**"])
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.subscriptions.revise(subscription_id, wider, caller("pki:admin"))
    assert refusal.value.required == "subscriptions:write"


def test_a_limited_token_does_not_widen_what_it_hears_of(world: World) -> None:
    edge = limited(certificate_ids=("cert_1",))
    subscription_id, _ = subscribe(world, edge, paths=["pki/certificates/cert_1"])
    world.subscriptions.revise(subscription_id, Changes(name="another"), edge)
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.subscriptions.revise(subscription_id, Changes(paths=["pki/certificates/*"]), edge)
    assert refusal.value.code == "access_denied"


def test_a_wrong_change_changes_nothing(world: World) -> None:
    subscription_id, _ = subscribe(world)
    polled_id, _ = subscribe(world, url=None)
    for wrong_id, wrong in ((subscription_id, {"paths": ["/"]}), (polled_id, {"url": "https://a.example/"})):
        with world.records_nothing(), pytest.raises(InvalidFields):
            world.subscriptions.revise(wrong_id, Changes(**wrong, status="paused"), OWNER)


def other_token(world: World, tenant_id: str = OWNER.tenant_id) -> str:
    by = Provenance(tenant_id, "operator", "root")
    scopes: tuple[Scope, ...] = ("subscriptions:read",)
    world.tokens.issue(
        tenant_id=tenant_id, name=None, scopes=scopes, limits=Limits(), valid_for=timedelta(days=1), by=by
    )
    return world.recorded[-1].originator_id


def test_its_owner_hands_a_subscription_over_to_another_token(world: World) -> None:
    subscription_id, token_id = subscribe(world)[0], other_token(world)
    world.subscriptions.revise(subscription_id, Changes(identity_id=token_id), caller("subscriptions:write"))
    assert world.subscription(subscription_id).identity_id == token_id


def test_somebody_else_s_is_handed_over_by_an_admin_alone(world: World) -> None:
    subscription_id, token_id = subscribe(world)[0], other_token(world)
    somebody = msgspec.structs.replace(caller("subscriptions:write"), token_id="tok_9")
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.subscriptions.revise(subscription_id, Changes(identity_id=token_id), somebody)
    assert refusal.value.required == "admin"
    admin = msgspec.structs.replace(caller("subscriptions:write", "admin"), token_id="tok_9")
    world.subscriptions.revise(subscription_id, Changes(identity_id=token_id), admin)
    assert world.subscription(subscription_id).identity_id == token_id


def test_nobody_gets_a_subscription_who_is_not_there(world: World) -> None:
    subscription_id = subscribe(world)[0]
    revoked = other_token(world)
    world.tokens.revoke(revoked, OWNER.provenance)
    for token_id in ("tok_unknown", subscription_id, other_token(world, STRANGER.tenant_id), revoked):
        with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
            revised(world, subscription_id, identity_id=token_id)
        assert field_codes(refusal) == {"identity_id": "unknown"}


def test_to_be_handed_to_whom_it_belongs_already_changes_nothing(world: World) -> None:
    subscription_id = subscribe(world)[0]
    assert revised(world, subscription_id, identity_id=OWNER.token_id) == []


# --- who ---


def limited(**limits: Any) -> Caller:
    return caller("subscriptions:write", "pki:admin", limits=Limits(**limits))


@pytest.mark.parametrize(
    ("limits", "paths", "fits"),
    [
        ({"certificate_ids": ("cert_1",)}, ["pki/certificates/cert_1"], True),
        ({"certificate_ids": ("cert_1", "cert_2")}, ["pki/certificates/cert_2"], True),
        ({"certificate_ids": ("cert_1",)}, ["pki/certificates/cert_1", "pki/certificates/cert_2"], False),
        ({"certificate_ids": ("cert_1",)}, ["pki/certificates/cert_?"], False),
        ({"certificate_ids": ("cert_1",)}, ["pki/**"], False),
        ({"dns_names": ("*.acme.example",)}, ["pki/certificates/cert_1"], False),
        ({"dns_names": ("*",), "certificate_ids": ("cert_1",)}, ["pki/certificates/cert_1"], False),
        ({"networks": ("192.0.2.0/24",)}, ["pki/**"], True),
    ],
)
def test_a_limited_token_hears_of_the_certificates_alone_that_it_is_for(
    world: World, limits: dict[str, Any], paths: list[str], *, fits: bool
) -> None:
    if fits:
        subscribe(world, limited(**limits), paths=paths)
        return
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        subscribe(world, limited(**limits), paths=paths)
    assert refusal.value.code == "access_denied"


Command = Callable[[World, str, Caller], object]
COMMANDS: dict[str, Command] = {
    "revise": lambda world, subscription_id, by: world.subscriptions.revise(subscription_id, Changes(name="other"), by),
    "unsubscribe": lambda world, subscription_id, by: world.subscriptions.unsubscribe(subscription_id, by),
    "rotate_secret": lambda world, subscription_id, by: world.subscriptions.rotate_secret(
        subscription_id, None, HOUR, by
    ),
    "test": lambda world, subscription_id, by: world.subscriptions.test(subscription_id, by),
    "redeliver": lambda world, subscription_id, by: world.subscriptions.redeliver(subscription_id, "del_1", by),
    "replay": lambda world, subscription_id, by: world.subscriptions.replay(
        subscription_id, 1, None, by, dry_run=False
    ),
}
EVERY_COMMAND = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@EVERY_COMMAND
def test_a_subscription_of_another_tenant_is_not_found(world: World, command: Command) -> None:
    subscription_id = subscribe(world)[0]
    with world.records_nothing(), pytest.raises(NotFound) as refusal:
        command(world, subscription_id, STRANGER)
    assert (refusal.value.kind, refusal.value.subject_id) == ("subscription", subscription_id)
    assert world.sender.sent == []


@EVERY_COMMAND
def test_a_subscription_that_has_ended_is_not_found(world: World, command: Command) -> None:
    subscription_id = subscribe(world)[0]
    world.subscriptions.unsubscribe(subscription_id, OWNER)
    with world.records_nothing(), pytest.raises(NotFound):
        command(world, subscription_id, OWNER)


@EVERY_COMMAND
def test_what_pki_admin_could_not_make_it_does_not_change(world: World, command: Command) -> None:
    subscription_id = subscribe(world, paths=["secrets/**"])[0]
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        command(world, subscription_id, caller("pki:admin"))
    assert refusal.value.required == "subscriptions:write"


@EVERY_COMMAND
def test_what_a_limited_token_could_not_make_it_does_not_change(world: World, command: Command) -> None:
    subscription_id = subscribe(world, paths=["pki/**"])[0]
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        command(world, subscription_id, caller("pki:admin", limits=Limits(certificate_ids=("cert_1",))))
    assert refusal.value.code == "access_denied"


@pytest.mark.parametrize("name", ["rotate_secret", "test"])
def test_who_polls_has_neither_a_secret_nor_a_receiver(world: World, name: str) -> None:
    subscription_id = subscribe(world, url=None)[0]
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        COMMANDS[name](world, subscription_id, OWNER)
    assert field_codes(refusal) == {"delivery.type": "not_a_webhook"}


@pytest.mark.parametrize("name", ["redeliver", "replay"])
def test_to_a_disabled_subscription_nothing_is_sent_again(world: World, name: str) -> None:
    subscription_id = subscribe(world)[0]
    disable(world, subscription_id)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        COMMANDS[name](world, subscription_id, OWNER)
    assert field_codes(refusal) == {"status": "disabled"}


# --- secrets ---


def test_during_the_overlap_both_sign_the_new_one_first_and_then_the_old_one_is_destroyed(world: World) -> None:
    subscription_id, _ = subscribe(world, secret=None, events=["certificate.issued"])
    old = sealed_secret(world, subscription_id)
    new, until = world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER)
    assert new is not None
    assert until == world.clock.now() + HOUR
    assert new.reveal_text() not in repr(world.recorded)

    def signed_with() -> list[str]:
        world.announce()
        world.follow()
        world.run_for(timedelta(seconds=1))
        request = world.sender.sent[-1]
        signed = f"{request.headers['X-ScaiVault-Timestamp']}.".encode() + request.body
        known = {
            hmac.digest(each.reveal(), signed, "sha256").hex(): name for each, name in ((old, "old"), (new, "new"))
        }
        return [known[value.removeprefix("sha256=")] for value in request.headers["X-ScaiVault-Signature"].split()]

    assert signed_with() == ["new", "old"]
    world.clock.set(until)
    assert signed_with() == ["new"]
    world.run_until_quiet()
    assert world.sealed.sealed == 1


def test_a_second_rotation_ends_the_oldest_at_once(world: World) -> None:
    subscription_id, _ = subscribe(world)
    for _ in range(2):
        world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER)
    assert len(world.subscription(subscription_id).secrets_in_force(world.clock.now())) == 2
    world.run_for(timedelta(seconds=1))
    assert world.sealed.sealed == 2


@pytest.mark.parametrize(
    ("secret", "overlap", "codes"),
    [(SecretValue("short"), HOUR, {"secret": "length"}), (None, timedelta(days=31), {"overlap": "too_long"})],
)
def test_a_wrong_rotation_changes_nothing(
    world: World, secret: SecretValue | None, overlap: timedelta, codes: dict[str, str]
) -> None:
    subscription_id, _ = subscribe(world)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.subscriptions.rotate_secret(subscription_id, secret, overlap, OWNER)
    assert field_codes(refusal) == codes
    assert world.sealed.sealed == 1


def test_at_the_end_all_secrets_are_destroyed(world: World) -> None:
    subscription_id, _ = subscribe(world)
    world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER)
    world.subscriptions.unsubscribe(subscription_id, OWNER)
    world.run_for(timedelta(seconds=1))
    assert world.sealed.sealed == 0


# --- trying it ---


def test_a_trial_is_sent_at_once_and_is_on_record_but_in_no_history_of_announcements(world: World) -> None:
    subscription_id, _ = subscribe(world)
    world.sender.answers.append(WebhookResponse(400, None, b"what is this"))
    event_id, outcome = world.subscriptions.test(subscription_id, OWNER)
    (request,) = world.sender.sent
    body = msgspec.json.decode(request.body)
    assert (body["event_type"], body["sequence"], body["event_id"]) == ("subscription.test", 0, event_id)
    assert (outcome.status, outcome.is_taken, outcome.text) == (400, False, "what is this")
    assert isinstance(world.recorded[-1], SubscriptionTested)
    assert world.views.announced(0, 10) == []


def test_a_trial_has_the_form_of_an_event_and_is_signed_as_one(world: World) -> None:
    subscription_id, _ = subscribe(world)
    world.subscriptions.rotate_secret(subscription_id, None, HOUR, OWNER)
    event_id, _ = world.subscriptions.test(subscription_id, OWNER)
    (request,) = world.sender.sent
    assert msgspec.json.decode(request.body) == {
        "event_id": event_id,
        "event_type": TEST,
        "timestamp": world.clock.now().isoformat().replace("+00:00", "Z"),
        "tenant_id": OWNER.tenant_id,
        "identity_id": OWNER.token_id,
        "path": f"subscriptions/{subscription_id}",
        "sequence": 0,
        "data": {"subscription_id": subscription_id},
        "request_id": OWNER.request_id,
    }
    assert (request.headers["X-ScaiVault-Event-Type"], request.headers["webhook-id"]) == (TEST, event_id)
    assert len(request.headers["X-ScaiVault-Signature"].split()) == 2


@pytest.mark.parametrize(
    ("answer", "status", "detail"),
    [
        (WebhookResponse(204, None), 204, "the receiver answered 204"),
        (WebhookResponse(410, None), 410, "the receiver answered 410"),
        (EndpointUnreachable("connection refused"), None, "connection refused"),
        (EgressRefused("10.0.0.1 must not be dialled"), None, "10.0.0.1 must not be dialled"),
    ],
)
def test_how_a_trial_went_is_on_record_and_changes_nothing_else(
    world: World, answer: Any, status: int | None, detail: str
) -> None:
    subscription_id = subscribe(world)[0]
    world.sender.answers.append(answer)
    before = len(world.recorded)
    _, outcome = world.subscriptions.test(subscription_id, OWNER)
    (tested,) = world.recorded[before:]
    assert isinstance(tested, SubscriptionTested)
    assert (tested.subscription_id, tested.status, tested.detail) == (subscription_id, status, detail)
    assert (outcome.status, outcome.detail) == (status, detail)
    assert world.recorder.history[-1].by == OWNER.provenance
    assert world.todo == []


def test_a_paused_subscription_can_be_tried(world: World) -> None:
    subscription_id = subscribe(world)[0]
    revised(world, subscription_id, status="paused")
    assert world.subscriptions.test(subscription_id, OWNER)[1].is_taken


# --- again ---


def test_a_dead_letter_is_sent_again_from_the_first_attempt_on(world: World) -> None:
    delivery_id = world.owe()
    subscription_id = world.delivery(delivery_id).subscription_id
    world.sender.answers.extend([WebhookResponse(500, None)] * 13)
    world.run_until_quiet()
    assert world.delivery(delivery_id).ended == "dead"
    world.subscriptions.redeliver(subscription_id, delivery_id, OWNER)
    assert world.delivery(delivery_id).attempts == 0
    world.run_until_quiet()
    assert world.delivery(delivery_id).ended == "delivered"
    with pytest.raises(NotFound):
        world.subscriptions.redeliver(subscribe(world)[0], delivery_id, OWNER)


def test_what_was_taken_is_sent_again(world: World) -> None:
    delivery_id = world.owe()
    world.run_until_quiet()
    world.subscriptions.redeliver(world.owed()[0].subscription_id, delivery_id, OWNER)
    world.run_until_quiet()
    assert len(world.sender.sent) == 2


def test_what_waits_for_its_next_attempt_is_sent_at_once(world: World) -> None:
    delivery_id = world.owe()
    world.sender.answers.extend([WebhookResponse(500, 3600)])
    world.run_for(timedelta(seconds=1))
    world.subscriptions.redeliver(world.owed()[0].subscription_id, delivery_id, OWNER)
    world.run_for(timedelta(seconds=1))
    assert world.delivery(delivery_id).ended == "delivered"


def test_what_is_sent_anyway_is_not_asked_for_again(world: World) -> None:
    delivery_id = world.owe()
    with world.records_nothing():
        world.subscriptions.redeliver(world.owed()[0].subscription_id, delivery_id, OWNER)


def test_what_is_asked_for_during_a_pause_is_sent_after_it(world: World) -> None:
    delivery_id = world.owe()
    world.run_until_quiet()
    (owed,) = world.owed()
    revised(world, owed.subscription_id, status="paused")
    world.subscriptions.redeliver(owed.subscription_id, delivery_id, OWNER)
    world.run_until_quiet()
    assert len(world.sender.sent) == 1
    revised(world, owed.subscription_id, status="active")
    world.run_until_quiet()
    assert len(world.sender.sent) == 2


def test_a_delivery_of_another_subscription_or_of_nobody_is_not_found(world: World) -> None:
    delivery_id = world.owe()
    (owed,) = world.owed()
    for subscription_id, asked_for, kind in (
        (world.subscribe(), delivery_id, Delivery.TOPIC),
        (owed.subscription_id, "del_unknown", Delivery.TOPIC),
        (owed.subscription_id, owed.subscription_id, Delivery.TOPIC),
    ):
        with world.records_nothing(), pytest.raises(NotFound) as refusal:
            world.subscriptions.redeliver(subscription_id, asked_for, OWNER)
        assert refusal.value.kind == kind


def test_a_dead_letter_is_not_found_any_more_when_its_time_is_over(world: World) -> None:
    delivery_id = world.owe()
    (owed,) = world.owed()
    world.sender.answers.extend([WebhookResponse(410, None)])
    world.run_until_quiet()
    revised(world, owed.subscription_id, status="active")
    world.clock.advance(DEAD_LETTERS_KEPT + timedelta(microseconds=1))
    with world.records_nothing(), pytest.raises(NotFound) as refusal:
        world.subscriptions.redeliver(owed.subscription_id, delivery_id, OWNER)
    assert (refusal.value.kind, refusal.value.subject_id) == (Delivery.TOPIC, delivery_id)
    world.clock.advance(-timedelta(microseconds=1))
    world.subscriptions.redeliver(owed.subscription_id, delivery_id, OWNER)
    world.run_for(timedelta(seconds=1))
    world.clock.advance(10 * DEAD_LETTERS_KEPT)
    world.subscriptions.redeliver(owed.subscription_id, delivery_id, OWNER)  # it was taken, and is no dead letter
