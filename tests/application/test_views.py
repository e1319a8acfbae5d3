"""The views in memory say of a history what the projections say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from domain.announcement import Announced
from domain.errors import NotFound
from domain.subscription import Subscription
from domain.terms import Candidate, Terms
from interfaces.postgres.pool import Pool
from interfaces.read_models import ReadModels
from tests.application.views import Views
from tests.fakes import ALL
from tests.projections.live import Live
from tests.projections.story import BEGIN, BY, OTHER_TENANT, TENANT, Story, owed

Models = Views | ReadModels
MOMENT = timedelta(microseconds=1)


@pytest.fixture
def live(pool: Pool) -> Live:
    """Everything that can happen, three times over."""
    live = Live(pool)
    for number in range(3):
        Story(live.store, number).tell()
    live.catch_up()
    return live


@pytest.fixture
def views(live: Live) -> Views:
    views = Views()
    for recorded in live.history:
        views.apply(recorded)
    return views


@pytest.fixture
def models(live: Live, views: Views) -> Sequence[Models]:
    return [views, ReadModels(live.pool)]


@pytest.fixture
def subscription_ids(live: Live) -> Sequence[str]:
    return sorted(
        {each.event.originator_id for each in live.history if isinstance(each.event, Subscription.Subscribed)}
    )


def test_they_agree_on_what_was_announced(models: Sequence[Models]) -> None:
    mine, theirs = (
        (
            list(each.announced(0, ALL)),
            [list(each.announced(after, 2)) for after in range(0, 200, 5)],
            each.last_position(),
        )
        for each in models
    )
    assert mine == theirs
    assert len(mine[0]) > 9
    for each in models:
        assert [each.announced_at(announced.position) for announced in mine[0]] == mine[0]
        with pytest.raises(NotFound):
            each.announced_at(mine[2] + 1)


def test_they_agree_on_where_an_event_stands(models: Sequence[Models], views: Views) -> None:
    announced = views.announced(0, ALL)
    event_ids = [*(each.event_id for each in announced), "evt_unknown"]
    mine, theirs = ([dict(each.positions(tenant, event_ids)) for tenant in (TENANT, OTHER_TENANT)] for each in models)
    assert mine == theirs
    assert len(mine[0]) > 9

    def last_at(model: Models) -> list[tuple[int | None, int]]:
        return [
            (model.first_since(tenant, each.at + later), model.last_until(tenant, each.at + later))
            for tenant in (TENANT, OTHER_TENANT)
            for each in announced
            for later in (-MOMENT, timedelta(), MOMENT)
        ]

    mine_at, theirs_at = map(last_at, models)
    assert mine_at == theirs_at


def test_they_agree_on_what_may_be_wanted(models: Sequence[Models], views: Views) -> None:
    first, *_, last = views.announced(0, ALL)

    def candidates(model: Models) -> list[Sequence[Candidate]]:
        return [
            list(model.candidates(terms, after, upto, limit))
            for terms in wishes(first)
            for after, upto in ((0, last.position), (first.position, last.position - 1), (last.position, 5))
            for limit in (3, 1000)
        ]

    mine, theirs = map(candidates, models)
    assert mine == theirs
    assert {len(found) for found in mine} >= {0, 3}


def wishes(announced: Announced) -> Sequence[Terms]:
    every = Terms(
        subscription_id="sub_1",
        tenant_id=TENANT,
        paths=("**",),
        event_types=("certificate.issued", "certificate.renewed", "certificate.renewal_failed", "order.invalid"),
        dns_names=(),
        ordered=False,
        after=0,
        upto=None,
    )
    return [
        every,
        replace(every, event_types=("order.invalid",)),
        replace(every, tenant_id=OTHER_TENANT),
        replace(every, paths=(announced.path,)),
        replace(every, paths=(announced.path, "pki/?")),
        replace(every, paths=()),
    ]


def test_they_agree_on_what_was_asked_for_at_which_positions(models: Sequence[Models], live: Live) -> None:
    mine, theirs = ([list(each.all_terms(after)) for after in range(0, len(live.history), 3)] for each in models)
    assert mine == theirs
    assert len(mine[0]) > 9


def test_they_agree_on_who_is_paused(models: Sequence[Models], live: Live, views: Views) -> None:
    paused = live.store.load(Subscription, next(iter(views.all_terms(ALL - 1))).subscription_id)
    paused.pause(live.history[-1].event.timestamp)
    live.store.record(paused, by=live.history[0].by)
    views.apply(live.history[-1])
    mine, theirs = (sorted(each.paused()) for each in models)
    assert mine == theirs
    assert paused.id in mine


MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("outcomes", "first"),
    [
        ([], None),
        ([(0 * SECOND, False)], 0 * SECOND),
        ([(5 * SECOND, False), (9 * SECOND, False), (MINUTE, False)], 5 * SECOND),
        ([(0 * SECOND, False), (MINUTE, True)], None),
        ([(0 * SECOND, False), (MINUTE, True), (2 * MINUTE, False), (3 * MINUTE, False)], 2 * MINUTE),
        ([(0 * SECOND, True), (SECOND, False)], None),
        ([(0 * SECOND, False), (SECOND, True), (2 * SECOND, False), (MINUTE, False)], MINUTE),
    ],
)
def test_they_agree_on_since_when_a_receiver_fails(
    pool: Pool, outcomes: Sequence[tuple[timedelta, bool]], first: timedelta | None
) -> None:
    live, views = Live(pool), Views()
    for number, (later, is_taken) in enumerate(outcomes, start=1):
        for subscription_id, taken in (("sub_1", is_taken), ("sub_2", True)):
            delivery = owed(f"del_{number}_{subscription_id}", BEGIN, subscription_id=subscription_id, position=number)
            now = BEGIN.replace(second=0, microsecond=0) + later
            if taken:
                delivery.delivered(200, 30, now)
            else:
                delivery.attempt_failed(500, "the receiver answered 500", None, 30, 0.5, now)
            live.store.record(delivery, by=BY)
    live.catch_up()
    for recorded in live.history:
        views.apply(recorded)
    since = None if first is None else BEGIN.replace(second=0, microsecond=0) + first
    for model in (views, ReadModels(pool)):
        assert (model.failing_since("sub_1"), model.failing_since("sub_2")) == (since, None)


def test_they_agree_on_how_far_who_polls_has_come(models: Sequence[Models], subscription_ids: Sequence[str]) -> None:
    mine, theirs = ([each.polling_cursor(subscription_id) for subscription_id in subscription_ids] for each in models)
    assert mine == theirs
    assert any(beyond for cursor in mine if cursor for beyond in [cursor[1]])
    assert None in mine


def test_they_agree_on_the_terms_of_who_polls_and_on_how_much_a_tenant_asks_for(
    models: Sequence[Models], subscription_ids: Sequence[str]
) -> None:
    mine, theirs = (
        [list(each.polling_terms(subscription_id)) for subscription_id in subscription_ids] for each in models
    )
    assert mine == theirs
    assert any(len(terms) for terms in mine)
    of_mine, of_theirs = ([each.subscribed(tenant) for tenant in (TENANT, OTHER_TENANT, "tnt_9")] for each in models)
    assert of_mine == of_theirs
    assert of_mine[0][0] > 0
    assert of_mine[2] == (0, 0)
