"""`/v1/pki/acme/issue` and `/v1/pki/acme/orders`: placing orders and looking at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody

from application.caller import Caller
from domain.order import KeyType
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Csr, Name, RequestBody
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one, one_with_position
from interfaces.http.waiting import Look, look_until_enough, require_wait
from projections.orders import ORDERS, OrderView, Status


class Issue(RequestBody, frozen=True):
    """`csr_pem` is a PKCS #10 request for exactly the domains: its key stays with whom it belongs to. Without it a key of
    `key_type` is made here, `ec256` where none is named."""

    account_id: str
    domains: list[str]
    challenge_type: str
    auto_renew: bool = True
    key_type: KeyType | None = None
    csr_pem: Csr | None = None
    profile: str | None = None
    preferred_chain: str | None = None
    dns_provider_id: str | None = None
    name: Name | None = None


RUNNING = ResponseSpec(OrderView, generate_examples=False, description="The order that is in progress already")


class OrderList(msgspec.Struct, frozen=True):
    data: Sequence[OrderView]
    cursor: str | None
    has_more: bool


@post(
    "/pki/acme/issue",
    opt={"scope": "pki:issue"},
    responses={**ERRORS, 200: RUNNING},
    status_code=202,
    sync_to_thread=True,
)
def issue(data: JSONBody[Issue], caller: FromToken, services: FromApp) -> Response[OrderView]:
    """202 with the new order; 200 with the running one for the same account and names."""
    order_id, is_new = services.orders.place(
        account_id=data.account_id,
        domains=data.domains,
        challenge_type=data.challenge_type,
        auto_renew=data.auto_renew,
        key_type=data.key_type,
        csr_pem=data.csr_pem,
        profile=data.profile,
        preferred_chain=data.preferred_chain,
        dns_provider_id=data.dns_provider_id,
        name=data.name,
        caller=caller,
    )
    return Response(
        order_view(services, caller, order_id),
        status_code=202 if is_new else 200,
        headers={"Location": f"/v1/pki/acme/orders/{order_id}"},
    )


@get("/pki/acme/orders", opt={"scope": "pki:read"}, responses=ERRORS, sync_to_thread=True)
def list_orders(
    caller: FromToken,
    services: FromApp,
    page: FromPage,
    status: FromQuery[Status | None] = None,
    certificate_id: FromQuery[str | None] = None,
) -> OrderList:
    wanted = {"status": status, "certificate_id": certificate_id}
    matching = {column: value for column, value in wanted.items() if value is not None}
    orders, cursor = listed(
        ORDERS, services, caller, page, matching, lambda order: caller.limits.allow(order.certificate_id, order.domains)
    )
    return OrderList(orders, cursor, cursor is not None)


@get("/pki/acme/orders/{order_id:str}", opt={"scope": "pki:read"}, responses=ERRORS)
async def get_order(
    order_id: FromPath[str],
    request: Request[Any, Any, Any],
    caller: FromToken,
    services: FromApp,
    wait: FromQuery[int] = 0,
) -> OrderView:
    """With `wait` the answer comes when status or phase has changed, at the latest after so many seconds (60 at most); at
    once where nothing changes any more."""
    require_wait(wait)
    seen: list[OrderView] = []

    def look() -> Look:
        view, position = one_with_position(ORDERS, "order", services, caller, order_id)
        caller.require_certificate(view.certificate_id)
        caller.require_names(view.domains)
        seen.append(view)
        has_changed = (view.status, view.phase) != (seen[0].status, seen[0].phase)
        return Look(position, has_changed or view.phase == "done")

    await look_until_enough(request, services, caller, order_id, wait, look)
    return seen[-1]


@post(
    "/pki/acme/orders/{order_id:str}/cancel",
    opt={"scope": "pki:issue"},
    responses=ERRORS,
    status_code=200,
    sync_to_thread=True,
)
def cancel_order(order_id: FromPath[str], caller: FromToken, services: FromApp) -> OrderView:
    """Ends the order; what it wrote to DNS is removed."""
    services.orders.cancel(order_id, caller)
    return order_view(services, caller, order_id)


def order_view(services: Services, caller: Caller, order_id: str) -> OrderView:
    view: OrderView = one(ORDERS, "order", services, caller, order_id)
    return view
