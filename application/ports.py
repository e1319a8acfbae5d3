"""The outside, as the application sees it. Each port has a fake in `tests/fakes.py` and one contract suite in
`tests/contracts` that the fake and every adapter pass. Adapters raise only what `application/errors.py` declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from application.secret_value import SecretValue
from domain.acme import AuthorizationObject, OrderObject, RenewalInfo
from domain.dns_survey import NameSeen


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time, aware and in UTC."""


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """`prefix` and a lower-case ULID, e.g. `cert_01k…`."""


# --- the CA ---------------------------------------------------------------------------------------------------------


class CaAccount(msgspec.Struct, frozen=True):
    """Everything needed to speak to one CA as one account. `account_url` is the JWS `kid` (RFC 8555 §6.2)."""

    directory_url: str
    account_url: str
    key_pem: SecretValue
    ca_bundle_pem: str | None = None


class ExternalAccountBinding(msgspec.Struct, frozen=True):
    """RFC 8555 §7.3.4. `hmac_key` as the CA gave it, in any base64 form."""

    kid: str
    hmac_key: SecretValue


class Capabilities(msgspec.Struct, frozen=True):
    """What a directory offers (RFC 8555 §7.1.1, RFC 9773 §4, draft-ietf-acme-profiles)."""

    ari: bool
    profiles: Mapping[str, str]
    eab_required: bool
    caa_identities: Sequence[str]
    terms_of_service: str | None = None


class CertificateAuthority(Protocol):
    """An ACME server (RFC 8555). Safe to call from many threads. Raises CaUnavailable, CaThrottled, CaRefused, EgressRefused."""

    def capabilities(self, directory_url: str, ca_bundle_pem: str | None) -> Capabilities:
        """As the directory is now, whenever it was last read."""

    def register(
        self,
        directory_url: str,
        key_pem: SecretValue,
        email: str,
        eab: ExternalAccountBinding | None,
        ca_bundle_pem: str | None,
    ) -> str:
        """The account's URL. Registering a known key again gives the same URL (RFC 8555 §7.3). Agrees to the terms.

        Raises also `domain.errors.InvalidFields` (`eab.hmac_key`) for an HMAC key that is no base64."""

    def find_account(self, directory_url: str, key_pem: SecretValue, ca_bundle_pem: str | None) -> str | None:
        """The URL of the account that has this key, None where there is none (`onlyReturnExisting`, RFC 8555 §7.3.1)."""

    def update_account(self, account: CaAccount, email: str | None, *, agree_to_terms: bool = False) -> None:
        """Another contact, or agreement to terms that have changed (RFC 8555 §7.3.2, §7.3.3). None leaves the contact."""

    def change_key(self, account: CaAccount, new_key_pem: SecretValue) -> None:
        """From then on the account has the new key (RFC 8555 §7.3.5). Raises CaRefused also where the CA cannot."""

    def deactivate_account(self, account: CaAccount) -> None:
        """For good (RFC 8555 §7.3.6)."""

    def revoke(self, account: CaAccount, certificate_pem: str, reason: int, key_pem: SecretValue | None = None) -> None:
        """RFC 8555 §7.6, with a reason of RFC 5280 §5.3.1: by the account, or by the certificate's own key where that is
        given. Raises CaRefused (`alreadyRevoked`) also where the CA cannot."""

    def new_order(
        self, account: CaAccount, dns_names: Sequence[str], profile: str | None, replaces: str | None = None
    ) -> OrderObject:
        """`replaces` is the ARI id of the certificate that this order renews (RFC 9773 §5)."""

    def order(self, account: CaAccount, order_url: str) -> OrderObject: ...

    def authorizations(self, account: CaAccount, urls: Sequence[str]) -> Sequence[AuthorizationObject]:
        """In the order of `urls`, asked for at the same time."""

    def answer(self, account: CaAccount, challenge_urls: Sequence[str]) -> None:
        """Says that the challenges are ready to be validated (RFC 8555 §7.5.1), all at the same time."""

    def finalize(self, account: CaAccount, order: OrderObject, csr_der: bytes) -> OrderObject: ...

    def chain(self, account: CaAccount, certificate_url: str, preferred_chain: str | None) -> str:
        """The PEM chain, leaf first. `preferred_chain` is the topmost issuer's common name; no match gives the default."""

    def renewal_info(self, account: CaAccount, ari_id: str) -> RenewalInfo | None:
        """When the CA wants the certificate renewed (RFC 9773 §4); None where the CA suggests no times to anybody."""


# --- DNS ------------------------------------------------------------------------------------------------------------


class TxtValue(msgspec.Struct, frozen=True, order=True):
    """One TXT value at one name. `record_name` is an absolute name in A-labels without the final dot."""

    record_name: str
    value: str


class ProviderAccess(msgspec.Struct, frozen=True):
    """How to reach one provider: its type's `config` and `credentials`, as the contract's table of types says."""

    provider_type: str
    managed_zones: Sequence[str]
    config: Mapping[str, Any]
    credentials: Mapping[str, SecretValue]


class DnsZone(Protocol):
    """The zones of one provider's account. Raises ZoneThrottled, ZoneUnreachable, ZoneConflict, ZoneRefused, EgressRefused.

    Several processes may add to and remove from the same name at once: values of others stay as they are."""

    def add(self, values: Sequence[TxtValue]) -> None:
        """Adds single values, in as few changes as the provider can. Adding again what is there changes nothing."""

    def remove(self, values: Sequence[TxtValue]) -> None:
        """Removes exactly these values. What is not there is no error."""

    def zones(self) -> Sequence[str]:
        """The zones that these credentials may see: lower-case A-labels without the final dot, sorted."""


class DnsZones(Protocol):
    def connect(self, access: ProviderAccess) -> DnsZone:
        """Checks the settings and dials nobody. Raises `domain.errors.InvalidFields` naming each wrong field."""


class Unseen(msgspec.Struct, frozen=True):
    """A value that an authoritative server does not serve yet. `server` is `host:port`."""

    server: str
    record_name: str
    value: str


class Alias(msgspec.Struct, frozen=True):
    """Where a name's CNAMEs end: at the name itself where it has none. None where they lead nowhere, and `obstacle` says
    why."""

    end: str | None
    obstacle: str = ""


class Resolver(Protocol):
    def aliases(self, record_names: Sequence[str], nameservers: Sequence[str]) -> Mapping[str, Alias]:
        """Of each name, asked of `nameservers` (`host:port`) where given and of the recursive resolvers. Those that nobody
        can look up now are left out. A CNAME that a wildcard makes counts for none: it gives way to a value."""

    def unseen(self, values: Sequence[TxtValue], nameservers: Sequence[str]) -> Sequence[Unseen]:
        """Asks every authoritative server of the zone in which each name ends after its CNAMEs, or `nameservers`
        (`host:port`) where given. Empty when all of them serve all values. A server that does not answer has not
        seen them. Raises ResolverFailed when the servers of a zone cannot be found."""


class DnsSurvey(Protocol):
    def look(self, dns_names: Sequence[str], nameservers: Mapping[str, Sequence[str]]) -> Sequence[NameSeen]:
        """What DNS says about each of these base names, in their order, within seconds; what could not be asked or did not
        answer is part of it. `nameservers` (`host:port`), by name, are asked instead of the zone's own."""


class PublicSuffixes(Protocol):
    def is_public_suffix(self, dns_name: str) -> bool:
        """Whether the whole name is one under which anybody may register (e.g. `co.uk`). A-labels, lower case."""

    def registered_domain(self, dns_name: str) -> str:
        """The part of the name that somebody registered (e.g. `acme.co.uk`); the name where there is none."""


# --- what stays inside but is never in an event ---------------------------------------------------------------------


class KeyStore(Protocol):
    """Sealed material. Every argument but the plaintext is bound into the seal. Raises StoreUnavailable."""

    def seal(self, kind: str, tenant_id: str, owner_id: str, plaintext: SecretValue) -> str:
        """Stores it, committed, and gives the id to open it by. `kind` is e.g. `leaf-key`."""

    def open(self, kind: str, tenant_id: str, owner_id: str, sealed_id: str) -> SecretValue:
        """Raises `domain.errors.SealBroken` where nothing opens under exactly these words."""

    def shred(self, sealed_ids: Sequence[str]) -> None:
        """Destroys the data keys. Afterwards nothing opens."""


# --- webhooks -------------------------------------------------------------------------------------------------------


class WebhookRequest(msgspec.Struct, frozen=True):
    url: str
    headers: Mapping[str, str]
    body: bytes
    ca_bundle_pem: str | None = None


class WebhookResponse(msgspec.Struct, frozen=True):
    """What the receiver said. `retry_after_seconds` from its `Retry-After`, in either form. `body` is the beginning of
    what came in time, at most 16 KiB; empty where it was encoded."""

    status: int
    retry_after_seconds: float | None
    body: bytes = b""


class WebhookSender(Protocol):
    def send(self, request: WebhookRequest) -> WebhookResponse:
        """One POST, no redirects, at most 15 s. Raises EndpointUnreachable, EgressRefused."""


class RequireDialable(Protocol):
    def __call__(self, url: str) -> None:
        """Dials nobody. Raises EgressRefused for an address that must not be dialled, ResolverFailed where the name has
        none now."""


class Sign(Protocol):
    def __call__(
        self,
        *,
        event_id: str,
        event_type: str,
        timestamp_seconds: int,
        body: bytes,
        secrets: Sequence[SecretValue],
    ) -> Mapping[str, str]:
        """All headers of a webhook's POST; the secrets newest first."""


class ResponseLog(Protocol):
    """What receivers said, for whoever looks for a cause. It is gone after a while, and is in no event."""

    def keep(self, delivery_id: str, status: int, text: str) -> None:
        """In place of what was said to the attempt before. Raises StoreUnavailable."""


class Chance(Protocol):
    def __call__(self) -> float:
        """A random number in [0, 1)."""
