"""Which of a provider's zones holds a name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from application.errors import ZoneRefused
from application.ports import TxtValue

LIVE_SECONDS = 60.0


class HeldZone(NamedTuple):
    """`dns_name` in lower-case A-labels without the final dot; `zone_id` is the provider's own."""

    dns_name: str
    zone_id: str


class HeldZones:
    """The zones that `listed` gives, kept for a minute. A name that lies in none of them has them listed anew."""

    def __init__(self, listed: Callable[[], Iterable[HeldZone]]) -> None:
        self._listed = listed
        self._lock = Lock()
        self._kept: tuple[Sequence[HeldZone], float] = ((), 0.0)

    def names(self) -> Sequence[str]:
        """As they are now, sorted. Raises Failure."""
        return sorted({zone.dns_name for zone in self._zones(0.0)})

    def by_zone(self, values: Sequence[TxtValue]) -> Mapping[HeldZone, Mapping[str, Sequence[str]]]:
        """Zone, then record name, then values, each once: the longest zone wins. Raises ZoneRefused (`zone_not_found`)."""
        found: dict[HeldZone, dict[str, list[str]]] = {}
        for record_name, value in sorted({(value.record_name.lower(), value.value) for value in values}):
            zone = self._covering(record_name, LIVE_SECONDS) or self._covering(record_name, 0.0)
            if zone is None:
                raise ZoneRefused("zone_not_found", f"no zone of the provider holds {record_name}")
            found.setdefault(zone, {}).setdefault(record_name, []).append(value)
        return found

    def _covering(self, record_name: str, oldest_seconds: float) -> HeldZone | None:
        fitting = [zone for zone in self._zones(oldest_seconds) if f".{record_name}".endswith(f".{zone.dns_name}")]
        return max(fitting, key=lambda zone: len(zone.dns_name), default=None)

    def _zones(self, oldest_seconds: float) -> Sequence[HeldZone]:
        with self._lock:
            zones, listed_at = self._kept
        if not zones or time.monotonic() - listed_at >= oldest_seconds:
            zones = list(self._listed())
            with self._lock:
                self._kept = (zones, time.monotonic())
        return zones
