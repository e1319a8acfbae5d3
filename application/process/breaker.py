"""Keeps an endpoint that answers nobody from taking the time of the others.

What counts is time, not failures: an endpoint that refuses at once holds nobody up, one that lets every attempt run into
its time-out does. Each worker process learns for itself, and knows nothing when it begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

QUICK_SECONDS = 1.0
"""A failure that took less than this wasted nothing."""

WASTED_SECONDS = 30.0
"""So much time lost without a success in between, and a lane is closed for a pause."""

FORGOTTEN_AFTER_SECONDS = 3600.0
"""So long after its last slow failure and its pause a lane is as good as any other."""

FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0


@dataclass
class _Trouble:
    wasted_seconds: float = 0.0
    pause_seconds: float = 0.0
    closed_until: float = 0.0
    last_at: float = 0.0


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
        """Also quickly: then nothing was wasted, and whom a pause was to protect is protected."""
        if took_seconds < QUICK_SECONDS:
            self._answered_quickly(lane)
            return
        with self._lock:
            trouble = self._lanes.setdefault(lane, _Trouble())
            trouble.wasted_seconds += took_seconds
            now = trouble.last_at = self._monotonic()
            if trouble.wasted_seconds >= WASTED_SECONDS and now >= trouble.closed_until:
                trouble.pause_seconds = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * trouble.pause_seconds))
                trouble.closed_until = now + trouble.pause_seconds

    def limits(self) -> Mapping[str, int]:
        """None at a time during a pause, then one at a time until one is answered."""
        with self._lock:
            now = self._monotonic()
            self._lanes = {
                lane: trouble
                for lane, trouble in self._lanes.items()
                if now < max(trouble.last_at, trouble.closed_until) + FORGOTTEN_AFTER_SECONDS
            }
            return {
                lane: 0 if now < trouble.closed_until else 1
                for lane, trouble in self._lanes.items()
                if trouble.wasted_seconds >= WASTED_SECONDS
            }

    def _answered_quickly(self, lane: str) -> None:
        """The probe after a pause. One that is quick among slow ones changes nothing."""
        with self._lock:
            trouble = self._lanes.get(lane)
            is_probe = trouble is not None and 0.0 < trouble.closed_until <= self._monotonic()
            if is_probe:
                del self._lanes[lane]
