from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import asdict

from domain.subscription import Subscription
from interfaces.postgres.pool import Pool
from projections.subscriptions import SUBSCRIPTIONS, DeliveryTerms, Filters, SubscriptionView, paused
from tests.projections.folding import apply, document, recorded, rows
from tests.projections.story import BEGIN, BY_OTHER, OTHER_TENANT, TENANT, revise, subscription

NOW = BEGIN
WHOLE = NOW.replace(microsecond=0)
LATER = timedelta(seconds=5)
WEBHOOK = DeliveryTerms("webhook", ordered=False, url="https://hook.example/")
ACTIVE = SubscriptionView(
    id="sub_1",
    name="deploy",
    status="active",
    disabled_reason=None,
    paths=["pki/**"],
    events=["certificate.issued", "order.invalid"],
    filters=Filters([]),
    delivery=WEBHOOK,
    identity_id="tok_1",
    created_at=WHOLE,
)


def view(**changes: Any) -> SubscriptionView:
    return SubscriptionView(**{**asdict(ACTIVE), **changes})


def test_a_webhook_shows_what_it_wants_and_where_to(pool: Pool) -> None:
    assert document(pool, SUBSCRIPTIONS, subscription("sub_1", NOW)) == ACTIVE


def test_a_polling_subscription_shows_its_buffer_and_no_address(pool: Pool) -> None:
    polling = subscription("sub_1", NOW, url=None, buffer_size=50)

    assert document(pool, SUBSCRIPTIONS, polling) == view(delivery=DeliveryTerms("polling", buffer_size=50))


def test_all_that_can_be_wished_for_is_shown(pool: Pool) -> None:
    wished = subscription("sub_1", NOW, dns_names=("*.example",), ordered=True)

    filtered = view(filters=Filters(["*.example"]), delivery=DeliveryTerms("webhook", ordered=True, url=WEBHOOK.url))
    assert document(pool, SUBSCRIPTIONS, wished) == filtered


def test_revised_terms_take_the_place_of_those_before(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    revise(
        webhook,
        NOW + LATER,
        identity_id="tok_2",
        name="revised",
        paths=("pki/a",),
        event_types=("certificate.renewed",),
        dns_names=("a.example",),
        ordered=True,
        url="https://new.example/",
        ca_bundle_pem="a bundle",
    )

    assert document(pool, SUBSCRIPTIONS, webhook) == view(
        identity_id="tok_2",
        name="revised",
        paths=["pki/a"],
        events=["certificate.renewed"],
        filters=Filters(["a.example"]),
        delivery=DeliveryTerms("webhook", ordered=True, url="https://new.example/", ca_bundle_pem="a bundle"),
    )


def test_a_revised_polling_subscription_is_still_polled(pool: Pool) -> None:
    polling = subscription("sub_1", NOW, url=None)
    revise(polling, NOW, buffer_size=7)

    assert document(pool, SUBSCRIPTIONS, polling) == view(delivery=DeliveryTerms("polling", buffer_size=7))


def pause(webhook: Subscription) -> None:
    webhook.pause(NOW)


def disable(webhook: Subscription) -> None:
    webhook.disable("gone", NOW)


def resume(webhook: Subscription) -> None:
    webhook.resume(NOW)


@pytest.mark.parametrize(
    ("steps", "status", "reason"),
    [
        ([pause], "paused", None),
        ([pause, resume], "active", None),
        ([disable], "disabled", "gone"),
        ([pause, disable], "disabled", "gone"),
        ([disable, resume], "active", None),
    ],
    ids=["paused", "resumed", "disabled", "paused and disabled", "enabled"],
)
def test_its_status_is_what_happened_last(
    steps: list[Callable[[Subscription], None]], status: str, reason: str | None, pool: Pool
) -> None:
    webhook = subscription("sub_1", NOW)
    for step in steps:
        step(webhook)

    assert document(pool, SUBSCRIPTIONS, webhook) == view(status=status, disabled_reason=reason)


def test_terms_can_be_revised_in_any_status(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    webhook.disable("gone", NOW)
    revise(webhook, NOW, name="revised")

    assert document(pool, SUBSCRIPTIONS, webhook) == view(name="revised", status="disabled", disabled_reason="gone")


def test_while_two_secrets_are_used_it_is_told_until_when(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    webhook.rotate_secret("sealed_2", timedelta(hours=24), NOW)
    revise(webhook, NOW, ordered=True)
    both = document(pool, SUBSCRIPTIONS, webhook).delivery
    until = WHOLE + timedelta(hours=24)
    assert both == DeliveryTerms("webhook", ordered=True, url=WEBHOOK.url, previous_secret_until=until)

    webhook.secrets_shredded(("sealed_1",), NOW + timedelta(hours=24))
    apply(pool, SUBSCRIPTIONS, recorded(webhook, after=10))

    one = SUBSCRIPTIONS.one(pool, TENANT, "sub_1").delivery
    assert one == DeliveryTerms("webhook", ordered=True, url=WEBHOOK.url)


def test_destroying_an_older_secret_leaves_the_overlap_that_runs(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    webhook.rotate_secret("sealed_2", timedelta(hours=24), NOW)
    webhook.rotate_secret("sealed_3", timedelta(hours=24), NOW)
    webhook.secrets_shredded(("sealed_1",), NOW + LATER)

    delivery = document(pool, SUBSCRIPTIONS, webhook).delivery
    assert webhook.secrets_in_force(NOW + LATER) == ["sealed_3", "sealed_2"]
    assert delivery.previous_secret_until == WHOLE + timedelta(hours=24)


def test_a_replay_changes_nothing_that_is_shown(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    webhook.request_replay("replay_1", 0, 9, NOW)
    webhook.replay_advanced("replay_1", 9, NOW)

    assert document(pool, SUBSCRIPTIONS, webhook) == ACTIVE


# --- the end --------------------------------------------------------------------------------------------------------


def test_an_ended_one_is_there_no_longer(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    apply(pool, SUBSCRIPTIONS, recorded(webhook, subscription("sub_2", NOW)))
    webhook.unsubscribe(NOW)

    apply(pool, SUBSCRIPTIONS, recorded(webhook, after=10))

    assert SUBSCRIPTIONS.one(pool, TENANT, "sub_1") is None
    assert [found.id for _, found in SUBSCRIPTIONS.page(pool, TENANT, -1, 10, {})] == ["sub_2"]


def test_one_that_begins_and_ends_in_one_append_never_was(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    webhook.unsubscribe(NOW)

    apply(pool, SUBSCRIPTIONS, recorded(webhook))

    assert rows(pool, SUBSCRIPTIONS) == []


@pytest.mark.parametrize(
    "late",
    [
        lambda ended: ended.secrets_shredded(("sealed_1",), NOW),
        lambda ended: ended.rotate_secret("sealed_9", LATER, NOW),
        lambda ended: ended.request_replay("replay_1", 0, 9, NOW),
        lambda ended: ended.replay_advanced("replay_1", 9, NOW),
        lambda ended: revise(ended, NOW, name="revised"),
    ],
    ids=["shredded", "rotated", "replay", "advanced", "revised"],
)
def test_what_comes_for_an_ended_one_afterwards_changes_nothing(
    late: Callable[[Subscription], None], pool: Pool
) -> None:
    ended = subscription("sub_1", NOW)
    ended.unsubscribe(NOW)
    apply(pool, SUBSCRIPTIONS, recorded(ended))
    late(ended)
    events = recorded(ended, after=10)
    assert events

    apply(pool, SUBSCRIPTIONS, events)

    assert rows(pool, SUBSCRIPTIONS) == []


# --- those that are paused ------------------------------------------------------------------------------------------


def test_the_paused_ones_are_told_of_all_tenants(pool: Pool) -> None:
    by_id = {name: subscription(name, NOW) for name in ("sub_1", "sub_2", "sub_3", "sub_4", "sub_5")}
    for name in ("sub_2", "sub_3", "sub_4", "sub_5"):
        by_id[name].pause(NOW)
    by_id["sub_3"].resume(NOW)
    by_id["sub_4"].unsubscribe(NOW)
    by_id["sub_5"].disable("gone", NOW)
    apply(pool, SUBSCRIPTIONS, recorded(*by_id.values()))
    elsewhere = subscription("sub_6", NOW, OTHER_TENANT)
    elsewhere.pause(NOW)
    apply(pool, SUBSCRIPTIONS, recorded(elsewhere, by=BY_OTHER, after=50))

    assert sorted(paused(pool)) == ["sub_2", "sub_6"]


def test_without_a_pause_there_are_none(pool: Pool) -> None:
    apply(pool, SUBSCRIPTIONS, recorded(subscription("sub_1", NOW)))

    assert paused(pool) == []
