"""A web server on loopback, with a certificate of its own little CA, that answers as a test says and notes what it was asked."""

from __future__ import annotations

import ipaddress
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: Message[str, str]
    body: bytes
    peer: tuple[str, int]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: Callable[[Callable[[bytes], object]], object] | None = None
    """Writes the bytes itself, head and all, and has the connection closed after them."""


class LoopbackServer(socketserver.ThreadingTCPServer):
    """`answer` is called for each request, in a thread of its connection."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, answer: Callable[[Asked], Answer], *, tls: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[Asked] = []
        self.context = _server_context() if tls else None
        self.port = int(self.server_address[1])
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: LoopbackServer
    timeout = 30

    def setup(self) -> None:
        if self.server.context is not None:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        asked = Asked(self.command, self.path, self.headers, body, self.client_address)
        self.server.asked.append(asked)
        answer = self.server.answer(asked)
        if answer.raw is not None:
            self.close_connection = True
            answer.raw(self.wfile.write)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_HEAD = _answer  # noqa: N815  # the standard library's names

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # the standard library's name


@contextmanager
def serving(answer: Callable[[Asked], Answer], *, tls: bool = True) -> Iterator[LoopbackServer]:
    with LoopbackServer(answer, tls=tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@cache
def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Loopback Test Root")])
    basic = x509.BasicConstraints(ca=True, path_length=None)
    return key, _unsigned(name, name, key).add_extension(basic, critical=True).sign(key, hashes.SHA256())


def ca_bundle_pem() -> str:
    """The root that the servers here are trusted by."""
    return _authority()[1].public_bytes(serialization.Encoding.PEM).decode()


@cache
def _server_context() -> ssl.SSLContext:
    root_key, root = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.DNSName("hooks.example"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
    )
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    unsigned = _unsigned(subject, root.subject, key).add_extension(names, critical=False)
    certificate = unsigned.sign(root_key, hashes.SHA256())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        file = Path(folder, "both.pem")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(file)
    return context


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))  # tests turn clocks
        .not_valid_after(now + timedelta(days=30))
    )
