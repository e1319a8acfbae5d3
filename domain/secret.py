"""A stored secret: versions under a path. The values are sealed and never here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.errors import NotFound
from domain.event import DomainEvent, InitialEvent

SecretType = Literal["kv", "json", "certificate", "ssh_key", "api_key"]

PATH = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+){0,9}")
LONGEST_PATH = 512


def is_secret_path(path: str) -> bool:
    """Up to 10 segments of `a-z 0-9 - _`, 512 characters in all."""
    return len(path) <= LONGEST_PATH and PATH.fullmatch(path) is not None


def secret_id(tenant_id: str, path: str) -> str:
    """A path names one secret of a tenant, so the id is made of both."""
    return f"secret:{tenant_id}:{path}"


@dataclass(frozen=True)
class SecretVersion:
    number: int
    secret_type: SecretType
    metadata: dict[str, Any]
    sealed_id: str
    written_at: datetime


class Secret(BaseAggregate[str]):
    TOPIC = "secret"

    class Event(DomainEvent):
        pass

    class Stored(InitialEvent, Event):
        TOPIC = "secret.stored"
        tenant_id: str
        path: str
        secret_type: SecretType
        metadata: dict[str, Any]
        sealed_id: str

    class VersionAdded(Event):
        TOPIC = "secret.version_added"
        number: int
        secret_type: SecretType
        metadata: dict[str, Any]
        sealed_id: str

        def apply(self, aggregate: Secret) -> None:
            version = SecretVersion(self.number, self.secret_type, self.metadata, self.sealed_id, self.timestamp)
            aggregate.versions = (*aggregate.versions, version)

    def __init__(
        self,
        tenant_id: str,
        path: str,
        secret_type: SecretType,
        metadata: dict[str, Any],
        sealed_id: str,
        timestamp: datetime,
    ) -> None:
        self.tenant_id = tenant_id
        self.path = path
        self.versions: tuple[SecretVersion, ...] = (SecretVersion(1, secret_type, metadata, sealed_id, timestamp),)

    @classmethod
    def store(
        cls,
        *,
        tenant_id: str,
        path: str,
        secret_type: SecretType,
        metadata: dict[str, Any],
        sealed_id: str,
        now: datetime,
    ) -> Self:
        return cls._create(
            cls.Stored,
            id=secret_id(tenant_id, path),
            timestamp=now,
            tenant_id=tenant_id,
            path=path,
            secret_type=secret_type,
            metadata=metadata,
            sealed_id=sealed_id,
        )

    def add_version(self, secret_type: SecretType, metadata: dict[str, Any], sealed_id: str, now: datetime) -> None:
        self.trigger_event(
            self.VersionAdded,
            number=self.versions[-1].number + 1,
            secret_type=secret_type,
            metadata=metadata,
            sealed_id=sealed_id,
            timestamp=now,
        )

    def version_numbered(self, number: int | None) -> SecretVersion:
        """The newest for None. Raises NotFound (`version`)."""
        for version in self.versions if number is not None else self.versions[-1:]:
            if number in {None, version.number}:
                return version
        raise NotFound("version", f"{self.path} version {number}")
