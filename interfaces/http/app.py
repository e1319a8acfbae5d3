"""The HTTP application: every route, and what surrounds them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from litestar import Litestar, Request, Response, Router
from litestar.concurrency import set_asyncio_executor
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from interfaces.http import (
    accounts,
    audit,
    authentication,
    bundles,
    certificates,
    deliveries,
    dns_providers,
    idempotency,
    orders,
    polling,
    preflight,
    rate_limits,
    secrets,
    subscriptions,
    system,
)
from interfaces.http.bodies import require_strict_body
from interfaces.http.envelope import App, Envelope, Scope
from interfaces.http.pages import page_of
from interfaces.http.problems import INTERNAL, Problem, answer, problem_of
from interfaces.http.services import Services
from interfaces.http.webhook_schemas import webhooks

HANDLERS = (
    secrets.write_secret,
    secrets.read_secret,
    secrets.list_secrets,
    dns_providers.list_provider_types,
    dns_providers.connect_provider,
    dns_providers.list_providers,
    dns_providers.get_provider,
    dns_providers.revise_provider,
    dns_providers.disconnect_provider,
    dns_providers.verify_provider,
    accounts.register_account,
    accounts.list_accounts,
    accounts.get_account,
    accounts.revise_account,
    accounts.roll_over,
    accounts.deactivate_account,
    rate_limits.get_budget,
    orders.issue,
    preflight.preflight,
    orders.list_orders,
    orders.get_order,
    orders.cancel_order,
    certificates.list_certificates,
    certificates.get_certificate,
    certificates.get_pem,
    certificates.get_private_key,
    bundles.get_bundle,
    certificates.renew,
    certificates.revise_certificate,
    certificates.explain,
    certificates.revoke,
    certificates.release_renewal,
    subscriptions.subscribe,
    subscriptions.list_subscriptions,
    subscriptions.get_subscription,
    subscriptions.revise_subscription,
    subscriptions.unsubscribe,
    subscriptions.rotate_secret,
    subscriptions.test_subscription,
    deliveries.list_deliveries,
    deliveries.redeliver,
    deliveries.replay,
    polling.poll,
    polling.acknowledge,
    audit.list_audit_logs,
    system.health,
    system.ready,
    system.get_version,
    system.get_metrics,
)

FRAMEWORK_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_media_type"}

log = structlog.get_logger()


def build_app(services: Services, handler_threads: int | None = None) -> App:
    """The whole as one ASGI application. Its handlers run in so many threads of their own, or in asyncio's few."""
    if handler_threads is not None:
        set_asyncio_executor(ThreadPoolExecutor(handler_threads, thread_name_prefix="handler"))
    litestar = Litestar(
        route_handlers=[
            Router(
                "/v1",
                route_handlers=list(HANDLERS),
                before_request=idempotency.answer_again,
                guards=[authentication.require_scope, require_strict_body],
                dependencies={
                    "caller": Provide(authentication.caller_of, sync_to_thread=False),
                    "services": Provide(authentication.services_of, sync_to_thread=False),
                    "page": Provide(page_of, sync_to_thread=False),
                },
                security=[{"bearer": []}],
            )
        ],
        exception_handlers={Exception: handle_exception},
        state=State({"services": services}),
        openapi_config=OpenAPIConfig(
            title="ScaiVault",
            version=system.VERSION,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            webhooks=webhooks(),  # type: ignore[arg-type]  # schemas as they are, without the framework's classes
            components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
        ),
        logging_config=None,
        on_app_init=[_without_debugging],
    )
    idempotency.describe(litestar)

    async def record_refusal(scope: Scope, code: str) -> None:
        caller = scope["state"].get("caller")
        if caller is not None:
            await authentication.record_refusal(services, caller, scope["method"], scope["path"], code)

    keeping = idempotency.KeepingAnswers(litestar, services)  # type: ignore[arg-type]
    return Envelope(keeping, services.ids, record_refusal)


def _without_debugging(config: AppConfig) -> AppConfig:
    config.debug = False
    return config


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Every error in the one form. What nobody foresaw is logged, and nothing of it is shown."""
    problem = problem_of(error) or _framework_problem(error)
    if problem is None:
        log.error("request_crashed", exc_info=error)
        problem = INTERNAL
    state = request.scope["state"]
    state["error_code"] = problem.code
    known = getattr(error, "known", None)
    if known is not None:
        state["caller"] = known
    body, headers = answer(problem, state.get("request_id"))
    allowed = getattr(error, "headers", None) or {}  # of a wrong method: which ones there are (RFC 9110 §15.5.6)
    return Response(
        body, status_code=problem.status, headers={**dict(headers), **allowed}, media_type="application/json"
    )


def _framework_problem(error: Exception) -> Problem | None:
    if not isinstance(error, HTTPException) or error.status_code >= 500:  # noqa: PLR2004
        return None
    code = FRAMEWORK_CODES.get(error.status_code, "invalid_request")
    fields = [
        {"field": str(item.get("key", "")).removesuffix("_"), "code": "shape", "message": str(item.get("message", ""))}
        for item in error.extra or []
        if isinstance(item, dict)
    ]
    return Problem(error.status_code, code, error.detail, {"fields": fields} if fields else None)
