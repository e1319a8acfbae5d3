"""`/v1/subscriptions/{id}/deliveries` and `…/replay`: how deliveries went, and sending again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody

from application.rights import is_within_limits
from domain.delivery import DEAD_LETTERS_KEPT
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import RequestBody
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.subscriptions import READ, WRITE, visible
from interfaces.http.views import listed, one
from projections.deliveries import DELIVERIES, DeliveryStatus, DeliveryView

Time = Annotated[datetime, msgspec.Meta(tz=True)]


class DeliveryDetail(DeliveryView, frozen=True):
    """`response_body` is the beginning of what the receiver said last, without secrets; it is kept for a week."""

    response_body: str | None = None


class DeliveryList(msgspec.Struct, frozen=True):
    data: Sequence[DeliveryDetail]
    cursor: str | None
    has_more: bool


class ReplayFrom(RequestBody, frozen=True, rename={"since": "from", "until": "to"}):
    """Positions (`sequence`) or times; both ends are included."""

    since: int | Time
    until: int | Time | None = None
    dry_run: bool = False


class Replayed(msgspec.Struct, frozen=True):
    """The first and last position that is looked at, and how many events there are to be sent. Where the history is very
    long they are counted up to the position `counted_upto` only, and all the same sent up to the last."""

    first: int
    last: int
    count: int
    counted_upto: int
    dry_run: bool


DRY = ResponseSpec(Replayed, generate_examples=False, description="Only counted")


@get("/subscriptions/{subscription_id:str}/deliveries", opt={"scope": READ}, responses=ERRORS, sync_to_thread=True)
def list_deliveries(
    subscription_id: FromPath[str],
    caller: FromToken,
    services: FromApp,
    page: FromPage,
    status: FromQuery[DeliveryStatus | None] = None,
) -> DeliveryList:
    """The earliest first. Dead letters are listed for 30 days."""
    visible(services, caller, subscription_id)
    matching = {"subscription_id": subscription_id} | ({} if status is None else {"status": status})
    oldest = services.clock.now() - DEAD_LETTERS_KEPT
    views, cursor = listed(
        DELIVERIES,
        services,
        caller,
        page,
        matching,
        is_visible=lambda view: not _is_forgotten(view, oldest) and is_within_limits([view.path], caller),
    )
    bodies = services.responses.of([view.id for view in views])
    details = [_detail(view, bodies.get(view.id)) for view in views]
    return DeliveryList(details, cursor, cursor is not None)


@post(
    "/subscriptions/{subscription_id:str}/deliveries/{delivery_id:str}/redeliver",
    opt={"scope": WRITE},
    responses=ERRORS,
    status_code=202,
    sync_to_thread=True,
)
def redeliver(
    subscription_id: FromPath[str], delivery_id: FromPath[str], caller: FromToken, services: FromApp
) -> DeliveryView:
    """From the first attempt on again, whatever became of it; one that waits is tried at once. A dead letter is not found
    any more after 30 days."""
    services.subscriptions.redeliver(subscription_id, delivery_id, caller)
    view: DeliveryView = one(DELIVERIES, "delivery", services, caller, delivery_id)
    return view


@post(
    "/subscriptions/{subscription_id:str}/replay",
    opt={"scope": WRITE},
    responses={**ERRORS, 200: DRY},
    status_code=202,
    sync_to_thread=True,
)
def replay(
    subscription_id: FromPath[str], data: JSONBody[ReplayFrom], caller: FromToken, services: FromApp
) -> Response[Replayed]:
    """202: the events will be sent, or given out, again. 200 with `dry_run`."""
    plan = services.subscriptions.replay(subscription_id, data.since, data.until, caller, dry_run=data.dry_run)
    replayed = Replayed(plan.after + 1, plan.upto, plan.count, plan.counted_upto, data.dry_run)
    return Response(replayed, status_code=200 if data.dry_run else 202)


def _detail(view: DeliveryView, response_body: str | None) -> DeliveryDetail:
    was_answered = view.last_attempt is not None and view.last_attempt.status is not None
    return DeliveryDetail(**msgspec.structs.asdict(view), response_body=response_body if was_answered else None)


def _is_forgotten(view: DeliveryView, oldest: datetime) -> bool:
    return view.status == "dead" and view.completed_at is not None and view.completed_at < oldest
