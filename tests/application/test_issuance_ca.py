"""An issuance while the CA fails: out of reach, slow, forgetful, refusing, or handing out the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest

from application.errors import CaRefused, CaThrottled, CaUnavailable, EgressRefused
from application.ports import CaAccount
from domain.acme import ERROR_NAMESPACE, OrderObject, Problem, Subproblem
from domain.certificate import Certificate
from domain.order import Order
from tests.application.world import ZONE, World
from tests.fakes import NEW_YEAR
from tests.fakes_ca import FakeCa, refused
from tests.fakes_ca_knobs import CertificateFault, Method

METHODS: Sequence[Method] = ("new_order", "authorizations", "answer", "order", "finalize", "chain")
HOUR = timedelta(hours=1)
RATE_LIMITED = Problem(ERROR_NAMESPACE + "rateLimited", "too many certificates for acme.example")


@pytest.fixture
def world() -> World:
    return World()


class Lingering(FakeCa):
    """Leaves an order pending although one of its authorizations is lost."""

    def _said(self, order: Any) -> OrderObject:
        said = super()._said(order)
        return replace(said, status="pending") if said.status == "invalid" else said


class Patient(FakeCa):
    """Leaves a challenge pending with what was wrong, so that it can be answered again."""

    def _validate(self, account: CaAccount, authorization: Any) -> None:
        super()._validate(account, authorization)
        if authorization.said.status == "invalid":
            challenge = replace(authorization.said.challenges[0], status="pending")
            authorization.said = replace(authorization.said, status="pending", challenges=(challenge,))


class Lapsing(FakeCa):
    """An authorization expires between ready and finalize, and the order with it."""

    def finalize(self, account: CaAccount, order: OrderObject, csr_der: bytes) -> OrderObject:
        kept = self._order_of(account, order.url)
        authorization = self._authorizations[order.authorization_urls[-1]]
        authorization.said = replace(authorization.said, status="expired")
        kept.said = replace(kept.said, status="invalid")
        return super().finalize(account, order, csr_der)


@pytest.mark.parametrize("method", METHODS)
def test_a_ca_that_is_out_of_reach_for_a_moment_is_asked_again(world: World, method: Method) -> None:
    world.ca.fail(method, CaUnavailable("503"))
    world.issued()
    assert world.ca.requests["finalize"] == (2 if method == "finalize" else 1)
    world.require_sound()


@pytest.mark.parametrize("method", METHODS)
def test_a_lost_answer_costs_no_second_certificate(world: World, method: Method) -> None:
    world.ca.lose_answer(method, CaUnavailable("the connection was reset"))
    world.issued()
    assert sum(world.ca.finalized.values()) == 1
    assert len(world.ca.issued) == 1
    assert world.ca.requests["newOrder"] == (2 if method == "new_order" else 1)
    assert world.ca.requests["challenge"] == 2
    world.require_sound()


@pytest.mark.parametrize("method", METHODS)
def test_a_ca_that_asks_for_patience_is_left_alone_for_as_long(world: World, method: Method) -> None:
    world.ca.fail(method, CaUnavailable("503", retry_after_seconds=600))
    order_id = world.issued()
    took = world.events(order_id)[-1].timestamp - NEW_YEAR
    assert timedelta(seconds=600) <= took < timedelta(seconds=602)


@pytest.mark.parametrize("method", METHODS)
def test_an_outage_of_ten_minutes_at_any_point_loses_nothing_and_is_no_storm(world: World, method: Method) -> None:
    outage = timedelta(minutes=10)
    order_id = world.placed()
    world.calls.before(f"ca.{method}", lambda: world.outage("ca", outage, CaUnavailable("503")))
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"
    assert len([call for call in world.calls.made if call.startswith("ca.")]) <= 6 + 1 + 20
    assert sum(world.ca.finalized.values()) == 1
    world.require_sound()


def test_an_order_that_no_ca_takes_is_given_up_after_a_day(world: World) -> None:
    order_id = world.placed()
    world.outage("ca", timedelta(days=2), CaUnavailable("503", retry_after_seconds=900))
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "backend_error"
    assert failed.timestamp - NEW_YEAR == timedelta(hours=24)


@pytest.mark.parametrize("retry_after_seconds", [None, 3600.0])
def test_a_rate_limit_ends_a_new_order(world: World, retry_after_seconds: float | None) -> None:
    world.ca.fail("new_order", CaThrottled(RATE_LIMITED, retry_after_seconds))
    order_id = world.placed()
    world.run_until_quiet()
    error = world.failure(order_id).error
    assert (error.code, error.retry_after_seconds) == ("backend_rate_limited", 3600)
    assert error.problem == RATE_LIMITED
    assert world.ca.requests["newOrder"] == 1
    world.require_sound()


def test_a_rate_limit_keeps_a_renewal_waiting(world: World) -> None:
    first = world.issued()
    world.ca.requests.clear()
    world.ca.fail("new_order", CaThrottled(RATE_LIMITED, 3600))
    order_id = world.renewal_of(first)
    placed_at = world.clock.now()
    world.run_for(timedelta(minutes=59))
    assert world.ca.requests == {"newOrder": 1}
    (waits,) = (event for event in world.events(order_id) if isinstance(event, Order.Postponed))
    assert waits.until == placed_at + HOUR
    assert waits.error is not None
    assert (waits.error.code, waits.error.retry_after_seconds) == ("backend_rate_limited", 3600)
    world.run_until_quiet()
    assert world.certificate(order_id).current.number == 2
    world.require_sound()


def test_a_busy_ca_is_no_rate_limit(world: World) -> None:
    world.ca.fail("new_order", CaThrottled(Problem("about:blank", "429 Too Many Requests"), 30))
    world.issued()


@pytest.mark.parametrize("times", [1, 4])
def test_an_order_that_is_not_ready_after_all_is_finalized_later(world: World, times: int) -> None:
    world.ca.fail("finalize", *[refused("orderNotReady", "not yet", 403)] * times)
    world.issued()
    assert world.ca.requests["newOrder"] == 1
    assert world.ca.requests["finalize"] == times + 1
    assert sum(world.ca.finalized.values()) == 1
    world.require_sound()


@pytest.mark.parametrize("polls", [1, 5, 20])
def test_an_order_in_processing_is_asked_after_and_not_finalized_again(world: World, polls: int) -> None:
    world.ca.knobs.processing_polls = polls
    world.issued()
    assert world.ca.requests["order"] == 1 + polls + 1
    assert world.ca.requests["finalize"] == 1
    world.require_sound()


def test_the_wait_that_the_ca_asks_for_in_processing_is_kept(world: World) -> None:
    world.ca.knobs.processing_polls = 2
    world.ca.knobs.retry_after_seconds = 90
    order_id = world.issued()
    took = world.events(order_id)[-1].timestamp - NEW_YEAR
    assert timedelta(seconds=270) <= took < timedelta(seconds=272)


def test_an_order_in_processing_for_ever_ends_with_the_order_at_the_ca(world: World) -> None:
    world.ca.knobs.processing_polls = -1
    world.ca.knobs.order_lifetime = HOUR
    order_id = world.placed()
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "order_expired"
    assert HOUR <= failed.timestamp - NEW_YEAR < HOUR + timedelta(seconds=1)
    assert world.ca.requests["finalize"] == 1
    world.require_sound(rejected=1)


def test_an_order_that_is_born_ready_needs_no_dns(world: World) -> None:
    world.ca.knobs.preauthorized.add(ZONE)
    world.issued()
    assert world.ca.requests == {"newOrder": 1, "finalize": 1, "certificate": 1}
    assert world.zones.of(ZONE).attempts == 0
    world.require_sound()


@pytest.mark.parametrize("valid", [0, 1, 2, 3])
def test_names_that_are_authorized_already_are_not_shown_again(world: World, valid: int) -> None:
    names = [f"{label}.{ZONE}" for label in "abcd"]
    world.ca.knobs.preauthorized.update(names[:valid])
    world.issued(*names)
    assert world.ca.requests["challenge"] == 4 - valid
    assert {name for name, _ in world.validated_with} == {f"_acme-challenge.{name}" for name in names[valid:]}
    assert {value.record_name for _, values in world.zones.of(ZONE).changes for value in values} == {
        f"_acme-challenge.{name}" for name in names[valid:]
    }
    world.require_sound()


def test_one_name_that_fails_ends_the_order_as_a_unit(world: World) -> None:
    names = [f"{label}.{ZONE}" for label in "abcdefghijklmnopqrstuvwxy"]
    problem = Problem(ERROR_NAMESPACE + "dns", "NXDOMAIN looking up TXT")
    world.ca.knobs.invalid[names[7]] = problem
    order_id = world.placed(*names)
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "challenge_failed"
    (at_name,) = failed.name_errors
    assert (at_name.dns_name, at_name.code, at_name.problem) == (names[7], "challenge_failed", problem)
    assert world.ca.requests["finalize"] == 0
    assert [(change, len(values)) for change, values in world.zones.of(ZONE).changes] == [("add", 25), ("remove", 25)]
    world.require_sound()


def test_a_lost_authorization_ends_an_order_that_stays_pending() -> None:
    world = World(Lingering)
    world.ca.knobs.invalid[ZONE] = Problem(ERROR_NAMESPACE + "caa", "forbidden")
    order_id = world.placed()
    world.run_until_quiet()
    assert world.failure(order_id).error.code == "caa_forbids"
    assert world.ca.requests["order"] == 2
    world.require_sound()


def test_an_authorization_that_expires_before_the_finalize_is_named() -> None:
    world = World(Lapsing)
    order_id = world.placed(f"www.{ZONE}", ZONE)
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert failed.error.code == "challenge_failed"
    assert [(error.dns_name, error.message) for error in failed.name_errors] == [(ZONE, "the authorization is expired")]
    world.require_sound()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_challenge_that_is_left_pending_is_answered_again(failures: int) -> None:
    world = World(Patient)
    problem = Problem(ERROR_NAMESPACE + "dns", "SERVFAIL looking up TXT")
    world.ca.knobs.invalid[ZONE] = problem
    for _ in range(failures):
        world.calls.before("ca.answer", lambda: None)
    world.calls.before("ca.answer", world.ca.knobs.invalid.clear)
    order_id = world.issued()
    reopened = [event.problem for event in world.events(order_id) if isinstance(event, Order.ChallengesReopened)]
    assert reopened == [problem] * failures
    world.require_sound()


def test_a_challenge_is_not_answered_for_ever() -> None:
    world = World(Patient)
    world.ca.knobs.invalid[ZONE] = Problem(ERROR_NAMESPACE + "dns", "SERVFAIL looking up TXT")
    order_id = world.placed(ZONE)
    world.run_until_quiet()
    assert world.failure(order_id).error.code == "challenge_failed"
    assert world.ca.requests["challenge"] == 3
    world.require_sound()


def test_a_refusal_with_subproblems_names_each_name(world: World) -> None:
    subproblems = (
        Subproblem(ZONE, ERROR_NAMESPACE + "caa", "forbidden"),
        Subproblem(f"*.{ZONE}", ERROR_NAMESPACE + "rejectedIdentifier", "blocked"),
    )
    world.ca.fail("new_order", CaRefused(Problem(ERROR_NAMESPACE + "compound", "two names", subproblems), 403))
    order_id = world.placed()
    world.run_until_quiet()
    assert [(error.dns_name, error.code) for error in world.failure(order_id).name_errors] == [
        (ZONE, "caa_forbids"),
        (f"*.{ZONE}", "rejected_identifier"),
    ]
    assert world.ca.requests.total() == 1


@pytest.mark.parametrize("method", METHODS)
def test_what_the_ca_refuses_is_not_asked_again(world: World, method: Method) -> None:
    world.ca.fail(method, refused("malformed", "no", 400))
    order_id = world.placed()
    world.run_until_quiet()
    assert world.failure(order_id).error.code == "backend_error"
    world.require_sound(rejected=1 if method == "chain" else 0)


def test_a_ca_that_must_not_be_dialled_is_no_fault_of_the_provider(world: World) -> None:
    world.ca.fail("new_order", EgressRefused("10.0.0.1 must not be dialled"))
    order_id = world.placed()
    world.run_until_quiet()
    error = world.failure(order_id).error
    assert (error.code, error.message) == ("backend_error", "10.0.0.1 must not be dialled")


def test_an_order_that_the_ca_gives_up_ends_with_its_reason(world: World) -> None:
    world.ca.knobs.processing_polls = -1
    order_id = world.placed()
    world.run_for(timedelta(minutes=1))
    at = world.order(order_id).at_ca
    assert at is not None
    world.ca.invalidate(at.url, Problem(ERROR_NAMESPACE + "serverInternal", "could not issue"))
    world.run_until_quiet()
    assert world.failure(order_id).error.message == "could not issue"
    world.require_sound(rejected=1)


def test_a_ca_that_forgot_everything_ends_the_order(world: World) -> None:
    order_id = world.placed()
    world.calls.before("ca.answer", world.ca.forget_everything)
    world.run_until_quiet()
    assert "account" in world.failure(order_id).error.message
    world.require_sound()


@pytest.mark.parametrize("fault", get_args(CertificateFault))
def test_a_certificate_that_was_not_ordered_is_never_visible(world: World, fault: CertificateFault) -> None:
    world.ca.knobs.certificate_fault = fault
    order_id = world.placed()
    world.run_until_quiet()
    assert world.failure(order_id).error.code == "certificate_rejected"
    assert not any(isinstance(event, Certificate.Event) for event in world.recorded)
    assert world.ca.requests["certificate"] <= 6
    world.require_sound(rejected=1)


def test_a_renewal_that_gets_a_wrong_certificate_leaves_the_old_one(world: World) -> None:
    first = world.issued()
    world.ca.knobs.certificate_fault = "wrong_key"
    world.renewal_of(first)
    world.run_until_quiet()
    certificate = world.certificate(first)
    assert (certificate.current.number, certificate.failed_renewals) == (1, 1)
    world.require_sound(rejected=1)
