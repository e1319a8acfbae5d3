"""The one way out over HTTP: names are resolved here, their addresses judged, and exactly a judged address is dialled.

Webhook targets, CA directories and provider endpoints are given by users, so each could point into our own network."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.request import Request

import httpcore
import httpx

from application.errors import EgressRefused, ResolverFailed
from interfaces.foreign_text import clean
from interfaces.lookups import Lookups, Resolve, host_addresses
from interfaces.measured_http import MeasuredTransport, host_of
from interfaces.measurements import CA_SECONDS, Measurements
from interfaces.special_purpose import is_special_purpose

Network = IPv4Network | IPv6Network

MAX_RESPONSE_BYTES = 1024 * 1024
MAX_IDLE_CONNECTIONS = 20
_IDLE_SECONDS = 20.0
_LARGEST_PORT = 65535
_RESOLVE_SECONDS = 10.0
_HEAD_BYTES = 32 * 1024

_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_ENDS_IN_A_NUMBER = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)\.?", re.IGNORECASE)
_DEFAULT_PORTS = {"https": 443, "http": 80}


class Egress:
    """Which addresses may be dialled, and HTTP clients that dial no others.

    `allowed` are networks that may be dialled although they are special-purpose, also over plain HTTP."""

    def __init__(
        self,
        allowed: Sequence[Network],
        resolve: Resolve = host_addresses,
        measurements: Measurements | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._measurements = measurements or Measurements()
        self._lookups = Lookups(resolve)

    def require_dialable(self, url: str) -> None:
        """Refuses what a request to this URL would refuse now, and dials nobody. Raises EgressRefused, ResolverFailed."""
        parsed = parsed_url(url)
        _require_fit(parsed)
        port = parsed.port or _DEFAULT_PORTS[parsed.scheme]
        self.addresses(parsed.raw_host.decode(), port, only_allowed=parsed.scheme == "http")

    def addresses(
        self, host: str, port: int, *, only_allowed: bool = False, timeout_seconds: float = _RESOLVE_SECONDS
    ) -> Sequence[str]:
        """The addresses of a host, all of them fit to be dialled. With `only_allowed` each must lie in an allowed
        network. One unfit answer spoils all, and so does an address in any spelling but its own (`127.1`, `0x7f.1`).
        Raises EgressRefused, ResolverFailed."""
        if not 0 < port <= _LARGEST_PORT:
            raise EgressRefused(f"{port} is no port")
        addresses = list(dict.fromkeys(self._found(host, port, timeout_seconds)))
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
        max_idle_connections: int = MAX_IDLE_CONNECTIONS,
        measured_as: str | None = None,
    ) -> httpx.Client:
        """A client with kept-alive connections, for many threads. Nothing of the environment influences it; it follows
        no redirects, does not read where they lead, and keeps no cookies. `timeout_seconds` is for a whole exchange,
        from the name to the last byte; what is read of one is bounded too, its head and the framing of its body included.
        `ca_bundle_pem` replaces the public roots. `measured_as` is the URL of a CA's directory: all requests are
        measured under its host. They raise EgressRefused, ResolverFailed, httpx.HTTPError."""
        try:
            context = self._public_roots if ca_bundle_pem is None else _trusting_only(ca_bundle_pem)
        except ValueError as error:
            raise EgressRefused(str(error)) from error

        def transport(*, only_allowed: bool) -> httpx.BaseTransport:
            pool = httpcore.ConnectionPool(
                ssl_context=context,
                max_connections=None,  # as many as there are threads: a slow receiver keeps nobody from another one
                max_keepalive_connections=max_idle_connections,
                keepalive_expiry=_IDLE_SECONDS,
                network_backend=_GuardedBackend(self, only_allowed),
            )
            guarded = _GuardedTransport(pool, timeout_seconds, max_response_bytes)
            return guarded if measured_as is None else MeasuredTransport(guarded, observe)

        ca = host_of(measured_as or "")

        def observe(seconds: float, outcome: str) -> None:
            self._measurements.observe(CA_SECONDS, seconds, ca=ca, outcome=outcome)

        return httpx.Client(
            transport=transport(only_allowed=False),
            mounts={"http://": transport(only_allowed=True)},
            headers={"Accept-Encoding": "identity"},
            cookies=_NoCookies(),
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
        )

    def _found(self, host: str, port: int, timeout_seconds: float) -> Sequence[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            if not host or _ENDS_IN_A_NUMBER.fullmatch(host):  # no top-level domain is a number (RFC 3696 §2)
                raise EgressRefused(f"{host!r} is neither a name nor an address") from None
        return self._lookups.addresses(host, port, timeout_seconds)

    def _is_allowed(self, ip: IPv4Address | IPv6Address) -> bool:
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
        return any((mapped or ip) in network for network in self._allowed)

    @cached_property
    def _public_roots(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)


def parsed_url(url: str) -> httpx.URL:
    """Raises EgressRefused for what no request can be sent to."""
    try:
        parsed = httpx.URL(url)
        _ = parsed.host, parsed.raw_host  # read late, and perhaps no IDNA
    except (httpx.InvalidURL, UnicodeError) as error:
        raise EgressRefused(f"the address is no URL: {clean(str(error))}") from error
    return parsed


def _require_fit(url: httpx.URL) -> None:
    """Judges all of a URL but where its name leads. Raises EgressRefused."""
    if url.scheme not in _DEFAULT_PORTS:
        raise EgressRefused(f"{url.scheme!r} is not https")
    if url.userinfo:
        raise EgressRefused("a user or a password in the address is not sent")  # neither is repeated here
    if url.port == 0:
        raise EgressRefused("0 is no port")  # httpcore would take it for none given
    host = url.raw_host.decode()
    if ":" in host:
        if "%" in host:
            raise EgressRefused(f"{host!r} names a zone of this machine")
    elif not _HOST_NAME.fullmatch(host):
        raise EgressRefused(f"{host!r} is no host name")


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


class _NoCookies(CookieJar):
    def extract_cookies(self, response: HTTPResponse, request: Request) -> None:
        """They are not even read: a hostile head would make that dear."""


class _Limits(float):
    """What an exchange as a whole may take: it is the monotonic instant of its end, and counts what may still be read.
    It travels where httpcore carries a time-out."""

    bytes_left: int

    def seconds_left(self, timed_out: type[httpcore.TimeoutException]) -> float:
        left = self - time.monotonic()
        if left <= 0:
            raise timed_out("the time for the whole exchange is over")
        return left


def _seconds_left(timeout: float | None, timed_out: type[httpcore.TimeoutException]) -> float | None:
    return timeout.seconds_left(timed_out) if isinstance(timeout, _Limits) else timeout


class _GuardedTransport(httpx.HTTPTransport):
    """httpx's transport over a connection pool whose backend is ours, which httpx offers no argument for."""

    def __init__(self, pool: httpcore.ConnectionPool, timeout_seconds: float, max_response_bytes: int) -> None:
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._max_response_bytes = max_response_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _require_fit(request.url)
        limits = _Limits(time.monotonic() + self._timeout_seconds)
        limits.bytes_left = _HEAD_BYTES + 2 * self._max_response_bytes  # twice, for the framing of many small chunks
        request.extensions = {**request.extensions, "timeout": dict.fromkeys(("connect", "read", "write"), limits)}
        response = super().handle_request(request)
        if response.has_redirect_location:
            del response.headers["Location"]  # httpx reads it although it does not follow, and fails at a broken one
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
        left = self._max_bytes
        for part in self._body:
            if len(part) > left:
                yield part[:left]
                raise httpx.RemoteProtocolError(f"the response has more than {self._max_bytes} bytes")
            left -= len(part)
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
        patience = _seconds_left(timeout, httpcore.ConnectTimeout) or _RESOLVE_SECONDS
        addresses = self._egress.addresses(host, port, only_allowed=self._only_allowed, timeout_seconds=patience)
        failure: Exception | None = None
        for tried, address in enumerate(addresses):
            left = _seconds_left(timeout, httpcore.ConnectTimeout)
            share = None if left is None else left / (len(addresses) - tried)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream)
        raise failure or httpcore.ConnectError(f"{host!r} has no address")


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every step ends at the exchange's limits."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _seconds_left(timeout, httpcore.ReadTimeout)
        if not isinstance(timeout, _Limits):
            return self._stream.read(max_bytes, left)
        if timeout.bytes_left == 0:
            raise httpcore.RemoteProtocolError("the response is too long")
        read = self._stream.read(min(max_bytes, timeout.bytes_left), left)
        timeout.bytes_left -= len(read)
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Not the stream's own, which gives each part that the receiver takes the whole time again."""
        connection: socket.socket = self._stream.get_extra_info("socket")
        try:
            while buffer:
                connection.settimeout(_seconds_left(timeout, httpcore.WriteTimeout))
                buffer = buffer[connection.send(buffer) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _seconds_left(timeout, httpcore.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
