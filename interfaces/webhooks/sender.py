"""The adapter of `WebhookSender`: one POST over the guarded way out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

import httpx

from application.errors import EndpointUnreachable, ResolverFailed
from application.ports import WebhookRequest, WebhookResponse
from interfaces.egress import MAX_IDLE_CONNECTIONS, Egress, parsed_url
from interfaces.foreign_text import clean
from interfaces.retry_after import retry_after_seconds

_SECONDS = 15.0
_READ_BYTES = 16 * 1024
_MOST_CLIENTS = 32
_IDLE_CONNECTIONS_OF_A_BUNDLE = 4


class HttpWebhookSender:
    """Safe in many threads. Connections are kept between deliveries."""

    def __init__(self, egress: Egress, timeout_seconds: float = _SECONDS) -> None:
        self._egress = egress
        self._timeout_seconds = timeout_seconds
        self._clients = _Clients(self._client)

    def send(self, request: WebhookRequest) -> WebhookResponse:
        """The status is the verdict, whatever becomes of the body."""
        url, headers = parsed_url(request.url), dict(request.headers)
        try:
            with (
                self._clients.lent(request.ca_bundle_pem) as http,
                http.stream("POST", url, content=request.body, headers=headers) as response,
            ):
                body = _beginning(response)
                return WebhookResponse(response.status_code, retry_after_seconds(response.headers), body)
        except (httpx.HTTPError, ResolverFailed) as error:
            raise EndpointUnreachable(clean(str(error)) or type(error).__name__) from error

    def close(self) -> None:
        self._clients.close()

    def _client(self, ca_bundle_pem: str | None) -> httpx.Client:
        idle = MAX_IDLE_CONNECTIONS if ca_bundle_pem is None else _IDLE_CONNECTIONS_OF_A_BUNDLE
        return self._egress.client(
            ca_bundle_pem, self._timeout_seconds, max_response_bytes=_READ_BYTES, max_idle_connections=idle
        )


def _beginning(response: httpx.Response) -> bytes:
    """Ends at the client's limits of bytes and time, with an error that does not matter any more."""
    body = bytearray()
    with suppress(httpx.HTTPError):
        for part in response.iter_raw():
            body += part
    return bytes(body)


@dataclass(eq=False)
class _Lent:
    client: httpx.Client
    users: int = 1  # who keeps it


class _Clients:
    """The clients of the last so many CA bundles. One that is kept no longer is closed by its last user."""

    def __init__(self, make: Callable[[str | None], httpx.Client]) -> None:
        self._make = make
        self._kept: OrderedDict[str | None, _Lent] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def lent(self, ca_bundle_pem: str | None) -> Iterator[httpx.Client]:
        with self._lock:
            lent = self._kept.pop(ca_bundle_pem, None) or _Lent(self._make(ca_bundle_pem))
            lent.users += 1
            self._kept[ca_bundle_pem] = lent
            surplus = self._kept.popitem(last=False)[1] if len(self._kept) > _MOST_CLIENTS else None
        if surplus is not None:
            self._give_back(surplus)
        try:
            yield lent.client
        finally:
            self._give_back(lent)

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
        for lent in kept.values():
            self._give_back(lent)

    def _give_back(self, lent: _Lent) -> None:
        with self._lock:
            lent.users -= 1
            is_unused = lent.users == 0
        if is_unused:
            lent.client.close()
