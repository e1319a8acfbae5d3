"""Placing orders for new certificate lines, and cancelling orders. Those for the next version of a line are placed by
`renewals.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from application.caller import Caller
from application.event_store import EventStore, Taken
from application.ports import Clock, Ids, PublicSuffixes
from application.process.todo import Claim
from application.rate_limits import RateLimits
from application.x509 import SigningRequest, read_csr
from domain.account import Account
from domain.certificate import Certificate
from domain.challenge import DNS_01, LONGEST_NAME
from domain.dns_provider import DnsProvider, ManagedZones, provider_for
from domain.errors import FieldProblem, InvalidFields, OrderInProgress, VersionConflict
from domain.names import base_name, names_for_certificate
from domain.order import Assignment, KeyType, Order
from domain.provenance import Provenance

MOST_LOOKS = 3
DEFAULT_KEY_TYPE: KeyType = "ec256"


class Directory(Protocol):
    """What the read models know that placing an order needs."""

    def managed_zones(self, tenant_id: str) -> Sequence[ManagedZones]: ...

    def running_order(self, account_id: str, dns_names: Sequence[str]) -> str | None: ...


class Orders:
    def __init__(
        self,
        store: EventStore,
        directory: Directory,
        suffixes: PublicSuffixes,
        rate_limits: RateLimits,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._directory = directory
        self._suffixes = suffixes
        self._rate_limits = rate_limits
        self._clock = clock
        self._ids = ids

    def place(
        self,
        *,
        account_id: str,
        domains: Sequence[str],
        challenge_type: str,
        auto_renew: bool,
        key_type: KeyType | None,
        csr_pem: str | None,
        profile: str | None,
        preferred_chain: str | None,
        dns_provider_id: str | None,
        name: str | None,
        caller: Caller,
    ) -> tuple[str, bool]:
        """The order's id, and whether it is new: the same account and names in progress give the running order. Without
        `csr_pem` a key is made here.

        Raises InvalidFields, NotFound (account, provider), Denied, AccountNotActive, CaLimitReached, OrderInProgress (for
        the same names with another key)."""
        dns_names = names_for_certificate(domains, self._suffixes.is_public_suffix)
        require_challenge_type(challenge_type, dns_names)
        account = self._store.load(Account, account_id, caller.tenant_id)
        account.require_active()
        caller.require_names(dns_names)
        certificate_id = self._ids.new("cert")
        caller.require_certificate(certificate_id)  # a token for certain certificates begins no others
        require_profile(account, profile)
        request = wanted_key(csr_pem, key_type, dns_names)
        if dns_provider_id is not None:
            self._store.load(DnsProvider, dns_provider_id, caller.tenant_id)
        running = self._directory.running_order(account_id, dns_names)
        if running is not None:
            return self._joined(running, request), False
        assignments = assigned(self._directory, caller.tenant_id, dns_names, dns_provider_id)
        cost = self._rate_limits.cost(account, dns_names)
        if all(assignment.dns_provider_id is not None for assignment in assignments):
            self._rate_limits.require_room(cost)
        order = Order.place(
            self._ids.new("acme_order"),
            tenant_id=caller.tenant_id,
            account_id=account_id,
            certificate_id=certificate_id,
            assignments=assignments,
            challenge_type=challenge_type,
            key_type=request.key_type,
            auto_renew=auto_renew,
            name=name,
            profile=profile,
            preferred_chain=preferred_chain,
            renewal_reason=None,
            kept_key_id=None,
            replaces=None,
            ca=account.directory_url,
            charges=cost.taken,
            csr_der=request.csr_der,
            now=self._clock.now(),
        )
        return self._record_or_join(order, request, caller.provenance)

    def cancel(self, order_id: str, caller: Caller) -> None:
        """Ends it; what was written to DNS is removed. Raises NotFound, Denied, OrderAlreadyEnded, VersionConflict."""
        order = self._store.load(Order, order_id, caller.tenant_id)
        caller.require_certificate(order.certificate_id)
        caller.require_names(order.dns_names)
        order.cancel(self._clock.now())
        record_order(self._store, order, caller.provenance)

    def _joined(self, order_id: str, request: SigningRequest) -> str:
        """Raises OrderInProgress where the certificate would be for another key than the one brought."""
        if self._store.load(Order, order_id).brought_csr_der != request.csr_der:
            raise OrderInProgress(order_id)
        return order_id

    def _record_or_join(self, order: Order, request: SigningRequest, by: Provenance) -> tuple[str, bool]:
        """Raises VersionConflict when orders for the same names come and go faster than we can look."""
        for _ in range(MOST_LOOKS):
            try:
                record_order(self._store, order, by)
            except Taken:
                running = self._directory.running_order(order.account_id, order.dns_names)
                if running is not None:
                    return self._joined(running, request), False
            else:
                return order.id, True
        raise VersionConflict


def assigned(
    directory: Directory, tenant_id: str, dns_names: Sequence[str], preferred_id: str | None
) -> tuple[Assignment, ...]:
    """Each name with the provider whose zones hold it now."""
    providers = directory.managed_zones(tenant_id)
    return tuple(Assignment(name, provider_for(name, providers, preferred_id)) for name in dns_names)


def record_order(
    store: EventStore,
    order: Order,
    by: Provenance,
    claim: Claim | None = None,
    companions: Sequence[Certificate] = (),
) -> bool:
    """Records the order with its companions, and with a renewal that failed the failure at its certificate, in one
    transaction. Says whether the claim is held for another step."""
    failures = [event for event in order.pending_events if isinstance(event, Order.Failed)]
    if failures and order.is_renewal:
        (certificate,) = companions or [store.load(Certificate, order.certificate_id)]
        certificate.renewal_failed(order.id, failures[0].error, failures[0].timestamp)
        companions = [certificate]
    return store.record(order, *companions, by=by, claim=claim)


def require_challenge_type(challenge_type: str, dns_names: Sequence[str]) -> None:
    problems = [
        FieldProblem(f"domains[{index}]", "too_long", f"dns-01 takes names of at most {LONGEST_NAME} characters")
        for index, name in enumerate(dns_names)
        if len(base_name(name)) > LONGEST_NAME
    ]
    if problems:
        raise InvalidFields(*problems)
    if challenge_type != DNS_01:
        wildcard = any(name.startswith("*.") for name in dns_names)
        reason = "a wildcard needs dns-01" if wildcard else "only dns-01 is there yet"
        raise InvalidFields(FieldProblem("challenge_type", "unsupported", reason))


def wanted_key(csr_pem: str | None, key_type: KeyType | None, dns_names: Sequence[str]) -> SigningRequest:
    """An empty request where the key is to be made here. Raises InvalidFields."""
    if csr_pem is None:
        return SigningRequest(b"", key_type or DEFAULT_KEY_TYPE)
    request = read_csr(csr_pem, dns_names)
    if key_type not in (None, request.key_type):
        raise InvalidFields(FieldProblem("key_type", "conflicting", f"the key of `csr_pem` is {request.key_type}"))
    return request


def require_profile(account: Account, profile: str | None) -> None:
    offered = [offer.name for offer in account.offer.profiles]
    if profile is not None and profile not in offered:
        known = ", ".join(offered) or "none"
        raise InvalidFields(FieldProblem("profile", "unknown", f"the CA offers {known}"))
