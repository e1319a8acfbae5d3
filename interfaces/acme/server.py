"""One ACME server: its directory (RFC 8555 §7.1.1), its nonces, and signed requests to it (§6.2 to §6.7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import msgspec
from acme.jws import JWS

from application.errors import CaUnavailable, Failure, ResolverFailed
from domain.acme import Problem
from interfaces.acme.account_key import SigningKey
from interfaces.acme.nonces import NoncePool, nonce_in
from interfaces.acme.problems import failure_in, problem_in
from interfaces.foreign_text import clean

_MOST_TRIES = 100
"""Of one request whose nonces are refused. A server that refuses nine in ten still answers all but 1 in 37,000."""

_DIRECTORY_SECONDS = 24 * 3600.0

Resource = TypeVar("Resource")


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    terms_of_service: str | None = None
    caa_identities: tuple[str, ...] | None = None
    external_account_required: bool | None = None
    profiles: Mapping[str, Any] | None = None


class Directory(msgspec.Struct, frozen=True, rename="camel"):
    new_nonce: str
    new_account: str
    new_order: str
    renewal_info: str | None = None
    meta: Meta | None = None


class AcmeServer:
    """Safe in many threads. Raises CaUnavailable, CaThrottled, CaRefused, EgressRefused."""

    def __init__(
        self, directory_url: str, http: httpx.Client, user_agent: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory_url = directory_url
        self._http = http
        self._headers = {"User-Agent": user_agent, "Accept-Language": "en"}
        self._monotonic = monotonic
        self._nonces = NoncePool()
        self._lock = threading.Lock()
        self._directory: Directory | None = None
        self._directory_read_at = 0.0

    def directory(self) -> Directory:
        """Read once a day, and again after an answer that does not fit it."""
        with self._lock:
            now = self._monotonic()
            if self._directory is None or now - self._directory_read_at >= _DIRECTORY_SECONDS:
                response = self._send("GET", self._directory_url)
                if not response.is_success:
                    raise failure_in(response, problem_in(response))
                self._directory = self._decode(response, Directory)
                self._directory_read_at = now
            return self._directory

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

    def resource(self, response: httpx.Response, kind: type[Resource]) -> Resource:
        """The JSON in a response. One that does not fit has the directory read again."""
        try:
            return self._decode(response, kind)
        except CaUnavailable:
            self._forget_directory()
            raise

    def close(self) -> None:
        self._http.close()

    def _failure(self, response: httpx.Response, problem: Problem | None) -> Failure:
        if problem is None or response.status_code == httpx.codes.NOT_FOUND:
            self._forget_directory()
        return failure_in(response, problem)

    def _new_nonce(self) -> bytes:
        response = self._send("HEAD", self.directory().new_nonce)
        nonce = nonce_in(response.headers.get("Replay-Nonce"))
        if nonce is None and response.is_success:
            raise CaUnavailable(f"{response.url} gave no usable nonce")
        if nonce is None:
            raise self._failure(response, problem_in(response))
        return nonce

    def _send(
        self, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            return self._http.request(method, url, content=content, headers={**self._headers, **(headers or {})})
        except (httpx.HTTPError, httpx.InvalidURL, ResolverFailed) as error:
            raise CaUnavailable(clean(f"{method} {url}: {str(error) or type(error).__name__}")) from error

    def _decode(self, response: httpx.Response, kind: type[Resource]) -> Resource:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (ValueError, RecursionError) as error:
            raise CaUnavailable(clean(f"{response.url} is malformed: {error}")) from error

    def _forget_directory(self) -> None:
        with self._lock:
            self._directory = None
