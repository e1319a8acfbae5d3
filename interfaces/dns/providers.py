"""The table of provider types, and from a provider's settings to its DnsZone."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import msgspec

from application.ports import DnsZone, ProviderAccess
from application.secret_value import SecretValue
from domain.errors import FieldProblem, InvalidFields
from interfaces.dns.egress import Egress
from interfaces.dns.embedded import EmbeddedValues, EmbeddedZone
from interfaces.dns.locks import ThreadLocks, ZoneLock
from interfaces.dns.measured import MeasuredZone
from interfaces.dns.rfc2136 import Rfc2136Config, Rfc2136Credentials, Rfc2136Zone
from interfaces.dns.route53 import Route53Account, Route53Config, Route53Credentials
from interfaces.dns.route53_zone import Route53Zone
from interfaces.dns.settings import Credentials, NoConfig, settings_of
from interfaces.measurements import Measurements

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
        self._embedded_values = embedded_values
        self._egress = egress
        self._lock = lock or ThreadLocks()
        self._measurements = measurements or Measurements()
        self._types: dict[str, Callable[[ProviderAccess], DnsZone]] = {
            "route53": self._route53,
            "rfc2136": self._rfc2136,
            "embedded": self._embedded,
        }
        self._kept: OrderedDict[bytes, DnsZone] = OrderedDict()
        self._keeping = Lock()

    def connect(self, access: ProviderAccess) -> DnsZone:
        if access.provider_type not in self._types:
            known = ", ".join(sorted(self._types))
            raise InvalidFields(FieldProblem("provider_type", "unknown", f"is none of {known}"))
        identity = _identity(access)
        with self._keeping:
            if identity not in self._kept:
                zone = self._types[access.provider_type](access)
                self._kept[identity] = MeasuredZone(zone, access.provider_type, self._measurements)
            self._kept.move_to_end(identity)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return self._kept[identity]

    def _route53(self, access: ProviderAccess) -> DnsZone:
        common, config, credentials = settings_of(access, Route53Config, Route53Credentials)
        any_given = any(getattr(credentials, name) is not None for name in credentials.__struct_fields__)
        missing = [name for name in ("access_key_id", "secret_access_key") if getattr(credentials, name) is None]
        if any_given and missing:
            raise InvalidFields(
                *(FieldProblem(f"credentials.{name}", "required", "is required beside the others") for name in missing)
            )
        account = Route53Account(config, credentials, self._egress)
        return Route53Zone(account, common.ttl_seconds, self._lock)

    def _rfc2136(self, access: ProviderAccess) -> DnsZone:
        common, config, credentials = settings_of(access, Rfc2136Config, Rfc2136Credentials)
        return Rfc2136Zone(config, credentials, access.managed_zones, common.ttl_seconds, self._egress)

    def _embedded(self, access: ProviderAccess) -> DnsZone:
        settings_of(access, NoConfig, Credentials)
        return EmbeddedZone(self._embedded_values, access.managed_zones)


def _identity(access: ProviderAccess) -> bytes:
    """Equal for equal accesses, and tells nobody the credentials."""
    return hashlib.sha256(msgspec.json.encode(access, enc_hook=_revealed, order="sorted")).digest()


def _revealed(value: object) -> object:
    if isinstance(value, SecretValue):
        return value.reveal()
    raise NotImplementedError
