from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.certificate import Certificate
from domain.order import OrderError
from domain.provenance import Recorded
from interfaces.postgres.pool import Pool
from projections.order_statistics import BOUNDS, MEASURED_PHASES, ORDER_STATISTICS, PHASE_BUCKETS
from tests.projections.folding import apply, recorded, rows
from tests.projections.live import Live
from tests.projections.story import BEGIN, BY, at_ca, authorizations, late, placed


class Told:
    """An order whose events each come so long after the one before."""

    def __init__(self, *dns_names: str, order_id: str = "acme_order_1") -> None:
        self.now = BEGIN
        self.order = placed(order_id, BEGIN, "cert_1", *dns_names)

    def after(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now

    def offered(self, placing: float = 2) -> Told:
        self.order.seal_key("sealed_1", b"csr", self.after(0))
        self.order.accept(at_ca("pending"), self.after(placing))
        self.order.offer_challenges(authorizations(), "thumb", self.after(0))
        return self

    def published(self, publishing: float = 3) -> Told:
        self.offered()
        self.after(publishing)
        for record in self.order.outstanding_records:
            self.order.record_published(record, self.now)
        return self

    def completed(self) -> Told:
        self.published()
        self.order.observe_propagation([late(self.order)], self.after(45))
        self.order.challenges_answered(self.after(1))
        self.order.follow(at_ca("ready"), (), self.after(7))
        self.order.follow(at_ca("processing"), (), self.after(0.2))
        self.order.follow(at_ca("valid"), (), self.after(0.2))
        self.order.complete(1, self.after(0.05))
        return self


def tell(pool: Pool, *told: Told) -> None:
    apply(pool, ORDER_STATISTICS, recorded(*(each.order for each in told)))


def sums(pool: Pool, kind: str) -> Mapping[tuple[str, str], int]:
    with pool.connection() as connection:
        found = connection.execute(
            "SELECT subject, part, amount FROM order_statistics WHERE kind = %s", [kind]
        ).fetchall()
    return {(subject, part): amount for subject, part, amount in found}


def standing(pool: Pool) -> list[tuple[str, str, int, str, datetime]]:
    with pool.connection() as connection:
        return connection.execute(
            "SELECT kind, subject, amount, phase, since FROM order_statistics WHERE phase IS NOT NULL ORDER BY subject"
        ).fetchall()


# --- how they ended -------------------------------------------------------------------------------------------------


def test_orders_are_counted_by_how_they_ended(pool: Pool) -> None:
    first, second, third, cancelled = (Told(order_id=f"acme_order_{number}") for number in range(4))
    first.completed()
    second.completed()
    third.order.fail(OrderError("caa_forbids", "no"), BEGIN)
    cancelled.order.cancel(BEGIN)

    tell(pool, first, second, third, cancelled)

    assert sums(pool, "ended") == {("completed", ""): 2, ("caa_forbids", ""): 1, ("cancelled", ""): 1}


def test_one_that_ends_at_once_counts_too(pool: Pool) -> None:
    order = placed("acme_order_1", BEGIN, "cert_1", "x.example", homeless=("x.example",))
    apply(pool, ORDER_STATISTICS, recorded(order))

    assert sums(pool, "ended") == {("zone_not_managed", ""): 1}
    assert standing(pool) == []


def test_a_later_append_adds_to_the_counts(pool: Pool) -> None:
    for number in range(3):
        tell(pool, Told(order_id=f"acme_order_{number}").completed())

    assert sums(pool, "ended") == {("completed", ""): 3}


# --- phases ---------------------------------------------------------------------------------------------------------


def test_the_length_of_each_phase_is_in_one_bucket_and_in_the_sum(pool: Pool) -> None:
    tell(pool, Told().completed())

    assert sums(pool, "phase") == {
        ("placing", "2.5"): 1,
        ("publishing", "5.0"): 1,
        ("propagating", "60.0"): 1,
        ("validating", "10.0"): 1,
        ("finalizing", "0.5"): 1,
        ("downloading", "0.1"): 1,
    }
    assert sums(pool, "phase_ms") == {
        ("placing", ""): 2000,
        ("publishing", ""): 3000,
        ("propagating", ""): 45000,
        ("validating", ""): 8000,
        ("finalizing", ""): 400,
        ("downloading", ""): 50,
    }


def test_waiting_prolongs_a_phase_and_begins_none(pool: Pool) -> None:
    told = Told().offered()
    told.order.wait(None, told.after(10), OrderError("provider_error", "away"))
    told.order.record_published(told.order.outstanding_records[0], told.after(20))
    tell(pool, told)

    assert sums(pool, "phase_ms")["publishing", ""] == 30_000


def test_challenges_that_are_answered_again_are_still_validated(pool: Pool) -> None:
    told = Told().published()
    told.order.observe_propagation([], told.after(1))
    for _ in range(3):
        told.order.challenges_answered(told.after(10))
        told.order.follow(at_ca("pending"), authorizations(), told.after(10))
    told.order.follow(at_ca("ready"), (), told.after(10))
    tell(pool, told)

    assert sums(pool, "phase")["validating", "120.0"] == 1
    assert sums(pool, "phase_ms")["validating", ""] == 70_000


def test_a_phase_in_which_an_order_failed_is_not_among_the_lengths(pool: Pool) -> None:
    told = Told().published()
    told.order.fail(OrderError("propagation_timeout", "late"), told.after(300))
    tell(pool, told)

    assert {phase for phase, _ in sums(pool, "phase")} == {"placing", "publishing"}


def test_phases_that_were_passed_over_in_one_instant_were_none(pool: Pool) -> None:
    told = Told()
    told.order.accept(at_ca("ready"), told.after(2))
    told.order.follow(at_ca("valid"), (), told.after(3))
    told.order.complete(1, told.after(4))
    tell(pool, told)

    assert sums(pool, "phase_ms") == {("placing", ""): 2000, ("finalizing", ""): 3000, ("downloading", ""): 4000}


def test_a_clock_that_is_behind_makes_no_length_below_nothing(pool: Pool) -> None:
    told = Told().offered(placing=-5)
    tell(pool, told)

    assert sums(pool, "phase_ms") == {}
    assert standing(pool)[0][3] == "publishing"


@pytest.mark.parametrize(("seconds", "bound"), [(0.1, "0.1"), (0.101, "0.5"), (21600, "21600.0"), (21601, "+Inf")])
def test_a_length_is_in_the_bucket_whose_bound_it_does_not_pass(pool: Pool, seconds: float, bound: str) -> None:
    tell(pool, Told().offered(placing=seconds))

    assert sums(pool, "phase") == {("placing", bound): 1}


def test_every_bucket_has_its_bound() -> None:
    assert [float(bound) for bound in BOUNDS] == [*PHASE_BUCKETS, float("inf")]
    assert list(PHASE_BUCKETS) == sorted(PHASE_BUCKETS)


# --- what is under way ----------------------------------------------------------------------------------------------


def test_an_order_under_way_stands_in_its_phase_with_its_values(pool: Pool) -> None:
    told = Told().published()
    tell(pool, told)

    assert standing(pool) == [("running", "acme_order_1", 2, "propagating", told.now)]


def test_each_phase_is_entered_in_turn(pool: Pool) -> None:
    told, seen = Told().completed(), []
    for each in recorded(told.order):
        apply(pool, ORDER_STATISTICS, [each])
        seen += [phase for kind, _, _, phase, _ in standing(pool) if kind == "running"]

    assert list(dict.fromkeys(seen)) == list(MEASURED_PHASES)


def test_the_values_of_an_order_that_ended_are_left_until_the_last_is_removed(pool: Pool) -> None:
    told = Told().completed()
    tell(pool, told)
    ended_at = told.now
    assert standing(pool) == [("left", "acme_order_1", 2, "downloading", ended_at)]

    told.order.collect_events()
    first, second = told.order.outstanding_records
    told.order.record_removed(first, told.after(1))
    tell(pool, told)
    assert standing(pool) == [("left", "acme_order_1", 1, "downloading", ended_at)]

    told.order.wait(None, told.after(1), OrderError("provider_error", "away"))
    tell(pool, told)
    assert standing(pool) == [("left", "acme_order_1", 1, "downloading", ended_at)]

    told.order.record_left(second, told.after(1))
    tell(pool, told)
    assert standing(pool) == []


def test_so_are_those_of_one_that_failed(pool: Pool) -> None:
    told = Told().published()
    told.order.cancel(told.after(1))
    tell(pool, told)

    assert standing(pool) == [("left", "acme_order_1", 2, "propagating", told.now)]


def test_an_order_that_had_nothing_to_show_leaves_nothing(pool: Pool) -> None:
    told = Told()
    told.order.cancel(told.after(1))
    tell(pool, told)

    assert standing(pool) == []
    assert len(rows(pool, ORDER_STATISTICS)) == 1


# --- renewals -------------------------------------------------------------------------------------------------------


def began(*, automatic: bool, in_window: bool | None) -> Recorded:
    event_class: Any = Certificate.RenewalBegan
    event = event_class(
        originator_id="cert_1",
        originator_version=2,
        timestamp=BEGIN,
        version=1,
        order_id="acme_order_1",
        reason="ari",
        automatic=automatic,
        in_window=in_window,
    )
    return Recorded(1, event, BY)


def test_renewals_that_nobody_asked_for_are_counted_by_whether_they_began_in_the_window(pool: Pool) -> None:
    windows = (True, True, True, False, None, None)
    apply(pool, ORDER_STATISTICS, [began(automatic=True, in_window=each) for each in windows])
    apply(pool, ORDER_STATISTICS, [began(automatic=True, in_window=False)])

    assert sums(pool, "renewal") == {("yes", ""): 3, ("no", ""): 2, ("none", ""): 2}


def test_those_that_somebody_asked_for_are_not(pool: Pool) -> None:
    apply(pool, ORDER_STATISTICS, [began(automatic=False, in_window=each) for each in (True, False, None)])

    assert rows(pool, ORDER_STATISTICS) == []


# --- following ------------------------------------------------------------------------------------------------------


def test_it_follows_behind_the_history(live: Live) -> None:
    live.store.record(Told().completed().order, by=BY)
    assert sums(live.pool, "ended") == {}

    live.catch_up()
    live.catch_up()

    assert sums(live.pool, "ended") == {("completed", ""): 1}
