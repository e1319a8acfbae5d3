"""An API token: what its bearer may do. The token itself and its verifier are never here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self, get_args

from eventsourcing.domain import BaseAggregate

from domain.event import DomainEvent, InitialEvent
from domain.names import name_matches

Scope = Literal[
    "pki:read",
    "pki:export",
    "pki:issue",
    "pki:admin",
    "secrets:read",
    "secrets:write",
    "subscriptions:read",
    "subscriptions:write",
    "audit:read",
    "audit:export",
    "admin",
]
SCOPES: tuple[Scope, ...] = get_args(Scope)

IMPLIED: dict[Scope, tuple[Scope, ...]] = {
    "pki:issue": ("pki:read", "pki:export"),
    "pki:admin": ("pki:read", "secrets:write"),
}


def effective_scopes(granted: tuple[Scope, ...]) -> frozenset[Scope]:
    """The granted scopes and all that they imply. Writing subscriptions under `pki/` is a rule of its own
    (`application/rights.py`)."""
    return frozenset(granted).union(*(IMPLIED.get(scope, ()) for scope in granted))


@dataclass(frozen=True)
class Limits:
    """Where a token is valid. An empty tuple sets no limit. `networks` are CIDRs."""

    dns_names: tuple[str, ...] = ()
    certificate_ids: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    def allow_certificate(self, certificate_id: str | None) -> bool:
        """None stands for one that does not exist yet."""
        return not self.certificate_ids or certificate_id in self.certificate_ids

    def forbidden_name(self, dns_names: Sequence[str]) -> str | None:
        """The first name that no glob takes."""
        if not self.dns_names:
            return None
        return next((name for name in dns_names if not any(name_matches(glob, name) for glob in self.dns_names)), None)

    def allow(self, certificate_id: str | None, dns_names: Sequence[str]) -> bool:
        return self.allow_certificate(certificate_id) and self.forbidden_name(dns_names) is None


class Token(BaseAggregate[str]):
    TOPIC = "token"

    class Event(DomainEvent):
        pass

    class Issued(InitialEvent, Event):
        TOPIC = "token.issued"
        tenant_id: str
        name: str | None
        scopes: tuple[Scope, ...]
        limits: Limits
        expires_at: datetime
        sealed_verifier_id: str

    class Revoked(Event):
        TOPIC = "token.revoked"

        def apply(self, aggregate: Token) -> None:
            aggregate.is_revoked = True

    def __init__(
        self,
        tenant_id: str,
        scopes: tuple[Scope, ...],
        limits: Limits,
        expires_at: datetime,
        sealed_verifier_id: str,
    ) -> None:
        self.tenant_id = tenant_id
        self.scopes = scopes
        self.limits = limits
        self.expires_at = expires_at
        self.sealed_verifier_id = sealed_verifier_id
        self.is_revoked = False

    @classmethod
    def issue(
        cls,
        token_id: str,
        *,
        tenant_id: str,
        name: str | None,
        scopes: tuple[Scope, ...],
        limits: Limits,
        expires_at: datetime,
        sealed_verifier_id: str,
        now: datetime,
    ) -> Self:
        return cls._create(
            cls.Issued,
            id=token_id,
            timestamp=now,
            tenant_id=tenant_id,
            name=name,
            scopes=scopes,
            limits=limits,
            expires_at=expires_at,
            sealed_verifier_id=sealed_verifier_id,
        )

    def revoke(self, now: datetime) -> None:
        if not self.is_revoked:
            self.trigger_event(self.Revoked, timestamp=now)
