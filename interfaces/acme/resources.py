"""An ACME server's JSON (RFC 8555 §7.1) as the domain's values.

Not the `acme` package's messages: those refuse expired authorizations, short tokens, and identifiers of new types."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from domain.acme import (
    AuthorizationObject,
    AuthorizationStatus,
    ChallengeObject,
    ChallengeStatus,
    OrderObject,
    OrderStatus,
)
from domain.names import MOST_NAMES
from interfaces.acme.problems import problem_of

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Order(msgspec.Struct, frozen=True):
    """RFC 8555 §7.1.3."""

    status: OrderStatus
    finalize: str
    authorizations: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_NAMES)] = ()
    certificate: str | None = None
    expires: Moment | None = None
    error: Any = None

    def at(self, url: str, retry_after_seconds: float | None) -> OrderObject:
        return OrderObject(
            url=url,
            status=self.status,
            finalize_url=self.finalize,
            authorization_urls=self.authorizations,
            certificate_url=self.certificate or None,
            expires_at=self.expires,
            error=problem_of(self.error),
            retry_after_seconds=retry_after_seconds,
        )


class Identifier(msgspec.Struct, frozen=True):
    value: str


class Challenge(msgspec.Struct, frozen=True):
    """RFC 8555 §8."""

    type: str
    url: str
    status: ChallengeStatus = "pending"
    token: str = ""
    error: Any = None


class Authorization(msgspec.Struct, frozen=True):
    """RFC 8555 §7.1.4."""

    identifier: Identifier
    status: AuthorizationStatus
    challenges: tuple[dict[str, Any], ...] = ()
    wildcard: bool | None = None
    expires: Moment | None = None

    def at(self, url: str) -> AuthorizationObject:
        """Challenges that are not made like those of RFC 8555 are left out: new types come without asking us."""
        dns_name = self.identifier.value.lower()
        return AuthorizationObject(
            url=url,
            dns_name=dns_name.removeprefix("*."),
            wildcard=bool(self.wildcard) or dns_name.startswith("*."),
            status=self.status,
            challenges=tuple(found for each in self.challenges if (found := _challenge(each))),
            expires_at=self.expires,
        )


def _challenge(document: dict[str, Any]) -> ChallengeObject | None:
    try:
        said = msgspec.convert(document, Challenge)
    except msgspec.ValidationError:
        return None
    return ChallengeObject(said.type, said.url, said.status, said.token, problem_of(said.error))
