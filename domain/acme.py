"""What an ACME server says about its resources (RFC 8555 §7.1): frozen values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

OrderStatus = Literal["pending", "ready", "processing", "valid", "invalid"]
AuthorizationStatus = Literal["pending", "valid", "invalid", "deactivated", "expired", "revoked"]
ChallengeStatus = Literal["pending", "processing", "valid", "invalid"]

ERROR_NAMESPACE = "urn:ietf:params:acme:error:"


@dataclass(frozen=True)
class Subproblem:
    """One name's share of a problem (RFC 8555 §6.7.1). `dns_name` is "" where the server named none."""

    dns_name: str
    type: str
    detail: str


@dataclass(frozen=True)
class Problem:
    """A problem document (RFC 7807, RFC 8555 §6.7). `type` is the whole URN, or "about:blank"."""

    type: str
    detail: str
    subproblems: tuple[Subproblem, ...] = ()

    @property
    def name(self) -> str:
        """The part after ACME's namespace, e.g. `rateLimited`; "" for types of other namespaces."""
        return self.type.removeprefix(ERROR_NAMESPACE) if self.type.startswith(ERROR_NAMESPACE) else ""


@dataclass(frozen=True)
class ChallengeObject:
    """RFC 8555 §8. `token` is "" for challenge types that have none."""

    type: str
    url: str
    status: ChallengeStatus
    token: str = ""
    error: Problem | None = None


@dataclass(frozen=True)
class AuthorizationObject:
    """RFC 8555 §7.1.4. `dns_name` is without the wildcard's `*.`, which `wildcard` stands for."""

    url: str
    dns_name: str
    wildcard: bool
    status: AuthorizationStatus
    challenges: tuple[ChallengeObject, ...]
    expires_at: datetime | None = None


@dataclass(frozen=True)
class OrderObject:
    """RFC 8555 §7.1.3, and when the server wants to be asked again (`Retry-After`, in seconds)."""

    url: str
    status: OrderStatus
    finalize_url: str
    authorization_urls: tuple[str, ...]
    certificate_url: str | None = None
    expires_at: datetime | None = None
    error: Problem | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class RenewalInfo:
    """What the CA suggests for a certificate (RFC 9773 §4.2), as it was said: the window may be anywhere, and end before
    it starts. `retry_after_seconds` is when it wants to be asked again."""

    window_start: datetime
    window_end: datetime
    explanation_url: str | None = None
    retry_after_seconds: float | None = None
