"""`/v1/subscriptions`: who is told of what."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Literal

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from application.caller import Caller
from application.rights import may_see, require_may_see
from application.secret_value import SecretValue
from application.wishes import DEFAULT_BUFFER, Changes, Wish
from domain.errors import FieldProblem, InvalidFields
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Name, RequestBody, WithOptionalBody, duration_in
from interfaces.http.outside import outside_call
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one
from projections.delivery_statistics import DELIVERY_STATISTICS, Statistics
from projections.subscriptions import SUBSCRIPTIONS, DeliveryTerms, SubscriptionView

READ, WRITE = "subscriptions:read or pki:admin", "subscriptions:write or pki:admin"


class DeliverTo(RequestBody, frozen=True):
    """`url`, `secret`, `ca_bundle_pem` and `ordered` (false) are a webhook's, `buffer_size` (1000) is polling's."""

    type: Literal["webhook", "polling"]
    url: str | None = None
    secret: str | None = None
    ca_bundle_pem: str | None = None
    ordered: bool | UnsetType = UNSET
    buffer_size: int | UnsetType = UNSET


class FilterBy(RequestBody, frozen=True):
    """Globs, of which one must take one of an event's names: `*` is any characters, `?` one."""

    domains: tuple[str, ...] = ()


class Subscribe(RequestBody, frozen=True):
    name: Name
    paths: list[str]
    events: list[str]
    delivery: DeliverTo
    filters: FilterBy | UnsetType = UNSET


class DeliverDifferently(RequestBody, frozen=True):
    url: str | UnsetType = UNSET
    ca_bundle_pem: str | UnsetType | None = UNSET
    ordered: bool | UnsetType = UNSET
    buffer_size: int | UnsetType = UNSET


class Revise(RequestBody, frozen=True):
    """What is left out stays. `identity_id` hands a subscription over to another token."""

    name: Name | UnsetType = UNSET
    paths: list[str] | UnsetType = UNSET
    events: list[str] | UnsetType = UNSET
    filters: FilterBy | UnsetType = UNSET
    delivery: DeliverDifferently | UnsetType = UNSET
    identity_id: str | UnsetType = UNSET
    status: Literal["active", "paused"] | UnsetType = UNSET


class RotateSecret(RequestBody, frozen=True):
    """For so long both secrets are used. Without a `secret` one is generated."""

    overlap: str = "24h"
    secret: str | None = None


class TermsShownOnce(DeliveryTerms, frozen=True, omit_defaults=True):
    """`secret` is there when it was generated, this once."""

    secret: str | None = None

    def __repr__(self) -> str:
        return "TermsShownOnce(…)"


class SubscriptionDetail(SubscriptionView, frozen=True):
    """`statistics` are a webhook's."""

    statistics: Statistics | None = None


class Subscribed(SubscriptionDetail, frozen=True):
    delivery: TermsShownOnce


class SubscriptionList(msgspec.Struct, frozen=True):
    data: Sequence[SubscriptionView]
    cursor: str | None
    has_more: bool


class Rotated(msgspec.Struct, frozen=True, omit_defaults=True):
    """`secret` is there when it was generated, this once."""

    previous_secret_until: datetime
    secret: str | None = None

    def __repr__(self) -> str:
        return "Rotated(…)"


class Tested(msgspec.Struct, frozen=True):
    """`status` is the receiver's, `error` why it was no success, `response_body` what it said, without secrets."""

    delivered: bool
    event_id: str
    status: int | None
    error: str | None
    duration_ms: int
    response_body: str


@post("/subscriptions", opt={"scope": WRITE}, responses=ERRORS, sync_to_thread=True)
def subscribe(data: JSONBody[Subscribe], caller: FromToken, services: FromApp) -> Response[Subscribed]:
    """Without a secret one is generated and shown this once. `pki:admin` suffices where all paths lie under `pki/`."""
    to = data.delivery
    _require_fitting(to)
    wish = Wish(
        name=data.name,
        paths=data.paths,
        events=data.events,
        domains=() if data.filters is UNSET else data.filters.domains,
        url=to.url,
        ca_bundle_pem=to.ca_bundle_pem,
        ordered=False if to.ordered is UNSET else to.ordered,
        buffer_size=DEFAULT_BUFFER if to.buffer_size is UNSET else to.buffer_size,
    )
    with outside_call(services) if to.url is not None else nullcontext():  # the address is looked up
        subscription_id, generated = services.subscriptions.subscribe(wish, _secret(to.secret), caller)
    fields = msgspec.structs.asdict(_detail(services, _view(services, caller, subscription_id)))
    terms = msgspec.structs.asdict(fields["delivery"])
    shown_once = TermsShownOnce(**terms, secret=generated.reveal_text() if generated else None)
    subscribed = Subscribed(**{**fields, "delivery": shown_once})
    headers = {"Location": f"/v1/subscriptions/{subscription_id}", "Cache-Control": "no-store"}
    return Response(subscribed, status_code=201, headers=headers)


@get("/subscriptions", opt={"scope": READ}, responses=ERRORS, sync_to_thread=True)
def list_subscriptions(caller: FromToken, services: FromApp, page: FromPage) -> SubscriptionList:
    subscriptions, cursor = listed(
        SUBSCRIPTIONS, services, caller, page, is_visible=lambda view: may_see(caller, view.paths)
    )
    return SubscriptionList(subscriptions, cursor, cursor is not None)


@get("/subscriptions/{subscription_id:str}", opt={"scope": READ}, responses=ERRORS, sync_to_thread=True)
def get_subscription(subscription_id: FromPath[str], caller: FromToken, services: FromApp) -> SubscriptionDetail:
    """With how its deliveries went in the last 24 hours."""
    return _detail(services, visible(services, caller, subscription_id))


@patch("/subscriptions/{subscription_id:str}", opt={"scope": WRITE}, responses=ERRORS, sync_to_thread=True)
def revise_subscription(
    subscription_id: FromPath[str], data: JSONBody[Revise], caller: FromToken, services: FromApp
) -> SubscriptionDetail:
    """`status` pauses and resumes, also what was disabled. What a pause held back is sent afterwards."""
    to = DeliverDifferently() if data.delivery is UNSET else data.delivery
    changes = Changes(
        name=data.name,
        paths=data.paths,
        events=data.events,
        domains=UNSET if data.filters is UNSET else data.filters.domains,
        url=to.url,
        ca_bundle_pem=to.ca_bundle_pem,
        ordered=to.ordered,
        buffer_size=to.buffer_size,
        identity_id=data.identity_id,
        status=data.status,
    )
    with outside_call(services) if to.url is not UNSET else nullcontext():  # a new address is looked up
        services.subscriptions.revise(subscription_id, changes, caller)
    return _detail(services, _view(services, caller, subscription_id))


@delete("/subscriptions/{subscription_id:str}", opt={"scope": WRITE}, responses=ERRORS, sync_to_thread=True)
def unsubscribe(subscription_id: FromPath[str], caller: FromToken, services: FromApp) -> None:
    """Nothing more is sent; its secrets are destroyed."""
    services.subscriptions.unsubscribe(subscription_id, caller)


@post(
    "/subscriptions/{subscription_id:str}/rotate-secret",
    opt={"scope": WRITE},
    operation_class=WithOptionalBody,
    responses=ERRORS,
    status_code=200,
    sync_to_thread=True,
)
def rotate_secret(
    subscription_id: FromPath[str],
    caller: FromToken,
    services: FromApp,
    data: JSONBody[RotateSecret | None] = None,
) -> Response[Rotated]:
    """During the overlap deliveries are signed with both, the new one first."""
    wanted = data or RotateSecret()
    overlap = duration_in("overlap", wanted.overlap)
    generated, until = services.subscriptions.rotate_secret(subscription_id, _secret(wanted.secret), overlap, caller)
    rotated = Rotated(until.replace(microsecond=0), generated.reveal_text() if generated else None)
    return Response(rotated, headers={"Cache-Control": "no-store"})


@post(
    "/subscriptions/{subscription_id:str}/test",
    opt={"scope": WRITE},
    responses=ERRORS,
    status_code=200,
    sync_to_thread=True,
)
def test_subscription(subscription_id: FromPath[str], caller: FromToken, services: FromApp) -> Tested:
    """Sends an event of the type `subscription.test` at once, and says how it went."""
    with outside_call(services):
        event_id, outcome = services.subscriptions.test(subscription_id, caller)
    error = None if outcome.is_taken else outcome.detail
    return Tested(outcome.is_taken, event_id, outcome.status, error, outcome.duration_ms, outcome.text)


def visible(services: Services, caller: Caller, subscription_id: str) -> SubscriptionView:
    """Raises NotFound, Denied."""
    view = _view(services, caller, subscription_id)
    require_may_see(caller, view.paths)
    return view


def _view(services: Services, caller: Caller, subscription_id: str) -> SubscriptionView:
    view: SubscriptionView = one(SUBSCRIPTIONS, "subscription", services, caller, subscription_id)
    return view


def _detail(services: Services, view: SubscriptionView) -> SubscriptionDetail:
    is_webhook = view.delivery.type == "webhook"
    statistics = DELIVERY_STATISTICS.one(services.pool, view.id, services.clock.now()) if is_webhook else None
    return SubscriptionDetail(**msgspec.structs.asdict(view), statistics=statistics)


def _secret(text: str | None) -> SecretValue | None:
    return SecretValue(text) if text is not None else None


def _require_fitting(to: DeliverTo) -> None:
    """Raises InvalidFields."""
    if to.type == "webhook" and to.buffer_size is not UNSET:
        raise InvalidFields(FieldProblem("delivery.buffer_size", "not_polling", "a webhook has none"))
    if to.type == "webhook" and to.url is None:
        raise InvalidFields(FieldProblem("delivery.url", "required", "a webhook needs an https URL"))
    if to.type == "polling":
        for field in ("url", "secret", "ca_bundle_pem", "ordered"):
            if getattr(to, field) not in {None, UNSET}:
                raise InvalidFields(FieldProblem(f"delivery.{field}", "not_a_webhook", "polling takes none"))
