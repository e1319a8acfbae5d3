"""`/v1/secrets`: writing, reading and listing stored secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from litestar import Response, get, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody

from application.caller import Caller
from domain.errors import FieldProblem, InvalidFields, NotFound
from domain.secret import SecretType, secret_id
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import RequestBody
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed
from projections.secrets import SECRETS, SecretView
from projections.times import whole_seconds

SECRET_TYPES: Mapping[str, SecretType] = {
    "kv": "kv",
    "json": "json",
    "certificate": "certificate",
    "ssh_key": "ssh_key",
    "api_key": "api_key",
}


class WriteSecret(RequestBody, frozen=True):
    data: dict[str, Any]
    secret_type: str
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class SecretWritten(msgspec.Struct, frozen=True):
    path: str
    version: int
    secret_type: str
    created_at: datetime
    updated_at: datetime


FIRST = ResponseSpec(SecretWritten, generate_examples=False, description="The first version")


class SecretValueAnswer(msgspec.Struct, frozen=True):
    path: str
    version: int
    secret_type: str
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    created_at: datetime

    def __repr__(self) -> str:
        return "SecretValueAnswer(…)"


class SecretList(msgspec.Struct, frozen=True):
    data: Sequence[SecretView]
    cursor: str | None
    has_more: bool


@put("/secrets/{path:path}", opt={"scope": "secrets:write"}, responses={**ERRORS, 201: FIRST}, sync_to_thread=True)
def write_secret(
    path: FromPath[str], data: JSONBody[WriteSecret], caller: FromToken, services: FromApp
) -> Response[SecretWritten]:
    """Adds a version; nothing is overwritten. 201 for the first, 200 for a further one."""
    secret_type = SECRET_TYPES.get(data.secret_type)
    if secret_type is None:
        known = ", ".join(SECRET_TYPES)
        raise InvalidFields(FieldProblem("secret_type", "invalid_secret_type", f"known are {known}"))
    plain_path = path.strip("/")
    version = services.secrets.write(plain_path, data.data, secret_type, dict(data.metadata), caller)
    view = _view(services, caller, plain_path)
    body = SecretWritten(plain_path, version, view.secret_type, view.created_at, view.updated_at)
    if version == 1:
        return Response(body, status_code=201, headers={"Location": f"/v1/secrets/{plain_path}"})
    return Response(body)


@get("/secrets/{path:path}", opt={"scope": "secrets:read"}, responses=ERRORS, sync_to_thread=True)
def read_secret(
    path: FromPath[str], caller: FromToken, services: FromApp, version: FromQuery[int | None] = None
) -> Response[SecretValueAnswer]:
    """The value; that it was read is on record before it is given."""
    secret, found, value = services.secrets.read(path.strip("/"), version, caller)
    body = SecretValueAnswer(
        path=secret.path,
        version=found.number,
        secret_type=found.secret_type,
        data=msgspec.json.decode(value.reveal()),
        metadata=found.metadata,
        created_at=whole_seconds(found.written_at),
    )
    return Response(body, headers={"Cache-Control": "no-store"})


@get("/secrets", opt={"scope": "secrets:read"}, responses=ERRORS, sync_to_thread=True)
def list_secrets(caller: FromToken, services: FromApp, page: FromPage, prefix: FromQuery[str] = "") -> SecretList:
    """Paths and versions, never a value."""
    found, cursor = listed(SECRETS, services, caller, page, is_visible=lambda secret: secret.path.startswith(prefix))
    return SecretList(found, cursor, cursor is not None)


def _view(services: Services, caller: Caller, path: str) -> SecretView:
    view: SecretView | None = SECRETS.one(services.pool, caller.tenant_id, secret_id(caller.tenant_id, path))
    if view is None:
        raise NotFound("secret", path)
    return view
