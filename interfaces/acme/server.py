"""One ACME server: its directory (RFC 8555 §7.1.1), its nonces, and signed requests to it (§6.2 to §6.7)."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import httpx
import msgspec
from acme.jws import JWS

from application.errors import CaRefused, CaTimedOut, CaUnavailable, Failure, ResolverFailed
from domain.acme import Problem
from interfaces.acme.account_key import SigningKey
from interfaces.acme.clock_skew import ClockSkew
from interfaces.acme.links import location
from interfaces.acme.nonces import NoncePool, nonce_in
from interfaces.acme.problems import failure_in, problem_in
from interfaces.clock import SystemClock
from interfaces.foreign_text import clean

_MOST_TRIES = 100
"""Of one request whose nonces are refused. A server that refuses nine in ten still answers all but 1 in 37,000."""

_DIRECTORY_SECONDS = 24 * 3600.0
_OLD_DIRECTORY_SECONDS = 300.0
_DOUBTED_DIRECTORY_SECONDS = 3600.0
_AT_THE_SAME_TIME = 8

Resource = TypeVar("Resource")
Said = TypeVar("Said")

system_now = SystemClock().now


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    terms_of_service: str | None = None
    caa_identities: tuple[str, ...] | None = None
    external_account_required: bool | None = None
    profiles: Mapping[str, Any] | None = None


class Directory(msgspec.Struct, frozen=True, rename="camel"):
    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str | None = None
    key_change: str | None = None
    renewal_info: str | None = None
    meta: Meta | None = None

    @property
    def urls(self) -> frozenset[str]:
        """Where it takes POSTs."""
        named = (self.new_account, self.new_order, self.revoke_cert, self.key_change)
        return frozenset(url for url in named if url is not None)


class _Reading(NamedTuple):
    """What came of reading the directory, None before the first time; and until when (monotonic) it need not be read,
    or not even where it is doubted. `failure` is why an old one serves on."""

    outcome: Directory | Failure | None = None
    until: float = 0.0
    undoubted_until: float = 0.0
    failure: Failure | None = None


class AcmeServer:
    """Safe in many threads. Raises CaUnavailable, CaThrottled, CaRefused, EgressRefused.

    Its connections end with `close`, or when nobody holds it any more."""

    def __init__(
        self,
        directory_url: str,
        http: httpx.Client,
        user_agent: str,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = system_now,
    ) -> None:
        self._directory_url = directory_url
        self._http = http
        self._headers = {"User-Agent": user_agent, "Accept-Language": "en"}
        self._monotonic = monotonic
        self._now = now
        self._skew = ClockSkew(monotonic)
        self._nonces = NoncePool()
        self._threads = ThreadPoolExecutor(_AT_THE_SAME_TIME, thread_name_prefix="acme")
        self._close = weakref.finalize(self, http.close)
        self._known = _Reading()
        self._once_named: frozenset[str] = frozenset()
        self._reading = threading.Lock()

    @property
    def skew_seconds(self) -> float | None:
        """By how much its clock was ahead of ours at its last answer; None before one that said the time."""
        return self._skew.seconds

    def directory(self, *, anew: bool = False) -> Directory:
        """Read once a day, and again after an answer that does not fit it, or where it is wanted `anew`. Who asks while it
        is being read shares what comes of it, the failure too. One that is merely old serves on while it cannot be had
        anew, but for who wants no old one."""
        known, now = self._known, self._monotonic()
        if isinstance(known.outcome, Directory) and not anew and (now < known.until or self._reading.locked()):
            return known.outcome
        with self._reading:
            latest = self._known
            if latest is known or latest.outcome is None:
                latest = self._known = self._read_directory(latest.outcome, now)
        if anew and latest.failure is not None:
            raise latest.failure
        if isinstance(latest.outcome, Directory):
            return latest.outcome
        raise latest.outcome or CaUnavailable(f"{self._directory_url} was not read")

    def post(
        self, url: str, payload: bytes, key: SigningKey, account_url: str | None, accept: str = "application/json"
    ) -> httpx.Response:
        """A signed POST that succeeded. An empty payload makes it a POST-as-GET (§6.3); without `account_url` the
        request carries the public key instead. A refused nonce is followed by the one that came with the refusal."""
        headers = {"Content-Type": "application/jose+json", "Accept": accept}
        nonce = self._nonces.take() or self._new_nonce()
        for _ in range(_MOST_TRIES):
            jws = JWS.sign(payload, key.jwk, key.algorithm, nonce, url, account_url)
            response = self._send("POST", url, jws.json_dumps().encode(), headers)
            fresh = nonce_in(response.headers.get("Replay-Nonce"))
            problem = None if response.is_success else problem_in(response)
            if problem is not None and problem.name == "badNonce":
                nonce = fresh or self._new_nonce()
                continue
            self._nonces.keep(fresh)
            if response.is_success:
                return response
            raise self._failure(response, problem)
        raise CaUnavailable(f"{url}: {_MOST_TRIES} nonces were refused")

    def get(self, url: str) -> httpx.Response:
        """A plain GET that succeeded, which needs no nonce (RFC 9773 §4.1)."""
        response = self._send("GET", url)
        if response.is_success:
            return response
        raise self._failure(response, problem_in(response))

    def resource(self, response: httpx.Response, kind: type[Resource]) -> Resource:
        """The JSON in a response. One that does not fit has the directory read again."""
        try:
            return self._decode(response, kind)
        except CaUnavailable:
            self._doubt_directory(response)
            raise

    def location(self, response: httpx.Response) -> str:
        """Where a new resource is. An answer that does not say so has the directory read again."""
        try:
            return location(response)
        except CaUnavailable:
            self._doubt_directory(response)
            raise

    def at_the_same_time(self, ask: Callable[[str], Said], urls: Sequence[str]) -> list[Said]:
        """What was said, in the order of `urls`, after all were asked. The first failure is raised. The threads are this
        server's own, so that a slow one keeps nobody from asking others."""
        if len(urls) == 1:
            return [ask(urls[0])]
        asked = [self._threads.submit(ask, url) for url in urls]
        wait(asked)
        return [each.result() for each in asked]

    def close(self) -> None:
        """Nothing may be asked afterwards."""
        self._threads.shutdown()
        self._close()

    def _read_directory(self, before: Directory | Failure | None, now: float) -> _Reading:
        try:
            response = self._send("GET", self._directory_url)
            if not response.is_success:
                raise failure_in(response, problem_in(response))
            read = self._decode(response, Directory)
            self._once_named |= read.urls
            return _Reading(read, now + _DIRECTORY_SECONDS, now + _DOUBTED_DIRECTORY_SECONDS)
        except Failure as failure:
            if isinstance(before, Directory):
                again = now + _OLD_DIRECTORY_SECONDS
                return _Reading(before, again, again, failure)
            return _Reading(failure)

    def _failure(self, response: httpx.Response, problem: Problem | None) -> Failure:
        failure = failure_in(response, problem)
        if response.status_code == httpx.codes.NOT_FOUND:
            self._doubt_directory(response)
            if isinstance(failure, CaRefused) and self._has_moved(str(response.request.url)):
                return CaUnavailable(f"{response.url} has moved: {failure.detail}")
        return failure

    def _has_moved(self, url: str) -> bool:
        """Whether the directory named the URL once and does so no longer. Where it still does, what was not found there
        is what was asked for: a certificate that is to be replaced, or an account."""
        return url in self._once_named and url not in self.directory().urls

    def _new_nonce(self) -> bytes:
        response = self._send("HEAD", self.directory().new_nonce)
        nonce = nonce_in(response.headers.get("Replay-Nonce"))
        if nonce is None and response.is_success:
            self._doubt_directory(response)
            raise CaUnavailable(f"{response.url} gave no usable nonce")
        if nonce is None:
            raise self._failure(response, problem_in(response))
        return nonce

    def _send(
        self, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        sent_at = self._now()
        try:
            response = self._http.request(method, url, content=content, headers={**self._headers, **(headers or {})})
        except httpx.TimeoutException as error:
            raise CaTimedOut(clean(f"{method} {url}: no answer in time")) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ResolverFailed) as error:  # UnicodeError: no IDNA
            raise CaUnavailable(clean(f"{method} {url}: {str(error) or type(error).__name__}")) from error
        self._skew.observe(response, sent_at, self._now())
        return response

    def _decode(self, response: httpx.Response, kind: type[Resource]) -> Resource:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (ValueError, RecursionError) as error:
            raise CaUnavailable(clean(f"{response.url} is malformed: {error}")) from error

    def _doubt_directory(self, response: httpx.Response) -> None:
        """After an answer that does not fit it the directory is read again. Who GETs asks about a certificate, of which
        there are many, and each may be unknown to the CA for ever: then at most once an hour."""
        if response.request.method == "GET":
            self._known = self._known._replace(until=min(self._known.until, self._known.undoubted_until))
        else:
            self._known = _Reading()
