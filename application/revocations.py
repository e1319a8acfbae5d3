"""Revoking certificates at their CA (RFC 8555 §7.6)."""

from __future__ import annotations

from collections.abc import Mapping

from application.accounts import Accounts
from application.caller import Caller
from application.certificates import SEALED_KIND, load_certificate
from application.errors import CaRefused
from application.event_store import EventStore
from application.ports import CaAccount, CertificateAuthority, Clock, KeyStore
from application.secret_value import SecretValue
from domain.account import Account
from domain.certificate import Certificate, RevocationReason, Version
from domain.errors import FieldProblem, InvalidFields

REASONS: Mapping[RevocationReason, int] = {
    "unspecified": 0,
    "key_compromise": 1,
    "affiliation_changed": 3,
    "superseded": 4,
    "cessation_of_operation": 5,
}
"""RFC 5280 §5.3.1."""


class Revocations:
    def __init__(
        self, store: EventStore, accounts: Accounts, keys: KeyStore, ca: CertificateAuthority, clock: Clock
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._keys = keys
        self._ca = ca
        self._clock = clock

    def revoke(self, certificate_id: str, number: int | None, reason: RevocationReason, caller: Caller) -> None:
        """At the CA first; the current version is replaced at once where it is renewed by itself. By the account, and where
        that is not good for it by the certificate's own key. Raises NotFound, Denied, AlreadyRevoked, InvalidFields,
        Retryable."""
        certificate = load_certificate(self._store, certificate_id, caller)
        version = certificate.revocable(number)
        try:
            self._revoke_at_ca(certificate, version, REASONS[reason])
        except CaRefused as refusal:
            if refusal.problem.name != "alreadyRevoked":  # elsewhere, or the answer was lost
                raise InvalidFields(FieldProblem("reason", "refused_by_ca", refusal.detail)) from None
        certificate = load_certificate(self._store, certificate_id, caller)  # it may have been renewed meanwhile
        certificate.revoke(version.number, reason, self._clock.now())
        self._store.record(certificate, by=caller.provenance)

    def _revoke_at_ca(self, certificate: Certificate, version: Version, reason: int) -> None:
        account = self._store.load(Account, certificate.account_id)
        key_pem = self._own_key(certificate, version)
        if account.status == "deactivated":
            if key_pem is None:
                raise InvalidFields(FieldProblem("version", "no_key", "neither the account nor the key is there"))
            by_key = CaAccount(account.directory_url, account.account_url, key_pem, account.ca_bundle_pem)
            self._ca.revoke(by_key, version.chain_pem, reason, key_pem)
            return
        at_ca = self._accounts.speak_as(account)
        try:
            self._ca.revoke(at_ca, version.chain_pem, reason)
        except CaRefused as refusal:
            if refusal.problem.name == "alreadyRevoked" or key_pem is None:
                raise
            self._ca.revoke(at_ca, version.chain_pem, reason, key_pem)

    def _own_key(self, certificate: Certificate, version: Version) -> SecretValue | None:
        if version.sealed_key_id is None:
            return None
        return self._keys.open(SEALED_KIND, certificate.tenant_id, certificate.id, version.sealed_key_id)
