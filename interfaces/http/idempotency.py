"""`Idempotency-Key`: a request that is made again is not done again, but answered as it was (draft-ietf-httpapi-
idempotency-key-header).

It holds for every POST whose route does not opt out (`opt={"idempotent": False}`), per token. Only what succeeded is kept:
what was refused, or failed, frees the key. A request in progress holds it, and one whose process died until its lease ends:
what it did is then not known, and whoever asks again is told how things are (a name in use, the running order)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import msgspec
import structlog
from litestar import Litestar, Request, Response
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from litestar.routes import HTTPRoute

from application.caller import Caller
from application.errors import StoreUnavailable
from application.secret_value import SecretValue
from interfaces.http.envelope import App, Message, Receive, Scope, Send
from interfaces.http.problems import BadRequest
from interfaces.http.services import Services
from interfaces.postgres.idempotency_keys import Claim, InProgress

HEADER = "idempotency-key"
KEY = re.compile(r"[\x21-\x7e]{1,255}")
REPLAYED = "Idempotent-Replayed"
STATE = "idempotency"
PARAMETER = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description="The same key with the same body is answered as before, for 24 hours.",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255),
)
KEPT_HEADERS = frozenset({"content-type", "location", "cache-control"})

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True):
    """An answer, and to what it was. Nothing of it is shown: it may hold a secret."""

    request_sha256: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        return "Kept(…)"


class Pending(msgspec.Struct, frozen=True):
    """A claim, for the answer that is to come."""

    claim: Claim
    request_sha256: bytes


def describe(app: Litestar) -> None:
    """Adds the header to the description of each route that takes it."""
    paths = app.openapi_schema.paths or {}
    for route in app.routes:
        handlers = route.route_handlers if isinstance(route, HTTPRoute) else ()
        described = paths[route.path_format].post if route.path_format in paths else None
        if described and any("POST" in handler.http_methods and _takes_keys(handler) for handler in handlers):
            described.parameters = [*(described.parameters or []), PARAMETER]


def _takes_keys(handler: BaseRouteHandler) -> bool:
    return handler.opt.get("idempotent") is not False


async def answer_again(request: Request[Any, Any, Any]) -> Response[bytes] | None:
    """A hook before the handler, behind the guards: claims the key, or gives what was answered. Raises BadRequest."""
    lines = request.headers.getall(HEADER, [])
    if not lines or request.method != "POST" or not _takes_keys(request.route_handler):
        return None
    if len(lines) > 1 or not KEY.fullmatch(lines[0]):
        raise BadRequest(400, "invalid_request", "an Idempotency-Key is 1 to 255 visible ASCII characters")
    services: Services = request.app.state.services
    caller: Caller = request.scope["state"]["caller"]  # no public route is a POST
    digest = await _digest(request)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(
            services.front, services.idempotency.claim, caller.tenant_id, caller.token_id, lines[0]
        )
    except InProgress:
        raise BadRequest(409, "idempotency_conflict", "a request with this Idempotency-Key is being handled") from None
    if isinstance(found, Claim):
        request.scope["state"][STATE] = Pending(found, digest)
        return None
    kept = msgspec.msgpack.decode(found.reveal(), type=Kept)
    if kept.request_sha256 != digest:
        raise BadRequest(409, "idempotency_conflict", "this Idempotency-Key was used for another request")
    return Response(
        kept.body,
        status_code=kept.status,
        headers={name: value for name, value in kept.headers.items() if name != "content-type"} | {REPLAYED: "true"},
        media_type=kept.headers.get("content-type"),
    )


async def _digest(request: Request[Any, Any, Any]) -> bytes:
    """Of the route, the query and the body, byte by byte."""
    target = request.scope["path"].encode() + b"?" + request.scope.get("query_string", b"")
    return hashlib.sha256(hashlib.sha256(target).digest() + await request.body()).digest()


class KeepingAnswers:
    """An ASGI application around the framework's: what was claimed before a handler is kept, or freed, before the answer
    is sent."""

    def __init__(self, app: App, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(scope, send, self._services)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            await answer.end()
            raise
        await answer.end()  # one that is cancelled may go on in its thread: its key waits for the end of the lease


class _Answer:
    """One answer on its way, held back until it is whole where it is to be kept."""

    def __init__(self, scope: Scope, send: Send, services: Services) -> None:
        self._scope = scope
        self._send = send
        self._services = services
        self._held: list[Message] = []

    async def send(self, message: Message) -> None:
        pending = self._pending
        if pending is None:
            await self._send(message)
            return
        self._held.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._settle(pending)
            for held in self._held:
                await self._send(held)

    async def end(self) -> None:
        """Where there was no answer, or none that was whole, the key is free."""
        pending = self._pending
        if pending is not None:
            await self._do(pending, None)

    @property
    def _pending(self) -> Pending | None:
        pending: Pending | None = self._scope.get("state", {}).get(STATE)
        return pending

    async def _settle(self, pending: Pending) -> None:
        start = self._held[0]
        kept = None
        if 200 <= start["status"] < 300:  # noqa: PLR2004
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
            kept = Kept(
                pending.request_sha256,
                start["status"],
                {name: value for name, value in headers.items() if name in KEPT_HEADERS},
                b"".join(message.get("body", b"") for message in self._held[1:]),
            )
        await self._do(pending, kept)

    async def _do(self, pending: Pending, kept: Kept | None) -> None:
        """An answer that cannot be kept is given all the same: the key is then free when its lease ends."""
        del self._scope["state"][STATE]
        keys = self._services.idempotency
        loop = asyncio.get_running_loop()
        try:
            if kept is None:
                await loop.run_in_executor(self._services.front, keys.free, pending.claim)
            else:
                answer = SecretValue(msgspec.msgpack.encode(kept))
                await loop.run_in_executor(self._services.front, keys.keep, pending.claim, answer)
        except StoreUnavailable as failure:
            log.warning("store_unavailable", detail=failure.detail)
