from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.announcement import Announced
from domain.subscription import Replay, SigningSecret, Subscription, WebhookTarget
from domain.terms import Audience, Terms
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
OVERLAP = timedelta(hours=24)
TARGET = WebhookTarget("https://edge.example/hook", "sealed_1", None)
TERMS = Terms(
    subscription_id="sub_1",
    tenant_id="tnt_default",
    paths=("pki/certificates/*",),
    event_types=("certificate.renewed",),
    dns_names=(),
    ordered=False,
    after=10,
    upto=None,
)
RENEWED = Announced(
    position=11,
    event_id="evt_1",
    tenant_id="tnt_default",
    event_type="certificate.renewed",
    path="pki/certificates/cert_1",
    dns_names=("acme.example", "www.acme.example"),
    at=NOW,
    causation="cert_1@2",
    request_id="req_1",
    body="{}",
)


def subscribed(target: WebhookTarget | None = TARGET) -> Subscription:
    subscription = Subscription.subscribe(
        "sub_1",
        tenant_id="tnt_default",
        identity_id="tok_1",
        name="edge",
        paths=("pki/certificates/*",),
        event_types=("certificate.renewed",),
        target=target,
        dns_names=("*.acme.example",),
        ordered=True,
        buffer_size=10,
        now=NOW,
    )
    subscription.collect_events()
    return subscription


def given(*commands: Callable[[Subscription], object]) -> Subscription:
    """After all of these."""
    subscription = subscribed()
    for command in commands:
        command(subscription)
    subscription.collect_events()
    return subscription


def pause(subscription: Subscription) -> None:
    subscription.pause(NOW)


def disable(subscription: Subscription) -> None:
    subscription.disable("gone", NOW)


def resume(subscription: Subscription) -> None:
    subscription.resume(LATER)


def unsubscribe(subscription: Subscription) -> None:
    subscription.unsubscribe(NOW)


def rotate(sealed_id: str, now: datetime = NOW, overlap: timedelta = OVERLAP) -> Callable[[Subscription], None]:
    return lambda subscription: subscription.rotate_secret(sealed_id, overlap, now)


def replay(replay_id: str, after: int = 0, upto: int = 20) -> Callable[[Subscription], None]:
    return lambda subscription: subscription.request_replay(replay_id, after, upto, NOW)


# --- the wish -------------------------------------------------------------------------------------------------------


def test_a_webhook_s_subscription_keeps_the_wish_and_whose_it_is() -> None:
    subscription = Subscription.subscribe(
        "sub_1",
        tenant_id="tnt_default",
        identity_id="tok_1",
        name="edge",
        paths=("pki/certificates/*",),
        event_types=("certificate.renewed",),
        target=TARGET,
        dns_names=("*.acme.example",),
        ordered=True,
        buffer_size=10,
        now=NOW,
    )
    assert recorded(subscription, NOW) == [
        (
            Subscription.Subscribed,
            {
                "tenant_id": "tnt_default",
                "identity_id": "tok_1",
                "name": "edge",
                "paths": ("pki/certificates/*",),
                "event_types": ("certificate.renewed",),
                "target": TARGET,
                "dns_names": ("*.acme.example",),
                "ordered": True,
                "buffer_size": 10,
            },
        )
    ]
    assert (subscription.is_webhook, subscription.status, subscription.url) == (True, "active", TARGET.url)
    assert subscription.secrets_in_force(NOW) == ["sealed_1"]


def test_a_polling_subscription_has_no_address_and_no_secret() -> None:
    subscription = subscribed(target=None)
    assert (subscription.is_webhook, subscription.url, subscription.secrets) == (False, None, ())


def test_its_terms_are_what_it_asks_for_as_it_stands() -> None:
    subscription = subscribed()
    revise(subscription, paths=("pki/**",), ordered=False)
    assert subscription.terms() == Terms(
        "sub_1", "tnt_default", ("pki/**",), ("certificate.renewed",), ("*.acme.example",), False, 0, None
    )


# --- revising -------------------------------------------------------------------------------------------------------

TERMS_NOW: dict[str, Any] = {
    "identity_id": "tok_1",
    "name": "edge",
    "paths": ("pki/certificates/*",),
    "event_types": ("certificate.renewed",),
    "dns_names": ("*.acme.example",),
    "ordered": True,
    "buffer_size": 10,
    "url": "https://edge.example/hook",
    "ca_bundle_pem": None,
}
CHANGES: dict[str, Any] = {
    "identity_id": "tok_2",
    "name": "edges",
    "paths": ("pki/**",),
    "event_types": ("certificate.issued", "certificate.renewed"),
    "dns_names": (),
    "ordered": False,
    "buffer_size": 11,
    "url": "https://edge.example/other",
    "ca_bundle_pem": "bundle",
}


def revise(subscription: Subscription, **changes: Any) -> None:
    subscription.revise(**{**TERMS_NOW, **changes}, now=LATER)


@pytest.mark.parametrize("field", CHANGES)
def test_each_of_its_terms_can_be_revised_and_all_are_told(field: str) -> None:
    subscription = subscribed()
    revise(subscription, **{field: CHANGES[field]})
    assert recorded(subscription, LATER) == [(Subscription.Revised, {**TERMS_NOW, field: CHANGES[field]})]
    assert getattr(subscription, field) == CHANGES[field]


def test_the_terms_it_has_already_change_nothing() -> None:
    subscription = subscribed()
    revise(subscription)
    assert recorded(subscription, LATER) == []


# --- pausing, disabling, ending -------------------------------------------------------------------------------------


def test_a_subscription_is_paused() -> None:
    subscription = subscribed()
    subscription.pause(NOW)
    assert recorded(subscription, NOW) == [(Subscription.Paused, {})]
    assert subscription.status == "paused"


def test_a_paused_subscription_is_resumed() -> None:
    subscription = given(pause)
    subscription.resume(LATER)
    assert recorded(subscription, LATER) == [(Subscription.Resumed, {})]
    assert subscription.status == "active"


@pytest.mark.parametrize("before", [(), (pause,)], ids=["active", "paused"])
def test_a_subscription_is_disabled_and_what_was_to_be_replayed_is_forgotten(
    before: tuple[Callable[[Subscription], None], ...],
) -> None:
    subscription = given(replay("replay_1"), *before)
    subscription.disable("gone", NOW)
    assert recorded(subscription, NOW) == [(Subscription.Disabled, {"reason": "gone"})]
    assert (subscription.status, subscription.replays) == ("disabled", ())


def test_a_disabled_subscription_is_enabled_by_resuming_it_and_begins_anew() -> None:
    subscription = given(disable)
    subscription.resume(LATER)
    assert recorded(subscription, LATER) == [(Subscription.Enabled, {})]
    assert (subscription.status, subscription.tried_since) == ("active", LATER)


def test_a_subscription_ends_and_with_it_its_secrets_and_replays() -> None:
    subscription = given(rotate("sealed_2"), replay("replay_1"))
    subscription.unsubscribe(LATER)
    assert recorded(subscription, LATER) == [(Subscription.Unsubscribed, {})]
    assert (subscription.status, subscription.replays) == ("ended", ())
    assert subscription.secrets == (SigningSecret("sealed_2", LATER), SigningSecret("sealed_1", LATER))
    assert subscription.secrets_in_force(LATER) == []


@pytest.mark.parametrize(
    ("before", "again"),
    [
        ((), resume),
        ((pause,), pause),
        ((disable,), disable),
        ((disable,), pause),
        ((unsubscribe,), unsubscribe),
        ((unsubscribe,), pause),
        ((unsubscribe,), resume),
        ((unsubscribe,), disable),
    ],
)
def test_what_it_is_already_or_can_no_longer_become_changes_nothing(
    before: tuple[Callable[[Subscription], None], ...], again: Callable[[Subscription], None]
) -> None:
    subscription = given(*before)
    status = subscription.status
    again(subscription)
    assert recorded(subscription, NOW) == []
    assert subscription.status == status


# --- secrets --------------------------------------------------------------------------------------------------------


def test_a_rotated_secret_and_the_one_before_are_both_in_force_during_the_overlap() -> None:
    subscription = subscribed()
    subscription.rotate_secret("sealed_2", OVERLAP, NOW)
    assert recorded(subscription, NOW) == [
        (Subscription.SecretRotated, {"sealed_secret_id": "sealed_2", "previous_until": NOW + OVERLAP})
    ]
    assert subscription.secrets_in_force(NOW) == ["sealed_2", "sealed_1"]
    assert subscription.secrets_in_force(NOW + OVERLAP - timedelta(microseconds=1)) == ["sealed_2", "sealed_1"]
    assert subscription.secrets_in_force(NOW + OVERLAP) == ["sealed_2"]


def test_without_an_overlap_the_new_secret_is_alone_at_once() -> None:
    subscription = given(rotate("sealed_2", overlap=timedelta()))
    assert subscription.secrets_in_force(NOW) == ["sealed_2"]


def test_a_second_rotation_during_the_overlap_ends_the_oldest() -> None:
    subscription = given(rotate("sealed_2"), rotate("sealed_3", LATER))
    assert subscription.secrets == (
        SigningSecret("sealed_3", None),
        SigningSecret("sealed_2", LATER + OVERLAP),
        SigningSecret("sealed_1", LATER),
    )
    assert subscription.secrets_in_force(LATER) == ["sealed_3", "sealed_2"]


def test_shredded_secrets_are_forgotten() -> None:
    subscription = given(rotate("sealed_2"), rotate("sealed_3"))
    subscription.secrets_shredded(("sealed_1", "sealed_2"), LATER)
    assert recorded(subscription, LATER) == [
        (Subscription.SecretsShredded, {"sealed_secret_ids": ("sealed_1", "sealed_2")})
    ]
    assert subscription.secrets == (SigningSecret("sealed_3", None),)


# --- replays --------------------------------------------------------------------------------------------------------


def test_a_replay_is_still_to_be_owed() -> None:
    subscription = subscribed()
    subscription.request_replay("replay_1", 5, 20, NOW)
    assert recorded(subscription, NOW) == [
        (Subscription.ReplayRequested, {"replay_id": "replay_1", "after": 5, "upto": 20})
    ]
    assert subscription.replays == (Replay("replay_1", 5, 20, NOW),)


def test_a_replay_goes_on_behind_what_is_owed() -> None:
    subscription = given(replay("replay_1"))
    subscription.replay_advanced("replay_1", 19, LATER)
    assert recorded(subscription, LATER) == [(Subscription.ReplayAdvanced, {"replay_id": "replay_1", "position": 19})]
    assert subscription.replays == (Replay("replay_1", 19, 20, LATER),)


def test_a_replay_that_came_to_its_end_is_forgotten() -> None:
    subscription = given(replay("replay_1"))
    subscription.replay_advanced("replay_1", 20, LATER)
    assert subscription.replays == ()


def test_one_replay_goes_on_beside_another() -> None:
    subscription = given(replay("replay_1"), replay("replay_2", after=3))
    subscription.replay_advanced("replay_2", 7, LATER)
    assert subscription.replays == (Replay("replay_1", 0, 20, NOW), Replay("replay_2", 7, 20, LATER))
    subscription.replay_advanced("replay_1", 20, LATER)
    assert [each.id for each in subscription.replays] == ["replay_2"]


# --- terms and audience ---------------------------------------------------------------------------------------------


def asks(terms: Terms, **otherwise: Any) -> bool:
    return list(Audience([terms]).of(replace(RENEWED, **otherwise))) == [terms]


def test_terms_ask_for_events_of_their_types_at_their_paths() -> None:
    assert asks(TERMS)
    assert not asks(TERMS, event_type="certificate.issued")
    assert not asks(TERMS, path="pki/acme/orders/acme_order_1")
    assert not asks(TERMS, path="pki/certificates/cert_1/more")


def test_one_path_that_matches_is_enough_and_none_is_none() -> None:
    assert asks(replace(TERMS, paths=("secrets/**", "pki/**")))
    assert not asks(replace(TERMS, paths=()))


def test_terms_ask_for_nothing_of_another_tenant() -> None:
    assert not asks(TERMS, tenant_id="tnt_other")


@pytest.mark.parametrize(("position", "fits"), [(10, False), (11, True), (20, True), (21, False)])
def test_terms_hold_behind_where_they_began_up_to_where_they_ended(position: int, *, fits: bool) -> None:
    assert asks(replace(TERMS, upto=20), position=position) is fits


def test_terms_that_ended_where_they_began_ask_for_nothing() -> None:
    assert not any(asks(replace(TERMS, upto=10), position=position) for position in (9, 10, 11))


@pytest.mark.parametrize(
    ("globs", "dns_names", "fits"),
    [
        ((), (), True),
        ((), ("acme.example",), True),
        (("*.acme.example",), (), False),
        (("*.acme.example",), ("acme.example",), False),
        (("*.acme.example",), ("acme.example", "www.acme.example"), True),
        (("*.acme.example",), ("*.acme.example",), True),
        (("www.acme.example",), ("*.acme.example",), False),
        (("other.example", "acme.*"), ("acme.example",), True),
    ],
)
def test_a_filter_of_names_wants_one_of_an_event_s_names(
    globs: tuple[str, ...], dns_names: tuple[str, ...], *, fits: bool
) -> None:
    assert asks(replace(TERMS, dns_names=globs), dns_names=dns_names) is fits


def test_an_audience_finds_all_who_ask_in_the_order_in_which_they_were_given() -> None:
    def terms(number: int, **otherwise: Any) -> Terms:
        return replace(TERMS, subscription_id=f"sub_{number}", **otherwise)

    asking = [terms(3), terms(1, paths=("**", "pki/**", "pki/certificates/cert_1")), terms(2, after=0)]
    others = [terms(4, event_types=("order.invalid",)), terms(5, tenant_id="tnt_other"), terms(6, paths=("pki/*",))]
    audience = Audience([asking[0], others[0], asking[1], others[1], others[2], asking[2]])
    assert list(audience.of(RENEWED)) == asking
    assert list(Audience(()).of(RENEWED)) == []


def test_one_subscription_s_terms_before_and_after_a_revision_never_both_ask() -> None:
    before, after = replace(TERMS, upto=15), replace(TERMS, after=15, paths=("pki/**",))
    audience = Audience([before, after])
    assert [list(audience.of(replace(RENEWED, position=position))) for position in (11, 15, 16)] == [
        [before],
        [before],
        [after],
    ]
