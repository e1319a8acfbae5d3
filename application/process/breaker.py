"""Keeps an endpoint that answers nobody from taking the time of the others.

What counts is time, not failures: an endpoint that refuses at once holds nobody up, one that lets every attempt run into
its time-out does. Each worker process learns for itself, and forgets with its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WASTED_SECONDS = 30.0
"""So much time lost in a row opens it."""

FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0


@dataclass
class _Trouble:
    wasted_seconds: float = 0.0
    pause_seconds: float = 0.0
    closed_until: float = 0.0


class Breaker:
    """`monotonic` gives seconds. Safe in many threads."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lanes: dict[str, _Trouble] = {}
        self._lock = threading.Lock()

    def succeeded(self, lane: str) -> None:
        with self._lock:
            self._lanes.pop(lane, None)

    def failed(self, lane: str, took_seconds: float) -> None:
        with self._lock:
            trouble = self._lanes.setdefault(lane, _Trouble())
            trouble.wasted_seconds += took_seconds
            now = self._monotonic()
            if trouble.wasted_seconds >= WASTED_SECONDS and now >= trouble.closed_until:
                trouble.pause_seconds = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * trouble.pause_seconds))
                trouble.closed_until = now + trouble.pause_seconds

    def limits(self) -> Mapping[str, int]:
        """None at a time during a pause, then one at a time until one succeeds."""
        with self._lock:
            now = self._monotonic()
            return {
                lane: 0 if now < trouble.closed_until else 1
                for lane, trouble in self._lanes.items()
                if trouble.wasted_seconds >= WASTED_SECONDS
            }
