"""What the use cases ask of the views, over the connections of the pool."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.announcement import event_id
from domain.errors import NotFound
from interfaces.postgres.pool import Pool
from interfaces.read_models import ReadModels
from tests.projections.live import Live
from tests.projections.story import BEGIN, BY, BY_OTHER, OTHER_TENANT, TENANT, Story, owed, placed, subscription, token

LONG_AGO, LATER = BEGIN - timedelta(days=1), BEGIN + timedelta(days=1000)


@pytest.fixture
def live(pool: Pool) -> Live:
    live = Live(pool)
    Story(live.store).tell()
    live.catch_up()
    return live


@pytest.fixture
def models(live: Live) -> ReadModels:
    return ReadModels(live.pool)


@pytest.fixture
def story(live: Live) -> Story:
    """For the ids alone."""
    return Story(live.store)


def ids(story: Story, *numbers: int) -> list[str]:
    return [story.id("sub", number) for number in numbers]


def test_an_announcement_is_there_or_not_found(models: ReadModels) -> None:
    first, *_ = models.announced(0, 10)

    assert models.announced_at(first.position) == first
    with pytest.raises(NotFound) as refusal:
        models.announced_at(first.position - 1)
    assert refusal.value.kind == "event"


def test_announcements_are_found_by_terms_id_and_time(models: ReadModels, live: Live) -> None:
    all_of_them = models.announced(0, 100)
    terms = subscription("sub_x", BEGIN).terms()
    told = [event_id(recorded) for recorded in live.history]

    wanted = [each for each in all_of_them if each.event_type in terms.event_types]
    for limit in (100, 1):
        candidates = models.candidates(terms, 0, models.last_position(), limit)
        assert models.all_announced_at([each.position for each in candidates]) == wanted[:limit]
    assert models.positions(TENANT, told) == {each.event_id: each.position for each in all_of_them}
    assert models.positions(OTHER_TENANT, told) == {}
    assert models.last_position() == all_of_them[-1].position == models.last_until(TENANT, LATER)
    assert models.first_since(TENANT, LONG_AGO) == min(
        each.position for each in all_of_them if each.tenant_id == TENANT
    )
    assert models.first_since(TENANT, LATER) is None


def test_terms_pauses_and_failures_are_those_of_the_subscriptions(models: ReadModels, live: Live, story: Story) -> None:
    failing, paused = owed("del_x", BEGIN, subscription_id="sub_x"), subscription("sub_y", BEGIN, OTHER_TENANT)
    failing.attempt_failed(503, "the receiver answered 503", None, 12, 0.5, BEGIN)
    paused.pause(BEGIN)
    live.store.record(failing, paused, by=BY_OTHER)
    live.catch_up()

    assert {terms.subscription_id for terms in models.all_terms(0)} == {*ids(story, 1, 2, 4), "sub_y"}
    assert {terms.subscription_id for terms in models.all_terms(2**62)} == {*ids(story, 1, 2), "sub_y"}
    assert models.paused() == ["sub_y"]
    assert models.failing_since("sub_x") == BEGIN
    assert models.failing_since("sub_y") is None


def test_a_cursor_is_a_polling_subscriptions_own(models: ReadModels, story: Story) -> None:
    cursor = models.polling_cursor(story.id("sub", 3))

    assert cursor is not None
    assert {position - cursor[0] for position in cursor[1]} == {3, 6}
    assert models.polling_cursor(story.id("sub")) is None
    assert models.polling_cursor(story.id("sub", 5)) is None


def test_who_asks_still_so_is_told_by_the_subscription_as_it_is_and_the_token(models: ReadModels, live: Live) -> None:
    owners = [token(f"tok_{number}", BEGIN) for number in (1, 2)]
    asked = subscription("sub_x", BEGIN)
    live.store.record(*owners, asked, by=BY)
    terms = asked.terms()
    mine = (terms, "tok_1")
    others = [
        (terms, "tok_2"),
        (replace(terms, paths=("pki/certificates/*",)), "tok_1"),
        (replace(terms, subscription_id="sub_y"), "tok_1"),
    ]

    assert models.still_so([mine, *others], BEGIN) == {mine}
    assert models.still_so([mine], owners[0].expires_at) == frozenset()
    asked.unsubscribe(BEGIN)
    live.store.record(asked, by=BY)
    assert models.still_so([mine], BEGIN) == frozenset()


def test_orders_accounts_and_zones_are_found(models: ReadModels, live: Live, story: Story) -> None:
    order = placed("acme_order_x", BEGIN, "cert_x", "x.example")
    live.store.record(order, by=live.history[0].by)

    assert models.running_order(order.account_id, ["x.example"]) == "acme_order_x"
    assert models.running_order(order.account_id, ["y.example"]) is None
    assert models.is_account_name(TENANT, "of story 0")
    assert not models.is_account_name(TENANT, "another")
    assert {zones.dns_provider_id for zones in models.managed_zones(TENANT)} == {story.id("dns")}
    assert models.embedded_zones() == models.embedded_zones_of_others(TENANT) == []
    assert not models.is_shown_for_another("acme_order_x", "a value")
