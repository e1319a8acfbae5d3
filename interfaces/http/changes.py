"""Those who wait for one order or certificate to change. Waiting costs a future each, no thread.

At each growth of the history one look tells for all of them which documents are others than they have seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from domain.errors import TooMany
from interfaces.http.one_reader import OneReader

MOST_WAITING = 5000
MOST_WAITING_EACH = 1000  # with one token

Positions = Callable[[Sequence[str]], Mapping[str, int]]
"""By id the position of the last event that changed the document, of those that there are."""


@dataclass(eq=False)
class _Waiter:
    subject_id: str
    position: int
    changed: asyncio.Future[None]


class Changes:
    """Everything but `wake` and `close` is called in the event loop."""

    def __init__(self, positions: Positions, threads: Executor) -> None:
        self._positions = positions
        self._threads = threads
        self._waiting: set[_Waiter] = set()
        self._of_each: Counter[str] = Counter()
        self._reader = OneReader(self._read_and_tell, lambda: bool(self._waiting))
        self.is_closed = False

    def wake(self) -> None:
        """The history has grown. From any thread."""
        self._reader.wake()

    def close(self) -> None:
        """Everybody is let go. From any thread."""
        self.is_closed = True
        self._reader.call(self._release)

    async def wait(self, subject_id: str, position: int, token_id: str, seconds: float) -> None:
        """Until the document is not any longer what it was at that position, or the time is over. Raises TooMany."""
        if self.is_closed:
            return
        if len(self._waiting) >= MOST_WAITING or self._of_each[token_id] >= MOST_WAITING_EACH:
            raise TooMany("as many requests wait here already as may")
        waiter = _Waiter(subject_id, position, asyncio.get_running_loop().create_future())
        self._waiting.add(waiter)
        self._of_each[token_id] += 1
        self._reader.attend()
        try:
            await asyncio.wait_for(waiter.changed, seconds)
        except TimeoutError:
            return
        finally:
            self._waiting.discard(waiter)
            self._of_each[token_id] -= 1
            if not self._of_each[token_id]:
                del self._of_each[token_id]

    def _release(self) -> None:
        for waiter in self._waiting:
            _tell(waiter)

    async def _read_and_tell(self) -> None:
        waiting = tuple(self._waiting)
        asked = list({waiter.subject_id for waiter in waiting})
        positions = await asyncio.get_running_loop().run_in_executor(self._threads, self._positions, asked)
        for waiter in waiting:
            if positions.get(waiter.subject_id) != waiter.position:
                _tell(waiter)


def _tell(waiter: _Waiter) -> None:
    if not waiter.changed.done():
        waiter.changed.set_result(None)
