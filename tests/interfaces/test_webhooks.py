from __future__ import annotations

import base64
import gzip
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from application.errors import EgressRefused, EndpointUnreachable
from application.ports import WebhookRequest, WebhookResponse
from application.secret_value import SecretValue
from interfaces.egress import Egress
from interfaces.webhooks import sender as sender_module
from interfaces.webhooks.sender import HttpWebhookSender
from interfaces.webhooks.signature import signed_headers
from tests.servers.https import Answer, Asked, ca_bundle_pem, serving

LOOPBACK = ip_network("127.0.0.0/8")
BODY = b'{"event_id":"evt_1","domains":["b\xc3\xbccher.example"]}'
GENERATED = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OWN = "correct horse battery staple"
DEADLINE_SECONDS = 60


@pytest.fixture
def sender() -> Iterator[HttpWebhookSender]:
    with closing(HttpWebhookSender(Egress([LOOPBACK]))) as sender:
        yield sender


def headers(*secrets: str, timestamp_seconds: int | None = None) -> dict[str, str]:
    now = int(time.time()) if timestamp_seconds is None else timestamp_seconds
    values = [SecretValue(secret) for secret in secrets]
    return dict(signed_headers("evt_1", "certificate.renewed", now, BODY, values))


def request(url: str, bundle: str | None = None) -> WebhookRequest:
    return WebhookRequest(url, headers(GENERATED), BODY, bundle or ca_bundle_pem())


# --- signatures ---


def test_the_headers_are_those_of_the_contract() -> None:
    said = headers(GENERATED, timestamp_seconds=1_795_435_200)
    del said["X-ScaiVault-Signature"], said["webhook-signature"]
    assert said == {
        "Content-Type": "application/json",
        "User-Agent": "ScaiVault-Webhook/1.0",
        "X-ScaiVault-Event-Id": "evt_1",
        "X-ScaiVault-Event-Type": "certificate.renewed",
        "X-ScaiVault-Timestamp": "1795435200",
        "webhook-id": "evt_1",
        "webhook-timestamp": "1795435200",
    }


@pytest.mark.parametrize("secret", [GENERATED, OWN])
def test_openssl_computes_the_same_hex_from_the_secret_as_it_is_written(secret: str) -> None:
    message = b"1795435200." + BODY
    command = ["openssl", "dgst", "-sha256", "-hmac", secret, "-hex"]
    printed = subprocess.run(command, input=message, capture_output=True, check=True).stdout.decode()
    said = headers(secret, timestamp_seconds=1_795_435_200)
    assert said["X-ScaiVault-Signature"] == "sha256=" + printed.split("= ")[1].strip()


@pytest.mark.parametrize(
    "receiver",
    [
        (GENERATED, GENERATED),
        (GENERATED.rstrip("="), GENERATED),
        (OWN, OWN.encode()),
        ("whsec_" + OWN, ("whsec_" + OWN).encode()),
        ("0123456789abcdef", "0123456789abcdef"),
        ("0123456789abcdef", b"0123456789abcdef"),
    ],
)
def test_the_library_of_standard_webhooks_verifies(receiver: tuple[str, str | bytes]) -> None:
    secret, known_as = receiver
    Webhook(known_as).verify(BODY, headers(secret))


def test_the_library_of_standard_webhooks_notices_another_body_or_secret() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(GENERATED).verify(BODY + b" ", headers(GENERATED))
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another").verify(BODY, headers(GENERATED))


def test_while_secrets_overlap_either_verifies_and_the_new_one_comes_first() -> None:
    old = "whsec_" + base64.b64encode(b"old" * 8).decode()
    said = headers(GENERATED, old, timestamp_seconds=1_795_435_200)
    first, second = said["X-ScaiVault-Signature"].split(" ")
    assert [first, second] == [
        headers(secret, timestamp_seconds=1_795_435_200)["X-ScaiVault-Signature"] for secret in (GENERATED, old)
    ]
    for secret in (GENERATED, old):
        Webhook(secret).verify(BODY, headers(GENERATED, old))


# --- delivery ---


def test_one_post_carries_the_body_and_headers_as_they_are(sender: HttpWebhookSender) -> None:
    with serving(lambda _asked: Answer(204)) as server:
        wanted = request(f"{server.url}/hook?a=b")
        response = sender.send(wanted)
    (asked,) = server.asked
    assert (response.status, response.retry_after_seconds) == (204, None)
    assert (asked.method, asked.path, asked.body) == ("POST", "/hook?a=b", BODY)
    assert {name: asked.headers[name] for name in wanted.headers} == dict(wanted.headers)
    Webhook(GENERATED).verify(asked.body, dict(asked.headers.items()))


@pytest.mark.parametrize("status", [200, 301, 307, 400, 410, 500])
def test_every_status_is_simply_told_and_no_redirect_followed(sender: HttpWebhookSender, status: int) -> None:
    with serving(lambda _asked: Answer(status, {"Location": "/other"}, b"body")) as server:
        assert sender.send(request(server.url)).status == status
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("120", 120), ("Mon, 23 Nov 2099 12:00:00 GMT", 86400), ("soon", None)],
)
def test_the_receivers_patience_is_told(sender: HttpWebhookSender, said: str, seconds: float | None) -> None:
    with serving(lambda _asked: Answer(503, {"Retry-After": said})) as server:
        assert sender.send(request(server.url)).retry_after_seconds == seconds


def test_connections_are_kept_between_deliveries(sender: HttpWebhookSender) -> None:
    with serving(lambda _asked: Answer(200, {}, b"thanks"), tls=False) as server:
        for _ in range(3):
            sender.send(WebhookRequest(server.url, headers(GENERATED), BODY))
    assert len({asked.peer for asked in server.asked}) == 1


class RecordingEgress(Egress):
    """Keeps the clients that were made."""

    def __init__(self) -> None:
        super().__init__([LOOPBACK])
        self.made: list[httpx.Client] = []

    def client(self, *args: Any, **kwargs: Any) -> httpx.Client:
        client = super().client(*args, **kwargs)
        self.made.append(client)
        return client


def bundle(number: int) -> str:
    """One that trusts the same, under another spelling."""
    return ca_bundle_pem() + "\n" * number


def test_connections_are_kept_between_deliveries_that_trust_the_same_bundle() -> None:
    egress = RecordingEgress()
    with closing(HttpWebhookSender(egress)) as sender, serving(lambda _asked: Answer(200, {}, b"thanks")) as server:
        for _ in range(3):
            for number in range(2):
                sender.send(request(server.url, bundle(number)))
    assert len({asked.peer for asked in server.asked}) == 2
    assert len(egress.made) == 2


def test_the_least_recently_used_bundle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "_MOST_CLIENTS", 2)
    egress = RecordingEgress()
    with closing(HttpWebhookSender(egress)) as sender, serving(lambda _asked: Answer(204)) as server:
        for number in (0, 1, 0, 2):
            sender.send(request(server.url, bundle(number)))
        assert [client.is_closed for client in egress.made] == [False, True, False]
        sender.send(request(server.url, bundle(0)))
        assert len(egress.made) == 3
        sender.send(request(server.url, bundle(1)))
        assert [client.is_closed for client in egress.made] == [False, True, True, False]
    assert all(client.is_closed for client in egress.made)


@pytest.mark.parametrize("end", ["given up", "closed"])
def test_a_client_in_use_is_closed_by_its_last_user(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(sender_module, "_MOST_CLIENTS", 1)
    come, go = threading.Semaphore(0), threading.Event()

    def slow(asked: Asked) -> Answer:
        if asked.path == "/slow":
            come.release()
            go.wait(DEADLINE_SECONDS)
        return Answer(204)

    egress = RecordingEgress()
    sender = HttpWebhookSender(egress)
    with closing(sender), serving(slow) as server, ThreadPoolExecutor(2) as pool:
        attempts = [pool.submit(sender.send, request(f"{server.url}/slow", bundle(0))) for _ in range(2)]
        assert all(come.acquire(timeout=DEADLINE_SECONDS) for _ in attempts)
        if end == "given up":
            sender.send(request(server.url, bundle(1)))
        else:
            sender.close()
        used = egress.made[0]
        assert not used.is_closed
        go.set()
        assert [attempt.result(DEADLINE_SECONDS).status for attempt in attempts] == [204, 204]
        assert used.is_closed


def test_many_threads_with_more_bundles_than_are_kept_all_get_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "_MOST_CLIENTS", 3)
    egress = RecordingEgress()
    with (
        closing(HttpWebhookSender(egress)) as sender,
        serving(lambda _asked: Answer(200, {}, b"thanks")) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        attempts = [pool.submit(sender.send, request(server.url, bundle(number % 7))) for number in range(150)]
        assert {attempt.result(DEADLINE_SECONDS).body for attempt in attempts} == {b"thanks"}
        assert sum(not client.is_closed for client in egress.made) == 3
    assert all(client.is_closed for client in egress.made)


def test_a_bundle_without_certificates_is_refused_each_time(sender: HttpWebhookSender) -> None:
    for _ in range(2):
        with pytest.raises(EgressRefused, match="no PEM"):
            sender.send(request("https://localhost/", "no certificate"))


@pytest.mark.parametrize(
    ("said", "kept"), [(b"", b""), (b"no such hook", b"no such hook"), (b"x" * 20_000, b"x" * 16_384)]
)
def test_the_beginning_of_what_the_receiver_says_is_told(sender: HttpWebhookSender, said: bytes, kept: bytes) -> None:
    with serving(lambda _asked: Answer(404, {}, said)) as server:
        assert sender.send(request(server.url)) == WebhookResponse(404, None, kept)


def test_a_compressed_answer_is_an_answer_without_a_body(sender: HttpWebhookSender) -> None:
    with serving(lambda _asked: Answer(200, {"Content-Encoding": "gzip"}, gzip.compress(b"thanks"))) as server:
        assert sender.send(request(server.url)) == WebhookResponse(200, None, b"")


def test_an_endless_body_ends_after_sixteen_kilobytes(sender: HttpWebhookSender) -> None:
    written: list[int] = []

    def endless(write: Callable[[bytes], object]) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while sum(written) < 1_000_000_000:
            write(b"x" * 65536)
            written.append(65536)

    with serving(lambda _asked: Answer(raw=endless)) as server:
        assert sender.send(request(server.url)).status == 200
    assert sum(written) < 50_000_000


def dripping(head: bytes, gone: threading.Event) -> Callable[[Asked], Answer]:
    def drip(write: Callable[[bytes], object]) -> None:
        write(head)
        while not gone.wait(0.02):
            write(b"x")

    return lambda _asked: Answer(raw=drip)


def test_a_receiver_that_drips_its_head_is_given_up_in_time() -> None:
    gone = threading.Event()
    with (
        closing(HttpWebhookSender(Egress([LOOPBACK]), 0.3)) as sender,
        serving(dripping(b"HTTP/1.1 2", gone)) as server,
    ):
        pool = ThreadPoolExecutor(1)
        attempt = pool.submit(sender.send, request(server.url))
        pool.shutdown(wait=False)
        assert isinstance(attempt.exception(DEADLINE_SECONDS), EndpointUnreachable)
        gone.set()


def test_a_receiver_that_drips_its_body_has_said_its_status() -> None:
    gone, head = threading.Event(), b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    with closing(HttpWebhookSender(Egress([LOOPBACK]), 0.3)) as sender, serving(dripping(head, gone)) as server:
        assert sender.send(request(server.url)).status == 200
        gone.set()


def test_the_time_for_a_delivery_is_fifteen_seconds(sender: HttpWebhookSender) -> None:
    assert sender._timeout_seconds == 15


def test_a_receiver_that_is_not_there_or_not_trusted_is_unreachable(sender: HttpWebhookSender) -> None:
    with serving(lambda _asked: Answer(204)) as server:
        untrusted = WebhookRequest(server.url, headers(GENERATED), BODY)
        gone = request("https://localhost:1/")
        nowhere = request("https://nowhere.invalid/")
        for unreachable in (untrusted, gone, nowhere):
            with pytest.raises(EndpointUnreachable):
                sender.send(unreachable)
    assert server.asked == []


@pytest.mark.parametrize("garbage", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nbroken"])
def test_a_receiver_that_speaks_no_http_is_unreachable(sender: HttpWebhookSender, garbage: bytes) -> None:
    with serving(lambda _asked: Answer(raw=lambda write: write(garbage))) as server, pytest.raises(EndpointUnreachable):
        sender.send(request(server.url))


def test_what_is_kept_of_a_receivers_garbage_is_short_and_printable(sender: HttpWebhookSender) -> None:
    garbage = b"HTTP/1.1 \x1b[31m" + b"x" * 50_000 + b"\r\n\r\n"
    unreachable = pytest.raises(EndpointUnreachable)
    with serving(lambda _asked: Answer(raw=lambda write: write(garbage))) as server, unreachable as failure:
        sender.send(request(server.url))
    assert failure.value.detail.isprintable()
    assert len(failure.value.detail) <= 1000


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "http://8.8.8.8/",
        "ftp://a.example/",
        "https://0177.0.0.1/",
        "https://xn--/",
        "https://a.example:99999/",
        "hook",
    ],
)
def test_a_receiver_that_must_not_be_dialled_is_refused(sender: HttpWebhookSender, url: str) -> None:
    with pytest.raises(EgressRefused):
        sender.send(request(url))
