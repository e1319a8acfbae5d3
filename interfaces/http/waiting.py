"""Requests that wait, up to a minute: for a change of what they look at, and not for a client that has hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from litestar import Request

from application.caller import Caller
from interfaces.http.problems import BadRequest, ClientGone
from interfaces.http.services import Services

LONGEST_WAIT_SECONDS = 60

T = TypeVar("T")


class Look(NamedTuple):
    """What somebody saw: up to which position that goes, and whether it is worth an answer yet."""

    position: int
    is_enough: bool


def require_wait(seconds: int) -> None:
    """Raises BadRequest."""
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        message = f"between 0 and {LONGEST_WAIT_SECONDS} seconds"
        fields = [{"field": "wait", "code": "out_of_range", "message": message}]
        raise BadRequest(400, "invalid_request", f"wait: {message}", {"fields": fields})


async def look_until_enough(
    request: Request[Any, Any, Any],
    services: Services,
    caller: Caller,
    subject_id: str,
    seconds: int,
    look: Callable[[], Look],
) -> None:
    """Looks now, and again after each change of the document, until it is enough or the time is over. Raises what the look
    raises, NotAuthenticated where the token ended meanwhile, TooMany, ClientGone."""

    def look_again() -> Look:
        services.tokens.require_still_valid(caller)
        return look()

    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    seen = await loop.run_in_executor(services.pollers, look)
    while not seen.is_enough and loop.time() < end:
        waiting = services.changes.wait(subject_id, seen.position, caller.token_id, end - loop.time())
        await unless_gone(request, waiting)
        if services.changes.is_closed:  # what was seen has to do: the process ends
            return
        seen = await loop.run_in_executor(services.pollers, look_again)


async def unless_gone(request: Request[Any, Any, Any], waiting: Coroutine[Any, Any, T]) -> T:
    """Nobody waits for a client that has hung up. Raises ClientGone then."""

    async def hang_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    told, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(hang_up())
    try:
        await asyncio.wait([told, gone], return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            return told.result()
        raise ClientGone
    finally:
        told.cancel()
        gone.cancel()
