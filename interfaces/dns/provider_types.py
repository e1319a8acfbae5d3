"""What a provider type is: its settings, what it may do at least, and how its zones are reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from application.ports import DnsZone, ProviderAccess
from application.provider_config import CommonFields
from interfaces.dns.egress import Egress
from interfaces.dns.locks import ZoneLock
from interfaces.dns.settings import Credentials

if TYPE_CHECKING:  # whose type is declared with what stands here
    from interfaces.dns.embedded import EmbeddedValues

Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+\Z", max_length=2048)]
Token = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z", max_length=4096)]


@dataclass(frozen=True)
class Surroundings:
    """What an adapter may use of the service. `lock` excludes all processes that write to the same zones."""

    egress: Egress
    lock: ZoneLock
    embedded_values: EmbeddedValues


@dataclass(frozen=True)
class ProviderType:
    """`connect` dials nobody, and raises InvalidFields. `least_privilege` and `verify_checks` are sentences for people,
    `policy` is what a machine may take, in the vendor's own form where it has one."""

    name: str
    title: str
    config: type[msgspec.Struct]
    credentials: type[Credentials]
    connect: Callable[[ProviderAccess, Surroundings], DnsZone]
    least_privilege: str
    policy: Mapping[str, Any]
    verify_checks: str

    @property
    def credentials_schema(self) -> Mapping[str, Any]:
        """JSON Schema (2020-12)."""
        return _schema(self.credentials)

    @property
    def config_schema(self) -> Mapping[str, Any]:
        """With what every type takes."""
        own, common = _schema(self.config), _schema(CommonFields)
        return {**own, "properties": {**own["properties"], **common["properties"]}}


def _schema(of: type[msgspec.Struct]) -> Mapping[str, Any]:
    _, components = msgspec.json.schema_components([of], ref_template="{name}")
    described: Mapping[str, Any] = _without_python(components[of.__name__])
    return {**described, "additionalProperties": False}


def _without_python(schema: Any) -> Any:
    """Other languages write the end of a text `$`."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" else _without_python(value)
            for key, value in schema.items()
        }
    return schema
