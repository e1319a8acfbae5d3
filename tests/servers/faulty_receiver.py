"""Receivers of webhooks that drop, hang, refuse and reset as chance has it, in a process of their own.

Each notes every request that it has read to the end, before it answers. What it does is chosen by a seed, the event and
how often the event came, so that another order of arrival changes nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random, random
from typing import Literal

from standardwebhooks import Webhook, WebhookVerificationError

from tests.servers.https import _server_context, ca_bundle_pem
from tests.servers.process import LOOPBACK, ServerProcess, free_port

ROOT = Path(__file__).parents[2]
STUBBORN_REFUSALS = 13
"""So many attempts there are: what is refused so often becomes a dead letter."""

STUBBORN_SHARE = 1 / 200

Answer = Literal["drop", "hang", "reset", "500", "200", "202", "204"]
FAULTS: Sequence[tuple[Answer, float]] = (("drop", 0.20), ("hang", 0.05), ("reset", 0.05), ("500", 0.20))
TAKEN: Sequence[Answer] = ("200", "202", "204")
STUBBORN: Answer = "500"
LONGEST_THOUGHT_SECONDS = 0.02
"""Between the note and the answer, so that a sender which is killed has some answers lost."""

NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Endpoint:
    name: str
    port: int
    tls: bool
    faulty: bool

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.port}/hooks/{self.name}"


@dataclass(frozen=True)
class Received:
    """One request. `begun_at` is Unix time; `headers` are by lower-case name; `in_flight` counts the requests open at the
    endpoint when this one had come, itself included; `fits_standard` is what the library made of it there and then."""

    begun_at: float
    headers: Mapping[str, str]
    body: bytes
    answer: Answer
    in_flight: int
    fits_standard: bool

    @property
    def is_taken(self) -> bool:
        return self.answer in TAKEN


class FaultyReceivers(ServerProcess):
    """Endpoints on loopback by their names: `tls` with `ca_bundle_pem`, `faulty`, or neither."""

    def __init__(
        self, folder: Path, seed: int, names: Sequence[str], tls: Sequence[str], faulty: Sequence[str]
    ) -> None:
        super().__init__(folder)
        self.endpoints = {name: Endpoint(name, free_port(), name in tls, name in faulty) for name in names}
        orders = {"seed": seed, "endpoints": [asdict(endpoint) for endpoint in self.endpoints.values()]}
        (folder / "orders.json").write_text(json.dumps(orders))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.servers.faulty_receiver", str(self.folder)]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}

    def is_ready(self) -> bool:
        return "serving" in self.log_path.read_text()

    @property
    def ca_bundle_pem(self) -> str:
        return _bundle_path(self.folder).read_text()

    def tell_secret(self, name: str, secret: str) -> None:
        """Before the first delivery."""
        _secret_path(self.folder, name).write_text(secret)

    def received(self, name: str) -> Sequence[Received]:
        """In the order of arrival."""
        return [_received(line) for line in _notes_path(self.folder, name).read_text().splitlines()]


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Our own signature, checked by hand as docs/webhooks.md says."""
    message = headers["x-scaivault-timestamp"].encode() + b"." + body
    expected = "sha256=" + hmac.digest(secret.encode(), message, hashlib.sha256).hex()
    return expected in headers["x-scaivault-signature"].split(" ")


def _bundle_path(folder: Path) -> Path:
    return folder / "ca.pem"


def _secret_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.secret"


def _notes_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.jsonl"


def _note(received: Received) -> str:
    return json.dumps({**asdict(received), "body": base64.b64encode(received.body).decode()}) + "\n"


def _received(line: str) -> Received:
    fields = json.loads(line)
    return Received(**{**fields, "body": base64.b64decode(fields["body"])})


class _Receiver:
    """One endpoint, in the child process."""

    def __init__(self, folder: Path, seed: int, endpoint: Endpoint) -> None:
        self._folder = folder
        self._seed = seed
        self._endpoint = endpoint
        self._arrivals: Counter[str] = Counter()
        self._in_flight = 0
        self._notes = _notes_path(folder, endpoint.name).open("a", buffering=1)

    async def listen(self) -> asyncio.Server:
        context = _server_context() if self._endpoint.tls else None
        return await asyncio.start_server(self._connected, LOOPBACK, self._endpoint.port, ssl=context)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the sender is gone
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        self._in_flight += 1
        try:
            begun_at = time.time()
            headers = _headers(head)
            body = await reader.readexactly(int(headers["content-length"]))
            answer = self._answer(headers["x-scaivault-event-id"])
            fits = self._fits_standard(headers, body)
            self._notes.write(_note(Received(begun_at, headers, body, answer, self._in_flight, fits)))
            await asyncio.sleep(random() * LONGEST_THOUGHT_SECONDS)
            match answer:
                case "hang":
                    await reader.read()  # until the sender goes away
                case "reset":
                    connection: socket.socket = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    writer.transport.abort()
                case "500":
                    writer.write(b"HTTP/1.1 500 Not Today\r\nContent-Length: 9\r\n\r\nnot today")
                case "204":
                    writer.write(b"HTTP/1.1 204 Taken\r\n\r\n")
                case "200" | "202":
                    writer.write(f"HTTP/1.1 {answer} Taken\r\nContent-Length: 5\r\n\r\ntaken".encode())
                case "drop":
                    pass
            return answer not in {"drop", "hang", "reset"}
        finally:
            self._in_flight -= 1

    def _answer(self, event_id: str) -> Answer:
        self._arrivals[event_id] += 1
        arrival = self._arrivals[event_id]
        about = f"{self._seed}/{self._endpoint.name}/{event_id}"
        chance = Random(f"{about}/{arrival}")
        if self._endpoint.faulty:
            if arrival <= STUBBORN_REFUSALS and Random(about).random() < STUBBORN_SHARE:
                return STUBBORN
            point = chance.random()
            for fault, share in FAULTS:
                if point < share:
                    return fault
                point -= share
        return chance.choice(TAKEN)

    def _fits_standard(self, headers: Mapping[str, str], body: bytes) -> bool:
        try:
            self._standard.verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError:
            return False
        return True

    @cached_property
    def _standard(self) -> Webhook:
        secret = _secret_path(self._folder, self._endpoint.name).read_text()
        return Webhook(secret if secret.startswith("whsec_") else secret.encode())


def _headers(head: bytes) -> Mapping[str, str]:
    lines = head.decode("ascii").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip() for name, _, value in pairs}


async def _serve(folder: Path) -> None:
    orders = json.loads((folder / "orders.json").read_text())
    _bundle_path(folder).write_text(ca_bundle_pem())
    receivers = [_Receiver(folder, orders["seed"], Endpoint(**endpoint)) for endpoint in orders["endpoints"]]
    servers = [await receiver.listen() for receiver in receivers]
    print("serving", flush=True)  # noqa: T201 - what the parent waits for
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
