"""Storing and reading secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore
from application.secret_value import SecretValue
from domain.access import secret_read
from domain.errors import FieldProblem, InvalidFields, NotFound
from domain.secret import Secret, SecretType, SecretVersion, is_secret_path, secret_id

SEALED_KIND = "secret"


class Secrets:
    def __init__(self, store: EventStore, keys: KeyStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def write(
        self, path: str, data: Mapping[str, Any], secret_type: SecretType, metadata: dict[str, Any], caller: Caller
    ) -> int:
        """Adds a version and gives its number. Raises InvalidFields, VersionConflict."""
        if not is_secret_path(path):
            raise InvalidFields(FieldProblem("path", "invalid_path", "up to 10 segments of a-z 0-9 - _"))
        tenant_id = caller.tenant_id
        value = SecretValue(msgspec.json.encode(data))
        sealed_id = self._keys.seal(SEALED_KIND, tenant_id, secret_id(tenant_id, path), value)
        now = self._clock.now()
        try:
            secret = self._store.load(Secret, secret_id(tenant_id, path))
            secret.add_version(secret_type, metadata, sealed_id, now)
        except NotFound:
            secret = Secret.store(
                tenant_id=tenant_id,
                path=path,
                secret_type=secret_type,
                metadata=metadata,
                sealed_id=sealed_id,
                now=now,
            )
        self._store.record(secret, by=caller.provenance)
        return secret.versions[-1].number

    def read(self, path: str, version: int | None, caller: Caller) -> tuple[Secret, SecretVersion, SecretValue]:
        """The value (JSON), put on record before it is given. Raises NotFound."""
        secret, found, value = self.open(caller.tenant_id, path, version)
        read = secret_read(self._ids.new("access"), path, found.number, self._clock.now())
        self._store.record(read, by=caller.provenance)
        return secret, found, value

    def open(self, tenant_id: str, path: str, version: int | None = None) -> tuple[Secret, SecretVersion, SecretValue]:
        """For the service's own use: nobody is shown it. Raises NotFound."""
        try:
            secret = self._store.load(Secret, secret_id(tenant_id, path), tenant_id)
        except NotFound:
            raise NotFound("secret", path) from None
        found = secret.version_numbered(version)
        return secret, found, self._keys.open(SEALED_KIND, tenant_id, secret.id, found.sealed_id)
