from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.acme import ChallengeObject, Problem, Subproblem
from domain.order import ErrorAtName, Order, OrderError
from domain.provenance import Recorded
from interfaces.postgres.pool import Pool
from projections.orders import (
    ORDERS,
    ChallengeErrorView,
    ChallengeView,
    ErrorDetails,
    OrderErrorView,
    OrderView,
    SubproblemView,
    running_order,
)
from tests.projections.folding import apply, document, recorded
from tests.projections.story import BEGIN, BY_OTHER, OTHER_TENANT, TENANT, at_ca, authorizations, late, placed

NOW = BEGIN
SECOND = timedelta(seconds=1)
SHOWN = NOW.replace(microsecond=0)
NO_DETAILS = ErrorDetails(None, [])


def a_placed_order(**details: Any) -> Order:
    return placed("acme_order_1", NOW, "cert_1", **details)


def an_offered_order() -> Order:
    order = a_placed_order()
    order.accept(at_ca("pending"), NOW)
    order.offer_challenges(authorizations(), "thumb", NOW)
    return order


def a_ready_order() -> Order:
    order = an_offered_order()
    order.record_published(order.outstanding_records[0], NOW)
    order.observe_propagation([], NOW)
    order.challenges_answered(NOW)
    order.follow(at_ca("ready"), (), NOW)
    return order


def progress(view: OrderView) -> tuple[str, str]:
    return view.status, view.phase


def test_a_placed_order_is_pending_with_its_names_and_times(pool: Pool) -> None:
    assert document(pool, ORDERS, a_placed_order()) == OrderView(
        order_id="acme_order_1",
        status="pending",
        phase="placing",
        account_id="acme_account_1",
        domains=["a.example", "*.a.example"],
        challenge_type="dns-01",
        auto_renew=True,
        certificate_id=None,
        renews=None,
        challenges=[
            ChallengeView("a.example", False, "dns-01", "pending", "_acme-challenge.a.example", None, "dns_1", None),
            ChallengeView("*.a.example", True, "dns-01", "pending", "_acme-challenge.a.example", None, "dns_1", None),
        ],
        error=None,
        warnings=[],
        attempts=0,
        next_attempt_at=None,
        created_at=SHOWN,
        updated_at=SHOWN,
        completed_at=None,
    )


def test_a_renewal_names_its_certificate_from_the_start(pool: Pool) -> None:
    view = document(pool, ORDERS, a_placed_order(reason="manual"))

    assert view.certificate_id == view.renews == "cert_1"


def test_an_order_without_a_provider_shows_the_error_at_each_such_name(pool: Pool) -> None:
    view = document(pool, ORDERS, a_placed_order(homeless=("*.a.example",)))

    assert progress(view) == ("invalid", "done")
    assert view.completed_at == SHOWN
    message = "no active DNS provider manages *.a.example"
    assert view.error == OrderErrorView("zone_not_managed", message, None, NO_DETAILS)
    plain, wildcard = view.challenges
    assert (plain.status, plain.error, plain.dns_provider_id) == ("pending", None, "dns_1")
    at_name = ChallengeErrorView("zone_not_managed", "no active DNS provider manages this name", None, [])
    assert (wildcard.status, wildcard.error, wildcard.dns_provider_id) == ("invalid", at_name, None)


def test_an_accepted_order_is_processing(pool: Pool) -> None:
    order = a_placed_order()
    order.seal_key("sealed_1", b"csr", NOW)
    order.accept(at_ca("pending"), NOW + SECOND)

    view = document(pool, ORDERS, order)

    assert progress(view) == ("processing", "publishing")
    assert (view.created_at, view.updated_at) == (SHOWN, SHOWN + SECOND)


def test_each_challenge_shows_the_value_of_its_own_name(pool: Pool) -> None:
    order = an_offered_order()
    plain, wildcard = order.outstanding_records

    view = document(pool, ORDERS, order)

    assert plain.value != wildcard.value
    assert [challenge.record_value for challenge in view.challenges] == [plain.value, wildcard.value]
    assert [challenge.status for challenge in view.challenges] == ["pending", "pending"]


def test_published_and_propagated_values_move_the_phase_and_leave_a_warning(pool: Pool) -> None:
    order = an_offered_order()
    order.record_published(order.outstanding_records[0], NOW)
    assert progress(document(pool, ORDERS, order)) == ("processing", "propagating")

    order.observe_propagation([late(order)], NOW)
    apply(pool, ORDERS, recorded(order, after=10))

    view = ORDERS.one(pool, TENANT, order.id)
    assert progress(view) == ("processing", "validating")
    assert view.warnings == ["went on although 192.0.2.53:53 did not serve the values yet"]


def test_reopened_challenges_count_as_an_attempt_and_warn(pool: Pool) -> None:
    order = an_offered_order()
    order.record_published(order.outstanding_records[0], NOW)
    order.observe_propagation([], NOW)
    order.challenges_answered(NOW)
    order.follow(at_ca("pending"), authorizations(error=Problem("about:blank", "try again")), NOW)

    view = document(pool, ORDERS, order)

    assert progress(view) == ("processing", "validating")
    assert (view.attempts, view.warnings, view.error) == (1, ["try again"], None)


def test_a_ready_order_has_only_valid_challenges(pool: Pool) -> None:
    view = document(pool, ORDERS, a_ready_order())

    assert progress(view) == ("processing", "finalizing")
    assert [challenge.status for challenge in view.challenges] == ["valid", "valid"]


def test_an_order_that_is_ready_at_birth_skips_the_challenges(pool: Pool) -> None:
    order = a_placed_order()
    order.accept(at_ca("ready"), NOW)

    assert progress(document(pool, ORDERS, order)) == ("processing", "finalizing")


def test_a_completed_order_cleans_up_and_is_then_done(pool: Pool) -> None:
    order = a_ready_order()
    order.follow(at_ca("processing"), (), NOW)
    order.follow(at_ca("valid"), (), NOW)
    apply(pool, ORDERS, recorded(order))
    assert progress(ORDERS.one(pool, TENANT, order.id)) == ("processing", "downloading")

    order.complete(1, NOW + SECOND)
    apply(pool, ORDERS, recorded(order, after=20))
    view = ORDERS.one(pool, TENANT, order.id)
    assert progress(view) == ("valid", "cleaning_up")
    assert (view.certificate_id, view.completed_at) == ("cert_1", SHOWN + SECOND)

    first, second = order.outstanding_records
    order.record_removed(first, NOW + SECOND)
    apply(pool, ORDERS, recorded(order, after=30))
    assert progress(ORDERS.one(pool, TENANT, order.id)) == ("valid", "cleaning_up")

    order.record_removed(second, NOW + SECOND)
    apply(pool, ORDERS, recorded(order, after=40))
    assert progress(ORDERS.one(pool, TENANT, order.id)) == ("valid", "done")


def test_an_order_without_values_is_done_when_it_ends(pool: Pool) -> None:
    order = a_placed_order()
    order.accept(at_ca("ready"), NOW)
    order.follow(at_ca("valid"), (), NOW)
    order.complete(1, NOW)

    assert progress(document(pool, ORDERS, order)) == ("valid", "done")


def test_a_failure_at_one_name_stands_at_that_name_alone(pool: Pool) -> None:
    type_ = "urn:ietf:params:acme:error:dns"
    problem = Problem(type_, "no such name", (Subproblem("a.example", type_, "gone"),))
    order = an_offered_order()
    order.fail(
        OrderError("challenge_failed", "no such name", 60, problem),
        NOW,
        [ErrorAtName("*.a.example", "challenge_failed", "no such name", problem)],
    )

    view = document(pool, ORDERS, order)

    subproblems = [SubproblemView("a.example", type_, "gone")]
    assert progress(view) == ("invalid", "cleaning_up")
    assert view.error == OrderErrorView("challenge_failed", "no such name", 60, ErrorDetails(type_, subproblems))
    plain, wildcard = view.challenges
    assert (plain.status, plain.error) == ("pending", None)
    error = ChallengeErrorView("challenge_failed", "no such name", type_, subproblems)
    assert (wildcard.status, wildcard.error) == ("invalid", error)


def test_a_failure_of_the_whole_order_stands_at_each_name_that_is_not_valid(pool: Pool) -> None:
    order = a_placed_order()
    order.accept(at_ca("pending"), NOW)
    plain, wildcard = authorizations()
    done = ChallengeObject("dns-01", "https://ca.example/challenge/1", "valid")
    plain = type(plain)(plain.url, plain.dns_name, wildcard=False, status="valid", challenges=(done,))
    order.offer_challenges([plain, wildcard], "thumb", NOW)
    order.fail(OrderError("provider_error", "no access"), NOW)

    view = document(pool, ORDERS, order)

    assert [challenge.status for challenge in view.challenges] == ["valid", "pending"]
    assert [challenge.error for challenge in view.challenges] == [
        None,
        ChallengeErrorView("provider_error", "no access", None, []),
    ]


def test_a_cancelled_order_blames_no_name(pool: Pool) -> None:
    order = an_offered_order()
    order.cancel(NOW)

    view = document(pool, ORDERS, order)

    assert progress(view) == ("invalid", "cleaning_up")
    assert view.error == OrderErrorView("cancelled", "cancelled on request", None, NO_DETAILS)
    assert [challenge.error for challenge in view.challenges] == [None, None]


def test_waiting_after_an_error_says_why_and_until_when(pool: Pool) -> None:
    order = an_offered_order()
    order.wait(60, NOW, OrderError("provider_error", "out of reach", 60))
    order.wait(60, NOW, OrderError("provider_error", "out of reach", 60))

    view = document(pool, ORDERS, order)

    assert progress(view) == ("processing", "waiting")
    assert (view.attempts, view.next_attempt_at) == (2, SHOWN + 60 * SECOND)
    assert view.error == OrderErrorView("provider_error", "out of reach", 60, NO_DETAILS)

    order.record_published(order.outstanding_records[0], NOW)
    apply(pool, ORDERS, recorded(order, after=10))
    view = ORDERS.one(pool, TENANT, order.id)
    assert progress(view) == ("processing", "propagating")
    assert (view.attempts, view.next_attempt_at, view.error) == (2, None, None)


def test_waiting_in_the_normal_course_keeps_the_phase(pool: Pool) -> None:
    order = an_offered_order()
    order.record_published(order.outstanding_records[0], NOW)
    order.wait(60, NOW)

    view = document(pool, ORDERS, order)

    assert progress(view) == ("processing", "propagating")
    assert (view.attempts, view.next_attempt_at, view.error) == (0, SHOWN + 60 * SECOND, None)


def test_what_an_order_ended_with_stays_while_its_cleaning_up_has_to_wait(pool: Pool) -> None:
    order = an_offered_order()
    order.cancel(NOW)
    order.wait(60, NOW, OrderError("provider_error", "out of reach"))

    view = document(pool, ORDERS, order)

    assert progress(view) == ("invalid", "cleaning_up")
    assert view.error is not None
    assert (view.error.code, view.attempts) == ("cancelled", 0)
    assert view.next_attempt_at == SHOWN + 60 * SECOND


def test_events_of_an_order_that_was_never_placed_are_refused(pool: Pool) -> None:
    order = an_offered_order()

    with pytest.raises(ValueError, match="is not the first of its order"):
        apply(pool, ORDERS, recorded(order)[1:])


# --- finding orders -------------------------------------------------------------------------------------------------


def test_the_running_order_for_the_same_names_is_found_in_whatever_order_they_come(pool: Pool) -> None:
    order = a_placed_order()
    apply(pool, ORDERS, recorded(order))

    assert running_order(pool, "acme_account_1", ["*.a.example", "a.example"]) == order.id
    assert running_order(pool, "acme_account_1", ["a.example"]) is None
    assert running_order(pool, "acme_account_2", ["*.a.example", "a.example"]) is None

    order.cancel(NOW)
    apply(pool, ORDERS, recorded(order, after=10))
    assert running_order(pool, "acme_account_1", ["*.a.example", "a.example"]) is None


def test_another_tenants_order_is_not_there(pool: Pool) -> None:
    apply(pool, ORDERS, recorded(a_placed_order()))

    assert ORDERS.one(pool, OTHER_TENANT, "acme_order_1") is None
    assert ORDERS.page(pool, OTHER_TENANT, 0, 10, {}) == []


def test_orders_are_listed_in_pages_in_the_order_of_their_placing(pool: Pool) -> None:
    orders = [placed(f"acme_order_{9 - n}", NOW, f"cert_{n}", f"{n}.example") for n in range(5)]
    events = recorded(*orders)
    orders[1].cancel(NOW)
    events += recorded(orders[1], after=5)
    events += [Recorded(100, recorded(placed("acme_order_x", NOW, "cert_x", "x.example"))[0].event, BY_OTHER)]
    apply(pool, ORDERS, events)

    def ids(after: int, limit: int, **matching: Any) -> list[tuple[int, str]]:
        return [(at, view.order_id) for at, view in ORDERS.page(pool, TENANT, after, limit, matching)]

    assert ids(0, 2) == [(1, "acme_order_9"), (2, "acme_order_8")]
    assert ids(2, 2) == [(3, "acme_order_7"), (4, "acme_order_6")]
    assert ids(4, 2) == [(5, "acme_order_5")]
    assert ids(5, 2) == []
    assert ids(0, 9, status="invalid") == [(2, "acme_order_8")]
    assert ids(0, 2, status="pending") == [(1, "acme_order_9"), (3, "acme_order_7")]
