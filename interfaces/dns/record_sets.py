"""Providers whose API writes a name's TXT values as one set: it is read, and written with a value more or less.

Where the API refuses a write over what was changed in between, that is found out here and done again; where it does not, the
lock keeps our own processes apart, and nobody else should write there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from application.errors import ZoneConflict
from application.ports import TxtValue
from interfaces.dns.held_zones import HeldZone, HeldZones
from interfaces.dns.locks import ZoneLock

ATTEMPTS = 5
SECONDS_BETWEEN_ATTEMPTS = 0.2


class RecordSet(NamedTuple):
    """`state` is what the API needs to know of the set that was read, such as its TTL or its ETag; None where there is
    none."""

    values: tuple[str, ...]
    state: Any = None


class RecordSetsApi(Protocol):
    """Raises Failure."""

    def zones(self) -> Sequence[HeldZone]: ...

    def read(self, zone: HeldZone, record_name: str) -> RecordSet:
        """The TXT set at that name; one without values where there is none."""

    def write(self, zone: HeldZone, record_name: str, before: RecordSet, values: Sequence[str]) -> None:
        """In place of `before`; without values the set goes. Raises ZoneConflict where it is another one by now."""


Merge = Callable[[Sequence[str], Sequence[str]], Sequence[str]]


class RecordSetsZone:
    """DnsZone. `lock` lets one process at a time write at a name, and is held for no longer. `name` is that of the API and of
    where it is (`place_of`), so that nobody waits for somebody else's zone of the same name."""

    def __init__(
        self, name: str, api: RecordSetsApi, lock: ZoneLock, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._name = name
        self._api = api
        self._lock = lock
        self._pause = pause
        self._zones = HeldZones(api.zones)

    def add(self, values: Sequence[TxtValue]) -> None:
        self._change(values, lambda held, wanted: [*held, *(value for value in wanted if value not in held)])

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._change(values, lambda held, unwanted: [value for value in held if value not in unwanted])

    def zones(self) -> Sequence[str]:
        return self._zones.names()

    def _change(self, values: Sequence[TxtValue], merge: Merge) -> None:
        for zone, by_name in self._zones.by_zone(values).items():
            for record_name, meant in by_name.items():
                with self._lock(f"{self._name}/{zone.zone_id}/{record_name}"):
                    self._swap(zone, record_name, meant, merge)

    def _swap(self, zone: HeldZone, record_name: str, meant: Sequence[str], merge: Merge) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            before = self._api.read(zone, record_name)
            after = merge(before.values, meant)
            if tuple(after) == before.values:
                return
            try:
                self._api.write(zone, record_name, before, after)
            except ZoneConflict:
                if attempt == ATTEMPTS:
                    raise
                self._pause(SECONDS_BETWEEN_ATTEMPTS * attempt)
            else:
                return
