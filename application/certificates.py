"""Handing out private keys."""

from __future__ import annotations

from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore
from application.secret_value import SecretValue
from domain.access import private_key_read
from domain.certificate import Certificate, Version

SEALED_KIND = "leaf-key"


class Certificates:
    def __init__(self, store: EventStore, keys: KeyStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def private_key(self, certificate_id: str, number: int | None, caller: Caller) -> tuple[Version, SecretValue]:
        """The key of a version (the newest for None), put on record before it is given.

        Raises NotFound, PrivateKeyNotStored, Denied."""
        caller.require_certificate(certificate_id)
        certificate = self._store.load(Certificate, certificate_id, caller.tenant_id)
        caller.require_names(certificate.dns_names)
        version, sealed_key_id = certificate.sealed_key_of(number)
        key_pem = self._keys.open(SEALED_KIND, certificate.tenant_id, certificate.id, sealed_key_id)
        read = private_key_read(self._ids.new("access"), certificate_id, version.number, self._clock.now())
        self._store.record(read, by=caller.provenance)
        return version, key_pem
