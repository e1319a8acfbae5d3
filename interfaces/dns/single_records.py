"""Providers whose API knows single records, each with an id of its own: values are added and removed as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from application.errors import ZoneConflict
from application.ports import TxtValue
from interfaces.dns.held_zones import HeldZone, HeldZones


class HeldRecord(NamedTuple):
    record_id: str
    value: str


class RecordsApi(Protocol):
    """Raises Failure."""

    def zones(self) -> Sequence[HeldZone]: ...

    def records(self, zone: HeldZone, record_name: str) -> Sequence[HeldRecord]:
        """The TXT records at exactly that name."""

    def create(self, zone: HeldZone, record_name: str, value: str) -> None:
        """Raises ZoneConflict where the record is there already."""

    def delete(self, zone: HeldZone, record_id: str) -> None:
        """A record that is not there is no error."""


class SingleRecordsZone:
    """DnsZone. Needs no lock: nobody's record is touched but the one that is meant."""

    def __init__(self, api: RecordsApi) -> None:
        self._api = api
        self._zones = HeldZones(api.zones)

    def add(self, values: Sequence[TxtValue]) -> None:
        for zone, by_name in self._zones.by_zone(values).items():
            for record_name, wanted in by_name.items():
                held = {record.value for record in self._api.records(zone, record_name)}
                for value in wanted:
                    if value not in held:
                        self._create(zone, record_name, value)

    def remove(self, values: Sequence[TxtValue]) -> None:
        for zone, by_name in self._zones.by_zone(values).items():
            for record_name, unwanted in by_name.items():
                for record in self._api.records(zone, record_name):
                    if record.value in unwanted:
                        self._api.delete(zone, record.record_id)

    def zones(self) -> Sequence[str]:
        return self._zones.names()

    def _create(self, zone: HeldZone, record_name: str, value: str) -> None:
        """Another process may have written the same value a moment before."""
        try:
            self._api.create(zone, record_name, value)
        except ZoneConflict:
            if value not in {record.value for record in self._api.records(zone, record_name)}:
                raise
