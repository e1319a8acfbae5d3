"""Registering ACME accounts and speaking to a CA as one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from application.ca_catalogue import CaEntry, directory_for
from application.caller import Caller
from application.errors import CaRefused, EgressRefused
from application.event_store import EventStore, Taken
from application.ports import CaAccount, CertificateAuthority, Clock, ExternalAccountBinding, Ids, KeyStore
from application.secret_value import SecretValue
from application.x509 import new_private_key, require_ca_bundle
from domain.account import Account, Environment, Offer, Profile
from domain.errors import FieldProblem, InvalidFields, NameInUse
from domain.order import KeyType

SEALED_KIND = "account-key"


class AccountNames(Protocol):
    def is_account_name(self, tenant_id: str, name: str) -> bool:
        """Whether the tenant has an account of that name."""


class Accounts:
    """`thumbprint` gives a key's RFC 7638 thumbprint in base64url."""

    def __init__(
        self,
        store: EventStore,
        keys: KeyStore,
        ca: CertificateAuthority,
        names: AccountNames,
        catalogue: Mapping[str, CaEntry],
        thumbprint: Callable[[SecretValue], str],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._keys = keys
        self._ca = ca
        self._names = names
        self._catalogue = catalogue
        self._thumbprint = thumbprint
        self._clock = clock
        self._ids = ids

    def register(
        self,
        *,
        name: str,
        provider: str,
        environment: Environment,
        email: str,
        directory_url: str | None,
        eab: ExternalAccountBinding | None,
        key_type: KeyType,
        ca_bundle_pem: str | None,
        caller: Caller,
    ) -> str:
        """The new account's id. The key is sealed before the CA sees it. Raises InvalidFields, NameInUse, Retryable."""
        require_ca_bundle(ca_bundle_pem, "ca_bundle_pem")
        url = directory_for(self._catalogue, provider, environment, directory_url, has_binding=eab is not None)
        if self._names.is_account_name(caller.tenant_id, name):  # before the CA is asked, or a binding is spent
            raise NameInUse(name)
        account_id = self._ids.new(f"acme_{environment}")
        try:
            capabilities = self._ca.capabilities(url, ca_bundle_pem)
            key_pem = new_private_key(key_type)
            sealed_key_id = self._keys.seal(SEALED_KIND, caller.tenant_id, account_id, key_pem)
            account_url = self._ca.register(url, key_pem, email, eab, ca_bundle_pem)
        except CaRefused as failure:
            raise InvalidFields(FieldProblem(_field_of(failure), "refused_by_ca", failure.detail)) from None
        except EgressRefused as failure:
            raise InvalidFields(FieldProblem("directory_url", "not_allowed", failure.detail)) from None
        account = Account.register(
            account_id,
            tenant_id=caller.tenant_id,
            name=name,
            provider=provider,
            environment=environment,
            email=email,
            directory_url=url,
            ca_bundle_pem=ca_bundle_pem,
            account_url=account_url,
            sealed_key_id=sealed_key_id,
            key_thumbprint=self._thumbprint(key_pem),
            offer=Offer(
                ari=capabilities.ari,
                profiles=tuple(Profile(name, text) for name, text in capabilities.profiles.items()),
                eab_required=capabilities.eab_required,
                caa_identities=tuple(capabilities.caa_identities),
            ),
            now=self._clock.now(),
        )
        try:
            self._store.record(account, by=caller.provenance)
        except Taken:
            raise NameInUse(name) from None
        return account_id

    def at_ca(self, account_id: str) -> tuple[Account, CaAccount]:
        """The account, and what it takes to speak as it. Raises NotFound, SealBroken."""
        account = self._store.load(Account, account_id)
        key_pem = self._keys.open(SEALED_KIND, account.tenant_id, account.id, account.sealed_key_id)
        return account, CaAccount(account.directory_url, account.account_url, key_pem, account.ca_bundle_pem)


def _field_of(failure: CaRefused) -> str:
    match failure.problem.name:
        case "invalidContact" | "unsupportedContact":
            return "email"
        case "externalAccountRequired" | "unauthorized":
            return "eab"
        case _:
            return "provider"
