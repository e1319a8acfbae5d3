"""What must be unique is so by a constraint of an inline view, in the transaction of the events."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier

import pytest
from eventsourcing.domain import BaseAggregate

from application.event_store import Taken
from domain.order import Order
from interfaces.postgres.pool import Pool
from projections.views import INLINE
from tests.projections.live import Live, rebuilt
from tests.projections.story import BEGIN, BY, BY_OTHER, OTHER_TENANT, Story, account, placed, provider, token

NOW = BEGIN


def order(order_id: str, now: datetime) -> Order:
    return placed(order_id, now, f"cert_of_{order_id}")


Make = Callable[[str, datetime], BaseAggregate[str]]
EVERY_CONSTRAINT = pytest.mark.parametrize(
    ("make", "constraint"),
    [(order, "orders_running"), (account, "accounts_name"), (provider, "dns_providers_name")],
    ids=["orders_running", "accounts_name", "dns_providers_name"],
)


@EVERY_CONSTRAINT
def test_what_is_taken_is_named_and_nothing_is_recorded(make: Make, constraint: str, live: Live) -> None:
    live.store.record(make("x_1", NOW), by=BY)
    before = live.everything()

    with pytest.raises(Taken) as taken:
        live.store.record(
            token("tok_1", NOW), make("x_2", NOW), placed("acme_order_9", NOW, "cert_9", "other.example"), by=BY
        )

    assert taken.value.what == constraint
    assert live.everything() == before


@EVERY_CONSTRAINT
def test_the_store_goes_on_after_a_refusal(make: Make, constraint: str, live: Live) -> None:
    live.store.record(make("x_1", NOW), by=BY)
    for number in range(2, 12):  # more than there are connections
        with pytest.raises(Taken, match=constraint):
            live.store.record(make(f"x_{number}", NOW), by=BY)

    live.store.record(token("tok_1", NOW), by=BY)

    assert [recorded.position for recorded in live.history] == [1, 2]


@EVERY_CONSTRAINT
def test_of_many_at_once_one_gets_it(make: Make, constraint: str, live: Live) -> None:
    all_at_once = Barrier(4)

    def record(number: int) -> str | None:
        subject = make(f"x_{number}", NOW)
        all_at_once.wait(timeout=10)
        try:
            live.store.record(subject, by=BY)
        except Taken as taken:
            return taken.what
        return None

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(record, range(4)))

    assert sorted(outcomes, key=str) == [None, constraint, constraint, constraint]
    assert len(live.history) == 1


def test_a_refusal_by_the_first_view_is_told_although_others_follow_in_the_same_append(live: Live) -> None:
    live.store.record(account("acme_account_1", NOW), by=BY)
    before = live.everything()

    with pytest.raises(Taken) as taken:
        live.store.record(
            *(account(f"acme_account_{number}", NOW) for number in range(2, 5)),
            provider("dns_1", NOW),
            order("acme_order_1", NOW),
            token("tok_1", NOW),
            by=BY,
        )

    assert taken.value.what == "accounts_name"
    assert live.everything() == before


def test_two_tenants_may_use_the_same_name(live: Live) -> None:
    for make in (account, provider):
        live.store.record(make("x_1" + make.__name__, NOW), by=BY)
        live.store.record(make("x_2" + make.__name__, NOW, OTHER_TENANT), by=BY_OTHER)

    assert len(live.history) == 4


def test_the_same_names_are_free_for_another_account_and_after_the_order_ended(live: Live) -> None:
    running, waiting = order("acme_order_1", NOW), order("acme_order_2", NOW)
    live.store.record(running, by=BY)
    live.store.record(placed("acme_order_3", NOW, "cert_3", account_id="acme_account_2"), by=BY)
    with pytest.raises(Taken, match="orders_running"):
        live.store.record(waiting, by=BY)

    running.cancel(NOW)
    live.store.record(running, by=BY)
    live.store.record(waiting, by=BY)  # what was refused is still pending

    assert live.store.load(Order, "acme_order_2") == waiting


def test_an_order_may_end_and_the_next_begin_in_one_append(live: Live) -> None:
    running = order("acme_order_1", NOW)
    live.store.record(running, by=BY)
    running.cancel(NOW)

    live.store.record(running, order("acme_order_2", NOW), by=BY)

    assert len(live.history) == 3


def test_inline_views_hold_what_folding_the_history_gives(live: Live, pool: Pool) -> None:
    Story(live.store).tell()

    views = live.views()
    for view in INLINE:
        assert views[view.name] == rebuilt(view, live.history, pool)
        assert views[view.name]
