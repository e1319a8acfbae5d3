"""A DnsZone that does not ask a provider again before it wants to be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from application.errors import ZoneThrottled
from application.ports import DnsZone, TxtValue


class PatientZone:
    """Does what `zone` does. When that was told to come back after so many seconds, all calls until then are told the rest of
    them, and nobody is asked: orders have one account's patience together."""

    def __init__(self, zone: DnsZone, seconds_now: Callable[[], float] = time.monotonic) -> None:
        self._zone = zone
        self._seconds_now = seconds_now
        self._lock = Lock()
        self._asked_for: tuple[float, str] = (0.0, "")

    def add(self, values: Sequence[TxtValue]) -> None:
        with self._patience():
            self._zone.add(values)

    def remove(self, values: Sequence[TxtValue]) -> None:
        with self._patience():
            self._zone.remove(values)

    def zones(self) -> Sequence[str]:
        with self._patience():
            return self._zone.zones()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        with self._lock:
            until, detail = self._asked_for
        left = until - self._seconds_now()
        if left > 0:
            raise ZoneThrottled(detail, left)
        try:
            yield
        except ZoneThrottled as throttled:
            if throttled.retry_after_seconds is not None:
                with self._lock:
                    self._asked_for = (self._seconds_now() + throttled.retry_after_seconds, throttled.detail)
            raise
