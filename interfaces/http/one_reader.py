"""One reader for all who wait, however many: it reads once at each growth of the history, one read at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from application.errors import StoreUnavailable

AGAIN_SECONDS = 1.0

log = structlog.get_logger()


class OneReader:
    """`read` looks for all who wait, and tells them. Everything but `wake`, `call` and `read_on` is called in the event
    loop."""

    def __init__(self, read: Callable[[], Awaitable[None]], does_anybody_wait: Callable[[], bool]) -> None:
        self._read = read
        self._does_anybody_wait = does_anybody_wait
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_grown = False
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """The history has grown. From any thread."""
        self.call(self._grown)

    def call(self, callback: Callable[[], None]) -> None:
        """In the loop where they wait, if anybody ever did. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def read_on(self) -> None:
        """There is more to be read than was: once again. Also from the thread that reads."""
        self._has_grown = True

    def attend(self) -> None:
        """Somebody waits now. The history may have grown before they did."""
        self._loop = asyncio.get_running_loop()
        self._grown()

    def done(self) -> bool:
        """Whether nothing is being read."""
        return self._task is None or self._task.done()

    def _grown(self) -> None:
        self._has_grown = True
        if self._does_anybody_wait() and self.done():
            self._task = asyncio.create_task(self._read_as_long_as_it_grows())

    async def _read_as_long_as_it_grows(self) -> None:
        while self._has_grown and self._does_anybody_wait():
            self._has_grown = False
            try:
                await self._read()
            except StoreUnavailable as failure:
                log.warning("store_unavailable", detail=failure.detail)
                again = failure.retry_after_seconds or AGAIN_SECONDS
                asyncio.get_running_loop().call_later(again, self._grown)
                return
