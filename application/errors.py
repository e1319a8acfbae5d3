"""How the outside fails. Adapters translate vendors' errors into these, and nowhere else.

Failure
├── Retryable(retry_after_seconds)      worth trying again, the same way, later
│   ├── CaUnavailable                   no answer, 5xx, or an answer that is no ACME
│   │   └── CaTimedOut                  no answer in time
│   ├── CaThrottled(problem)            429 or `rateLimited`
│   ├── ZoneThrottled                   the DNS provider asks for patience
│   ├── ZoneUnreachable                 the DNS provider gave no usable answer
│   ├── ZoneConflict                    somebody else changed the same record set meanwhile
│   ├── ResolverFailed                  a DNS question got no usable answer
│   ├── EndpointUnreachable             a webhook receiver gave no answer
│   └── StoreUnavailable                PostgreSQL
└── Permanent                           the same request will fail again
    ├── CaRefused(problem, status)      any other problem document
    ├── ZoneRefused(reason)             credentials_rejected, permission_missing, zone_not_found
    └── EgressRefused                   the address is one that must not be dialled
"""

from __future__ import annotations

from typing import Literal

from domain.acme import Problem

ZoneRefusal = Literal["credentials_rejected", "permission_missing", "zone_not_found"]


class Failure(Exception):
    """Something outside of this process did not do what it was asked. `detail` is safe to show and to store."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Retryable(Failure):
    """`retry_after_seconds` is what the other side asked for, or None where it did not say."""

    def __init__(self, detail: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class CaUnavailable(Retryable): ...


class CaTimedOut(CaUnavailable): ...


class CaThrottled(Retryable):
    def __init__(self, problem: Problem, retry_after_seconds: float | None = None) -> None:
        super().__init__(problem.detail, retry_after_seconds)
        self.problem = problem


class ZoneThrottled(Retryable): ...


class ZoneUnreachable(Retryable): ...


class ZoneConflict(Retryable): ...


class ResolverFailed(Retryable): ...


class EndpointUnreachable(Retryable): ...


class StoreUnavailable(Retryable): ...


class Permanent(Failure): ...


class CaRefused(Permanent):
    """`status` is the HTTP status that carried the problem."""

    def __init__(self, problem: Problem, status: int) -> None:
        super().__init__(problem.detail or problem.type)
        self.problem = problem
        self.status = status


class ZoneRefused(Permanent):
    def __init__(self, reason: ZoneRefusal, detail: str) -> None:
        super().__init__(detail)
        self.reason: ZoneRefusal = reason


class EgressRefused(Permanent): ...
