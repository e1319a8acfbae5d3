from __future__ import annotations

from itertools import permutations

import pytest

from domain.acknowledgement import AcknowledgementEvent, acknowledged, rewound
from interfaces.postgres.pool import Pool
from projections.polling_cursors import POLLING_CURSORS
from tests.projections.folding import apply, empty, recorded, rows
from tests.projections.story import BEGIN, revise, subscription

NOW = BEGIN


def begin(pool: Pool, position: int = 10) -> None:
    apply(pool, POLLING_CURSORS, recorded(subscription("sub_1", NOW, url=None), after=position - 1))


def tell(pool: Pool, *events: AcknowledgementEvent) -> None:
    apply(pool, POLLING_CURSORS, recorded(*events, after=100))


def ack(cursor: int, *positions: int, of: str = "sub_1") -> AcknowledgementEvent:
    return acknowledged("ack_1", of, positions, 0, cursor, NOW)


def state(pool: Pool) -> tuple[int, list[int]]:
    """How far it is, and what is dealt with beyond."""
    found = POLLING_CURSORS.one(pool, "sub_1")
    assert found is not None
    return found[0], sorted(found[1])


def test_what_was_acknowledged_before_all_was_asked_for_again_does_not_count(pool: Pool) -> None:
    begin(pool, 10)
    tell(pool, ack(20, 20), rewound("ack_2", "sub_1", 12, NOW), acknowledged("ack_3", "sub_1", (21,), 20, 21, NOW))

    assert state(pool) == (12, [])


def test_who_polls_begins_where_they_subscribed(pool: Pool) -> None:
    begin(pool, 10)

    assert state(pool) == (10, [])


def test_a_webhook_has_no_cursor(pool: Pool) -> None:
    apply(pool, POLLING_CURSORS, recorded(subscription("sub_1", NOW)))
    tell(pool, ack(20, 15), rewound("ack_2", "sub_1", 5, NOW))

    assert POLLING_CURSORS.one(pool, "sub_1") is None
    assert rows(pool, POLLING_CURSORS) == []


def test_an_acknowledgement_moves_the_cursor_and_keeps_what_lies_beyond(pool: Pool) -> None:
    begin(pool)

    tell(pool, ack(12, 11, 12, 15, 14))

    assert state(pool) == (12, [14, 15])


def test_what_the_cursor_passes_is_kept_no_longer(pool: Pool) -> None:
    begin(pool)

    tell(pool, ack(10, 13, 15), ack(14, 11, 12))

    assert state(pool) == (14, [15])


def test_the_same_acknowledgement_twice_is_as_once(pool: Pool) -> None:
    begin(pool)
    tell(pool, ack(12, 11, 12, 15))
    once = rows(pool, POLLING_CURSORS)

    tell(pool, ack(12, 11, 12, 15))

    assert rows(pool, POLLING_CURSORS) == once


def test_acknowledgements_come_to_the_same_in_any_order(pool: Pool) -> None:
    events = [ack(10, 13, 14), ack(11, 11), ack(10, 12, 17), ack(12, 12, 16)]
    outcomes = []
    for order in permutations(events):
        begin(pool)
        tell(pool, *order)
        outcomes.append(rows(pool, POLLING_CURSORS))
        empty(pool, POLLING_CURSORS)

    assert len(outcomes) == 24
    assert all(outcome == outcomes[0] for outcome in outcomes)
    begin(pool)
    tell(pool, *events)
    assert state(pool) == (12, [13, 14, 16, 17])


def test_one_made_of_an_older_look_does_not_take_the_cursor_back(pool: Pool) -> None:
    begin(pool)

    tell(pool, ack(20, 15), ack(12, 12))

    assert state(pool) == (20, [])


def test_a_rewind_forgets_what_was_acknowledged(pool: Pool) -> None:
    begin(pool)

    tell(pool, ack(20, 15, 25), rewound("ack_2", "sub_1", 5, NOW))

    assert state(pool) == (5, [])


def test_after_a_rewind_it_goes_on_from_there(pool: Pool) -> None:
    begin(pool)

    tell(pool, ack(20, 15), rewound("ack_2", "sub_1", 5, NOW), ack(6, 6, 9))

    assert state(pool) == (6, [9])


def test_each_has_a_cursor_of_its_own(pool: Pool) -> None:
    begin(pool)
    apply(pool, POLLING_CURSORS, recorded(subscription("sub_2", NOW, url=None), after=29))

    tell(pool, ack(40, 35, of="sub_2"))

    assert state(pool) == (10, [])
    assert POLLING_CURSORS.one(pool, "sub_2") == (40, frozenset())
    assert POLLING_CURSORS.one(pool, "sub_3") is None


@pytest.mark.parametrize("late", [ack(20, 15), rewound("ack_2", "sub_1", 5, NOW)], ids=["acknowledged", "rewound"])
def test_an_ended_one_has_no_cursor_whatever_comes_for_it_afterwards(pool: Pool, late: AcknowledgementEvent) -> None:
    polling = subscription("sub_1", NOW, url=None)
    polling.unsubscribe(NOW)
    apply(pool, POLLING_CURSORS, recorded(polling))

    tell(pool, late)

    assert POLLING_CURSORS.one(pool, "sub_1") is None


def test_other_terms_and_a_pause_leave_the_cursor_where_it_is(pool: Pool) -> None:
    polling = subscription("sub_1", NOW, url=None)
    revise(polling, NOW, paths=("pki/a",), buffer_size=5)
    polling.pause(NOW)
    polling.resume(NOW)

    apply(pool, POLLING_CURSORS, recorded(polling, after=9))

    assert state(pool) == (10, [])
