from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import errors as failures
from application.errors import Failure, Retryable
from application.tokens import NotAuthenticated, RejectionCode
from domain import errors as refusals
from domain.account import Account
from domain.acme import Problem as AcmeProblem
from domain.certificate import Certificate
from domain.delivery import Delivery
from domain.dns_provider import DnsProvider
from domain.errors import FieldProblem, InvalidFields, NotFound, Refusal
from domain.order import Order
from domain.rate_limit import LETS_ENCRYPT, Bucket
from domain.secret import Secret
from domain.subscription import Subscription
from domain.token import Token
from interfaces.http.problems import ERRORS, INTERNAL, BadRequest, Problem, TooBusy, answer, problem_of

CONTRACT = {
    400: {
        "invalid_request",
        "invalid_path",
        "invalid_secret_type",
        "invalid_duration",
        "invalid_cursor",
        "invalid_glob",
    },
    401: {"authentication_required", "token_invalid", "token_expired", "token_revoked"},
    403: {"insufficient_scope", "access_denied"},
    404: {
        "secret_not_found",
        "version_not_found",
        "subscription_not_found",
        "certificate_not_found",
        "acme_account_not_found",
        "acme_order_not_found",
        "dns_provider_not_found",
        "token_not_found",
        "delivery_not_found",
    },
    409: {
        "name_in_use",
        "idempotency_conflict",
        "order_in_progress",
        "private_key_not_stored",
        "already_revoked",
        "dns_provider_in_use",
        "acme_account_in_use",
        "version_conflict",
    },
    412: {"precondition_failed"},
    413: {"request_too_large"},
    415: {"unsupported_media_type"},
    422: {"validation_error", "provider_verification_failed"},
    428: {"precondition_failed"},
    429: {"rate_limited", "backend_rate_limited"},
    500: {"internal_error"},
    502: {"backend_error"},
    503: {"service_unavailable"},
    504: {"backend_timeout"},
}

THROTTLED = AcmeProblem("urn:ietf:params:acme:error:rateLimited", "too many", ())
REFUSED = AcmeProblem("urn:ietf:params:acme:error:malformed", "no", ())

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
EXAMPLES: dict[type[Exception], Exception] = {
    type(error): error
    for error in (
        NotFound("order", "acme_order_1"),
        InvalidFields(FieldProblem("name", "too_long", "is too long")),
        refusals.NameInUse("le"),
        refusals.OrderInProgress("acme_order_1"),
        refusals.DnsProviderInUse("dnsp_1", "acme_order_1"),
        refusals.VersionConflict(),
        refusals.PrivateKeyNotStored("cert_1", 2),
        refusals.OrderAlreadyEnded("acme_order_1"),
        refusals.AlreadyRevoked("cert_1", 2),
        refusals.AccountNotActive("acme_1", "lost"),
        refusals.AccountInUse("acme_1", ["cert_1"]),
        refusals.KeyChangeInProgress("acme_1"),
        refusals.CaLimitReached(Bucket(LETS_ENCRYPT, "new_orders", "acme_1"), NOON + timedelta(seconds=1.5), NOON),
        refusals.ProviderVerificationFailed("throttled", "slow down"),
        refusals.TooMany("10 polls wait already"),
        refusals.Denied("insufficient_scope", "the scope admin is needed", "admin"),
        refusals.SealBroken("leaf-key", "cert_1"),
        NotAuthenticated("token_expired", "this token has expired"),
        failures.CaUnavailable("no answer", 1.5),
        failures.CaTimedOut("no answer in time"),
        failures.CaThrottled(THROTTLED, 60),
        failures.ZoneThrottled("slow down"),
        failures.ZoneUnreachable("no answer"),
        failures.ZoneConflict("somebody else"),
        failures.ResolverFailed("SERVFAIL"),
        failures.EndpointUnreachable("no answer"),
        failures.StoreUnavailable("PostgreSQL: OperationalError", 2.0),
        failures.CaRefused(REFUSED, 400),
        failures.ZoneRefused("zone_not_found", "no such zone"),
        failures.EgressRefused("10.0.0.1 is private"),
    )
}


def leaves(error_class: type[Exception]) -> Iterator[type[Exception]]:
    """The ends of the tree as it is drawn; an adapter's own subclass is what its parent is."""
    below = [
        child for child in error_class.__subclasses__() if child.__module__.startswith(("domain.", "application."))
    ]
    if not below:
        yield error_class
    for child in below:
        yield from leaves(child)


def said(error: Exception) -> Problem:
    problem = problem_of(error)
    assert problem is not None
    return problem


def test_the_examples_are_all_leaves_of_both_trees() -> None:
    assert set(EXAMPLES) == {*leaves(Refusal), *leaves(Failure), failures.CaUnavailable}  # which is raised itself too


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)
def test_every_refusal_and_failure_has_a_status_and_a_code_of_the_contract(error: Exception) -> None:
    problem = said(error)
    assert problem.code in CONTRACT[problem.status]
    assert problem.status in ERRORS


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (refusals.OrderInProgress("acme_order_1"), 409, "order_in_progress"),
        (refusals.DnsProviderInUse("dnsp_1", "acme_order_1"), 409, "dns_provider_in_use"),
        (refusals.OrderAlreadyEnded("acme_order_1"), 409, "version_conflict"),
        (refusals.Denied("access_denied", "not this name"), 403, "access_denied"),
        (refusals.TooMany("10 polls wait already"), 429, "rate_limited"),
        (TooBusy("too many polls wait here"), 503, "service_unavailable"),
        (failures.CaThrottled(THROTTLED), 429, "backend_rate_limited"),
        (failures.StoreUnavailable("PostgreSQL"), 503, "service_unavailable"),
        (failures.CaUnavailable("no answer"), 502, "backend_error"),
        (failures.CaRefused(REFUSED, 400), 502, "backend_error"),
        (BadRequest(415, "unsupported_media_type", "a body is application/json"), 415, "unsupported_media_type"),
    ],
)
def test_clients_branch_on_these(error: Exception, status: int, code: str) -> None:
    assert (said(error).status, said(error).code) == (status, code)


@pytest.mark.parametrize("code", get_args(RejectionCode))
def test_every_reason_not_to_know_the_caller_is_a_401(code: RejectionCode) -> None:
    problem = said(NotAuthenticated(code, "who are you"))
    assert (problem.status, problem.code) == (401, code)
    assert code in CONTRACT[401]
    assert ("www-authenticate", "Bearer") in answer(problem, None)[1]


@pytest.mark.parametrize(
    "kind",
    [aggregate.TOPIC for aggregate in (Account, Certificate, Delivery, DnsProvider, Order, Secret, Subscription, Token)]
    + ["version"],
)
def test_whatever_can_be_asked_for_has_a_word_for_its_absence(kind: str) -> None:
    problem = said(NotFound(kind, "x"))
    assert problem.status == 404
    assert problem.code in CONTRACT[404]


@pytest.mark.parametrize("fault", [KeyError("x"), RuntimeError("x"), Exception(), TimeoutError()])
def test_anything_else_is_a_fault_of_ours(fault: Exception) -> None:
    assert problem_of(fault) is None


def test_of_a_broken_seal_nothing_is_shown() -> None:
    assert said(refusals.SealBroken("leaf-key", "cert_1")) == INTERNAL


def test_a_missing_scope_is_named_in_the_details() -> None:
    assert said(refusals.Denied("insufficient_scope", "needed", "admin")).details == {"required": "admin"}
    assert said(refusals.Denied("access_denied", "not this one")).details is None


def test_a_failed_verification_says_why() -> None:
    problem = said(refusals.ProviderVerificationFailed("throttled", "slow down"))
    assert problem.details == {"reason": "throttled", "detail": "slow down"}


def test_an_order_in_the_way_is_named() -> None:
    assert said(refusals.OrderInProgress("acme_order_1")).details == {"order_id": "acme_order_1"}


# --- fields ---


@pytest.mark.parametrize("code", sorted(CONTRACT[400] - {"invalid_request"}))
def test_wrong_syntax_alone_is_a_400_of_its_own_code(code: str) -> None:
    problem = said(InvalidFields(FieldProblem("a", code, "x"), FieldProblem("b", code, "y")))
    assert (problem.status, problem.code) == (400, code)


def test_fields_that_are_wrong_in_several_ways_are_one_422() -> None:
    problem = said(InvalidFields(FieldProblem("a", "invalid_glob", "x"), FieldProblem("b", "required", "y")))
    assert (problem.status, problem.code) == (422, "validation_error")
    assert problem.details == {
        "fields": [
            {"field": "a", "code": "invalid_glob", "message": "x"},
            {"field": "b", "code": "required", "message": "y"},
        ]
    }


# --- the answer ---


def test_the_body_is_the_contracts_and_says_no_more_than_there_is() -> None:
    body, headers = answer(Problem(404, "token_not_found", "token x does not exist"), "req_1")
    assert json.loads(body) == {
        "error": {"code": "token_not_found", "message": "token x does not exist", "request_id": "req_1"}
    }
    assert dict(headers) == {"content-type": "application/json", "cache-control": "no-store"}


@settings(deadline=None)
@given(st.none() | st.floats(min_value=-10, max_value=1e9))
def test_retry_after_is_the_same_whole_seconds_in_the_body_and_the_header(seconds: float | None) -> None:
    for failure in (
        Retryable("later", seconds),
        failures.CaThrottled(THROTTLED, seconds),
        failures.StoreUnavailable("", seconds),
    ):
        body, headers = answer(said(failure), "req_1")
        in_body = msgspec.json.decode(body)["error"].get("retry_after")
        assert dict(headers).get("retry-after") == (None if seconds is None else str(in_body))
        if seconds is not None:
            assert isinstance(in_body, int)
            assert in_body >= max(1, seconds)
            assert in_body < max(1, seconds) + 1
