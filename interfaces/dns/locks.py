"""Who may write to a zone: for providers whose only change is to write a whole record set anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from weakref import WeakValueDictionary

ZoneLock = Callable[[str], AbstractContextManager[None]]
"""Holds one key (provider type and zone) until it is left. Of use only when it excludes every process that writes there."""


def place_of(provider_type: str, *where: str) -> str:
    """A name for the API at that place, for the keys of locks."""
    return f"{provider_type}/{hashlib.sha256(repr(where).encode()).hexdigest()[:16]}"


class ThreadLocks:
    """A ZoneLock among the threads of this process."""

    def __init__(self) -> None:
        self._table: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        self._looking = Lock()

    @contextmanager
    def __call__(self, key: str) -> Iterator[None]:
        with self._looking:
            lock = self._table.setdefault(key, Lock())
        with lock:
            yield
