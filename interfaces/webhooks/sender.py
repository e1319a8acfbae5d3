"""The adapter of `WebhookSender`: one POST over the guarded way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from application.errors import EgressRefused, EndpointUnreachable, ResolverFailed
from application.ports import WebhookRequest, WebhookResponse
from interfaces.egress import Egress
from interfaces.foreign_text import clean
from interfaces.retry_after import retry_after_seconds

_SECONDS = 15.0
_READ_BYTES = 16 * 1024


class HttpWebhookSender:
    """Safe in many threads. Connections are kept between deliveries to receivers that the public roots vouch for."""

    def __init__(self, egress: Egress, timeout_seconds: float = _SECONDS) -> None:
        self._egress = egress
        self._timeout_seconds = timeout_seconds
        self._public = self._client(None)

    def send(self, request: WebhookRequest) -> WebhookResponse:
        """The status is the verdict. The body is read only so far that the connection can serve again."""
        try:
            with (
                self._client_for(request) as http,
                http.stream("POST", request.url, content=request.body, headers=dict(request.headers)) as response,
            ):
                with suppress(httpx.HTTPError):
                    _drain(response)
                return WebhookResponse(response.status_code, retry_after_seconds(response.headers))
        except (httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: no IDNA
            raise EgressRefused(f"the receiver's address is no URL: {clean(str(error))}") from error
        except (httpx.HTTPError, ResolverFailed) as error:
            raise EndpointUnreachable(clean(str(error)) or type(error).__name__) from error

    def close(self) -> None:
        self._public.close()

    @contextmanager
    def _client_for(self, request: WebhookRequest) -> Iterator[httpx.Client]:
        if request.ca_bundle_pem is None:
            yield self._public
        else:
            with self._client(request.ca_bundle_pem) as http:
                yield http

    def _client(self, ca_bundle_pem: str | None) -> httpx.Client:
        return self._egress.client(ca_bundle_pem, self._timeout_seconds, max_response_bytes=_READ_BYTES)


def _drain(response: httpx.Response) -> None:
    """Ends at the client's limits of bytes and time, with an error that does not matter any more."""
    for _ in response.iter_raw():
        pass
