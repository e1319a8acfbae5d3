"""The provider that needs no provider: values go to our own store, and the service itself answers for the delegated zone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from application.errors import ZoneRefused
from application.ports import DnsZone, ProviderAccess, TxtValue
from domain.names import base_name, zone_covers
from interfaces.dns.provider_types import ProviderType, Surroundings
from interfaces.dns.settings import Credentials, NoConfig, settings_of


class EmbeddedValues(Protocol):
    """The values that the responder serves, shared by all processes. Raises StoreUnavailable."""

    def add(self, values: Sequence[TxtValue]) -> None:
        """Adding again what is there changes nothing."""

    def remove(self, values: Sequence[TxtValue]) -> None:
        """What is not there is no error."""

    def values(self, record_name: str) -> Sequence[str]:
        """The values at one name: lower case, without the final dot."""


class EmbeddedZone:
    """DnsZone over `EmbeddedValues`. Its zones are those it was told to manage: there is nobody else to ask.

    Its `config.ttl` has no bearing: the responder gives every value the same short time to live."""

    def __init__(self, values: EmbeddedValues, managed_zones: Sequence[str]) -> None:
        self._values = values
        self._managed_zones = tuple(managed_zones)

    def add(self, values: Sequence[TxtValue]) -> None:
        self._values.add(self._covered(values))

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._values.remove(self._covered(values))

    def zones(self) -> Sequence[str]:
        return sorted({base_name(zone).lower() for zone in self._managed_zones})

    def _covered(self, values: Sequence[TxtValue]) -> Sequence[TxtValue]:
        for value in values:
            if not any(zone_covers(zone, value.record_name) for zone in self._managed_zones):
                raise ZoneRefused("zone_not_found", f"{value.record_name} lies in none of this provider's zones")
        return values


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    settings_of(access, NoConfig, Credentials)
    return EmbeddedZone(around.embedded_values, access.managed_zones)


TYPE = ProviderType(
    name="embedded",
    title="The service itself",
    config=NoConfig,
    credentials=Credentials,
    connect=connect,
    least_privilege="None: the zone, or each challenge's name, is delegated to the service by NS or CNAME.",
    policy={},
    verify_checks="Nothing: there is nobody else to ask.",
)
