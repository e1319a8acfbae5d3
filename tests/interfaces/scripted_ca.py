"""An ACME server that says whatever a test wants: what it should answer comes from the test, nonces and directory from here."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from ipaddress import ip_network
from typing import Any

import msgspec
from acme.jws import JWS
from josepy.json_util import encode_b64jose

from application.ports import CaAccount
from application.x509 import new_private_key
from domain.acme import ERROR_NAMESPACE
from interfaces.acme.account_key import signing_key
from interfaces.acme.client import AcmeClient
from interfaces.egress import Egress
from tests.servers.https import Answer, Asked, LoopbackServer, ca_bundle_pem, serving

Reply = Answer | Callable[[Asked], Answer]

PEM_KEY = new_private_key("ec256")
ORDER: dict[str, Any] = {"status": "pending", "finalize": "https://localhost/finalize", "authorizations": []}


def json_answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, msgspec.json.encode(document))


def problem_answer(name: str, status: int = 400, headers: Mapping[str, str] | None = None, **members: object) -> Answer:
    body = msgspec.json.encode({"type": ERROR_NAMESPACE + name, "detail": f"about {name}", **members})
    return Answer(status, {"Content-Type": "application/problem+json", **(headers or {})}, body)


class ScriptedCa:
    """Answers each path with what was put there: one by one, the last for ever. Every answer carries a fresh nonce,
    unless it has a `Replay-Nonce` of its own; an empty one stands for none."""

    def __init__(self) -> None:
        self.replies: defaultdict[str, list[Reply]] = defaultdict(list)
        self.directory: dict[str, Any] = {"meta": {}}
        self.url = ""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            nonce = encode_b64jose(b"nonce-%08d" % next(self._numbers))
            answer = self._reply(asked.path)
        if not isinstance(answer, Answer):
            answer = answer(asked)
        headers = {"Replay-Nonce": nonce, **answer.headers}
        return Answer(answer.status, {name: said for name, said in headers.items() if said}, answer.body, answer.raw)

    def _reply(self, path: str) -> Reply:
        replies = self.replies[path]
        if replies:
            return replies.pop(0) if len(replies) > 1 else replies[0]
        if path == "/directory":
            resources = {name: f"{self.url}/{name}" for name in ("newNonce", "newAccount", "newOrder")}
            return json_answer({**resources, **self.directory}, headers={"Replay-Nonce": ""})
        return Answer(200 if path == "/newNonce" else 404)


class Stage:
    """The scripted CA as the client meets it."""

    def __init__(self, ca: ScriptedCa, server: LoopbackServer, client: AcmeClient) -> None:
        self.ca, self.server, self.client = ca, server, client
        self.account = CaAccount(f"{server.url}/directory", f"{server.url}/account/1", PEM_KEY, ca_bundle_pem())

    def url(self, path: str) -> str:
        return self.server.url + path

    def count(self, method: str, path: str) -> int:
        return sum((asked.method, asked.path) == (method, path) for asked in self.server.asked)

    def posted(self) -> list[dict[str, Any]]:
        """The protected headers of every POST, with the payload under `payload`. Signatures are checked."""
        return [_opened(asked.body) for asked in self.server.asked if asked.method == "POST"]


def _opened(body: bytes) -> dict[str, Any]:
    jws = JWS.json_loads(body)
    assert jws.verify(jws.signature.combined.jwk or signing_key(PEM_KEY).jwk.public_key())
    return {**msgspec.json.decode(jws.signature.protected), "payload": jws.payload}


@contextmanager
def staged(timeout_seconds: float = 10, client: AcmeClient | None = None) -> Iterator[Stage]:
    """With a `client` this is one more server for it."""
    ca = ScriptedCa()
    egress = Egress([ip_network("127.0.0.0/8")])
    own = nullcontext(client) if client else closing(AcmeClient(egress, "ScaiVault/0.1.0", timeout_seconds))
    with serving(ca.answer) as server, own as asking:
        ca.url = server.url
        yield Stage(ca, server, asking)
