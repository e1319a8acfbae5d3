"""One DNS provider's HTTP API: requests by the guarded way out, and what goes wrong in the port's own words."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from application.errors import (
    Failure,
    ResolverFailed,
    ZoneConflict,
    ZoneRefusal,
    ZoneRefused,
    ZoneThrottled,
    ZoneUnreachable,
)
from interfaces.dns.egress import Egress
from interfaces.foreign_text import clean
from interfaces.retry_after import retry_after_seconds

TIMEOUT_SECONDS = 20.0
REFUSED: Mapping[int, ZoneRefusal] = {
    401: "credentials_rejected",
    403: "permission_missing",
    404: "zone_not_found",
    410: "zone_not_found",
}
CONFLICTS = frozenset({409, 412})
TOO_MANY_REQUESTS, UNAVAILABLE = 429, 503

Headers = Callable[[], Mapping[str, str]]
ReadError = Callable[[int, Any], Failure | None]
"""From the status and the decoded body (None where it is no JSON) to what it means; None: by the status alone."""
WaitSeconds = Callable[[httpx.Headers], float | None]
"""How long the headers ask to wait; None where they do not say."""


def by_status_alone(_status: int, _body: Any) -> None:
    """For APIs whose statuses say everything."""


AnswerT = TypeVar("AnswerT")


class HttpApi:
    """Safe to call from many threads. `headers` authenticate each request; none of `secrets`, which may change, is in
    what is told."""

    def __init__(
        self,
        name: str,
        base_url: str,
        egress: Egress,
        headers: Headers,
        secrets: Collection[str | None],
        read_error: ReadError = by_status_alone,
        wait_seconds: WaitSeconds = retry_after_seconds,
    ) -> None:
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._headers = headers
        self._secrets = secrets
        self._read_error = read_error
        self._wait_seconds = wait_seconds
        self._http = egress.client(timeout_seconds=TIMEOUT_SECONDS)
        weakref.finalize(self, self._http.close)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = msgspec.UNSET,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded body of the answer; None where it is empty. `body` is sent as JSON, `form` as HTML forms are.
        Raises Failure."""
        return self.exchange(method, path, params=params, body=body, form=form, headers=headers)[0]

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Any = msgspec.UNSET,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, httpx.Headers]:
        """The same, with the answer's headers."""
        said = {**self._headers(), "Accept": "application/json", **(headers or {})}
        content = None
        if body is not msgspec.UNSET:
            content, said["Content-Type"] = msgspec.json.encode(body), "application/json"
        if form is not None:
            content, said["Content-Type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        url = self._base_url + path
        try:
            answer = self._http.request(method, url, params=params, content=content, headers=said)
        except ResolverFailed as failure:
            raise ZoneUnreachable(failure.detail) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ZoneUnreachable(self._words(str(error) or type(error).__name__)) from None
        if answer.is_success:
            return self._decoded(answer), answer.headers
        raise self._failure(answer)

    def _decoded(self, answer: httpx.Response) -> Any:
        if not answer.content:
            return None
        try:
            return msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            raise ZoneUnreachable(self._words("an answer that is no JSON")) from None

    def _failure(self, answer: httpx.Response) -> Failure:
        try:
            body = msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            body = None
        status, text = answer.status_code, self._words(f"{answer.status_code} {answer.text}")
        read = self._read_error(status, body)
        if read is not None:
            return read
        return failure_by_status(status, text, self._wait_seconds(answer.headers))

    def _words(self, text: str) -> str:
        return clean(f"{self._name}: {text}", tuple(self._secrets))


def failure_by_status(status: int, detail: str, wait_seconds: float | None) -> Failure:
    """What an answer other than 2xx means that says no more; `wait_seconds` is what its Retry-After asks for."""
    if status == TOO_MANY_REQUESTS or (status == UNAVAILABLE and wait_seconds is not None):
        return ZoneThrottled(detail, wait_seconds)
    if status in REFUSED:
        return ZoneRefused(REFUSED[status], detail)
    if status in CONFLICTS:
        return ZoneConflict(detail)
    return ZoneUnreachable(detail)


@contextmanager
def known_form() -> Iterator[None]:
    """Around what takes a decoded answer apart: one that has another form is no usable answer."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ZoneUnreachable("an answer in an unknown form") from None


def shaped(answer: Any, kind: type[AnswerT]) -> AnswerT:
    """A decoded answer as a struct. Raises ZoneUnreachable where it has another form."""
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError:
        raise ZoneUnreachable("an answer in an unknown form") from None
