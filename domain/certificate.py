"""A certificate line: one id for ever, under which each renewal is a version.

A version exists only with its chain and key, which belong together; older versions stay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from eventsourcing.domain import BaseAggregate

from domain.errors import NotFound, PrivateKeyNotStored
from domain.event import DomainEvent, InitialEvent
from domain.order import KeyType, OrderError


@dataclass(frozen=True)
class Version:
    """One issued certificate. `serial_number` is hex without separators, `fingerprint_sha256` of the leaf's DER in hex,
    `chain_pem` leaf first. `sealed_key_id` is None where the key was never here (the order came with a CSR)."""

    number: int
    order_id: str
    serial_number: str
    fingerprint_sha256: str
    issuer: str
    key_type: KeyType
    not_before: datetime
    not_after: datetime
    chain_pem: str
    sealed_key_id: str | None


class Certificate(BaseAggregate[str]):
    TOPIC = "certificate"

    class Event(DomainEvent):
        pass

    class Issued(InitialEvent, Event):
        TOPIC = "certificate.issued"
        tenant_id: str
        account_id: str
        name: str | None
        dns_names: tuple[str, ...]
        auto_renew: bool
        version: Version

    class Renewed(Event):
        """`old_serial_number` and `old_not_after` are the previous version's."""

        TOPIC = "certificate.renewed"
        dns_names: tuple[str, ...]
        version: Version
        reason: str
        old_serial_number: str
        old_not_after: datetime

        def apply(self, aggregate: Certificate) -> None:
            aggregate.versions = (*aggregate.versions, self.version)
            aggregate.failed_renewals = 0

    class RenewalFailed(Event):
        """`attempt` counts from the last version on; `not_after` is that version's."""

        TOPIC = "certificate.renewal_failed"
        dns_names: tuple[str, ...]
        order_id: str
        attempt: int
        error: OrderError
        not_after: datetime

        def apply(self, aggregate: Certificate) -> None:
            aggregate.failed_renewals = self.attempt

    def __init__(
        self,
        tenant_id: str,
        account_id: str,
        name: str | None,
        dns_names: tuple[str, ...],
        auto_renew: bool,
        version: Version,
    ) -> None:
        self.tenant_id = tenant_id
        self.account_id = account_id
        self.name = name
        self.dns_names = dns_names
        self.auto_renew = auto_renew
        self.versions: tuple[Version, ...] = (version,)
        self.failed_renewals = 0

    @classmethod
    def issue(
        cls,
        certificate_id: str,
        *,
        tenant_id: str,
        account_id: str,
        name: str | None,
        dns_names: tuple[str, ...],
        auto_renew: bool,
        version: Version,
        now: datetime,
    ) -> Self:
        """The first version of a new line."""
        return cls._create(
            cls.Issued,
            id=certificate_id,
            timestamp=now,
            tenant_id=tenant_id,
            account_id=account_id,
            name=name,
            dns_names=dns_names,
            auto_renew=auto_renew,
            version=version,
        )

    @property
    def current(self) -> Version:
        return self.versions[-1]

    @property
    def next_number(self) -> int:
        return self.current.number + 1

    def version_numbered(self, number: int | None) -> Version:
        """The current one for None. Raises NotFound (`version`)."""
        if number is None:
            return self.current
        for version in self.versions:
            if version.number == number:
                return version
        raise NotFound("version", f"{self.id} version {number}")

    def sealed_key_of(self, number: int | None) -> tuple[Version, str]:
        """The version and what its key is sealed under. Raises NotFound, PrivateKeyNotStored."""
        version = self.version_numbered(number)
        if version.sealed_key_id is None:
            raise PrivateKeyNotStored(self.id, version.number)
        return version, version.sealed_key_id

    def renew(self, version: Version, reason: str, now: datetime) -> None:
        """A further version. The same order's version again changes nothing."""
        if any(known.order_id == version.order_id for known in self.versions):
            return
        self.trigger_event(
            self.Renewed,
            dns_names=self.dns_names,
            version=version,
            reason=reason,
            old_serial_number=self.current.serial_number,
            old_not_after=self.current.not_after,
            timestamp=now,
        )

    def renewal_failed(self, order_id: str, error: OrderError, now: datetime) -> None:
        self.trigger_event(
            self.RenewalFailed,
            dns_names=self.dns_names,
            order_id=order_id,
            attempt=self.failed_renewals + 1,
            error=error,
            not_after=self.current.not_after,
            timestamp=now,
        )
