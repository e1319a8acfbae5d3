"""The table of provider types, and from a provider's settings to its DnsZone."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock

import msgspec

from application.ports import DnsZone, ProviderAccess
from application.secret_value import SecretValue
from domain.errors import FieldProblem, InvalidFields
from interfaces.dns import (
    acmedns,
    azure,
    cloudflare,
    digitalocean,
    embedded,
    google,
    lexicon,
    powerdns,
    rfc2136,
    route53_zone,
)
from interfaces.dns.egress import Egress
from interfaces.dns.embedded import EmbeddedValues
from interfaces.dns.locks import ThreadLocks, ZoneLock
from interfaces.dns.measured import MeasuredZone
from interfaces.dns.patient import PatientZone
from interfaces.dns.provider_types import ProviderType, Surroundings
from interfaces.measurements import Measurements

TYPES: Sequence[ProviderType] = [
    route53_zone.TYPE,
    cloudflare.TYPE,
    digitalocean.TYPE,
    powerdns.TYPE,
    google.TYPE,
    azure.TYPE,
    rfc2136.TYPE,
    acmedns.TYPE,
    lexicon.TYPE,
    embedded.TYPE,
]
BY_NAME: Mapping[str, ProviderType] = {kind.name: kind for kind in TYPES}
MOST_KEPT = 256  # connected zones, of which each may hold a boto3 client


class Providers:
    """DnsZones. The same access gives the same zone: a boto3 client costs tens of milliseconds to build.

    `lock` must exclude all processes that write to the same zones; the default only excludes threads."""

    def __init__(
        self,
        embedded_values: EmbeddedValues,
        egress: Egress,
        lock: ZoneLock | None = None,
        measurements: Measurements | None = None,
    ) -> None:
        self._around = Surroundings(egress, lock or ThreadLocks(), embedded_values)
        self._measurements = measurements or Measurements()
        self._kept: OrderedDict[bytes, DnsZone] = OrderedDict()
        self._keeping = Lock()

    def connect(self, access: ProviderAccess) -> DnsZone:
        kind = BY_NAME.get(access.provider_type)
        if kind is None:
            known = ", ".join(sorted(BY_NAME))
            raise InvalidFields(FieldProblem("provider_type", "unknown", f"is none of {known}"))
        identity = _identity(access)
        with self._keeping:
            if identity not in self._kept:
                zone = PatientZone(kind.connect(access, self._around))
                self._kept[identity] = MeasuredZone(zone, access.provider_type, self._measurements)
            self._kept.move_to_end(identity)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return self._kept[identity]


def _identity(access: ProviderAccess) -> bytes:
    """Equal for equal accesses, and tells nobody the credentials."""
    return hashlib.sha256(msgspec.json.encode(access, enc_hook=_revealed, order="sorted")).digest()


def _revealed(value: object) -> object:
    if isinstance(value, SecretValue):
        return value.reveal()
    raise NotImplementedError
