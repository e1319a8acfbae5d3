"""A proxy before any CA: it notes every exchange, the witness of what the service asked of the CA, and has go wrong what a
test wants (`ca_faults`).

It keeps the `Host` header, so that the URLs a CA hands out lead back through the proxy."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from tests.servers.https import Answer, Asked, ca_bundle_pem, serving

PASSED_ON = ("content-type", "accept", "user-agent", "host", "accept-language")
PASSED_BACK = ("content-type", "location", "replay-nonce", "retry-after", "link")
TIMEOUT_SECONDS = 60
NO_ANSWER = Answer(status=0, raw=lambda _write: None)
"""The connection ends."""
SUGGESTIONS_PATH = "/proxy/renewal-info"

Endpoint = Literal[
    "directory",
    "new-nonce",
    "new-account",
    "new-order",
    "revoke-cert",
    "key-change",
    "account",
    "order",
    "authorization",
    "challenge",
    "finalize",
    "certificate",
    "renewal-info",
    "unknown",
]
SIGNED: tuple[Endpoint, ...] = (
    "new-account", "new-order", "account", "order", "authorization", "challenge", "finalize", "certificate",
)  # fmt: skip
"""What is asked with a POST, which needs a nonce."""

_IN_DIRECTORY: Mapping[str, Endpoint] = {
    "newNonce": "new-nonce",
    "newAccount": "new-account",
    "newOrder": "new-order",
    "revokeCert": "revoke-cert",
    "keyChange": "key-change",
}


@dataclass(frozen=True)
class Exchange:
    """One request and its answer.

    `status` is what the CA answered and `told` what the service was told: 0 where the one was not asked, or the other got
    no answer. `said` is the CA's JSON, empty where it was none. `monotonic` and `at` are when the request came.
    `dns_names` and `replaces` are what a newOrder asked for."""

    method: str
    path: str
    status: int
    location: str
    said: Mapping[str, object]
    endpoint: Endpoint = "unknown"
    told: int = 0
    monotonic: float = 0.0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    dns_names: tuple[str, ...] = ()
    replaces: str | None = None


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
            for path, _endpoint in _resources(exchange.said):
                owner.setdefault(path, order or exchange.location)
        return counts

    def finalizations(self) -> Mapping[str, int]:
        """By path: how often a finalize was accepted."""
        accepted = [e.path for e in self._exchanges if "finalize" in e.path and 0 < e.status < httpx.codes.BAD_REQUEST]
        return Counter(accepted)

    def dns_names_at(self, path: str) -> tuple[str, ...]:
        """Of the order that leads to a resource or is it, or of a challenge's authorization; a wildcard with its `*.`."""
        for exchange in reversed(self._exchanges):
            led_to = (exchange.path, exchange.location, *(found for found, _endpoint in _resources(exchange.said)))
            dns_names = _dns_names(exchange.said)
            if path in led_to and dns_names:
                return dns_names
        return ()

    def at(self, *endpoints: Endpoint) -> list[Exchange]:
        """Those at the endpoints, in the order in which they were answered."""
        return [exchange for exchange in self._exchanges if exchange.endpoint in endpoints]


class Passing:
    """A request on its way. `response` is what the CA said, None as long as it was not asked."""

    def __init__(self, asked: Asked, forward: Callable[[Passing], Answer], fresh_nonce: Callable[[], str]) -> None:
        self.asked = asked
        self.response: httpx.Response | None = None
        self.fresh_nonce = fresh_nonce
        """A nonce that the CA will take."""
        self._forward = forward

    @property
    def payload(self) -> dict[str, Any]:
        """The JSON that was signed, empty where there is none."""
        return _payload(self.asked.body)

    def pass_on(self) -> Answer:
        return self._forward(self)


Fault = Callable[[Passing], Answer]
"""Answers instead of the CA, or does something to its answer. `ca_faults` has the usual ones."""

Suggest = Callable[[str], Answer]
"""Answers a request for renewal information (RFC 9773 §4.1) about the certificate with this ARI id."""


@dataclass(frozen=True)
class _Rate:
    endpoints: Collection[Endpoint]
    rate: float
    fault: Fault
    random: Random


class CaProxy:
    """`directory_url` and `ca_bundle_pem` are what the service is given instead of the CA's own."""

    def __init__(self, directory_url: str, ca_bundle: str, port: int) -> None:
        self._upstream = urlsplit(directory_url)
        self.directory_url = f"https://127.0.0.1:{port}{self._upstream.path}"  # Caddy serves no other name
        self.ca_bundle_pem = ca_bundle_pem()
        self._exchanges: list[Exchange] = []
        self._endpoints = _Endpoints(self._upstream.path)
        self._scripted: defaultdict[Endpoint, deque[Fault]] = defaultdict(deque)
        self._rates: list[_Rate] = []
        self._suggest: Suggest | None = None
        self._folders = [""]
        self._where_it_was: Fault = Passing.pass_on
        self._lock = threading.Lock()
        context = httpx.create_ssl_context(trust_env=False)
        context.load_verify_locations(cadata=ca_bundle)
        self._client = httpx.Client(verify=context, trust_env=False, timeout=TIMEOUT_SECONDS)

    # --- what a test may do ---

    def fail_next(self, endpoint: Endpoint, *faults: Fault) -> None:
        """The next requests there meet these, one by one."""
        with self._lock:
            self._scripted[endpoint].extend(faults)

    def fail_at_rate(
        self, rate: float, fault: Fault, endpoints: Collection[Endpoint] = SIGNED, *, seed: int = 0
    ) -> None:
        """So many of all requests there meet it (0 to 1), unless they meet another that was set before."""
        with self._lock:
            self._rates.append(_Rate(endpoints, rate, fault, Random(seed)))

    def recover(self) -> None:
        """No more faults. Renewal is suggested as before."""
        with self._lock:
            self._scripted.clear()
            self._rates.clear()

    def suggest_renewal(self, suggest: Suggest | None) -> None:
        """Gives a CA renewal information that has none, or another's than its own; None takes it away again. The
        directory names it from then on, so it is for before the service has read that."""
        self._suggest = suggest

    def move(self, folder: str, where_it_was: Fault) -> None:
        """The endpoints that the directory names are in that folder ("/new") from now on; asked where they ever were, it
        answers so. For a CA that takes requests signed for such a URL."""
        self._folders.insert(0, folder)
        self._where_it_was = where_it_was

    @property
    def exchanges(self) -> list[Exchange]:
        with self._lock:
            return list(self._exchanges)

    def since(self, exchange: int) -> Exchanges:
        """What was said from the exchange of that number on."""
        return Exchanges(self.exchanges[exchange:])

    # --- inside ---

    def answer(self, asked: Asked) -> Answer:
        monotonic, at, path = time.monotonic(), datetime.now(UTC), self._path_at_ca(asked.path)
        endpoint = self._endpoints.of(path)
        passing = Passing(asked, self._forward, self._fresh_nonce)
        has_moved = endpoint in _IN_DIRECTORY.values() and asked.path != self._folders[0] + path
        fault = self._where_it_was if has_moved else self._fault(endpoint)
        try:
            answer = (fault or Passing.pass_on)(passing)
        except httpx.TransportError:
            answer = NO_ANSWER  # the CA gave none either
        self._note(endpoint, passing, answer, monotonic, at)
        return answer

    def close(self) -> None:
        self._client.close()

    def _fault(self, endpoint: Endpoint) -> Fault | None:
        with self._lock:
            if self._scripted[endpoint]:
                return self._scripted[endpoint].popleft()
            drawn = [each for each in self._rates if endpoint in each.endpoints and each.random.random() < each.rate]
            return drawn[0].fault if drawn else None

    def _forward(self, passing: Passing) -> Answer:
        asked, suggest = passing.asked, self._suggest
        if suggest is not None and asked.path.startswith(f"{SUGGESTIONS_PATH}/"):
            return suggest(asked.path.removeprefix(f"{SUGGESTIONS_PATH}/"))
        headers = {name: value for name, value in asked.headers.items() if name.lower() in PASSED_ON}
        path = self._path_at_ca(asked.path)
        url = f"https://{self._upstream.netloc}{path}"
        response = passing.response = self._client.request(asked.method, url, headers=headers, content=asked.body)
        self._endpoints.learn(path, response)
        passed_back = {name: value for name, value in response.headers.items() if name.lower() in PASSED_BACK}
        if path != self._upstream.path or not response.is_success:
            return Answer(response.status_code, passed_back, response.content)
        return Answer(response.status_code, passed_back, json.dumps(self._named(asked, response.json())).encode())

    def _named(self, asked: Asked, directory: dict[str, Any]) -> dict[str, Any]:
        """The directory as it is told."""
        for name in set(_IN_DIRECTORY) & set(directory):
            path = _path(directory[name])
            directory[name] = directory[name].removesuffix(path) + self._folders[0] + path
        if self._suggest is not None:
            directory["renewalInfo"] = f"https://{asked.headers['Host']}{SUGGESTIONS_PATH}"
        return directory

    def _path_at_ca(self, path: str) -> str:
        folder = next(folder for folder in self._folders if path.startswith(f"{folder}/"))
        return path.removeprefix(folder)

    def _fresh_nonce(self) -> str:
        path = self._endpoints.path_of("new-nonce")
        response = self._client.head(f"https://{self._upstream.netloc}{path}", headers={"User-Agent": "ca-proxy"})
        return str(response.headers["Replay-Nonce"])

    def _note(self, endpoint: Endpoint, passing: Passing, answer: Answer, monotonic: float, at: datetime) -> None:
        asked, response = passing.asked, passing.response
        wanted = passing.payload if endpoint == "new-order" else {}
        exchange = Exchange(
            method=asked.method,
            path=asked.path,
            status=response.status_code if response else 0,
            location=_path(response.headers.get("location", "")) if response else "",
            said=_json(response) if response else {},
            endpoint=endpoint,
            told=answer.status,
            monotonic=monotonic,
            at=at,
            dns_names=tuple(str(each["value"]) for each in wanted.get("identifiers", ())),
            replaces=wanted.get("replaces"),
        )
        with self._lock:
            self._exchanges.append(exchange)


class _Endpoints:
    """What each path of a CA is for, learnt from what it says: no two CAs lay theirs out alike."""

    def __init__(self, directory_path: str) -> None:
        self._known: dict[str, Endpoint] = {directory_path: "directory"}
        self._renewal_info = SUGGESTIONS_PATH

    def of(self, path: str) -> Endpoint:
        if path.startswith((f"{self._renewal_info}/", f"{SUGGESTIONS_PATH}/")):
            return "renewal-info"
        return self._known.get(path, "unknown")

    def path_of(self, endpoint: Endpoint) -> str:
        return next(path for path, known in list(self._known.items()) if known == endpoint)

    def learn(self, path: str, response: httpx.Response) -> None:
        said, location = _json(response), _path(response.headers.get("location", ""))
        match self.of(path):
            case "directory":
                for name, endpoint in _IN_DIRECTORY.items():
                    if isinstance(said.get(name), str):
                        self._known[_path(str(said[name]))] = endpoint
                if isinstance(said.get("renewalInfo"), str):
                    self._renewal_info = _path(str(said["renewalInfo"])).rstrip("/")
            case "new-account" if location:
                self._known[location] = "account"
            case "new-order" if location:
                self._known[location] = "order"
            case "certificate" if link := response.links.get("alternate"):
                self._known.setdefault(_path(link["url"]), "certificate")
        for found, endpoint in _resources(said):
            self._known.setdefault(found, endpoint)


def _path(url: str) -> str:
    return urlsplit(url).path


def _json(response: httpx.Response) -> Mapping[str, object]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        said = json.loads(response.content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _payload(body: bytes) -> dict[str, Any]:
    """The JSON in a JWS (RFC 8555 §6.2), empty where it has none."""
    try:
        payload = json.loads(body)["payload"]
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, KeyError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def _resources(said: Mapping[str, object]) -> Iterator[tuple[str, Endpoint]]:
    """The paths of the resources that an order or authorization leads to."""
    authorizations = said.get("authorizations")
    for url in authorizations if isinstance(authorizations, list) else []:
        yield _path(str(url)), "authorization"
    if isinstance(said.get("finalize"), str):
        yield _path(str(said["finalize"])), "finalize"
    if isinstance(said.get("certificate"), str):
        yield _path(str(said["certificate"])), "certificate"
    challenges = said.get("challenges")
    for challenge in challenges if isinstance(challenges, list) else []:
        yield _path(str(challenge["url"])), "challenge"


def _dns_names(said: Mapping[str, object]) -> tuple[str, ...]:
    """That an order or authorization is for."""
    one, several = said.get("identifier"), said.get("identifiers")
    if isinstance(one, dict):
        dns_name = str(one["value"]).removeprefix("*.")
        return (f"*.{dns_name}" if said.get("wildcard") or dns_name != one["value"] else dns_name,)
    return tuple(str(each["value"]) for each in several) if isinstance(several, list) else ()


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
