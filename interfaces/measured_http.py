"""A transport that measures each exchange, from the request to the end of its answer's body."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx

Observe = Callable[[float, str], None]
"""Takes the seconds, and what came of it: `2xx` to `5xx`, `timeout`, or `error` for any other end without an answer."""

_ANSWERS = frozenset({"2xx", "3xx", "4xx", "5xx"})
_HOST = re.compile(r"[a-z0-9._:-]{1,253}")


class MeasuredTransport(httpx.BaseTransport):
    def __init__(self, transport: httpx.BaseTransport, observe: Observe) -> None:
        self._transport = transport
        self._observe = observe

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        begun = time.monotonic()

        def tell(outcome: str) -> None:
            self._observe(time.monotonic() - begun, outcome)

        try:
            response = self._transport.handle_request(request)
        except Exception as failure:
            tell(_outcome_of(failure))
            raise
        response.stream = _MeasuredBody(response.stream, f"{response.status_code // 100}xx", tell)
        return response

    def close(self) -> None:
        self._transport.close()


class _MeasuredBody(httpx.SyncByteStream):
    """Tells when it is closed, once. httpx closes each body, whatever came of reading it."""

    def __init__(
        self, body: httpx.SyncByteStream | httpx.AsyncByteStream, outcome: str, tell: Callable[[str], None]
    ) -> None:
        if not isinstance(body, httpx.SyncByteStream):
            raise TypeError("a synchronous client has synchronous bodies")
        self._body = body
        self._outcome = outcome if outcome in _ANSWERS else "error"
        self._tell = tell
        self._is_told = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception as failure:
            self._outcome = _outcome_of(failure)
            raise

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            if not self._is_told:
                self._is_told = True
                self._tell(self._outcome)


def _outcome_of(failure: Exception) -> str:
    return "timeout" if isinstance(failure, httpx.TimeoutException) else "error"


def host_of(url: str) -> str:
    """`other` where the URL is none that anything can be sent to."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return host if _HOST.fullmatch(host) else "other"
