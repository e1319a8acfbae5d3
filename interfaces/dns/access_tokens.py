"""APIs that take access tokens (RFC 6749): a token is asked for, kept until shortly before its end, and asked for once more
where it is refused."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import quote_plus

import msgspec

from application.errors import Failure, ZoneRefused
from interfaces.dns.egress import Egress
from interfaces.dns.http_api import HttpApi, shaped
from interfaces.dns.settings import Credentials
from interfaces.foreign_text import clean

EARLY_SECONDS = 60.0
MOST_SECRETS = 64  # of what threads may have on its way at once
TEMPORARILY = "temporarily_unavailable"

Form = Callable[[], Mapping[str, str]]


class Granted(Credentials, frozen=True):
    """RFC 6749 §5.1. `expires_in` is in seconds; who does not say it is asked anew each time."""

    access_token: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z")]
    expires_in: float = 0.0


class AccessTokens:
    """The tokens of one client at one token endpoint. Two threads may ask at once: either token serves.

    `form` makes a request, of which `secret_field` is secret. `secrets` are what must be in no text: these, and the tokens."""

    def __init__(
        self,
        name: str,
        url: str,
        egress: Egress,
        form: Form,
        secret_field: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.secrets: deque[str] = deque(maxlen=MOST_SECRETS)
        self._name = name
        self._form = form
        self._secret_field = secret_field
        self._clock = clock
        self._kept: tuple[str, float] = ("", clock())
        self._api = HttpApi(name, url, egress, dict, self.secrets, self._failure_of)

    def current(self) -> str:
        """Raises Failure."""
        token, until = self._kept
        return token if self._clock() < until else self._granted()

    def instead_of(self, refused: str) -> str:
        """A newer one than that. Raises Failure."""
        token, _ = self._kept
        return token if token not in ("", refused) else self._granted()

    def _granted(self) -> str:
        form = self._form()
        self.secrets.extend((form[self._secret_field], quote_plus(form[self._secret_field])))
        asked_at = self._clock()
        granted = shaped(self._api.call("POST", "", form=form), Granted)
        self.secrets.append(granted.access_token)
        self._kept = (granted.access_token, asked_at + granted.expires_in - EARLY_SECONDS)
        return granted.access_token

    def _failure_of(self, status: int, body: Any) -> Failure | None:
        """RFC 6749 §5.2."""
        error = body.get("error") if isinstance(body, dict) else None
        if status not in (400, 401, 403) or not isinstance(error, str) or error == TEMPORARILY:
            return None
        detail = f"{self._name}: {error}: {body.get('error_description', '')}"
        return ZoneRefused("credentials_rejected", clean(detail, tuple(self.secrets)))


class AuthorizedApi:
    """`api` without headers of its own, whose requests carry a token."""

    def __init__(self, api: HttpApi, tokens: AccessTokens) -> None:
        self._api = api
        self._tokens = tokens

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = msgspec.UNSET,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """As HttpApi's. What is refused for its token has not been done, and is asked again with another one."""
        token = self._tokens.current()
        try:
            return self._api.call(method, path, params=params, body=body, headers=_with(token, headers))
        except ZoneRefused as refused:
            if refused.reason != "credentials_rejected":
                raise
        token = self._tokens.instead_of(token)
        return self._api.call(method, path, params=params, body=body, headers=_with(token, headers))


def _with(token: str, headers: Mapping[str, str] | None) -> Mapping[str, str]:
    return {**(headers or {}), "Authorization": f"Bearer {token}"}
