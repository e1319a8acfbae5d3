"""Who may change one record set: for providers whose only change is to write the whole set anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from weakref import WeakValueDictionary

RecordLock = Callable[[str], AbstractContextManager[None]]
"""Holds one key (`zone/name`) until it is left. Of use only when it excludes every process that writes there."""


class ThreadLocks:
    """A RecordLock among the threads of this process."""

    def __init__(self) -> None:
        self._table: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        self._looking = Lock()

    @contextmanager
    def __call__(self, key: str) -> Iterator[None]:
        with self._looking:
            lock = self._table.setdefault(key, Lock())
        with lock:
            yield
