"""Those who wait for events, and who tells them: one reader for all, however many wait.

Waiting costs a future each, no thread. At each growth of the history what is new is read once, and handed to those who
wait for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from domain.announcement import Announced
from domain.errors import TooMany
from domain.terms import Audience, Terms
from interfaces.http.one_reader import OneReader
from interfaces.http.problems import TooBusy

MOST_WAITING = 5000
MOST_WAITING_EACH = 10  # of one subscription
PAGE = 500

Read = Callable[[int, int], Sequence[Announced]]
Asking = tuple[Terms, str]
"""What is asked for, and with which token."""

StillSo = Callable[[Sequence[Asking]], frozenset[Asking]]
"""Those whose subscription still asks for just this, and whose token is still good."""


@dataclass(eq=False)
class _Waiter:
    """`upto` is the position up to which was looked for it."""

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
        self._waiting: set[_Waiter] = set()
        self._of_each: Counter[str] = Counter()
        self._audience = _KeptAudience()
        self._reader = OneReader(self._read_and_tell, lambda: bool(self._waiting))
        self.is_closed = False

    def wake(self) -> None:
        """The history has grown. From any thread."""
        self._reader.wake()

    def close(self) -> None:
        """Everybody is let go with nothing. From any thread."""
        self.is_closed = True
        self._reader.call(self._release)

    async def wait(self, terms: Terms, upto: int, token_id: str, seconds: float) -> Sequence[Announced]:
        """What the terms ask for behind the position `upto`. Nothing when the time is over, or where it is better to look
        again: when the subscription changed meanwhile, or the token ended. Raises TooBusy, TooMany."""
        if self.is_closed:
            return ()
        if len(self._waiting) >= MOST_WAITING:
            raise TooBusy("too many polls wait here")
        if self._of_each[terms.subscription_id] >= MOST_WAITING_EACH:
            raise TooMany(f"{MOST_WAITING_EACH} polls of this subscription wait already")
        waiter = _Waiter(terms, upto, token_id, asyncio.get_running_loop().create_future())
        self._waiting.add(waiter)
        self._of_each[terms.subscription_id] += 1
        self._reader.attend()
        try:
            return await asyncio.wait_for(waiter.told, seconds)
        except TimeoutError:
            return ()
        finally:
            self._waiting.discard(waiter)
            self._of_each[terms.subscription_id] -= 1
            if not self._of_each[terms.subscription_id]:
                del self._of_each[terms.subscription_id]

    def _release(self) -> None:
        for waiter in self._waiting:
            _tell(waiter, ())

    async def _read_and_tell(self) -> None:
        waiting = tuple(self._waiting)
        upto, told = await asyncio.get_running_loop().run_in_executor(self._threads, self._find, waiting)
        for waiter in waiting:
            waiter.upto = max(waiter.upto, upto)
        for waiter, announced in told.items():
            _tell(waiter, announced)

    def _find(self, waiting: Sequence[_Waiter]) -> tuple[int, Mapping[_Waiter, Sequence[Announced]]]:
        """Up to which position was read, from the one on who has seen the least, and who is to be told what. In a
        thread."""
        after = min(waiter.upto for waiter in waiting)
        page = self._read(after, PAGE)
        if not page:
            return after, {}
        if len(page) == PAGE:
            self._reader.read_on()
        by_terms: dict[Terms, list[_Waiter]] = {}
        for waiter in waiting:
            by_terms.setdefault(waiter.terms, []).append(waiter)
        audience = self._audience.of(by_terms)
        told: dict[_Waiter, list[Announced]] = {}
        for announced in page:
            for terms in audience.of(announced):
                for waiter in by_terms.get(terms, ()):
                    if announced.position > waiter.upto:
                        told.setdefault(waiter, []).append(announced)
        still_so = self._still_so([waiter.asking for waiter in told]) if told else frozenset()
        return page[-1].position, {
            waiter: announced if waiter.asking in still_so else () for waiter, announced in told.items()
        }


class _KeptAudience:
    """Making an audience costs more than asking it: one of more terms is as good, while those who poll come and go."""

    def __init__(self) -> None:
        self._terms: frozenset[Terms] = frozenset()
        self._audience = Audience(())

    def of(self, terms: Iterable[Terms]) -> Audience:
        """That finds all of these, and may find as many others."""
        asked = frozenset(terms)
        if not asked <= self._terms or len(self._terms) > 2 * len(asked):
            self._terms, self._audience = asked, Audience(list(asked))
        return self._audience


def _tell(waiter: _Waiter, announced: Sequence[Announced]) -> None:
    if not waiter.told.done():
        waiter.told.set_result(announced)
