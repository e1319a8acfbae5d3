from __future__ import annotations

import pytest

from interfaces.postgres.pool import Pool
from projections.views import FOLLOWING, INLINE, View
from tests.projections.folding import apply, empty, rows
from tests.projections.story import told_in_memory

EVERY_VIEW = pytest.mark.parametrize("view", [*INLINE, *FOLLOWING], ids=lambda view: view.name)


@EVERY_VIEW
def test_events_in_two_halves_give_the_same_rows_as_at_once(view: View, pool: Pool) -> None:
    events = told_in_memory()
    apply(pool, view, events)
    at_once = rows(pool, view)
    assert at_once

    for cut in range(1, len(events)):
        empty(pool, view)
        apply(pool, view, events[:cut])
        apply(pool, view, events[cut:])
        assert rows(pool, view) == at_once, f"cut behind {events[cut - 1]}"


@EVERY_VIEW
def test_events_one_by_one_give_the_same_rows_as_at_once(view: View, pool: Pool) -> None:
    events = told_in_memory()
    apply(pool, view, events)
    at_once = rows(pool, view)

    empty(pool, view)
    for recorded in events:
        apply(pool, view, [recorded])

    assert rows(pool, view) == at_once


@EVERY_VIEW
def test_no_events_make_no_rows(view: View, pool: Pool) -> None:
    apply(pool, view, [])

    assert rows(pool, view) == []
