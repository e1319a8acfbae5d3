"""Request bodies, decoded strictly: `"1"` is no number, and a field that nobody knows is refused."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from interfaces.http.problems import BadRequest

PLACE = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every body is."""


class StrictBodies(ASGIMiddleware):
    """The framework converts leniently; this decodes the same bytes before it, and means it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        data = scope["route_handler"].parsed_data_field
        if data is not None:
            body = await Request(scope, receive=receive, send=send).body()
            if body or not data.is_optional:
                decode_strictly(body, data.annotation)
        await next_app(scope, receive, send)


def decode_strictly(body: bytes, kind: Any) -> Any:
    """Raises BadRequest (`invalid_request`) naming the field."""
    if not body:
        raise BadRequest(400, "invalid_request", "a JSON body is needed")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        text = str(problem)
        match = PLACE.search(text)
        message = PLACE.sub("", text)
        field = {"field": match["field"] if match else "", "code": "shape", "message": message}
        raise BadRequest(400, "invalid_request", message, {"fields": [field]}) from None
    except msgspec.DecodeError as problem:
        raise BadRequest(400, "invalid_request", f"the body is not JSON: {problem}") from None
