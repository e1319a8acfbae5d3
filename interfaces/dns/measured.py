"""A DnsZone whose calls are measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from application.errors import (
    EgressRefused,
    Failure,
    ZoneConflict,
    ZoneRefused,
    ZoneThrottled,
    ZoneUnreachable,
)
from application.ports import DnsZone, TxtValue
from interfaces.measurements import DNS_SECONDS, Measurements

OUTCOMES: Mapping[type[Failure], str] = {
    ZoneThrottled: "throttled",
    ZoneUnreachable: "unreachable",
    ZoneConflict: "conflict",
    ZoneRefused: "refused",
    EgressRefused: "refused",
}


class MeasuredZone:
    """Does what `zone` does. Other failures than the port's are an `error`."""

    def __init__(self, zone: DnsZone, provider_type: str, measurements: Measurements) -> None:
        self._zone = zone
        self._provider_type = provider_type
        self._measurements = measurements

    def add(self, values: Sequence[TxtValue]) -> None:
        with self._measured("add"):
            self._zone.add(values)

    def remove(self, values: Sequence[TxtValue]) -> None:
        with self._measured("remove"):
            self._zone.remove(values)

    def zones(self) -> Sequence[str]:
        with self._measured("zones"):
            return self._zone.zones()

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        begun, outcome = time.monotonic(), "error"
        try:
            yield
            outcome = "ok"
        except Failure as failure:
            outcome = OUTCOMES.get(type(failure), outcome)
            raise
        finally:
            seconds = time.monotonic() - begun
            self._measurements.observe(
                DNS_SECONDS, seconds, provider_type=self._provider_type, operation=operation, outcome=outcome
            )
