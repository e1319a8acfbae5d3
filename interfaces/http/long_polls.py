"""Those who wait for events, and who tells them: one reader for all, however many wait.

Waiting costs a future each, no thread. At each growth of the history what is new is read once, and handed to those who
wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from application.errors import StoreUnavailable
from domain.announcement import Announced
from domain.subscription import Audience, Terms
from interfaces.http.problems import TooBusy

MOST_WAITING = 5000
PAGE = 500

Read = Callable[[int, int], Sequence[Announced]]
Asking = tuple[Terms, str]
"""What is asked for, and with which token."""

StillSo = Callable[[Sequence[Asking]], frozenset[Asking]]
"""Those whose subscription still asks for just this, and whose token is still good."""

log = structlog.get_logger()


@dataclass(eq=False)
class _Waiter:
    terms: Terms
    upto: int
    token_id: str
    told: asyncio.Future[Sequence[Announced]]

    @property
    def asking(self) -> Asking:
        return self.terms, self.token_id


class LongPolls:
    """Everything but `wake` and `close` is called in the event loop."""

    def __init__(self, read: Read, still_so: StillSo, threads: Executor) -> None:
        self._read = read
        self._still_so = still_so
        self._threads = threads
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[_Waiter] = set()
        self._read_upto = 0
        self._has_grown = False
        self._reader: asyncio.Task[None] | None = None
        self.is_closed = False

    def wake(self) -> None:
        """The history has grown. From any thread."""
        self._in_loop(self._grown)

    def close(self) -> None:
        """Everybody is let go with nothing. From any thread."""
        self.is_closed = True
        self._in_loop(self._release)

    async def wait(self, terms: Terms, upto: int, token_id: str, seconds: float) -> Sequence[Announced]:
        """What the terms ask for behind the position `upto`. Nothing when the time is over, or where it is better to look
        again: also when the subscription changed meanwhile, or the token ended. Raises TooBusy."""
        self._loop = asyncio.get_running_loop()
        if self.is_closed or (self._waiting and upto < self._read_upto):
            return ()
        if len(self._waiting) >= MOST_WAITING:
            raise TooBusy
        if not self._waiting:
            self._read_upto = upto
        waiter = _Waiter(terms, upto, token_id, self._loop.create_future())
        self._waiting.add(waiter)
        self._grown()  # it may have, before anybody waited
        try:
            return await asyncio.wait_for(waiter.told, seconds)
        except TimeoutError:
            return ()
        finally:
            self._waiting.discard(waiter)

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _release(self) -> None:
        for waiter in self._waiting:
            _tell(waiter, ())

    def _grown(self) -> None:
        self._has_grown = True
        if self._waiting and (self._reader is None or self._reader.done()):
            self._reader = asyncio.create_task(self._read_and_tell())

    async def _read_and_tell(self) -> None:
        loop = asyncio.get_running_loop()
        while self._has_grown and self._waiting:
            self._has_grown = False
            waiting = tuple(self._waiting)
            try:
                found = await loop.run_in_executor(self._threads, self._find, self._read_upto, waiting)
            except StoreUnavailable as failure:
                log.warning("store_unavailable", detail=failure.detail)
                loop.call_later(failure.retry_after_seconds or 1.0, self._grown)
                return
            self._read_upto, told = found
            for waiter, announced in told.items():
                _tell(waiter, announced)
            for waiter in self._waiting.difference(waiting):
                if waiter.upto < self._read_upto:  # came while this was read, and may have missed it
                    _tell(waiter, ())

    def _find(self, after: int, waiting: Sequence[_Waiter]) -> tuple[int, Mapping[_Waiter, Sequence[Announced]]]:
        """Up to which position was read, and who is to be told what. In a thread."""
        page = self._read(after, PAGE)
        if not page:
            return after, {}
        if len(page) == PAGE:
            self._has_grown = True
        by_terms: dict[Terms, list[_Waiter]] = {}
        for waiter in waiting:
            by_terms.setdefault(waiter.terms, []).append(waiter)
        audience = Audience(list(by_terms))
        told: dict[_Waiter, list[Announced]] = {}
        for announced in page:
            for terms in audience.of(announced):
                for waiter in by_terms[terms]:
                    if announced.position > waiter.upto:
                        told.setdefault(waiter, []).append(announced)
        still_so = self._still_so([waiter.asking for waiter in told]) if told else frozenset()
        return page[-1].position, {
            waiter: announced if waiter.asking in still_so else () for waiter, announced in told.items()
        }


def _tell(waiter: _Waiter, announced: Sequence[Announced]) -> None:
    if not waiter.told.done():
        waiter.told.set_result(announced)
