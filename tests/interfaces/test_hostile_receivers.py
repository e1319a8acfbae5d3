"""Receivers of webhooks that mean harm: each attempt ends, in time, with an answer or none, and takes little memory."""

from __future__ import annotations

import gzip
import random
import socket
import ssl
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from application.errors import EndpointUnreachable
from application.ports import WebhookRequest, WebhookResponse
from interfaces.egress import Egress
from interfaces.webhooks.sender import HttpWebhookSender
from tests.servers.https import Answer, serving

LOOPBACK = ip_network("127.0.0.0/8")
SCALED_SECONDS = 0.5
DEADLINE_SECONDS = 60
UNLIMITED_SECONDS = 1000.0
"""Longer than the tests wait: what ends then is not ended by time."""
DRIP_SECONDS = 0.02
BODY_BYTES = 16 * 1024
MOST_MEMORY_BYTES = 16 << 20
MOST_WRITTEN_BYTES = 32 << 20
"""What fits into the buffers of two sockets of Linux, and what we read."""
TOO_MUCH_BYTES = 256 << 20

OK = b"HTTP/1.1 200 OK\r\n"
UNREACHABLE = EndpointUnreachable
Outcome = WebhookResponse | EndpointUnreachable
Context = Callable[[], ssl.SSLContext]


Behaviour = Callable[["Connection"], None]


class Hostile:
    """A receiver on loopback that behaves as a function says, in a thread for each connection."""

    def __init__(
        self, behave: Behaviour, context: ssl.SSLContext | None = None, receive_buffer_bytes: int | None = None
    ) -> None:
        self._behave = behave
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer_bytes is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[socket.socket] = []
        self.gone = threading.Event()
        self.written = 0
        self.requests = 0
        self.port = int(self._listener.getsockname()[1])

    def url(self, scheme: str = "") -> str:
        return f"{scheme or ('https' if self._context else 'http')}://localhost:{self.port}/"

    def _accept(self) -> None:
        while True:
            with suppress(TimeoutError):
                try:
                    connection, _ = self._listener.accept()
                except OSError:
                    return  # closed
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=[connection])
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection:  # ValueError: what Python's TLS makes of some broken streams
            if self._context is None:
                self._behave(Connection(self, connection))
            else:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self._behave(Connection(self, secured))

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gone.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()


@dataclass
class Connection:
    server: Hostile
    socket: socket.socket

    def read_request(self) -> None:
        read = b""
        while not read.endswith(b"{}"):
            part = self.socket.recv(65536)
            if not part:
                raise ConnectionResetError
            read += part
        self.server.requests += 1

    def write(self, part: bytes) -> None:
        for start in range(0, len(part), 65536):
            piece = part[start : start + 65536]
            self.socket.sendall(piece)
            self.server.written += len(piece)

    def write_for_ever(self, part: bytes) -> None:
        while self.server.written < TOO_MUCH_BYTES and not self.server.gone.is_set():
            self.write(part)

    def drip(self, part: bytes = b"x", seconds: float = DRIP_SECONDS) -> None:
        for byte in repeat(part):
            if self.server.gone.wait(seconds):
                return
            self.write(byte)

    def stay(self) -> None:
        self.server.gone.wait(DEADLINE_SECONDS)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


# --- certificates ---


@cache
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def root() -> x509.Certificate:
    ca = x509.BasicConstraints(ca=True, path_length=None)
    return (
        unsigned("Hostile Root", "Hostile Root", days=1).add_extension(ca, critical=True).sign(key(), hashes.SHA256())
    )


def unsigned(subject: str, issuer: str, *, days: int) -> x509.CertificateBuilder:
    subject_name, issuer_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)]) for each in (subject, issuer)
    )
    midnight = datetime.now(UTC) + timedelta(days=min(days, 0))
    return (
        x509.CertificateBuilder()
        .subject_name(subject_name)
        .issuer_name(issuer_name)
        .public_key(key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(midnight - timedelta(days=1))
        .not_valid_after(midnight + timedelta(days=1 if days > 0 else 0))
    )


def context_of(dns_name: str = "localhost", issuer: str = "Hostile Root", *, days: int = 1) -> ssl.SSLContext:
    """A server's, with a certificate that ends in so many days."""
    names = x509.SubjectAlternativeName([x509.DNSName(dns_name), x509.IPAddress(ip_address("127.0.0.99"))])
    certificate = (
        unsigned(dns_name, issuer, days=days).add_extension(names, critical=False).sign(key(), hashes.SHA256())
    )
    private = key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        file = Path(folder, "both.pem")
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(file)
    return context


@cache
def good_context() -> ssl.SSLContext:
    return context_of()


def root_pem() -> str:
    return root().public_bytes(serialization.Encoding.PEM).decode()


# --- attempts ---


@contextmanager
def sending(seconds: float) -> Iterator[HttpWebhookSender]:
    with closing(HttpWebhookSender(Egress([LOOPBACK]), seconds)) as sender:
        yield sender


def outcome(sender: HttpWebhookSender, url: str, body: bytes = b"{}") -> Outcome:
    """What an attempt ends with, which must not take for ever. Anything but an answer or none is raised."""
    pool = ThreadPoolExecutor(1)
    attempt = pool.submit(sender.send, WebhookRequest(url, {}, body, root_pem()))
    pool.shutdown(wait=False)
    try:
        return attempt.result(DEADLINE_SECONDS)
    except EndpointUnreachable as failure:
        return failure


def attempted(behave: Behaviour, seconds: float, context: Context | None = None, scheme: str = "") -> Outcome:
    """What comes of an attempt, after which others are served as ever."""
    with sending(seconds) as sender, Hostile(behave, context and context()) as server:
        outcome(sender, "http://localhost:1/")  # what an attempt needs anyway is there before the measuring
        tracemalloc.start()
        try:
            came = outcome(sender, server.url(scheme))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < MOST_MEMORY_BYTES
        assert server.written < MOST_WRITTEN_BYTES
        with serving(lambda _asked: Answer(204), tls=False) as other:
            assert answered(outcome(sender, other.url)).status == 204
    return came


def answered(came: Outcome) -> WebhookResponse:
    assert isinstance(came, WebhookResponse)
    return came


both_ways = pytest.mark.parametrize("context", [None, good_context], ids=["plain", "tls"])


def saying(*parts: bytes) -> Behaviour:
    """Reads the request, says this, and stays."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        for part in parts:
            connection.write(part)
        connection.stay()

    return behave


def saying_for_ever(head: bytes, part: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.write(head)
        connection.write_for_ever(part)

    return behave


def dripping(head: bytes, part: bytes = b"x") -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.write(head)
        connection.drip(part)

    return behave


def hanging_up(*parts: bytes, reset: bool = False) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        for part in parts:
            connection.write(part)
        if reset:
            connection.reset()

    return behave


MANY_HEADERS = b"".join(b"x-%d: y\r\n" % number for number in range(100_000))
SHORTEST_HEADERS = b"a:\r\n" * 100_000
LONG_HEADER = b"x-long: " + b"y" * 10_000_000 + b"\r\n"
BLANK_HEADER = b"x-blank: " + b"y " * 30_000 + b"\r\n"
FOLDED_HEADER = b"x-folded: y\r\n" + b" y\r\n" * 15_000
COOKIES = b"Set-Cookie: a=b; expires=1-1-1 1:1:1 1\r\n" * 1_000
BOMB = gzip.compress(b"\0" * 50_000_000)
NOISE = random.Random(1).randbytes(100_000)  # the same at each run


@both_ways
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(saying(), id="silence"),
        pytest.param(dripping(b"HTTP/1.1 2"), id="head by the byte"),
        pytest.param(dripping(OK + b"x-slow: "), id="header by the byte"),
        pytest.param(dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="100 by the drop"),
    ],
)
def test_who_gives_no_answer_in_time_is_unreachable(behave: Behaviour, context: Context | None) -> None:
    assert isinstance(attempted(behave, SCALED_SECONDS, context), UNREACHABLE)


@both_ways
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(saying_for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), id="100 for ever"),
        pytest.param(saying_for_ever(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000), id="103 for ever"),
        pytest.param(saying_for_ever(OK + b"x-endless: ", b"y" * 65536), id="header for ever"),
        pytest.param(saying_for_ever(OK, b"x-endless: y\r\n" * 1000), id="headers for ever"),
        pytest.param(saying_for_ever(b"", b"\r\n" * 1000), id="line ends for ever"),
        pytest.param(saying(OK, MANY_HEADERS, b"\r\n"), id="100,000 headers"),
        pytest.param(saying(OK, SHORTEST_HEADERS, b"\r\n"), id="100,000 shortest headers"),
        pytest.param(saying(OK, LONG_HEADER, b"\r\n"), id="a header of 10 MB"),
        pytest.param(
            saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), id="101"
        ),
        pytest.param(saying(b"HTTP/1.1 99 Too Low\r\n\r\n"), id="two digits"),
        pytest.param(saying(b"HTTP/1.1 042 Too Low\r\n\r\n"), id="042"),
        pytest.param(saying(b"HTTP/2 200\r\n\r\n"), id="HTTP/2"),
        pytest.param(saying(OK, b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), id="two lengths"),
        pytest.param(saying(OK, b"Content-Length: -1\r\n\r\n"), id="negative length"),
        pytest.param(saying(OK, b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"), id="length of 5000 digits"),
        pytest.param(saying(OK, b"Transfer-Encoding: gzip, chunked\r\n\r\n"), id="encoded transfer"),
        pytest.param(saying(NOISE), id="noise"),
        pytest.param(saying_for_ever(b"", NOISE), id="noise for ever"),
        pytest.param(saying_for_ever(b"", b"\0" * 65536), id="zeros for ever"),
        pytest.param(hanging_up(), id="hangs up"),
        pytest.param(hanging_up(b"HTTP/1.1 200"), id="hangs up in the first line"),
        pytest.param(hanging_up(OK + b"Content-Le"), id="hangs up in the head"),
        pytest.param(hanging_up(b"HTTP/1.1 100 Continue\r\n\r\n"), id="hangs up after 100"),
        pytest.param(hanging_up(reset=True), id="resets"),
        pytest.param(hanging_up(OK, reset=True), id="resets in the head"),
        pytest.param(Connection.reset, id="resets at once"),
        pytest.param(lambda connection: connection.socket.close(), id="hangs up at once"),
    ],
)
def test_who_says_anything_but_an_answer_is_given_up_at_once(behave: Behaviour, context: Context | None) -> None:
    assert isinstance(attempted(behave, UNLIMITED_SECONDS, context), UNREACHABLE)


X = b"x" * BODY_BYTES


@both_ways
@pytest.mark.parametrize(
    ("behave", "body"),
    [
        pytest.param(saying(OK + b"Content-Length: 2\r\n\r\nok"), b"ok", id="fair"),
        pytest.param(saying(OK + b"Content-Length: 16384\r\n\r\n" + X), X, id="16 KiB"),
        pytest.param(saying(OK + b"Content-Length: 16385\r\n\r\n" + X + b"y"), X, id="more than 16 KiB"),
        pytest.param(hanging_up(OK + b"Content-Length: 3\r\n\r\nok"), b"ok", id="hangs up in the body"),
        pytest.param(hanging_up(OK + b"\r\nok"), b"ok", id="until the end"),
        pytest.param(saying_for_ever(OK + b"Content-Length: 1000000000000\r\n\r\n", X), X, id="body for ever"),
        pytest.param(saying_for_ever(OK + b"\r\n", X), X, id="body for ever without a length"),
        pytest.param(
            saying_for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + X + b"\r\n"),
            X,
            id="chunks for ever",
        ),
        pytest.param(
            saying(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nno number\r\n"), b"ok", id="broken chunks"
        ),
        pytest.param(
            saying_for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"x-endless: y\r\n" * 1000),
            b"ok",
            id="trailers for ever",
        ),
        pytest.param(saying(OK + b"Content-Encoding: gzip\r\n\r\n", BOMB), b"", id="gzip bomb"),
        pytest.param(
            saying(OK + b"Content-Encoding: deflate, gzip\r\nContent-Length: 2\r\n\r\nok"), b"", id="encoded twice"
        ),
        pytest.param(saying(OK + b"Content-Encoding: Identity\r\nContent-Length: 2\r\n\r\nok"), b"ok", id="identity"),
        pytest.param(
            saying(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK + b"Content-Length: 2\r\n\r\nok"), b"ok", id="after 100"
        ),
        pytest.param(saying(OK, BLANK_HEADER, b"Content-Length: 2\r\n\r\nok"), b"ok", id="a header of 60 KB of blanks"),
        pytest.param(saying(OK, FOLDED_HEADER, b"Content-Length: 2\r\n\r\nok"), b"ok", id="a folded header"),
        pytest.param(saying(OK, COOKIES, b"Content-Length: 2\r\n\r\nok"), b"ok", id="1000 cookies"),
        pytest.param(
            saying(OK, b"Retry-After: " + b"9" * 5000 + b"\r\nContent-Length: 2\r\n\r\nok"), b"ok", id="patience"
        ),
    ],
)
def test_who_answers_is_heard_whatever_the_rest_is_like(
    behave: Behaviour, body: bytes, context: Context | None
) -> None:
    came = answered(attempted(behave, UNLIMITED_SECONDS, context))
    assert (came.status, came.body) == (200, body)


@both_ways
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(
            saying_for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000), id="in tiny chunks"
        ),
        pytest.param(
            saying_for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"y" * 20_000 + b"\r\nx\r\n"),
            id="in wrapped chunks",
        ),
    ],
)
def test_the_wrapping_of_a_body_does_not_make_it_longer(behave: Behaviour, context: Context | None) -> None:
    came = answered(attempted(behave, UNLIMITED_SECONDS, context))
    assert came.status == 200
    assert 0 < len(came.body) <= BODY_BYTES


@both_ways
@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(saying(OK + b"Content-Length: 3\r\n\r\nx"), id="never complete"),
        pytest.param(saying(OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffff\r\nx"), id="a huge chunk"),
        pytest.param(dripping(OK + b"Content-Length: 100000\r\n\r\nx"), id="by the byte"),
        pytest.param(dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"1\r\nx\r\n"), id="by the chunk"),
    ],
)
def test_what_came_in_time_of_a_slow_body_is_kept(behave: Behaviour, context: Context | None) -> None:
    came = answered(attempted(behave, 2 * SCALED_SECONDS, context))
    assert came.status == 200
    assert 0 < len(came.body) <= BODY_BYTES
    assert set(came.body) == set(b"x")


@pytest.mark.parametrize(
    "location", [b"https://xn--/", b"https://[::1%\xe9]/", b"https://a:b:c/", b"//", b"https:/x", b"\xff", b"x" * 8000]
)
def test_a_broken_redirect_is_a_redirect(location: bytes) -> None:
    redirect = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    assert answered(attempted(saying(redirect), UNLIMITED_SECONDS)).status == 302


# --- the request's own way ---


def test_an_answer_before_the_request_was_read_is_an_answer() -> None:
    def hasty(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        connection.stay()

    came = answered(attempted(hasty, UNLIMITED_SECONDS))
    assert (came.status, came.body) == (413, b"no")


@pytest.mark.parametrize("reset", [True, False])
def test_an_answer_that_ends_the_connection_before_the_request_was_read_is_an_answer_or_none(*, reset: bool) -> None:
    def hasty(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        if reset:
            connection.reset()

    with sending(SCALED_SECONDS) as sender, Hostile(hasty) as server:
        came = outcome(sender, server.url(), b"x" * 10_000_000)
    assert isinstance(came, UNREACHABLE) or came.status == 413


@both_ways
@pytest.mark.parametrize("bytes_at_once", [0, 1, 16384])
def test_who_does_not_take_the_request_in_time_is_unreachable(bytes_at_once: int, context: Context | None) -> None:
    body, taken = b"x" * 30_000_000, 0

    def slow_reader(connection: Connection) -> None:
        nonlocal taken
        while not connection.server.gone.wait(0.005):
            taken += len(connection.socket.recv(bytes_at_once)) if bytes_at_once else 0

    with (
        sending(SCALED_SECONDS) as sender,
        Hostile(slow_reader, context and context(), receive_buffer_bytes=65536) as server,
    ):
        came = outcome(sender, server.url(), body)
        assert isinstance(came, UNREACHABLE)
        assert taken < len(body) / 2


# --- TLS ---


@pytest.mark.parametrize(
    "context",
    [
        pytest.param(lambda: context_of(days=0), id="ended just now"),
        pytest.param(lambda: context_of(days=-30), id="ended a month ago"),
        pytest.param(lambda: context_of("other.example"), id="for another name"),
        pytest.param(lambda: context_of("*.localhost"), id="for the names below"),
        pytest.param(lambda: context_of(issuer="localhost"), id="self-signed"),
    ],
)
def test_a_certificate_that_does_not_hold_is_told_nothing(context: Context) -> None:
    with sending(UNLIMITED_SECONDS) as sender, Hostile(Connection.read_request, context()) as server:
        came = outcome(sender, server.url())
    assert isinstance(came, UNREACHABLE)
    assert "CERTIFICATE_VERIFY_FAILED" in came.detail
    assert server.requests == 0


RECORD = b"\x16\x03\x03\x40\x00"
"""A TLS record's head that announces 16 KiB of handshake."""
SERVER_HELLO = b"\x16\x03\x03\x00\x04\x02\xff\xff\xff"
"""A message of the handshake that announces 16 MiB."""


def writing(head: bytes, part: bytes, *, dripping: bool = False) -> Behaviour:
    """Waits for the client's hello."""

    def behave(connection: Connection) -> None:
        connection.socket.recv(65536)
        connection.write(head)
        if dripping:
            connection.drip(part)
        else:
            connection.write_for_ever(part)

    return behave


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(Connection.stay, id="silence"),
        pytest.param(writing(b"", RECORD[:1], dripping=True), id="by the byte"),
        pytest.param(writing(RECORD, b"\x02", dripping=True), id="record by the byte"),
    ],
)
def test_who_does_not_get_through_the_handshake_in_time_is_unreachable(behave: Behaviour) -> None:
    assert isinstance(attempted(behave, SCALED_SECONDS, scheme="https"), UNREACHABLE)


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(Connection.reset, id="resets"),
        pytest.param(writing(SERVER_HELLO, RECORD + b"\0" * 0x4000), id="hello for ever"),
        pytest.param(writing(b"", b"\x16\x03\x03\x00\x00" * 1000), id="empty records for ever"),
        pytest.param(writing(b"", b"\x14\x03\x03\x00\x01\x01" * 1000), id="changes of cipher for ever"),
        pytest.param(writing(b"", b"\x15\x03\x03\x00\x02\x01\x5a" * 1000), id="warnings for ever"),
        pytest.param(writing(OK, b"\r\n"), id="plain text"),
        pytest.param(writing(b"", NOISE), id="noise"),
    ],
)
def test_who_speaks_no_tls_is_given_up_at_once(behave: Behaviour) -> None:
    assert isinstance(attempted(behave, UNLIMITED_SECONDS, scheme="https"), UNREACHABLE)


def test_tls_on_a_port_for_plain_text_is_unreachable() -> None:
    assert isinstance(attempted(Connection.stay, UNLIMITED_SECONDS, good_context, scheme="http"), UNREACHABLE)


def test_who_gives_session_tickets_for_ever_is_unreachable() -> None:
    def generous() -> ssl.SSLContext:
        context = context_of()
        context.num_tickets = 10_000_000
        return context

    assert isinstance(attempted(Connection.stay, SCALED_SECONDS, generous), UNREACHABLE)


# --- unscaled ---


@pytest.mark.timeout(60)
def test_one_byte_a_second_ends_with_the_time_for_a_delivery() -> None:
    def slow(connection: Connection) -> None:
        connection.read_request()
        connection.write(OK + b"Content-Length: 1000\r\n\r\n")
        connection.drip(seconds=1)

    with closing(HttpWebhookSender(Egress([LOOPBACK]))) as sender, Hostile(slow) as server:
        came = answered(outcome(sender, server.url()))
        assert came.status == 200
        assert 1 <= len(came.body) <= 15
