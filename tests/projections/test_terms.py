from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from domain.acknowledgement import Rewound, rewound
from domain.provenance import Provenance
from domain.subscription import Subscription
from domain.terms import Terms
from interfaces.postgres.pool import Pool
from projections.terms import TERMS
from tests.projections.folding import apply, recorded, rows
from tests.projections.story import BEGIN, BY, BY_OTHER, OTHER_TENANT, TENANT, revise, subscription

NOW = BEGIN


class Told:
    """A webhook's subscription, subscribed at the position 10; `do` records what it does, at a position of its own."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.subscription = subscription("sub_1", NOW)
        self.record(self.subscription, 10)

    def record(self, subject: Subscription, position: int, by: Provenance = BY) -> None:
        apply(self.pool, TERMS, recorded(subject, by=by, after=position - 1))

    def do(self, position: int, command: Callable[..., None], *arguments: Any, **named: Any) -> None:
        command(*arguments, **named)
        self.record(self.subscription, position)

    def revise(self, position: int, **changes: Any) -> None:
        revise(self.subscription, NOW, **changes)
        self.record(self.subscription, position)

    def spans(self, since: int = 0) -> list[tuple[int, int | None]]:
        return [(terms.after, terms.upto) for terms in TERMS.since(self.pool, since)]


@pytest.fixture
def told(pool: Pool) -> Told:
    return Told(pool)


def as_subscribed(after: int, upto: int | None, **changes: Any) -> Terms:
    fields: dict[str, Any] = {
        "subscription_id": "sub_1",
        "tenant_id": TENANT,
        "paths": ("pki/**",),
        "event_types": ("certificate.issued", "order.invalid"),
        "dns_names": (),
        "ordered": False,
    }
    return Terms(**{**fields, **changes}, after=after, upto=upto)


def test_who_subscribes_asks_for_what_comes_behind_that_position(told: Told) -> None:
    assert TERMS.since(told.pool, 0) == [as_subscribed(10, None)]


def test_revised_terms_begin_where_the_ones_before_end(told: Told) -> None:
    told.revise(14, paths=("pki/a", "pki/b"), dns_names=("*.example",), ordered=True)
    told.revise(20, event_types=("certificate.renewed",))

    revised = {"paths": ("pki/a", "pki/b"), "dns_names": ("*.example",), "ordered": True}
    assert TERMS.since(told.pool, 0) == [
        as_subscribed(10, 14),
        as_subscribed(14, 20, **revised),
        as_subscribed(20, None, **revised, event_types=("certificate.renewed",)),
    ]


def test_terms_of_which_two_are_revised_in_one_append_leave_no_gap_and_no_overlap(told: Told) -> None:
    revise(told.subscription, NOW, paths=("pki/a",))
    revise(told.subscription, NOW, paths=("pki/b",))
    told.record(told.subscription, 14)

    assert told.spans() == [(10, 14), (14, 15), (15, None)]


def test_a_disabled_one_asks_for_nothing_until_it_is_enabled(told: Told) -> None:
    told.do(14, told.subscription.disable, "gone", NOW)
    assert told.spans() == [(10, 14)]

    told.do(20, told.subscription.resume, NOW)
    assert TERMS.since(told.pool, 0) == [as_subscribed(10, 14), as_subscribed(20, None)]


def test_what_is_revised_while_disabled_holds_from_its_enabling_on(told: Told) -> None:
    told.do(14, told.subscription.disable, "gone", NOW)
    told.revise(16, paths=("pki/a",))
    told.revise(18, paths=("pki/b",))
    assert [(after, upto) for after, upto in told.spans() if upto is None or after < upto] == [(10, 14)]

    told.do(20, told.subscription.resume, NOW)

    asking = [terms for terms in TERMS.since(told.pool, 0) if terms.upto is None or terms.after < terms.upto]
    assert asking == [as_subscribed(10, 14), as_subscribed(20, None, paths=("pki/b",))]


def test_a_disabled_one_can_be_disabled_again_after_it_was_enabled(told: Told) -> None:
    for position in (14, 34):
        told.do(position, told.subscription.disable, "gone", NOW)
        told.do(position + 6, told.subscription.resume, NOW)

    assert told.spans() == [(10, 14), (20, 34), (40, None)]


def test_an_ended_one_asks_for_nothing_more(told: Told) -> None:
    told.do(14, told.subscription.unsubscribe, NOW)

    assert told.spans() == [(10, 14)]


def test_one_that_ends_while_it_is_disabled_stays_as_it_was(told: Told) -> None:
    told.do(14, told.subscription.disable, "gone", NOW)
    told.do(18, told.subscription.unsubscribe, NOW)

    assert told.spans() == [(10, 14)]


@pytest.mark.parametrize(
    "do",
    [
        lambda webhook, now: webhook.pause(now),
        lambda webhook, now: webhook.rotate_secret("sealed_2", NOW - NOW, now),
        lambda webhook, now: webhook.request_replay("replay_1", 0, 9, now),
        lambda webhook, now: revise(webhook, now, name="another"),
        lambda webhook, now: revise(webhook, now, url="https://another.example/"),
    ],
    ids=["paused", "rotated", "replayed", "renamed", "moved"],
)
def test_what_is_asked_for_is_not_interrupted_by_anything_else(
    do: Callable[[Subscription, datetime], None], told: Told
) -> None:
    do(told.subscription, NOW)
    told.record(told.subscription, 14)

    spans = told.spans()
    assert (spans[0][0], spans[-1][1]) == (10, None)
    assert all(before[1] == behind[0] for before, behind in pairwise(spans))
    assert {terms.paths for terms in TERMS.since(told.pool, 0)} == {("pki/**",)}


def test_a_pause_and_its_end_change_no_row(told: Told) -> None:
    before = rows(told.pool, TERMS)

    told.do(14, told.subscription.pause, NOW)
    told.do(16, told.subscription.resume, NOW)

    assert rows(told.pool, TERMS) == before


def test_what_changes_none_of_them_begins_no_new_ones(told: Told) -> None:
    before = rows(told.pool, TERMS)
    told.revise(14, name="another")
    told.revise(16, url="https://another.example/", buffer_size=5)
    assert rows(told.pool, TERMS) == before


def polled(pool: Pool, *steps: tuple[int, Callable[[Subscription], object]]) -> list[tuple[int, int | None, str]]:
    """The spans and paths of a polling subscription that was made at the position 10, and what it or somebody did then."""
    polling = subscription("sub_1", NOW, url=None)
    apply(pool, TERMS, recorded(polling, after=9))
    for position, do in steps:
        done = do(polling)
        subject = done if isinstance(done, Rewound) else polling
        apply(pool, TERMS, recorded(subject, after=position - 1))
    return [(terms.after, terms.upto, "".join(terms.paths)) for terms in TERMS.polled(pool, "sub_1")]


def to(path: str) -> Callable[[Subscription], object]:
    return lambda polling: revise(polling, NOW, paths=(path,))


def back_to(cursor: int) -> Callable[[Subscription], object]:
    return lambda _: rewound("ack_1", "sub_1", cursor, NOW)


def test_who_polls_asks_by_the_terms_of_the_time_too_and_is_owed_no_delivery(pool: Pool) -> None:
    assert polled(pool, (14, to("a")), (20, to("b"))) == [(10, 14, "pki/**"), (14, 20, "a"), (20, None, "b")]
    assert TERMS.since(pool, 0) == []
    assert TERMS.polled(pool, "sub_2") == []


@pytest.mark.parametrize(
    ("cursor", "spans"),
    [
        (0, [(0, None, "b")]),
        (10, [(10, None, "b")]),
        (12, [(10, 12, "pki/**"), (12, None, "b")]),
        (14, [(10, 14, "pki/**"), (14, None, "b")]),
        (17, [(10, 14, "pki/**"), (14, 17, "a"), (17, None, "b")]),
        (20, [(10, 14, "pki/**"), (14, 20, "a"), (20, None, "b")]),
        (25, [(10, 14, "pki/**"), (14, 20, "a"), (20, None, "b")]),
    ],
)
def test_of_what_is_asked_for_again_the_terms_are_those_of_that_moment(
    cursor: int, spans: list[tuple[int, int | None, str]], pool: Pool
) -> None:
    assert polled(pool, (14, to("a")), (20, to("b")), (30, back_to(cursor))) == spans


def test_after_that_they_can_be_revised_as_before(pool: Pool) -> None:
    steps = [(14, to("a")), (20, back_to(5)), (24, to("b")), (30, back_to(27))]
    assert polled(pool, *steps) == [(5, 24, "a"), (24, None, "b")]


def test_since_a_position_are_those_that_may_ask_for_an_event_behind_it(told: Told) -> None:
    told.revise(14, paths=("pki/a",))
    told.do(20, told.subscription.disable, "gone", NOW)
    told.do(30, told.subscription.resume, NOW)

    assert told.spans(since=13) == [(10, 14), (14, 20), (30, None)]
    assert told.spans(since=14) == [(14, 20), (30, None)]
    assert told.spans(since=19) == [(14, 20), (30, None)]
    assert told.spans(since=20) == [(30, None)]
    assert told.spans(since=2**62) == [(30, None)]


def test_since_a_position_all_tenants_terms_are_told_in_one_order(told: Told) -> None:
    told.record(subscription("sub_0", NOW, OTHER_TENANT), 12, BY_OTHER)
    told.record(subscription("sub_2", NOW), 11)

    found = [(terms.subscription_id, terms.tenant_id) for terms in TERMS.since(told.pool, 0)]
    assert found == [("sub_1", TENANT), ("sub_2", TENANT), ("sub_0", OTHER_TENANT)]
