"""The only table from a refusal or failure to an HTTP status and the contract's code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec

from application import errors as failures
from application.tokens import NotAuthenticated
from domain import errors as refusals


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    details: Mapping[str, Any] | None = None
    retry_after: int | None = None
    request_id: str | None = None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every error looks like."""

    error: ErrorBody


ERRORS: Mapping[int, ResponseSpec] = {
    status: ResponseSpec(ErrorAnswer, generate_examples=False, description=meaning)
    for status, meaning in {
        400: "The request is malformed",
        401: "No token, or none that is good",
        403: "The token does not allow it",
        404: "There is no such thing here",
        409: "It stands against how things are now",
        413: "The body is too large",
        415: "The body is no JSON",
        422: "A field has a value that is not acceptable",
        429: "Too much; `retry_after` says when to ask again",
        500: "A fault of the service",
        502: "The CA or the DNS provider failed",
        503: "The service cannot answer now",
        504: "The CA did not answer in time",
    }.items()
}
"""What each route with a scope may answer beside its own, for the OpenAPI description."""


class Problem(msgspec.Struct, frozen=True):
    status: int
    code: str
    message: str
    details: Mapping[str, Any] | None = None
    retry_after: int | None = None


class TooBusy(Exception):
    """So many wait here, whoever they are, that one more would hold up the others. Its text says for what they wait."""


class ClientGone(Exception):
    """Whoever asked has hung up: the answer is for the log alone."""


class BadRequest(Exception):
    """The request itself is not acceptable, whatever it asks for."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(status, code, message, details)


NOT_FOUND_CODES = {
    "secret": "secret_not_found",
    "version": "version_not_found",
    "subscription": "subscription_not_found",
    "certificate": "certificate_not_found",
    "account": "acme_account_not_found",
    "order": "acme_order_not_found",
    "dns_provider": "dns_provider_not_found",
    "token": "token_not_found",
    "delivery": "delivery_not_found",
}

CONFLICT_CODES: Mapping[type[refusals.Refusal], str] = {
    refusals.NameInUse: "name_in_use",
    refusals.VersionConflict: "version_conflict",
    refusals.PrivateKeyNotStored: "private_key_not_stored",
    refusals.OrderInProgress: "order_in_progress",
    refusals.OrderAlreadyEnded: "version_conflict",
    refusals.AlreadyRevoked: "already_revoked",
    refusals.AccountInUse: "acme_account_in_use",
    refusals.DnsProviderInUse: "dns_provider_in_use",
    refusals.KeyChangeInProgress: "version_conflict",
}

SYNTAX_CODES = frozenset({"invalid_path", "invalid_secret_type", "invalid_duration", "invalid_cursor", "invalid_glob"})

RETRY_AFTER_SECONDS = 2
INTERNAL = Problem(500, "internal_error", "something went wrong here; the request id finds it in the logs")


def problem_of(error: Exception) -> Problem | None:
    """None for what is nobody's refusal: a fault of ours."""
    match error:
        case BadRequest():
            return error.problem
        case TooBusy():
            return Problem(503, "service_unavailable", str(error), None, RETRY_AFTER_SECONDS)
        case ClientGone():
            return Problem(499, "client_gone", "the client hung up")
        case NotAuthenticated():
            return Problem(401, error.code, str(error))
        case refusals.Denied():
            details = {"required": error.required} if error.required else None
            return Problem(403, error.code, str(error), details)
        case refusals.NotFound():
            return Problem(404, NOT_FOUND_CODES[error.kind], str(error))
        case refusals.InvalidFields():
            return _invalid_fields(error)
        case refusals.TooMany():
            return Problem(429, "rate_limited", str(error), None, RETRY_AFTER_SECONDS)
        case refusals.Conflict() | refusals.OrderAlreadyEnded():
            return _conflict(error)
        case refusals.CaLimitReached():
            limit = {"limit": error.bucket.limit, "refills_at": f"{error.ready_at:%Y-%m-%dT%H:%M:%SZ}"}
            return Problem(429, "backend_rate_limited", str(error), limit, error.retry_after_seconds)
        case refusals.ProviderVerificationFailed():
            details = {"reason": error.reason, "detail": error.detail}
            return Problem(422, "provider_verification_failed", str(error), details)
        case refusals.SealBroken():
            return INTERNAL
        case failures.StoreUnavailable():
            return Problem(503, "service_unavailable", "the store is not available", None, _whole(error))
        case failures.CaThrottled():
            return Problem(429, "backend_rate_limited", error.detail, None, _whole(error))
        case failures.CaTimedOut():
            return Problem(504, "backend_timeout", error.detail, None, _whole(error))
        case failures.Retryable():
            return Problem(502, "backend_error", error.detail, None, _whole(error))
        case failures.Permanent():
            return Problem(502, "backend_error", error.detail)
        case _:
            return None


def _conflict(error: refusals.Conflict | refusals.OrderAlreadyEnded) -> Problem:
    match error:
        case refusals.AccountNotActive():
            field = {"field": "account_id", "code": "not_active", "message": str(error)}
            return Problem(422, "validation_error", str(error), {"fields": [field]})
        case refusals.OrderInProgress() | refusals.DnsProviderInUse() | refusals.OrderAlreadyEnded():
            return Problem(409, CONFLICT_CODES[type(error)], str(error), {"order_id": error.order_id})
        case refusals.AccountInUse():
            return Problem(
                409, CONFLICT_CODES[type(error)], str(error), {"certificate_ids": list(error.certificate_ids)}
            )
        case _:
            return Problem(409, CONFLICT_CODES[type(error)], str(error))


def _invalid_fields(error: refusals.InvalidFields) -> Problem:
    fields = [msgspec.to_builtins(field) for field in error.fields]
    codes = {field.code for field in error.fields}
    if len(codes) == 1 and codes <= SYNTAX_CODES:
        return Problem(400, codes.pop(), str(error), {"fields": fields})
    return Problem(422, "validation_error", str(error), {"fields": fields})


def _whole(error: failures.Retryable) -> int | None:
    return None if error.retry_after_seconds is None else max(1, math.ceil(error.retry_after_seconds))


def answer(problem: Problem, request_id: str | None) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """The body and the headers that go with it."""
    body = ErrorBody(problem.code, problem.message, problem.details, problem.retry_after, request_id)
    headers = [("content-type", "application/json"), ("cache-control", "no-store")]
    if problem.retry_after is not None:
        headers.append(("retry-after", str(problem.retry_after)))
    if problem.status == 401:  # noqa: PLR2004
        headers.append(("www-authenticate", "Bearer"))
    return msgspec.json.encode(ErrorAnswer(body)), headers
