"""An ACME server's JSON (RFC 8555 §7.1, RFC 9773 §4.2) as the domain's values, and an order as it is sent.

Not the `acme` package's messages: those refuse expired authorizations, short tokens, and identifiers of new types."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from application.errors import CaUnavailable
from domain.acme import (
    AuthorizationObject,
    AuthorizationStatus,
    ChallengeObject,
    ChallengeStatus,
    OrderObject,
    OrderStatus,
    RenewalInfo,
)
from domain.names import MOST_NAMES
from interfaces.acme.problems import problem_of

Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_LONGEST_URL = 1000
_WEB_URL = re.compile(r"https?://[a-z0-9.\-\[\]:]+(?:[/?#][\w\-.~:/?#\[\]@!$&'()*+,;=%]*)?", re.ASCII | re.IGNORECASE)


class NewIdentifier(msgspec.Struct, frozen=True):
    """RFC 8555 §9.7.7."""

    value: str
    type: str = "dns"


class NewOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 8555 §7.4, draft-ietf-acme-profiles, RFC 9773 §5. What is None is not sent."""

    identifiers: tuple[NewIdentifier, ...]
    profile: str | None = None
    replaces: str | None = None


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


class SuggestedWindow(msgspec.Struct, frozen=True):
    start: Moment
    end: Moment


class Renewal(msgspec.Struct, frozen=True):
    """RFC 9773 §4.2."""

    suggested_window: SuggestedWindow = msgspec.field(name="suggestedWindow")
    explanation_url: Any = msgspec.field(name="explanationURL", default=None)

    def at(self, retry_after_seconds: float | None) -> RenewalInfo:
        return RenewalInfo(
            window_start=_in_utc(self.suggested_window.start),
            window_end=_in_utc(self.suggested_window.end),
            explanation_url=_web_url(self.explanation_url),
            retry_after_seconds=retry_after_seconds,
        )


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise CaUnavailable(f"{moment} is in no year of UTC") from error


def _web_url(said: object) -> str | None:
    """A URL that can be shown as a link. Half of one that is too long would lead elsewhere: it is left out whole."""
    url = said.strip() if isinstance(said, str) else ""
    return url if len(url) <= _LONGEST_URL and _WEB_URL.fullmatch(url) else None


def _challenge(document: dict[str, Any]) -> ChallengeObject | None:
    try:
        said = msgspec.convert(document, Challenge)
    except msgspec.ValidationError:
        return None
    return ChallengeObject(said.type, said.url, said.status, said.token, problem_of(said.error))
