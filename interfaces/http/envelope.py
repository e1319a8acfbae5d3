"""Around every request, before any framework: its id, its bounds, its line in the log, and refusals put on record.

Nothing malformed gets past here: a path that is not plain, a body that is too large, not JSON, not UTF-8, nested too
deeply or with a key twice."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog

from application.ports import Ids
from interfaces.http.problems import INTERNAL, BadRequest, Problem, answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RecordRefusal = Callable[[Scope, str], Awaitable[None]]

LARGEST_BODY = 128 * 1024
DEEPEST_JSON = 32
REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
REFUSALS = frozenset({401, 403})
STRING = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL
)  # an open one too, or each quote in it would begin another search
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
BRACKET = re.compile(rb"[\[\]{}]")
OPENING = frozenset({b"[", b"{"})

log = structlog.get_logger()


class Envelope:
    """An ASGI application around another. `record_refusal` is called with the code before a 401 or 403 is sent."""

    def __init__(self, app: App, ids: Ids, record_refusal: RecordRefusal) -> None:
        self._app = app
        self._ids = ids
        self._record_refusal = record_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, send, self._request_id(scope), self._record_refusal)
        with structlog.contextvars.bound_contextvars(request_id=request.request_id):
            try:
                _check_path(scope)
                _check_query(scope)
                body = await _read_body(scope, receive)
                if body is None:
                    return
                if body:
                    _check_content_type(scope)
                    _check_json(body)
                await self._app(scope, _replay(body, receive), request.send)
            except BadRequest as refusal:
                await request.send_problem(refusal.problem)
            except Exception:
                log.exception("request_crashed")
                if not request.started:
                    await request.send_problem(INTERNAL)
            request.log_line()

    def _request_id(self, scope: Scope) -> str:
        given = _header(scope, b"x-request-id")
        return given.decode() if given and REQUEST_ID.fullmatch(given) else self._ids.new("req")


class _Request:
    """One request's way out."""

    def __init__(self, scope: Scope, send: Send, request_id: str, record_refusal: RecordRefusal) -> None:
        self.request_id = request_id
        self.started = False
        self._scope = scope
        self._send = send
        self._record_refusal = record_refusal
        self._status = 0
        self._begun = monotonic()
        scope.setdefault("state", {})["request_id"] = request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] in REFUSALS:
                await self._record_refusal(self._scope, self._scope["state"].get("error_code", ""))
            self.started = True
            self._status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    async def send_problem(self, problem: Problem) -> None:
        body, headers = answer(problem, self.request_id)
        raw = [(name.encode(), value.encode()) for name, value in headers]
        raw.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": problem.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    def log_line(self) -> None:
        caller = self._scope["state"].get("caller")
        client = self._scope.get("client")
        log.info(
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self._status,
            duration_ms=round((monotonic() - self._begun) * 1000),
            identity_id=caller.token_id if caller else None,
            source_ip=client[0] if client else None,
        )


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _check_path(scope: Scope) -> None:
    """The path is decoded once; what is then not plain, or climbs, goes no further."""
    raw = scope.get("raw_path") or scope["path"].encode()
    try:
        path = unquote_to_bytes(raw.split(b"?", 1)[0]).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(400, "invalid_path", "the path is not UTF-8") from None
    if not PATH.fullmatch(path) or "//" in path or any(segment in {".", ".."} for segment in path.split("/")):
        raise BadRequest(400, "invalid_path", "a path consists of A-Z a-z 0-9 . _ ~ - and single slashes")


def _check_query(scope: Scope) -> None:
    """PostgreSQL's text holds no NUL, so there is nothing that could be found by one."""
    if b"%00" in scope.get("query_string", b""):
        raise BadRequest(400, "invalid_request", "no NUL is accepted in a query")


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """None where the client went away before its end: half a request is none."""
    declared = _header(scope, b"content-length")
    if declared and declared.isdigit() and int(declared) > LARGEST_BODY:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            raise _too_large()
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large() -> BadRequest:
    return BadRequest(413, "request_too_large", f"a body has at most {LARGEST_BODY} bytes")


def _check_content_type(scope: Scope) -> None:
    media_type = (_header(scope, b"content-type") or b"").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise BadRequest(415, "unsupported_media_type", "a body is application/json")


def _check_json(body: bytes) -> None:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(400, "invalid_request", "the body is not UTF-8") from None
    if _depth(body) > DEEPEST_JSON:
        raise BadRequest(400, "invalid_request", f"the body is nested more than {DEEPEST_JSON} deep")
    try:
        json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except ValueError as problem:
        raise BadRequest(400, "invalid_request", f"the body is not JSON: {problem}") from None
    if NUL.search(text):
        raise BadRequest(400, "invalid_request", "no NUL is accepted in a string")


def _depth(body: bytes) -> int:
    """How deep brackets are nested outside of strings. Counted before parsing, which would recurse as deep."""
    depth = deepest = 0
    for bracket in BRACKET.findall(STRING.sub(b"", body)):
        depth += 1 if bracket in OPENING else -1
        deepest = max(deepest, depth)
    return deepest


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
