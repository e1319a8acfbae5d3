"""The one way out over HTTP: names are resolved here, their addresses judged, and exactly a judged address is dialled.

Webhook targets, CA directories and provider endpoints are given by users, so each could point into our own network."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
import httpx

from application.errors import EgressRefused, ResolverFailed
from interfaces.special_purpose import is_special_purpose

Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

MAX_RESPONSE_BYTES = 1024 * 1024
_MAX_CONNECTIONS = 100
_MAX_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 20.0
_LARGEST_PORT = 65535


def host_addresses(host: str, port: int) -> Sequence[str]:
    """Asks the host's own resolver. Its time limits are the host's too. Raises ResolverFailed."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ResolverFailed(f"{host!r} does not resolve: {error}") from error
    return [str(address[0]) for *_, address in answers]


class Egress:
    """Which addresses may be dialled, and HTTP clients that dial no others.

    `allowed` are networks that may be dialled although they are special-purpose, also over plain HTTP."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve = host_addresses) -> None:
        self._allowed = tuple(allowed)
        self._resolve = resolve

    def addresses(self, host: str, port: int, *, only_allowed: bool = False) -> Sequence[str]:
        """The addresses of a host in any spelling, all of them fit to be dialled. With `only_allowed` each must lie in
        an allowed network. One unfit answer spoils all. Raises EgressRefused, ResolverFailed."""
        if not 0 < port <= _LARGEST_PORT:
            raise EgressRefused(f"{port} is no port")
        addresses = list(dict.fromkeys(self._resolve(host, port)))
        if not addresses:
            raise ResolverFailed(f"{host!r} has no address")
        for address in addresses:
            ip = ip_address(address)
            if self._is_allowed(ip):
                continue
            if only_allowed:
                raise EgressRefused(f"{host!r} may be dialled over https only")
            if is_special_purpose(ip):
                raise EgressRefused(f"{host!r} has an address that must not be dialled")  # which one is ours to know
        return addresses

    def client(
        self,
        ca_bundle_pem: str | None = None,
        timeout_seconds: float = 15,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> httpx.Client:
        """A client with kept-alive connections, for many threads. Nothing of the environment influences it; it follows
        no redirects and keeps no cookies. `timeout_seconds` is for a whole exchange, from the name to the last byte.
        `ca_bundle_pem` replaces the public roots. Its requests raise EgressRefused, ResolverFailed, httpx.HTTPError."""
        try:
            context = self._public_roots if ca_bundle_pem is None else _trusting_only(ca_bundle_pem)
        except ValueError as error:
            raise EgressRefused(str(error)) from error

        def transport(*, only_allowed: bool) -> _GuardedTransport:
            return _GuardedTransport(_GuardedBackend(self, only_allowed), context, timeout_seconds, max_response_bytes)

        return httpx.Client(
            transport=transport(only_allowed=False),
            mounts={"http://": transport(only_allowed=True)},
            headers={"Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
        )

    def _is_allowed(self, ip: IPv4Address | IPv6Address) -> bool:
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        return any((mapped or ip) in network for network in self._allowed)

    @cached_property
    def _public_roots(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)


def check_ca_bundle(ca_bundle_pem: str) -> None:
    """Raises ValueError for what `Egress.client` would refuse."""
    _trusting_only(ca_bundle_pem)


def _trusting_only(ca_bundle_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=ca_bundle_pem)
    except (ssl.SSLError, TypeError, ValueError) as error:  # TypeError: other characters than ASCII
        raise ValueError("the CA bundle is no PEM with certificates") from error
    return context


class _Deadline(float):
    """A monotonic instant. It travels where httpcore carries a time-out, so that it bounds the exchange as a whole."""

    def left(self, timed_out: type[httpcore.TimeoutException]) -> float:
        left = self - time.monotonic()
        if left <= 0:
            raise timed_out("the time for the whole exchange is over")
        return left


def _left(deadline: float | None, timed_out: type[httpcore.TimeoutException]) -> float | None:
    return deadline.left(timed_out) if isinstance(deadline, _Deadline) else deadline


class _GuardedTransport(httpx.HTTPTransport):
    """httpx's transport over a connection pool whose backend is ours, which httpx offers no argument for."""

    def __init__(
        self,
        backend: httpcore.NetworkBackend,
        ssl_context: ssl.SSLContext,
        timeout_seconds: float,
        max_response_bytes: int,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=backend,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in {"http", "https"}:
            raise EgressRefused(f"{request.url.scheme!r} is not https")
        deadline = _Deadline(time.monotonic() + self._timeout_seconds)
        timeouts = dict.fromkeys(("connect", "read", "write"), deadline)
        request.extensions = {**request.extensions, "timeout": {**timeouts, "pool": self._timeout_seconds}}
        response = super().handle_request(request)
        is_encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
        response.stream = _LimitedBody(response.stream, self._max_response_bytes, is_encoded=is_encoded)
        return response


class _LimitedBody(httpx.SyncByteStream):
    """A body of at most so many bytes, and not an encoded one, whose length would say nothing."""

    def __init__(self, body: httpx.SyncByteStream | httpx.AsyncByteStream, max_bytes: int, *, is_encoded: bool) -> None:
        if not isinstance(body, httpx.SyncByteStream):
            raise TypeError("a synchronous client has synchronous bodies")
        self._body = body
        self._max_bytes = max_bytes
        self._is_encoded = is_encoded

    def __iter__(self) -> Iterator[bytes]:
        if self._is_encoded:
            raise httpx.DecodingError("the response is encoded although identity was asked for")
        read = 0
        for part in self._body:
            read += len(part)
            if read > self._max_bytes:
                raise httpx.RemoteProtocolError(f"the response has more than {self._max_bytes} bytes")
            yield part

    def close(self) -> None:
        self._body.close()


class _GuardedBackend(httpcore.NetworkBackend):
    """Dials the addresses that Egress judged, one after the other, never the name."""

    def __init__(self, egress: Egress, only_allowed: bool) -> None:
        self._egress = egress
        self._only_allowed = only_allowed
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._egress.addresses(host, port, only_allowed=self._only_allowed)
        failure: Exception | None = None
        for tried, address in enumerate(addresses):
            left = _left(timeout, httpcore.ConnectTimeout)
            share = None if left is None else left / (len(addresses) - tried)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream)
        raise failure or httpcore.ConnectError(f"{host!r} has no address")


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every step ends at the exchange's deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
