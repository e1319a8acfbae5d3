"""DNS providers as the API shows them, and which names the active ones answer for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from domain.dns_provider import DnsProvider, ManagedZones
from domain.provenance import Recorded
from projections.documents import Column, DocumentView, Pool
from projections.times import whole_seconds


class HealthView(msgspec.Struct, frozen=True):
    """`status` is `unknown` until the provider was verified or tried, then `healthy`, `failing` (verification), or `degraded`
    (orders fail)."""

    status: str = "unknown"
    reason: str | None = None
    detail: str | None = None


class DnsProviderView(msgspec.Struct, frozen=True):
    id: str
    name: str
    provider_type: str
    managed_zones: Sequence[str]
    is_active: bool
    config: Mapping[str, Any]
    credentials_path: str | None
    verified_at: datetime | None
    health: HealthView
    created_at: datetime


def fold(provider: DnsProviderView | None, recorded: Recorded) -> DnsProviderView | None:
    event = recorded.event
    at = whole_seconds(event.timestamp)
    match event:
        case DnsProvider.Connected():
            return DnsProviderView(
                id=event.originator_id,
                name=event.name,
                provider_type=event.provider_type,
                managed_zones=event.managed_zones,
                is_active=True,
                config=event.config,
                credentials_path=event.credentials_path,
                verified_at=None,
                health=HealthView(),
                created_at=at,
            )
        case DnsProvider.Revised() if provider is not None:
            return replace(
                provider,
                name=event.name,
                managed_zones=event.managed_zones,
                config=event.config,
                credentials_path=event.credentials_path,
                is_active=event.is_active,
            )
        case DnsProvider.Disconnected():
            return None
        case DnsProvider.Verified() if provider is not None:
            return replace(provider, verified_at=at, health=_unless_degraded(provider, HealthView("healthy")))
        case DnsProvider.VerificationFailed(reason=reason, detail=detail) if provider is not None:
            return replace(provider, health=_unless_degraded(provider, HealthView("failing", reason, detail)))
        case DnsProvider.CanaryPassed() | DnsProvider.Recovered() if provider is not None:
            return replace(provider, health=HealthView("healthy"))
        case DnsProvider.Degraded(reason=reason, detail=detail) if provider is not None:
            return replace(provider, health=HealthView("degraded", reason, detail))
        case DnsProvider.CanaryFailed() if provider is not None:
            return provider
        case DnsProvider.Swept() if provider is not None:
            return provider
        case _:
            raise ValueError(f"no rule for {event}")


def _unless_degraded(provider: DnsProviderView, health: HealthView) -> HealthView:
    """Zones can be listed by who may not write to them."""
    return provider.health if provider.health.status == "degraded" else health


DNS_PROVIDERS = DocumentView(
    name="dns_providers",
    document_type=DnsProviderView,
    event_class=DnsProvider.Event,
    fold=fold,
    columns={
        "name": Column("text NOT NULL", lambda provider: provider.name),
        "provider_type": Column("text NOT NULL", lambda provider: provider.provider_type),
    },
    indexes=["CREATE UNIQUE INDEX dns_providers_name ON dns_providers (tenant_id, name)"],
)


def managed_zones(pool: Pool, tenant_id: str) -> Sequence[ManagedZones]:
    """What each active provider of the tenant answers for."""
    return [
        ManagedZones(provider.id, tuple(provider.managed_zones), provider.created_at)
        for _, provider in DNS_PROVIDERS.page(pool, tenant_id, 0, 1_000_000, {})
        if provider.is_active
    ]


def embedded_zones(pool: Pool, except_tenant: str = "") -> Sequence[str]:
    """The zones of the embedded providers of every tenant but one: what the service's own name server is asked about."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT document::text FROM dns_providers WHERE provider_type = 'embedded' AND tenant_id <> %s",
            [except_tenant],
        ).fetchall()
    providers = [msgspec.json.decode(document, type=DnsProviderView) for (document,) in rows]
    return [zone.removeprefix("*.") for provider in providers if provider.is_active for zone in provider.managed_zones]
