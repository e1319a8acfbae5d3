"""`/v1/subscriptions`: who is told of what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from application.caller import Caller
from application.secret_value import SecretValue
from domain.subscription import lies_under
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Name, RequestBody
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one
from projections.subscriptions import SUBSCRIPTIONS, DeliveryView, SubscriptionView


class DeliverTo(RequestBody, frozen=True):
    type: Literal["webhook"]
    url: str
    secret: str | None = None
    ca_bundle_pem: str | None = None


class Subscribe(RequestBody, frozen=True):
    name: Name
    paths: list[str]
    events: list[str]
    delivery: DeliverTo


class DeliveryShownOnce(DeliveryView, frozen=True, omit_defaults=True):
    """`secret` is there when it was generated, this once."""

    secret: str | None = None

    def __repr__(self) -> str:
        return "DeliveryShownOnce(…)"


class Subscribed(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    paths: Sequence[str]
    events: Sequence[str]
    delivery: DeliveryShownOnce
    identity_id: str
    created_at: datetime


class SubscriptionList(msgspec.Struct, frozen=True):
    data: Sequence[SubscriptionView]
    cursor: str | None
    has_more: bool


@post("/subscriptions", opt={"scope": "subscriptions:write or pki:admin"}, responses=ERRORS, sync_to_thread=True)
def subscribe(data: JSONBody[Subscribe], caller: FromToken, services: FromApp) -> Response[Subscribed]:
    """Without a secret one is generated and shown this once. `pki:admin` suffices where all paths lie under `pki/`."""
    secret = SecretValue(data.delivery.secret) if data.delivery.secret is not None else None
    subscription_id, generated = services.subscriptions.subscribe(
        name=data.name,
        paths=data.paths,
        events=data.events,
        url=data.delivery.url,
        secret=secret,
        ca_bundle_pem=data.delivery.ca_bundle_pem,
        caller=caller,
    )
    view = _view(services, caller, subscription_id)
    shown_once = DeliveryShownOnce(
        view.delivery.type, view.delivery.url, generated.reveal_text() if generated else None
    )
    fields = msgspec.structs.asdict(view) | {"delivery": shown_once}
    return Response(Subscribed(**fields), status_code=201, headers={"Location": f"/v1/subscriptions/{subscription_id}"})


@get("/subscriptions", opt={"scope": "subscriptions:read or pki:admin"}, responses=ERRORS, sync_to_thread=True)
def list_subscriptions(caller: FromToken, services: FromApp, page: FromPage) -> SubscriptionList:
    subscriptions, cursor = listed(SUBSCRIPTIONS, services, caller, page, is_visible=lambda view: may_see(caller, view))
    return SubscriptionList(subscriptions, cursor, cursor is not None)


@get(
    "/subscriptions/{subscription_id:str}",
    opt={"scope": "subscriptions:read or pki:admin"},
    responses=ERRORS,
    sync_to_thread=True,
)
def get_subscription(subscription_id: FromPath[str], caller: FromToken, services: FromApp) -> SubscriptionView:
    view = _view(services, caller, subscription_id)
    if not may_see(caller, view):
        caller.require("subscriptions:read")
    return view


def may_see(caller: Caller, view: SubscriptionView) -> bool:
    """`pki:admin` sees what it may make: subscriptions whose paths all lie under `pki/`."""
    return caller.may("subscriptions:read") or all(lies_under(path, "pki") for path in view.paths)


def _view(services: Services, caller: Caller, subscription_id: str) -> SubscriptionView:
    view: SubscriptionView = one(SUBSCRIPTIONS, "subscription", services, caller, subscription_id)
    return view
