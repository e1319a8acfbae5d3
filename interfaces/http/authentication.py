"""Who asks: the bearer token, and the scope that a route demands."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers.base import BaseRouteHandler

from application.caller import Caller
from application.secret_value import SecretValue
from application.tokens import NotAuthenticated, require_network
from domain.access import request_refused
from interfaces.http.services import Services

PUBLIC = "public"

Connection = ASGIConnection[Any, Any, Any, Any]

FromToken = NamedDependency[Caller]
FromApp = NamedDependency[Services]
"""What a handler's parameters `caller` and `services` are."""


async def require_scope(connection: Connection, handler: BaseRouteHandler) -> None:
    """A guard: every route says in `opt` which scope it needs (`x or y`: either), or that it is public."""
    if isinstance(connection, Request) and connection.method == "OPTIONS":
        return  # the framework's own handler, which tells the methods there are
    scopes = handler.opt["scope"].split(" or ")
    if scopes == [PUBLIC]:
        return
    services: Services = connection.app.state.services
    caller = await asyncio.get_running_loop().run_in_executor(services.front, _authenticate, services, connection)
    connection.scope["state"]["caller"] = caller
    require_network(caller)
    caller.require(next(filter(caller.may, scopes), scopes[0]))


def _authenticate(services: Services, connection: Connection) -> Caller:
    kind, _, presented = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not presented:
        raise NotAuthenticated("authentication_required", "a bearer token is needed")
    state = connection.scope["state"]
    client = connection.client
    return services.tokens.authenticate(
        SecretValue(presented.strip()),
        request_id=state["request_id"],
        source_ip=client.host if client else None,
        user_agent=connection.headers.get("user-agent", "")[:200] or None,
    )


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    """A dependency: the authenticated caller."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def services_of(request: Request[Any, Any, Any]) -> Services:
    """A dependency."""
    services: Services = request.app.state.services
    return services


async def record_refusal(services: Services, caller: Caller, method: str, path: str, code: str) -> None:
    await asyncio.get_running_loop().run_in_executor(
        services.front, _record_refusal, services, caller, method, path, code
    )


def _record_refusal(services: Services, caller: Caller, method: str, path: str, code: str) -> None:
    event = request_refused(services.ids.new("access"), method, path, code, services.clock.now())
    services.store.record(event, by=caller.provenance)
