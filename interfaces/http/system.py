"""`/v1/health`, `/v1/version` and `/v1/metrics`."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from domain.errors import Denied
from domain.provenance import DEFAULT_TENANT
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.metrics import CONTENT_TYPE
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services

VERSION = version("scaivault")


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason` says what is missing, `alarm` what somebody should look after although requests are served."""

    status: str
    reason: str | None = None
    alarm: str | None = None


NOT_READY = ResponseSpec(Health, generate_examples=False, description="It cannot serve requests now")


class Version(msgspec.Struct, frozen=True):
    version: str


@get("/health", opt={"scope": "public"}, sync_to_thread=False)
def health() -> Health:
    """The process is alive."""
    return Health("ok")


@get("/health/ready", opt={"scope": "public"}, responses={503: NOT_READY})
async def ready(services: FromApp) -> Response[Health]:
    """It can do its work: 503 says why not. That renewals are behind is an alarm, and where this process is to begin them
    it is not ready."""
    reason, alarm = await asyncio.get_running_loop().run_in_executor(services.front, _state, services)
    if reason is None:
        return Response(Health("ready", alarm=alarm))
    return Response(Health("not_ready", reason), status_code=503, headers={"Retry-After": "2"})


def _state(services: Services) -> tuple[str | None, str | None]:
    """What it is not ready for, and what is to be told beside."""
    reason = services.is_ready()
    alarm = services.alarm() if reason is None else None
    return (reason or alarm, None) if services.works else (reason, alarm)


@get("/version", opt={"scope": "public"}, sync_to_thread=False)
def get_version() -> Version:
    return Version(VERSION)


@get("/metrics", opt={"scope": "audit:read"}, media_type="text/plain", responses=ERRORS)
async def get_metrics(caller: FromToken, services: FromApp) -> Response[bytes]:
    """For Prometheus, in its text format. The figures are those of all tenants: only the default one's tokens may look."""
    if caller.tenant_id != DEFAULT_TENANT:
        raise Denied("access_denied", "the metrics are for tokens of the default tenant")
    text = await services.metrics.exposition()
    return Response(text, media_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})
