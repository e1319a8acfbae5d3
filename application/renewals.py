"""Renewing certificates: an order for the next version of a line, on request or by itself, and what it costs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from application.caller import Caller
from application.certificates import load_certificate
from application.event_store import EventStore, Taken
from application.orders import MOST_LOOKS, Directory, assigned, record_order
from application.ports import Clock, Ids
from application.process.todo import Claim
from application.rate_limits import RateLimits
from application.x509 import key_of_chain, key_of_csr, read_csr
from domain.account import Account
from domain.certificate import Certificate
from domain.errors import FieldProblem, InvalidFields, OrderInProgress, VersionConflict
from domain.order import KeyType, Order
from domain.provenance import Provenance
from domain.rate_limit import Cost


class Placed(msgspec.Struct, frozen=True):
    """`is_new` is False for an order that was in progress already; then `cost` is None: it adds nothing. `ca` is the
    directory's URL."""

    order_id: str
    is_new: bool
    ca: str = ""
    cost: Cost | None = None


class NextKey(msgspec.Struct, frozen=True):
    """Of the next version: to be made here, or kept here, or somebody's who brought its request."""

    key_type: KeyType
    csr_der: bytes = b""
    kept_key_id: str | None = None


class Renewals:
    def __init__(
        self, store: EventStore, directory: Directory, rate_limits: RateLimits, clock: Clock, ids: Ids
    ) -> None:
        self._store = store
        self._directory = directory
        self._rate_limits = rate_limits
        self._clock = clock
        self._ids = ids

    def renew(
        self,
        certificate_id: str,
        *,
        reason: str,
        caller: Caller,
        new_key: bool | None = None,
        csr_pem: str | None = None,
    ) -> Placed:
        """An order for the line's next version, for the same names, or the one in progress. `new_key` and `csr_pem` as for
        `_key`. Raises NotFound, Denied, InvalidFields, OrderInProgress (for the same names under another line, or with
        another key than the one brought), CaLimitReached, and VersionConflict when the line changes, or orders for the same
        names come and go, faster than we can look."""
        for _ in range(MOST_LOOKS):
            certificate = load_certificate(self._store, certificate_id, caller)
            key = self._key(certificate, new_key=new_key, csr_pem=csr_pem)
            brought = b"" if csr_pem is None else key.csr_der
            if certificate.renewing is not None:
                return self._joined(certificate.renewing.order_id, certificate, brought)
            try:
                return self._begin(certificate, reason, caller.provenance, key, automatic=False)
            except VersionConflict:  # somebody else has begun one, or the CA's window was seen
                continue
            except Taken:
                running = self._directory.running_order(certificate.account_id, certificate.dns_names)
                if running is not None:
                    return self._joined(running, certificate, brought)
        raise VersionConflict

    def begin_by_itself(self, certificate: Certificate, by: Provenance, claim: Claim) -> None:
        """Raises AccountNotActive, InvalidFields (`csr_pem`), CaLimitReached, OrderInProgress, VersionConflict, and Taken:
        an order for the same names is in progress."""
        key = self._key(certificate, new_key=None, csr_pem=None)
        self._begin(certificate, certificate.plan.rule, by, key, automatic=True, claim=claim)

    def _begin(
        self,
        certificate: Certificate,
        reason: str,
        by: Provenance,
        key: NextKey,
        *,
        automatic: bool,
        claim: Claim | None = None,
    ) -> Placed:
        now = self._clock.now()
        account, cost = self.cost(certificate, now)
        account.require_active()
        self._rate_limits.require_room(cost)
        first = self._store.load(Order, certificate.versions[0].order_id)
        order = Order.place(
            self._ids.new("acme_order"),
            tenant_id=certificate.tenant_id,
            account_id=certificate.account_id,
            certificate_id=certificate.id,
            assignments=assigned(
                self._directory, certificate.tenant_id, certificate.dns_names, first.provider_of_first_name
            ),
            challenge_type=first.challenge_type,
            key_type=key.key_type,
            auto_renew=certificate.auto_renew,
            name=certificate.name,
            profile=first.profile,
            preferred_chain=first.preferred_chain,
            renewal_reason=reason,
            kept_key_id=key.kept_key_id,
            replaces=certificate.replaceable,
            ca=account.directory_url,
            charges=cost.taken,
            csr_der=key.csr_der,
            now=now,
        )
        certificate.begin_renewal(order.id, reason, now, automatic=automatic)
        record_order(self._store, order, by, claim, [certificate])
        return Placed(order.id, is_new=True, ca=account.directory_url, cost=cost)

    def _joined(self, order_id: str, certificate: Certificate, brought_csr_der: bytes) -> Placed:
        order = self._store.load(Order, order_id)
        if order.certificate_id != certificate.id or brought_csr_der not in (b"", order.brought_csr_der):
            raise OrderInProgress(order_id)
        return Placed(order_id, is_new=False)

    def _key(self, certificate: Certificate, *, new_key: bool | None, csr_pem: str | None) -> NextKey:
        """That of `csr_pem`; where none is brought, one that is made here, or with `new_key` False the one of the current
        version. Where that is not ours, its request is used again. Raises InvalidFields."""
        current = certificate.current
        if csr_pem is not None:
            if new_key is False:
                raise InvalidFields(FieldProblem("new_key", "conflicting", "the key is that of `csr_pem`"))
            request = read_csr(csr_pem, certificate.dns_names)
            key = NextKey(request.key_type, request.csr_der)
            public_key = key_of_csr(request.csr_der)
        elif current.sealed_key_id is None:
            if new_key:
                raise InvalidFields(
                    FieldProblem("csr_pem", "required", "the key is not here: bring a new one's request")
                )
            key = NextKey(current.key_type, self._store.load(Order, current.order_id).csr_der)
            public_key = key_of_chain(current.chain_pem)
        elif new_key is False:
            key = NextKey(current.key_type, kept_key_id=current.sealed_key_id)
            public_key = key_of_chain(current.chain_pem)
        else:
            return NextKey(current.key_type)
        burnt = [certificate.version_numbered(number).chain_pem for number in certificate.compromised_versions]
        if public_key in map(key_of_chain, burnt):
            field = "new_key" if key.kept_key_id else "csr_pem"
            raise InvalidFields(FieldProblem(field, "compromised", "its key was revoked as compromised: use another"))
        return key

    def cost(self, certificate: Certificate, now: datetime) -> tuple[Account, Cost]:
        """Its account, and the cost of renewing it at that moment."""
        account = self._store.load(Account, certificate.account_id)
        suggestion = certificate.suggestion if certificate.replaceable is not None else None
        in_window = suggestion is not None and suggestion.window.takes(now)
        return account, self._rate_limits.cost(account, certificate.dns_names, in_window=in_window)

    def release(self, certificate_id: str, reason: str, caller: Caller) -> None:
        """Lifts the breaker that holds the renewals of a line. Raises NotFound, Denied."""
        certificate = load_certificate(self._store, certificate_id, caller)
        certificate.release_renewal(reason, self._clock.now())
        self._store.record(certificate, by=caller.provenance)
