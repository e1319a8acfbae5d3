"""How far a CA's clock and ours are apart, by the `Date` of its answers (RFC 9110 §6.6.1)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import httpx
import structlog

from interfaces.retry_after import seconds_since_1970

log = structlog.get_logger()

_TOLD_FROM_SECONDS = 60.0
_TOLD_AGAIN_SECONDS = 3600.0


class ClockSkew:
    """Of one server. More than a minute is logged, at most once an hour. Safe in many threads.

    `seconds` is by how much the server was ahead of us at its last answer, None before one that said the time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.seconds: float | None = None
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._quiet_until = float("-inf")

    def observe(self, response: httpx.Response, sent_at: datetime, received_at: datetime) -> None:
        """An answer, and when by our clock it was asked for and there. A stored one (with an `Age`) tells the time of
        another moment, so it is passed over."""
        answered = seconds_since_1970(response.headers.get("Date", ""))
        if answered is None or "Age" in response.headers:
            return
        self.seconds = answered - min(max(answered, sent_at.timestamp()), received_at.timestamp())
        if abs(self.seconds) > _TOLD_FROM_SECONDS and self._may_tell():
            log.warning("clock_skew", ca_host=response.url.host, seconds=round(self.seconds))

    def _may_tell(self) -> bool:
        with self._lock:
            now = self._monotonic()
            if now < self._quiet_until:
                return False
            self._quiet_until = now + _TOLD_AGAIN_SECONDS
            return True
