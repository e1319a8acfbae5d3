"""`docs/webhooks.md`: what it says is so, its receivers run and its lines can be typed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import pytest

from application.secret_value import SecretValue
from domain.announcement import CATALOGUE, Announcement
from domain.delivery import RETRY_DELAYS
from interfaces.webhooks.signature import signed_headers
from tests.servers.https import Answer, Asked, serving
from tests.servers.process import LOOPBACK, ServerProcess, free_port, peer_path

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/webhooks.md").read_text()
RECEIVERS = ROOT / "docs/receivers"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
TABLE_ROW = re.compile(r"^\| `(\S+)` \| (.+) \|$", re.MULTILINE)

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD, NEW, OTHER = (f"whsec_{name}0Cr7VsYWnU5PzIo2LaLaSwDq" for name in ("old", "new", "oth"))
PATH = "pki/certificates/cert_01m844dzqt5syjr0x9a1xe4sfc"
LARGEST_BODY_BYTES = 256 * 1024


def blocks(language: str) -> list[str]:
    return [textwrap.dedent(text) for _, found, text in BLOCK.findall(DOCUMENT) if found == language]


def block_with(text: str) -> str:
    (found,) = [block for block in blocks("bash") if text in block]
    return found


# --- the receivers ---


class Receiver(ServerProcess):
    """One of the document's, as its reader would start it."""

    def __init__(self, folder: Path, command: list[str], secret: str) -> None:
        super().__init__(folder)
        self._command = command
        self._secret = secret
        self._port = free_port()
        self.url = f"http://{LOOPBACK}:{self._port}/hook"

    def command(self) -> list[str]:
        return self._command

    def environment(self) -> dict[str, str]:
        return {"SCAIVAULT_WEBHOOK_SECRET": self._secret, "PORT": str(self._port)}

    def is_ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self._port)) == 0

    @property
    def printed(self) -> list[str]:
        return self.log_path.read_text().splitlines()


def in_python() -> list[str]:
    return [sys.executable, str(RECEIVERS / "receiver.py")]


def in_node() -> list[str]:
    return [peer_path("node", "Debian's package nodejs"), str(RECEIVERS / "receiver.mjs")]


Open = Callable[[str], Receiver]


@pytest.fixture(
    params=[pytest.param(in_python, id="python"), pytest.param(in_node, id="node", marks=pytest.mark.peers)]
)
def open_receiver(request: pytest.FixtureRequest, folder: Path) -> Iterator[Open]:
    """Starts receivers that know the secret given."""
    opened: list[Receiver] = []

    def start(secret: str) -> Receiver:
        receiver = Receiver(folder / str(len(opened)), request.param(), secret)
        opened.append(receiver)
        receiver.start()
        return receiver

    try:
        yield start
    finally:
        for receiver in opened:
            receiver.stop()


def event(event_id: str = "evt_1", sequence: int = 4711) -> bytes:
    said = {"event_id": event_id, "event_type": "certificate.renewed", "path": PATH, "sequence": sequence}
    return json.dumps({**said, "data": {"domains": ["bücher.example"]}}, ensure_ascii=False).encode()


def signed(body: bytes, *known: str, age_seconds: int = 0) -> dict[str, str]:
    values = [SecretValue(secret) for secret in known or (SECRET,)]
    return dict(signed_headers("evt_1", "certificate.renewed", int(time.time()) - age_seconds, body, values))


def send(receiver: Receiver, body: bytes, headers: dict[str, str]) -> int:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return httpx.post(receiver.url, content=body, headers=encoded, trust_env=False, timeout=10).status_code


def line(sequence: int = 4711) -> str:
    return f"certificate.renewed {PATH} {sequence}"


def test_an_event_is_taken_and_printed_once_however_often_it_comes(open_receiver: Open) -> None:
    receiver = open_receiver(SECRET)
    assert send(receiver, event(), signed(event())) == 204
    assert receiver.printed == [line()]
    assert send(receiver, event(), signed(event(), age_seconds=60)) == 204
    assert receiver.printed == [line()]
    assert send(receiver, event("evt_2", 4712), signed(event("evt_2", 4712))) == 204
    assert receiver.printed == [line(), line(4712)]


@pytest.mark.parametrize("end", [ServerProcess.stop, ServerProcess.kill])
def test_an_event_is_remembered_when_the_receiver_starts_again(
    open_receiver: Open, end: Callable[[ServerProcess], None]
) -> None:
    receiver = open_receiver(SECRET)
    assert send(receiver, event(), signed(event())) == 204
    end(receiver)
    receiver.start()
    assert send(receiver, event(), signed(event())) == 204
    assert send(receiver, event("evt_2", 4712), signed(event("evt_2", 4712))) == 204
    assert receiver.printed == [line(), line(4712)]


def test_of_the_same_event_four_times_at_once_one_is_printed(open_receiver: Open) -> None:
    receiver = open_receiver(SECRET)
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, receiver, event(), signed(event())) for _ in range(4)]
    assert [each.result() for each in sent] == [204] * 4
    assert receiver.printed == [line()]


OURS = ("X-ScaiVault-Timestamp", "X-ScaiVault-Signature")


def changed(name: str, value: str) -> dict[str, str]:
    return {**signed(event()), name: value}


def without(name: str) -> dict[str, str]:
    headers = signed(event())
    del headers[name]
    return headers


def refused() -> list[tuple[int, bytes, dict[str, str]]]:
    """The status that is due, the body and the headers; made when they are sent, for their timestamps' sake."""
    good, largest = event(), event().ljust(LARGEST_BODY_BYTES + 1)
    now = signed(good)[OURS[0]]
    return [
        (401, good, signed(good, OTHER)),
        (401, good.replace(b"4711", b"4712"), signed(good)),
        (401, good + b"\n", signed(good)),
        (401, b"", signed(good)),
        (401, good, signed(good, age_seconds=310)),
        (401, good, signed(good, age_seconds=-310)),
        (401, good, changed(OURS[0], str(int(now) - 1))),
        *(
            (401, good, changed(OURS[0], wrong))
            for wrong in ("", "now", f"{now}.0", f"-{now}", f"{now}\xb2", "9" * 5000)
        ),
        *(
            (401, good, changed(OURS[1], wrong))
            for wrong in ("", "sha256=", "\xe9", "sha256=" + "0" * 64, "sha256=  v1")
        ),
        (401, good, changed(OURS[1], signed(good)[OURS[1]].removeprefix("sha256="))),
        *((400, good, without(name)) for name in OURS),
        (413, largest, signed(largest)),
        *((400, wrong, signed(wrong)) for wrong in (b"no JSON", b"\xff", b"null", b"[]", b"{}")),
    ]


def test_what_is_not_signed_well_and_recent_is_refused_and_not_printed(open_receiver: Open) -> None:
    receiver = open_receiver(SECRET)
    requests = refused()
    assert [send(receiver, body, headers) for _, body, headers in requests] == [status for status, _, _ in requests]
    assert receiver.printed == []
    assert send(receiver, event(), signed(event())) == 204, "it goes on"


def test_a_body_of_the_largest_size_is_taken(open_receiver: Open) -> None:
    receiver = open_receiver(SECRET)
    body = event().ljust(LARGEST_BODY_BYTES)
    assert send(receiver, body, signed(body)) == 204


def test_while_a_secret_is_rotated_receivers_that_know_the_old_or_the_new_one_take_the_same_request(
    open_receiver: Open,
) -> None:
    of_old, of_new, of_other = (open_receiver(secret) for secret in (OLD, NEW, OTHER))
    headers = signed(event(), NEW, OLD)
    assert [send(receiver, event(), headers) for receiver in (of_old, of_new, of_other)] == [204, 204, 401]
    assert [receiver.printed for receiver in (of_old, of_new, of_other)] == [[line()], [line()], []]


def test_a_receiver_does_not_start_without_a_secret(open_receiver: Open) -> None:
    with pytest.raises(RuntimeError, match="SCAIVAULT_WEBHOOK_SECRET"):
        open_receiver("")


# --- the document ---


@pytest.mark.parametrize(("language", "name"), [("python", "receiver.py"), ("js", "receiver.mjs")])
def test_a_receiver_in_the_document_is_the_file(language: str, name: str) -> None:
    assert blocks(language) == [(RECEIVERS / name).read_text()]


def described(shape: type) -> str:
    """The fields of a class, those of a class within one in braces."""
    hints = get_type_hints(shape)
    return ", ".join(
        f"{field.name}{{{described(hints[field.name])}}}" if is_dataclass(hints[field.name]) else field.name
        for field in fields(shape)
    )


def test_every_event_type_that_there_is_stands_in_the_document_with_its_data() -> None:
    rows = {name: rest for name, rest in TABLE_ROW.findall(DOCUMENT) if re.fullmatch(r"[a-z_]+\.[a-z_]+", name)}
    assert rows == {name: described(shape) for name, shape in CATALOGUE.items()}


def test_the_body_in_the_document_has_the_fields_that_a_body_has() -> None:
    (shown,) = blocks("json")
    body = json.loads(shown)
    assert list(body) == [field.name for field in fields(Announcement)]
    assert list(body["data"]) == [field.name for field in fields(CATALOGUE[body["event_type"]])]


def test_every_header_stands_in_the_document() -> None:
    named = [name for name, _ in TABLE_ROW.findall(DOCUMENT) if "-" in name]
    assert named == list(signed(event()))


def test_the_document_names_the_delays_between_the_attempts() -> None:
    units = {"s": "seconds", "m": "minutes", "h": "hours"}
    (said,) = re.findall(r"Before the attempts lie (.*?), each", " ".join(DOCUMENT.split()))
    delays = [
        timedelta(**{units[unit]: int(count)}) if unit else timedelta(seconds=int(count))
        for count, unit in re.findall(r"(\d+)(?: ([smh])\b)?", said)
    ]
    assert delays == list(RETRY_DELAYS)


# --- its lines ---


def typed(script: str, folder: Path, **variables: str) -> str:
    """What bash prints; it must succeed."""
    environment = {"PATH": os.environ["PATH"], **variables}
    command = ["bash", "-c", "set -euo pipefail\n" + script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


OWN = "correct horse, 'battery' \"staple\" $HOME `id` \\ Ü"


@pytest.mark.parametrize("known", [(SECRET,), (OWN,), (NEW, OLD), (OWN, SECRET)])
def test_openssl_says_of_our_signature_whether_it_is_right(folder: Path, known: tuple[str, ...]) -> None:
    script = block_with("-hmac")
    headers = signed(event(), *known)
    timestamp, signature = (headers[name] for name in OURS)

    def said(secret: str, body: bytes = event(), timestamp: str = timestamp) -> str:
        (folder / "body.json").write_bytes(body)
        variables = {"SCAIVAULT_WEBHOOK_SECRET": secret, "TIMESTAMP": timestamp, "SIGNATURE": signature}
        return typed(script, folder, **variables).strip()

    assert [said(secret) for secret in known] == ["right"] * len(known)
    assert said(OTHER) == "wrong"
    assert said(known[0], event() + b"\n") == "wrong"
    assert said(known[0], event(), str(int(timestamp) + 1)) == "wrong"


GENERATED = ["whsec_" + "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=", SECRET]


@pytest.mark.parametrize("known", [(GENERATED[0],), (GENERATED[1],), tuple(GENERATED), (OWN, *GENERATED)])
def test_openssl_says_of_the_standards_signature_whether_it_is_right(folder: Path, known: tuple[str, ...]) -> None:
    script = block_with("hexkey:")
    headers = signed(event(), *known)

    def said(secret: str, body: bytes = event(), event_id: str = "evt_1") -> str:
        (folder / "body.json").write_bytes(body)
        variables = {"ID": event_id, "TIMESTAMP": headers["webhook-timestamp"]}
        variables |= {"SCAIVAULT_WEBHOOK_SECRET": secret, "SIGNATURE": headers["webhook-signature"]}
        return typed(script, folder, **variables).strip()

    of_base64 = [secret for secret in known if secret in GENERATED]
    assert [said(secret) for secret in of_base64] == ["right"] * len(of_base64)
    assert said("whsec_" + "c29tZSBvdGhlciBzZWNyZXQ=") == "wrong"
    assert said(of_base64[0], event() + b"\n") == "wrong"
    assert said(of_base64[0], event(), "evt_2") == "wrong"


def asked_for(asked: Asked) -> tuple[str, str, Any]:
    return asked.method, asked.path, json.loads(asked.body) if asked.body else None


def test_the_curl_lines_ask_for_what_the_text_says(folder: Path) -> None:
    script = "\n".join(block for block in blocks("bash") if "curl" in block and "while" not in block)
    with serving(lambda _asked: Answer(200, {}, b"{}"), tls=False) as server:
        variables = {"SUBSCRIPTION_ID": "sub_1", "DELIVERY_ID": "del_1"}
        typed(script, folder, SCAIVAULT_URL=server.url, SCAIVAULT_TOKEN="skt_1", **variables)
    assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer skt_1"}
    assert {asked.headers["Content-Type"] for asked in server.asked if asked.body} == {"application/json"}
    webhook, *others, polling = [asked_for(asked) for asked in server.asked]
    assert webhook[:2] == polling[:2] == ("POST", "/v1/subscriptions")
    assert webhook[2].keys() == polling[2].keys() == {"name", "paths", "events", "delivery"}
    assert CATALOGUE.keys() >= {*webhook[2]["events"], *polling[2]["events"]}
    assert webhook[2]["delivery"] == {"type": "webhook", "url": "https://hooks.acme.example/tls"}
    assert polling[2]["delivery"] == {"type": "polling"}
    assert others == [
        ("POST", "/v1/subscriptions/sub_1/test", None),
        ("POST", "/v1/subscriptions/sub_1/rotate-secret", {"overlap": "24h"}),
        ("GET", "/v1/subscriptions/sub_1/deliveries?status=dead", None),
        ("POST", "/v1/subscriptions/sub_1/deliveries/del_1/redeliver", None),
        ("POST", "/v1/subscriptions/sub_1/replay", {"from": "2026-11-23T12:00:00Z", "dry_run": True}),
        ("PATCH", "/v1/subscriptions/sub_1", {"status": "active"}),
    ]


def test_the_loop_that_polls_prints_and_acknowledges_each_event(folder: Path) -> None:
    first, second, third = (json.loads(event(f"evt_{number}", number)) for number in (1, 2, 3))
    answers = [
        {"data": [first, second], "cursor": "a", "has_more": True},
        {"data": [], "cursor": "a", "has_more": False},
        {"data": [third], "cursor": "b", "has_more": False},
    ]

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(200, {}, b"{}")
        return Answer(200, {}, json.dumps(answers.pop(0)).encode()) if answers else Answer(503)

    with serving(answer, tls=False) as server:
        variables = {"SUBSCRIPTION_ID": "sub_1", "SCAIVAULT_TOKEN": "skt_1"}
        printed = typed(block_with("while"), folder, SCAIVAULT_URL=server.url, **variables)
    assert printed.splitlines() == [line(1), line(2), line(3)]
    poll = ("GET", "/v1/subscriptions/sub_1/poll?timeout=30&max_events=100", None)
    ack = ("POST", "/v1/subscriptions/sub_1/ack")
    assert [asked_for(asked) for asked in server.asked] == [
        poll,
        (*ack, {"event_ids": ["evt_1", "evt_2"]}),
        poll,
        poll,
        (*ack, {"event_ids": ["evt_3"]}),
        poll,
    ]
