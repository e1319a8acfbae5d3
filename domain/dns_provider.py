"""A connection to somebody who serves DNS zones, and which names it answers for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from eventsourcing.domain import BaseAggregate

from domain.event import DomainEvent, InitialEvent
from domain.names import WILDCARD, base_name, zone_covers

DAILY, WHILE_DEGRADED, AFTER_A_FAILURE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=10)
MOST_FAILED_CANARIES = 3


class DnsProvider(BaseAggregate[str]):
    TOPIC = "dns_provider"

    class Event(DomainEvent):
        pass

    class Connected(InitialEvent, Event):
        """The credentials are sealed under `sealed_credentials_id`, or kept as the secret at `credentials_path`."""

        TOPIC = "dns_provider.connected"
        tenant_id: str
        name: str
        provider_type: str
        managed_zones: tuple[str, ...]
        config: dict[str, Any]
        sealed_credentials_id: str | None
        credentials_path: str | None

    class Revised(Event):
        """All settings as they are from now on; the credentials as above."""

        TOPIC = "dns_provider.revised"
        name: str
        managed_zones: tuple[str, ...]
        config: dict[str, Any]
        sealed_credentials_id: str | None
        credentials_path: str | None
        is_active: bool

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.name = self.name
            aggregate.managed_zones = self.managed_zones
            aggregate.config = self.config
            aggregate.sealed_credentials_id = self.sealed_credentials_id
            aggregate.credentials_path = self.credentials_path
            aggregate.is_active = self.is_active
            aggregate.revised_at = self.timestamp

    class Disconnected(Event):
        """For good."""

        TOPIC = "dns_provider.disconnected"

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.is_gone = True
            aggregate.is_active = False

    class Verified(Event):
        """The provider listed its zones. `missing_zones` are managed ones that none of them holds."""

        TOPIC = "dns_provider.verified"
        zones: tuple[str, ...]
        missing_zones: tuple[str, ...]

    class VerificationFailed(Event):
        TOPIC = "dns_provider.verification_failed"
        reason: str
        detail: str

    class CanaryPassed(Event):
        """A value was written and removed again in each of the zones."""

        TOPIC = "dns_provider.canary_passed"
        zones: tuple[str, ...]

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.tried_at = self.timestamp
            aggregate.failed_canaries = 0

    class CanaryFailed(Event):
        """`attempt` counts from the last one on that passed."""

        TOPIC = "dns_provider.canary_failed"
        reason: str
        detail: str
        attempt: int

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.tried_at = self.timestamp
            aggregate.failed_canaries = self.attempt

    class Degraded(Event):
        """Orders that need it will fail."""

        TOPIC = "dns_provider.degraded"
        reason: str
        detail: str

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.tried_at = self.timestamp
            aggregate.degraded_by = self.reason

    class Recovered(Event):
        """`reason` is what it had been degraded by."""

        TOPIC = "dns_provider.recovered"
        reason: str

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.degraded_by = None
            aggregate.failed_canaries = 0

    class Swept(Event):
        """What orders had removed was removed once more; `through` is the position in the history up to which nobody needs to
        look again."""

        TOPIC = "dns_provider.swept"
        through: int

        def apply(self, aggregate: DnsProvider) -> None:
            aggregate.swept_through = self.through
            aggregate.swept_at = self.timestamp

    def __init__(
        self,
        tenant_id: str,
        name: str,
        provider_type: str,
        managed_zones: tuple[str, ...],
        config: dict[str, Any],
        sealed_credentials_id: str | None,
        credentials_path: str | None,
        timestamp: datetime,
    ) -> None:
        self.tenant_id = tenant_id
        self.name = name
        self.provider_type = provider_type
        self.managed_zones = managed_zones
        self.config: Mapping[str, Any] = config
        self.sealed_credentials_id = sealed_credentials_id
        self.credentials_path = credentials_path
        self.is_active = True
        self.is_gone = False
        self.swept_through = 0
        self.swept_at = timestamp
        self.revised_at = timestamp
        self.tried_at = timestamp
        self.failed_canaries = 0
        self.degraded_by: str | None = None

    @classmethod
    def connect(
        cls,
        provider_id: str,
        *,
        tenant_id: str,
        name: str,
        provider_type: str,
        managed_zones: tuple[str, ...],
        config: Mapping[str, Any],
        sealed_credentials_id: str | None,
        credentials_path: str | None,
        now: datetime,
    ) -> Self:
        return cls._create(
            cls.Connected,
            id=provider_id,
            timestamp=now,
            tenant_id=tenant_id,
            name=name,
            provider_type=provider_type,
            managed_zones=managed_zones,
            config=dict(config),
            sealed_credentials_id=sealed_credentials_id,
            credentials_path=credentials_path,
        )

    def revise(
        self,
        *,
        name: str,
        managed_zones: tuple[str, ...],
        config: Mapping[str, Any],
        sealed_credentials_id: str | None,
        credentials_path: str | None,
        is_active: bool,
        now: datetime,
    ) -> None:
        self.trigger_event(
            self.Revised,
            name=name,
            managed_zones=managed_zones,
            config=dict(config),
            sealed_credentials_id=sealed_credentials_id,
            credentials_path=credentials_path,
            is_active=is_active,
            timestamp=now,
        )

    def disconnect(self, now: datetime) -> None:
        if not self.is_gone:
            self.trigger_event(self.Disconnected, timestamp=now)

    def verified(self, zones: Sequence[str], now: datetime) -> None:
        missing = missing_zones(self.managed_zones, zones)
        self.trigger_event(self.Verified, zones=tuple(zones), missing_zones=missing, timestamp=now)

    def verification_failed(self, reason: str, detail: str, now: datetime) -> None:
        self.trigger_event(self.VerificationFailed, reason=reason, detail=detail, timestamp=now)

    @property
    def canary_due_at(self) -> datetime:
        """Daily; sooner while something is wrong, and at once when somebody has changed something about it."""
        if self.degraded_by is not None and self.revised_at > self.tried_at:
            return self.revised_at
        if self.degraded_by is not None:
            return self.tried_at + WHILE_DEGRADED
        return self.tried_at + (AFTER_A_FAILURE if self.failed_canaries else DAILY)

    def canary_passed(self, zones: Sequence[str], now: datetime) -> None:
        self.trigger_event(self.CanaryPassed, zones=tuple(zones), timestamp=now)
        self.served(now)

    def canary_failed(self, reason: str, detail: str, now: datetime, *, for_good: bool) -> None:
        """One that may be a matter of the moment degrades the provider the third time. While it is degraded nothing new is
        told."""
        if self.degraded_by is not None:
            return
        attempt = self.failed_canaries + 1
        self.trigger_event(self.CanaryFailed, reason=reason, detail=detail, attempt=attempt, timestamp=now)
        if for_good or attempt >= MOST_FAILED_CANARIES:
            self.refused(reason, detail, now)

    def refused(self, reason: str, detail: str, now: datetime) -> None:
        """The same again changes nothing."""
        if self.degraded_by is None:
            self.trigger_event(self.Degraded, reason=reason, detail=detail, timestamp=now)

    def served(self, now: datetime) -> None:
        """It has done something for us."""
        if self.degraded_by is not None:
            self.trigger_event(self.Recovered, reason=self.degraded_by, timestamp=now)

    def swept(self, through: int, now: datetime) -> None:
        self.trigger_event(self.Swept, through=through, timestamp=now)


@dataclass(frozen=True)
class ManagedZones:
    """What an active provider answers for."""

    dns_provider_id: str
    managed_zones: tuple[str, ...]
    connected_at: datetime


@dataclass(frozen=True)
class Removal:
    """That an order removed a value, or left it to another one that shows the same; `position` in the history."""

    position: int
    at: datetime
    order_id: str
    record_name: str
    record_value: str


def missing_zones(managed_zones: Sequence[str], zones: Sequence[str]) -> tuple[str, ...]:
    """The managed zones that lie in none of the zones that the provider holds."""
    return tuple(
        managed for managed in managed_zones if not any(zone_covers(zone, base_name(managed)) for zone in zones)
    )


def provider_for(dns_name: str, providers: Sequence[ManagedZones], preferred_id: str | None) -> str | None:
    """The longest matching zone wins; on a tie the preferred provider, else the one connected first."""
    matches = [
        (len(managed.removeprefix(WILDCARD)), provider.dns_provider_id == preferred_id, provider)
        for provider in providers
        for managed in provider.managed_zones
        if zone_covers(managed, dns_name)
    ]
    if not matches:
        return None
    longest = max(length for length, _, _ in matches)
    best = [(preferred, provider) for length, preferred, provider in matches if length == longest]
    best.sort(key=lambda match: (not match[0], match[1].connected_at, match[1].dns_provider_id))
    return best[0][1].dns_provider_id
