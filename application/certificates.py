"""Handing out private keys, and changing what may be changed of a certificate line."""

from __future__ import annotations

import msgspec

from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore
from application.secret_value import SecretValue
from domain.access import private_key_read
from domain.certificate import Certificate, Version

SEALED_KIND = "leaf-key"


class NewName(msgspec.Struct, frozen=True):
    """None takes the name away."""

    name: str | None


class Certificates:
    def __init__(self, store: EventStore, keys: KeyStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def revise(self, certificate_id: str, caller: Caller, *, auto_renew: bool | None, new_name: NewName | None) -> None:
        """None leaves a thing as it is. Raises NotFound, Denied."""
        certificate = load_certificate(self._store, certificate_id, caller)
        now = self._clock.now()
        if auto_renew is not None:
            certificate.switch_auto_renewal(now, on=auto_renew)
        if new_name is not None:
            certificate.rename(new_name.name, now)
        self._store.record(certificate, by=caller.provenance)

    def private_key(self, certificate_id: str, number: int | None, caller: Caller) -> tuple[Version, SecretValue]:
        """The key of a version (the newest for None), put on record before it is given.

        Raises NotFound, PrivateKeyNotStored, Denied."""
        certificate = load_certificate(self._store, certificate_id, caller)
        version, sealed_key_id = certificate.sealed_key_of(number)
        key_pem = self._keys.open(SEALED_KIND, certificate.tenant_id, certificate.id, sealed_key_id)
        read = private_key_read(self._ids.new("access"), certificate_id, version.number, self._clock.now())
        self._store.record(read, by=caller.provenance)
        return version, key_pem


def load_certificate(store: EventStore, certificate_id: str, caller: Caller) -> Certificate:
    """Raises NotFound, and Denied where the token is for others."""
    caller.require_certificate(certificate_id)
    certificate = store.load(Certificate, certificate_id, caller.tenant_id)
    caller.require_names(certificate.dns_names)
    return certificate
