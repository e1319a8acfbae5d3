"""`/v1/subscriptions/{id}/poll` and `…/ack`: events for those who ask. Asking waits in the event loop, not in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from application.polling import Pending
from domain.announcement import Announced
from domain.errors import FieldProblem, InvalidFields
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import RequestBody
from interfaces.http.problems import ERRORS
from interfaces.http.subscriptions import READ
from interfaces.http.waiting import LONGEST_WAIT_SECONDS, unless_gone

MOST_AT_ONCE = 1000


class PolledEvent(msgspec.Struct, frozen=True):
    """As webhooks are sent it: the description's `webhooks` tell the `data` of each type."""

    event_id: str
    event_type: str
    timestamp: datetime
    tenant_id: str
    identity_id: str
    path: str
    sequence: int
    data: Mapping[str, Any]
    request_id: str | None


class Polled(msgspec.Struct, frozen=True):
    """`cursor` is the last one's `event_id`, to be given as `since_event_id` by those who keep their own place."""

    data: Sequence[PolledEvent]
    cursor: str | None
    has_more: bool


class Acknowledge(RequestBody, frozen=True):
    event_ids: list[str]


class Acknowledged(msgspec.Struct, frozen=True):
    acknowledged: int


@get("/subscriptions/{subscription_id:str}/poll", opt={"scope": READ}, responses=ERRORS)
async def poll(
    subscription_id: FromPath[str],
    request: Request[Any, Any, Any],
    caller: FromToken,
    services: FromApp,
    timeout: FromQuery[int] = 30,  # noqa: ASYNC109  the contract's name
    since_event_id: FromQuery[str | None] = None,
    max_events: FromQuery[int] = 100,
) -> Response[Polled]:
    """What is not acknowledged yet. Where there is nothing, waits for it, so many seconds at most."""
    if not 0 <= timeout <= LONGEST_WAIT_SECONDS:
        raise InvalidFields(FieldProblem("timeout", "out_of_range", f"between 0 and {LONGEST_WAIT_SECONDS} seconds"))

    def look() -> Pending:
        services.tokens.require_still_valid(caller)
        return services.polling.pending(subscription_id, since_event_id, max_events, caller)

    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        pending = await loop.run_in_executor(services.pollers, look)
        if pending.events or loop.time() >= end:
            return _answer(pending.events, has_more=pending.has_more)
        waiting = services.long_polls.wait(pending.terms, pending.upto, caller.token_id, end - loop.time())
        told = await unless_gone(request, waiting)
        if told or services.long_polls.is_closed:
            return _answer(told[:max_events], has_more=len(told) > max_events)


@post(
    "/subscriptions/{subscription_id:str}/ack",
    opt={"scope": READ, "idempotent": False},
    responses=ERRORS,
    status_code=200,
)
async def acknowledge(
    subscription_id: FromPath[str], data: JSONBody[Acknowledge], caller: FromToken, services: FromApp
) -> Acknowledged:
    """They are not given out again. Acknowledging twice is no error."""
    if not 1 <= len(data.event_ids) <= MOST_AT_ONCE:
        raise InvalidFields(FieldProblem("event_ids", "out_of_range", f"between 1 and {MOST_AT_ONCE} ids"))
    polling, loop = services.polling, asyncio.get_running_loop()
    await loop.run_in_executor(services.pollers, polling.acknowledge, subscription_id, data.event_ids, caller)
    return Acknowledged(len(data.event_ids))


def _answer(announced: Sequence[Announced], *, has_more: bool) -> Response[Polled]:
    """The bodies are as they are sent to webhooks, byte by byte."""
    body = msgspec.json.encode(
        {
            "data": [msgspec.Raw(each.body) for each in announced],
            "cursor": announced[-1].event_id if announced else None,
            "has_more": has_more,
        }
    )
    return Response(body, media_type="application/json")  # type: ignore[arg-type]  # Polled, encoded
