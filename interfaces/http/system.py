"""`/v1/health` and `/v1/version`."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from interfaces.http.authentication import FromApp

VERSION = version("scaivault")


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason` says what is missing."""

    status: str
    reason: str | None = None


NOT_READY = ResponseSpec(Health, generate_examples=False, description="It cannot serve requests now")


class Version(msgspec.Struct, frozen=True):
    version: str


@get("/health", opt={"scope": "public"}, sync_to_thread=False)
def health() -> Health:
    """The process is alive."""
    return Health("ok")


@get("/health/ready", opt={"scope": "public"}, responses={503: NOT_READY})
async def ready(services: FromApp) -> Response[Health]:
    """It can serve requests: 503 says why not."""
    reason = await asyncio.get_running_loop().run_in_executor(services.front, services.is_ready)
    if reason is None:
        return Response(Health("ready"))
    return Response(Health("not_ready", reason), status_code=503, headers={"Retry-After": "2"})


@get("/version", opt={"scope": "public"}, sync_to_thread=False)
def get_version() -> Version:
    return Version(VERSION)
