"""A proxy before any CA, which notes every exchange: the witness of what the service asked of the CA.

It keeps the `Host` header, so that the URLs a CA hands out lead back through the proxy."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from tests.servers.https import Answer, Asked, ca_bundle_pem, serving

PASSED_ON = ("content-type", "accept", "user-agent", "host", "accept-language")
PASSED_BACK = ("content-type", "location", "replay-nonce", "retry-after", "link", "date")
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; `said` is the answer's JSON, empty where it was none."""

    method: str
    path: str
    status: int
    location: str
    said: Mapping[str, object]


class Exchanges:
    """A stretch of what a service asked a CA, and what that says about its orders."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges

    def requests_by_order(self) -> Mapping[str, int]:
        """By the path of each order at the CA: the requests made for it, newOrder and repetitions included."""
        owner: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for exchange in self._exchanges:
            if exchange.location and "authorizations" in exchange.said:
                owner[exchange.location] = exchange.location
                counts[exchange.location] += exchange.path not in owner
            order = owner.get(exchange.path)
            if order is not None:
                counts[order] += 1
            for url in _urls(exchange.said):
                owner.setdefault(url, order or exchange.location)
        return counts

    def finalizations(self) -> Mapping[str, int]:
        """By path: how often a finalize was accepted."""
        accepted = [e.path for e in self._exchanges if "finalize" in e.path and e.status < httpx.codes.BAD_REQUEST]
        return Counter(accepted)


class CaProxy:
    """`directory_url` and `ca_bundle_pem` are what the service is given instead of the CA's own."""

    def __init__(self, directory_url: str, ca_bundle: str, port: int) -> None:
        self._upstream = urlsplit(directory_url)
        self.directory_url = f"https://127.0.0.1:{port}{self._upstream.path}"  # Caddy serves no other name
        self.ca_bundle_pem = ca_bundle_pem()
        self._exchanges: list[Exchange] = []
        self._lock = threading.Lock()
        context = httpx.create_ssl_context(trust_env=False)
        context.load_verify_locations(cadata=ca_bundle)
        self._client = httpx.Client(verify=context, trust_env=False, timeout=TIMEOUT_SECONDS)

    @property
    def exchanges(self) -> list[Exchange]:
        with self._lock:
            return list(self._exchanges)

    def answer(self, asked: Asked) -> Answer:
        headers = {name: value for name, value in asked.headers.items() if name.lower() in PASSED_ON}
        url = f"https://{self._upstream.netloc}{asked.path}"
        response = self._client.request(asked.method, url, headers=headers, content=asked.body)
        location = response.headers.get("location", "")
        with self._lock:
            self._exchanges.append(
                Exchange(asked.method, asked.path, response.status_code, urlsplit(location).path, _json(response))
            )
        passed_back = {name: value for name, value in response.headers.items() if name.lower() in PASSED_BACK}
        return Answer(response.status_code, passed_back, response.content)

    def close(self) -> None:
        self._client.close()

    def since(self, exchange: int) -> Exchanges:
        """What was said from the exchange of that number on."""
        return Exchanges(self.exchanges[exchange:])


def _json(response: httpx.Response) -> Mapping[str, object]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    said = json.loads(response.content)
    return said if isinstance(said, dict) else {}


def _urls(said: Mapping[str, object]) -> Iterator[str]:
    """The paths of the resources that an order or authorization leads to."""
    authorizations = said.get("authorizations")
    for url in authorizations if isinstance(authorizations, list) else []:
        yield urlsplit(str(url)).path
    for name in ("finalize", "certificate"):
        if isinstance(said.get(name), str):
            yield urlsplit(str(said[name])).path
    challenges = said.get("challenges")
    for challenge in challenges if isinstance(challenges, list) else []:
        yield urlsplit(str(challenge["url"])).path


@contextmanager
def proxied(directory_url: str, ca_bundle: str) -> Iterator[CaProxy]:
    """A proxy that serves until the block is left."""
    with serving(_not_yet) as server:
        proxy = CaProxy(directory_url, ca_bundle, server.port)
        server.answer = proxy.answer  # its URLs name the server's port, which had to be there first
        try:
            yield proxy
        finally:
            proxy.close()


def _not_yet(_: Asked) -> Answer:
    return Answer(503)
