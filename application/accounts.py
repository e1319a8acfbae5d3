"""Registering ACME accounts and speaking to a CA as one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Literal, Protocol

from application.ca_catalogue import CaEntry, directory_for
from application.caller import Caller
from application.errors import CaRefused, CaUnavailable, EgressRefused, Retryable
from application.event_store import EventStore, Taken
from application.ports import (
    CaAccount,
    Capabilities,
    CertificateAuthority,
    Clock,
    ExternalAccountBinding,
    Ids,
    KeyStore,
)
from application.secret_value import SecretValue
from application.x509 import new_private_key, require_ca_bundle
from domain.account import Account, AccountKey, Environment, Offer, Profile
from domain.errors import (
    AccountInUse,
    AccountNotActive,
    CaLimitReached,
    FieldProblem,
    InvalidFields,
    NameInUse,
    OrderInProgress,
)
from domain.order import KeyType
from domain.provenance import Provenance
from domain.rate_limit import FULL, Bucket, Level, ready_at

SEALED_KIND = "account-key"


KEY_CHANGE_SECONDS = 1.0
KEY_CHANGE_SETTLES = timedelta(minutes=5)  # for so long a request may be on its way that was signed with the old key
MOST_NAMED = 10
CLOSED = frozenset({"unauthorized", "accountDoesNotExist"})
"""What CAs say to an account that is deactivated (RFC 8555 §7.3.6 names the first)."""


RefusalMeans = Literal["ask_again", "account_lost", "request_refused"]


class KnownAccounts(Protocol):
    """What the read models know of accounts."""

    def is_account_name(self, tenant_id: str, name: str) -> bool:
        """Whether the tenant has an account of that name."""

    def levels(self, buckets: Collection[Bucket]) -> Mapping[Bucket, Level]:
        """Those of the CAs' rate limits of which anything is known."""

    def renewing_through(self, account_id: str, most: int) -> Sequence[str]:
        """Certificates that are renewed by themselves through the account."""

    def running_orders(self, account_id: str, most: int) -> Sequence[str]:
        """Orders of the account that are in progress."""


class Accounts:
    """`thumbprint` gives a key's RFC 7638 thumbprint in base64url."""

    def __init__(
        self,
        store: EventStore,
        keys: KeyStore,
        ca: CertificateAuthority,
        known: KnownAccounts,
        catalogue: Mapping[str, CaEntry],
        thumbprint: Callable[[SecretValue], str],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._keys = keys
        self._ca = ca
        self._known = known
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
        """The new account's id. The key is sealed before the CA sees it. Raises InvalidFields, NameInUse, CaLimitReached,
        Retryable."""
        require_ca_bundle(ca_bundle_pem, "ca_bundle_pem")
        url = directory_for(self._catalogue, provider, environment, directory_url, has_binding=eab is not None)
        if self._known.is_account_name(caller.tenant_id, name):  # before the CA is asked, or a binding is spent
            raise NameInUse(name)
        self._require_room(url)
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
            offer=offer_of(capabilities),
            now=self._clock.now(),
        )
        try:
            self._store.record(account, by=caller.provenance)
        except Taken:
            raise NameInUse(name) from None
        return account_id

    def revise(self, account_id: str, *, email: str | None, agree_to_terms: bool, caller: Caller) -> None:
        """At the CA first. None leaves the contact. What the CA does for an account shows that it is there. Raises NotFound,
        AccountNotActive (deactivated), InvalidFields, Retryable."""
        account = self._store.load(Account, account_id, caller.tenant_id)
        if account.status == "deactivated":
            raise AccountNotActive(account.id, account.status)
        if email is None and not agree_to_terms:
            return
        try:
            contact = account.email if email is None else email
            self._ca.update_account(self.speak_as(account), contact, agree_to_terms=agree_to_terms)
        except CaRefused as failure:
            raise InvalidFields(FieldProblem(_field_of(failure), "refused_by_ca", failure.detail)) from None
        now = self._clock.now()
        account.change_contact(contact, now)
        account.restore(now)
        self._store.record(account, by=caller.provenance)

    def begin_key_change(self, account_id: str, key_type: KeyType, caller: Caller) -> None:
        """The new key is sealed; a process manager sees to the rest. Raises NotFound, AccountNotActive,
        KeyChangeInProgress, and InvalidFields where the CA is known not to do it."""
        account = self._store.load(Account, account_id, caller.tenant_id)
        entry = self._catalogue.get(account.provider)
        if entry is not None and not entry.key_change:
            problem = f"{account.provider} changes no account keys: register another account"
            raise InvalidFields(FieldProblem("provider", "unsupported", problem))
        key_pem = new_private_key(key_type)
        sealed_id = self._keys.seal(SEALED_KIND, account.tenant_id, account.id, key_pem)
        account.begin_key_change(AccountKey(sealed_id, self._thumbprint(key_pem)), self._clock.now())
        self._store.record(account, by=caller.provenance)

    def deactivate(self, account_id: str, caller: Caller) -> None:
        """At the CA first, for good. Raises NotFound, AccountInUse, OrderInProgress, Retryable."""
        account = self._store.load(Account, account_id, caller.tenant_id)
        if account.status == "deactivated":
            return
        certificate_ids = self._known.renewing_through(account_id, MOST_NAMED)
        if certificate_ids:
            raise AccountInUse(account_id, certificate_ids)
        running = self._known.running_orders(account_id, 1)
        if running:
            raise OrderInProgress(running[0])
        try:
            self._ca.deactivate_account(self.speak_as(account))
        except CaRefused as failure:
            if failure.problem.name not in CLOSED:  # an answer that was lost: it is closed already
                raise
        account.deactivate(self._clock.now())
        self._store.record(account, by=caller.provenance)

    def at_ca(self, account_id: str) -> tuple[Account, CaAccount]:
        """The account, and what it takes to speak as it. Raises NotFound, AccountNotActive, SealBroken, and CaUnavailable
        while its key is being changed: nobody knows then which one the CA knows."""
        account = self._store.load(Account, account_id)
        account.require_active()
        if account.new_key is not None:
            raise CaUnavailable("the account's key is being changed", KEY_CHANGE_SECONDS)
        return account, self.speak_as(account)

    def speak_as(self, account: Account) -> CaAccount:
        """With the key that is in force. Raises SealBroken."""
        key_pem = self._keys.open(SEALED_KIND, account.tenant_id, account.id, account.sealed_key_id)
        return CaAccount(account.directory_url, account.account_url, key_pem, account.ca_bundle_pem)

    def refused(self, account_id: str, refusal: CaRefused, by: Provenance) -> RefusalMeans:
        """What a refusal says about the account, which is put on record once. To ask again is worth it where the key was
        being changed at that moment, or somebody has to act first."""
        account, now = self._store.load(Account, account_id), self._clock.now()
        match refusal.problem.name:
            case "userActionRequired":
                account.require_action(refusal.problem, now)
                self._store.record(account, by=by)
                return "ask_again"
            case "accountDoesNotExist" | "unauthorized" | "malformed":
                if account.new_key is not None or account.changed_its_key_since(now - KEY_CHANGE_SETTLES):
                    return "ask_again"
                if refusal.problem.name != "malformed" and self._is_gone(account):
                    account.lose(refusal.problem, now)
                    self._store.record(account, by=by)
                    return "account_lost"
                return "request_refused"
            case _:
                return "request_refused"

    def served(self, account: Account, by: Provenance) -> None:
        """The CA has done something for it."""
        account.restore(self._clock.now())
        self._store.record(account, by=by)

    def _require_room(self, ca: str) -> None:
        """Accounts are counted by our address, whichever tenant asks for them."""
        bucket, now = Bucket(ca, "new_registrations", ""), self._clock.now()
        at = ready_at(bucket, self._known.levels([bucket]).get(bucket, FULL))
        if at is not None and at > now:
            raise CaLimitReached(bucket, at, now)

    def _is_gone(self, account: Account) -> bool:
        """Asked anew: what is refused may be the order alone."""
        key_pem = self.speak_as(account).key_pem
        try:
            return self._ca.find_account(account.directory_url, key_pem, account.ca_bundle_pem) != account.account_url
        except CaRefused:
            return True
        except Retryable:
            return False


def offer_of(capabilities: Capabilities) -> Offer:
    return Offer(
        ari=capabilities.ari,
        profiles=tuple(Profile(name, text) for name, text in capabilities.profiles.items()),
        eab_required=capabilities.eab_required,
        caa_identities=tuple(capabilities.caa_identities),
    )


def _field_of(failure: CaRefused) -> str:
    match failure.problem.name:
        case "invalidContact" | "unsupportedContact":
            return "email"
        case "externalAccountRequired" | "unauthorized":
            return "eab"
        case _:
            return "provider"
