"""Request bodies, decoded strictly: `"1"` is no number, and a field that nobody knows is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.spec import Operation
from litestar.openapi.spec import RequestBody as DescribedBody

from domain.durations import parse_duration
from domain.errors import FieldProblem, InvalidFields
from interfaces.http.problems import BadRequest

PLACE = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")
NAMED = re.compile(r"(?:unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""What somebody calls a resource. Names are indexed, and PostgreSQL does not index long ones."""


Csr = Annotated[str, msgspec.Meta(max_length=32_768)]
"""A signing request in PEM: a hundred names of 253 characters, and a large key."""


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every body is. It shows nothing of itself: it may hold keys and credentials."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


@dataclass
class WithOptionalBody(Operation):
    """Of a route whose body may be absent: the framework describes every body as required."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, DescribedBody):
            self.request_body.required = False


async def require_strict_body(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A guard, so that it comes after the one of the scope. The framework converts leniently; this decodes the same
    bytes before it, and means it."""
    data = handler.parsed_data_field
    if data is not None and isinstance(connection, Request):
        body = await connection.body()
        if body or not data.is_optional:
            decode_strictly(body, data.annotation)


def duration_in(field: str, text: str) -> timedelta:
    """Raises InvalidFields (`invalid_duration`) naming the field."""
    try:
        return parse_duration(text)
    except ValueError as problem:
        raise InvalidFields(FieldProblem(field, "invalid_duration", str(problem))) from None


def decode_strictly(body: bytes, kind: Any) -> Any:
    """Raises BadRequest (`invalid_request`) naming the field."""
    if not body:
        raise BadRequest(400, "invalid_request", "a JSON body is needed")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as problem:
        text = str(problem)
        message = PLACE.sub("", text)
        parts = [match["field"] for match in (PLACE.search(text), NAMED.search(message)) if match]
        field = {"field": ".".join(parts), "code": "shape", "message": message}
        raise BadRequest(400, "invalid_request", message, {"fields": [field]}) from None
    except msgspec.DecodeError as problem:
        raise BadRequest(400, "invalid_request", f"the body is not JSON: {problem}") from None
