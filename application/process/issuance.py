"""From a placed order to a stored certificate, and every TXT value removed again.

Decide: `next_step`, from what the order knows. Perform: one port call per step. Report: the outcome goes back to the
order as a command. Every step may run twice: before something that must not happen twice is done again, the CA is
asked how things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Protocol

from application.accounts import Accounts
from application.certificates import SEALED_KIND
from application.delegations import Delegations
from application.dns_providers import DnsProviders, reason_of
from application.errors import (
    CaRefused,
    CaThrottled,
    CaUnavailable,
    EgressRefused,
    Failure,
    Permanent,
    ResolverFailed,
    Retryable,
    StoreUnavailable,
    ZoneConflict,
    ZoneRefused,
    ZoneThrottled,
    ZoneUnreachable,
)
from application.event_store import EventStore, History
from application.orders import record_order
from application.ports import CaAccount, CertificateAuthority, Clock, DnsZone, KeyStore, Resolver, TxtValue, Unseen
from application.process.todo import NO_LIMITS, Claim, Decision, LeaseLost, Step, logged_step
from application.provider_config import CommonConfig
from application.rate_limits import RateLimits
from application.x509 import CertificateRejected, key_of_csr, new_csr_der, new_private_key, read_chain
from domain.acme import OrderObject
from domain.certificate import Certificate, Version
from domain.errors import CaLimitReached, InvalidFields, NotFound, Refusal, SealBroken
from domain.order import Order, OrderError, OrderErrorCode, Record, UnseenRecord
from domain.provenance import Provenance, of_process
from domain.rate_limit import buckets_named_in

NAME = "issuance"


class SealKey(Step, frozen=True): ...


class PlaceAtCa(Step, frozen=True): ...


class ReadAuthorizations(Step, frozen=True): ...


class PublishRecords(Step, frozen=True): ...


class CheckPropagation(Step, frozen=True): ...


class AnswerChallenges(Step, frozen=True): ...


class FollowOrder(Step, frozen=True): ...


class Finalize(Step, frozen=True): ...


class StoreCertificate(Step, frozen=True): ...


class RemoveRecords(Step, frozen=True): ...


def next_step(order: Order) -> Step | None:
    """What to do next, or None when the order has ended and left nothing behind. Pure."""
    due_at = order.due_at
    if order.ended is not None:
        return RemoveRecords(due_at) if order.outstanding_records else None
    if not order.csr_der:
        return SealKey(due_at)
    if order.at_ca is None:
        return PlaceAtCa(due_at)
    if order.certificate_url is not None:
        return StoreCertificate(due_at)
    if order.is_finalized:
        return FollowOrder(due_at)
    if order.is_ready:
        return Finalize(due_at)
    return _next_for_challenges(order)


def _next_for_challenges(order: Order) -> Step:
    due_at = order.due_at
    if order.challenges is None:
        return ReadAuthorizations(due_at)
    if order.open_challenges and order.published_at is None:
        return PublishRecords(due_at)
    if order.open_challenges and not order.propagated:
        return CheckPropagation(due_at)
    if order.open_challenges and not order.is_answered:
        return AnswerChallenges(due_at)
    return FollowOrder(due_at)


DECISION = Decision(NAME, next_step)


class OtherOrders(Protocol):
    def is_shown_for_another(self, order_id: str, record_value: str) -> bool:
        """Whether another order in progress has the same TXT value to show."""

    def failed_renewals(self, certificate_id: str, most: int) -> Sequence[str]:
        """The latest orders for that line that ended without a certificate, the last one first."""


class Issuance:
    name = NAME

    def __init__(
        self,
        store: EventStore,
        history: History,
        keys: KeyStore,
        accounts: Accounts,
        ca: CertificateAuthority,
        providers: DnsProviders,
        resolver: Resolver,
        delegations: Delegations,
        others: OtherOrders,
        rate_limits: RateLimits,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._keys = keys
        self._accounts = accounts
        self._ca = ca
        self._providers = providers
        self._resolver = resolver
        self._delegations = delegations
        self._others = others
        self._rate_limits = rate_limits
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> None:
        """Steps of one order in a row, for as long as the claim is held. Raises what makes a report impossible:
        LeaseLost, VersionConflict, StoreUnavailable, SealBroken."""
        order = self._store.load(Order, claim.subject)
        origin = self._history.origin(order.id)
        first, is_held = True, True
        while is_held and (step := next_step(order)) is not None:
            with logged_step(step, order_id=order.id, request_id=origin.request_id):
                by = of_process(NAME, origin, order.id, order.version)
                # Before its first step a worker cannot know what another one, or a crash, left undone.
                is_held = self._perform_step(step, order, by, claim, again=first or order.setbacks > 0)
            first = False

    def give_up(self, claim: Claim) -> None:
        """An order that has ended is cleaned up for as long as it takes."""
        order = self._store.load(Order, claim.subject)
        if order.ended is None:
            by = self._by(order)
            order.fail(
                OrderError("backend_error", "the service failed at this order again and again"), self._clock.now()
            )
            record_order(self._store, order, by, claim)

    def _perform_step(self, step: Step, order: Order, by: Provenance, claim: Claim, *, again: bool) -> bool:
        try:
            companions = self._do(step, order, again=again)
        except (StoreUnavailable, SealBroken):  # ours to mend: the order waits
            raise
        except (Failure, Refusal) as problem:
            self._report_failure(order, step, problem, by)
            companions = ()
        try:
            return record_order(self._store, order, by, claim, companions)
        except LeaseLost:
            if isinstance(step, PublishRecords):
                self._take_back(order)
            raise

    def _do(self, step: Step, order: Order, *, again: bool) -> Sequence[Certificate]:
        """Performs the step and tells the order. Gives what is to be recorded together with it."""
        match step:
            case SealKey():
                self._seal_key(order)
            case PlaceAtCa():
                self._place_at_ca(order)
            case ReadAuthorizations():
                self._read_authorizations(order)
            case PublishRecords():
                self._publish(order)
            case CheckPropagation():
                self._check_propagation(order)
            case AnswerChallenges():
                self._answer(order, again=again)
            case FollowOrder():
                self._follow(order)
            case Finalize():
                self._finalize(order, again=again)
            case StoreCertificate():
                return self._store_certificate(order)
            case RemoveRecords():
                self._remove(order)
            case _:
                raise TypeError(f"no way to perform {step}")
        return ()

    def _seal_key(self, order: Order) -> None:
        if order.kept_key_id is not None:
            sealed_key_id = order.kept_key_id
            key_pem = self._keys.open(SEALED_KIND, order.tenant_id, order.certificate_id, sealed_key_id)
        else:
            key_pem = new_private_key(order.key_type)
            sealed_key_id = self._keys.seal(SEALED_KIND, order.tenant_id, order.certificate_id, key_pem)
        order.seal_key(sealed_key_id, new_csr_der(key_pem, order.dns_names), self._clock.now())

    def _place_at_ca(self, order: Order) -> None:
        self._rate_limits.require_unblocked(order)
        account, at_ca = self._accounts.at_ca(order.account_id)
        try:
            said = self._ca.new_order(at_ca, order.dns_names, order.profile, order.replaces)
        except CaRefused as refused:
            if order.replaces is None or refused.problem.name not in NO_REPLACEMENT:
                raise
            if not self._adopt_earlier(order, at_ca):
                cost = self._rate_limits.cost(account, order.dns_names)
                charges = tuple(bucket for bucket in cost.taken if bucket not in order.charges)
                order.replacement_refused(refused.problem, charges, self._clock.now())
        else:
            order.accept(said, self._clock.now())
            if account.status == "action_required":
                self._accounts.served(account, self._by(order))

    def _adopt_earlier(self, order: Order, at_ca: CaAccount) -> bool:
        """Whether what is replaced already is so by an order of ours for the same version, whose end we never learned of.
        Each is taken up once, and none whose certificate was no good."""
        failed = [
            self._store.load(Order, order_id)
            for order_id in self._others.failed_renewals(order.certificate_id, MOST_EARLIER)
        ]
        tried = {each.at_ca.url for each in failed if each.has_adopted and each.at_ca is not None}
        for earlier in failed:
            if (
                earlier.at_ca is None
                or earlier.at_ca.url in tried
                or earlier.replaces != order.replaces
                or earlier.failed_with == "certificate_rejected"
                or not is_for_the_key_of(earlier, order)
            ):
                continue
            try:
                said = self._ca.order(at_ca, earlier.at_ca.url)
            except CaRefused:  # the CA has forgotten it
                continue
            if said.status != "invalid":
                order.adopt(earlier, said, self._clock.now())
                return True
        return False

    def _read_authorizations(self, order: Order) -> None:
        account, at_ca = self._accounts.at_ca(order.account_id)
        authorizations = self._ca.authorizations(at_ca, _at_ca(order).authorization_urls)
        to_show = {each.dns_name for each in authorizations if each.status != "valid"}
        homes = self._delegations.homes(order, to_show)
        order.offer_challenges(authorizations, account.key_thumbprint, self._clock.now(), homes)

    def _publish(self, order: Order) -> None:
        for provider_id, records in _by_provider(order.outstanding_records).items():
            provider = self._providers.load(provider_id)
            zone, _ = self._providers.reach(provider)
            try:
                zone.add([TxtValue(record.name, record.value) for record in records])
                provider.served(self._clock.now())
            except ZoneRefused as refusal:
                provider.refused(refusal.reason, refusal.detail, self._clock.now())
                raise
            finally:
                if provider.pending_events:
                    self._providers.note(provider, self._by(order))
        now = self._clock.now()
        for record in order.outstanding_records:
            order.record_published(record, now)

    def _take_back(self, order: Order) -> None:
        """Whoever has the lease now may have come to the end before our values were written: then nobody else knows of
        them."""
        if self._store.load(Order, order.id).ended is not None:
            for zone, _, records in self._zones_of(order.outstanding_records):
                zone.remove([TxtValue(record.name, record.value) for record in records])

    def _check_propagation(self, order: Order) -> None:
        unseen: list[UnseenRecord] = []
        for zone, config, records in self._zones_of(order.outstanding_records):
            if config.propagation != "skip":
                late = self._unseen(records, config, order.published_at or self._clock.now())
                if late and order.setbacks == REPUBLISH_AFTER:  # somebody may have removed them
                    zone.add([TxtValue(record.name, record.value) for record in records])
                unseen += late
        order.observe_propagation(unseen, self._clock.now())

    def _unseen(self, records: Sequence[Record], config: CommonConfig, since: datetime) -> Sequence[UnseenRecord]:
        """A failure of the question itself is one only for as long as there is time to ask again."""
        by_value = {TxtValue(record.name, record.value): record for record in records}
        try:
            found = self._resolver.unseen(list(by_value), config.nameservers)
        except ResolverFailed as failure:
            if self._clock.now() < since + config.propagation_timeout:
                raise
            found = [Unseen(f"the name servers ({failure.detail})", each.record_name, each.value) for each in by_value]
        return [
            UnseenRecord(
                server=unseen.server,
                record=by_value[TxtValue(unseen.record_name, unseen.value)],
                strict=config.propagation == "strict",
                wait_for=config.propagation_timeout,
            )
            for unseen in found
        ]

    def _answer(self, order: Order, *, again: bool) -> None:
        _, account = self._accounts.at_ca(order.account_id)
        urls = [challenge.url for challenge in order.open_challenges]
        if again or order.answers:
            authorizations = self._ca.authorizations(account, _at_ca(order).authorization_urls)
            waiting = {
                challenge.url
                for authorization in authorizations
                for challenge in authorization.challenges
                if challenge.status == "pending"
            }
            urls = [url for url in urls if url in waiting]
        self._ca.answer(account, urls)
        order.challenges_answered(self._clock.now())

    def _follow(self, order: Order) -> None:
        _, account = self._accounts.at_ca(order.account_id)
        self._hear(order, account, self._ca.order(account, _at_ca(order).url))

    def _hear(self, order: Order, account: CaAccount, at_ca: OrderObject) -> None:
        """Where the order alone does not say what is wrong at which name, its authorizations are asked."""
        lingers = at_ca.status == "pending" and order.setbacks > 0
        authorizations = (
            self._ca.authorizations(account, _at_ca(order).authorization_urls)
            if lingers or at_ca.status == "invalid"
            else ()
        )
        order.follow(at_ca, authorizations, self._clock.now())

    def _finalize(self, order: Order, *, again: bool) -> None:
        _, account = self._accounts.at_ca(order.account_id)
        if again:
            at_ca = self._ca.order(account, _at_ca(order).url)
            if at_ca.status != "ready":
                self._hear(order, account, at_ca)
                return
        try:
            at_ca = self._ca.finalize(account, _at_ca(order), order.csr_der)
        except CaRefused as refused:
            if refused.problem.name != "orderNotReady":
                raise
            order.wait(None, self._clock.now())
        else:
            self._hear(order, account, at_ca)

    def _store_certificate(self, order: Order) -> Sequence[Certificate]:
        try:
            chain_pem = self._download(order)
            leaf = read_chain(chain_pem, order.csr_der, order.dns_names)
        except CertificateRejected as rejected:
            order.fail(OrderError("certificate_rejected", str(rejected)), self._clock.now())
            return ()
        now = self._clock.now()

        def version(number: int) -> Version:
            return Version(
                number=number,
                order_id=order.id,
                serial_number=leaf.serial_number,
                fingerprint_sha256=leaf.fingerprint_sha256,
                issuer=leaf.issuer,
                key_type=order.key_type,
                not_before=leaf.not_before,
                not_after=leaf.not_after,
                chain_pem=chain_pem,
                sealed_key_id=order.sealed_key_id,
            )

        try:
            certificate = self._store.load(Certificate, order.certificate_id)
            if leaf.fingerprint_sha256 in certificate.fingerprints:
                order.fail(OrderError("certificate_rejected", "the line has this certificate already"), now)
                return ()
            certificate.renew(version(certificate.next_number), order.renewal_reason or "requested", now)
        except NotFound:
            certificate = Certificate.issue(
                order.certificate_id,
                tenant_id=order.tenant_id,
                account_id=order.account_id,
                name=order.name,
                dns_names=order.dns_names,
                auto_renew=order.auto_renew,
                version=version(1),
                now=now,
            )
        order.complete(certificate.current.number, now)
        return (certificate,)

    def _download(self, order: Order) -> str:
        """Raises CertificateRejected when the CA has given no chain for long and yet answers other questions."""
        _, account = self._accounts.at_ca(order.account_id)
        try:
            return self._ca.chain(account, order.certificate_url or "", order.preferred_chain)
        except CaUnavailable as failure:
            if order.setbacks < MOST_DOWNLOADS:
                raise
            self._ca.order(account, _at_ca(order).url)  # raises in an outage, which says nothing about the chain
            raise CertificateRejected(failure.detail) from None

    def _remove(self, order: Order) -> None:
        """A provider that fails does not keep the values of the others. Raises the first failure, at the end."""
        failures: list[Failure | Refusal] = []
        for provider_id, records in _by_provider(order.outstanding_records).items():
            try:
                zone, _ = self._providers.reach(self._providers.load(provider_id))
                left = self._shown_for_others(order, records)
                zone.remove([TxtValue(record.name, record.value) for record in records if record not in left])
            except (Failure, Refusal) as failure:
                failures.append(failure)
                continue
            now = self._clock.now()
            for record in records:
                if record in left:
                    order.record_left(record, now)
                else:
                    order.record_removed(record, now)
        if failures:
            raise failures[0]

    def _shown_for_others(self, order: Order, records: Sequence[Record]) -> Sequence[Record]:
        """A CA that gives an unfinished order out again gives the same tokens again: then the other order removes them."""
        return [record for record in records if self._others.is_shown_for_another(order.id, record.value)]

    def _zones_of(self, records: Sequence[Record]) -> Sequence[tuple[DnsZone, CommonConfig, Sequence[Record]]]:
        """The zones of each provider and the records that they hold."""
        return [
            (*self._providers.reach(self._providers.load(provider_id)), mine)
            for provider_id, mine in _by_provider(records).items()
        ]

    def _report_failure(self, order: Order, step: Step, problem: Failure | Refusal, by: Provenance) -> None:
        now = self._clock.now()
        if order.ended is not None:  # cleaning up goes on until the values are gone
            wait = problem.retry_after_seconds if isinstance(problem, Retryable) else LONG_WAIT.total_seconds()
            order.wait(wait, now, OrderError("provider_error", str(problem)))
            return
        if isinstance(problem, CaRefused):
            of_account = OrderError("backend_error", problem.detail, problem=problem.problem)
            match self._accounts.refused(order.account_id, problem, by):
                case "ask_again":
                    order.wait(_patience(problem), now, of_account)
                case "account_lost":
                    order.fail(of_account, now)
                case "request_refused":
                    order.refused_by_ca(problem.problem, now)
            return
        match problem:
            case CaThrottled() if problem.problem.name == "rateLimited" and isinstance(step, PlaceAtCa):
                seconds = problem.retry_after_seconds or THROTTLED_OTHERWISE.total_seconds()
                for bucket in buckets_named_in(problem.problem, order.ca, order.account_id, order.dns_names):
                    order.throttled(bucket, now + timedelta(seconds=seconds), now)
                self._hold_back(
                    order, seconds, OrderError(RATE_LIMITED, problem.detail, ceil(seconds), problem.problem)
                )
            case CaLimitReached():
                seconds = problem.retry_after_seconds
                order.throttled(problem.bucket, problem.ready_at, now)  # the CA's word, met by an order before
                self._hold_back(order, seconds, OrderError(RATE_LIMITED, str(problem), seconds))
            case Retryable():
                order.wait(problem.retry_after_seconds, now, OrderError(_code_of(problem), problem.detail))
            case EgressRefused() if not isinstance(step, PublishRecords | CheckPropagation):
                order.fail(OrderError("backend_error", problem.detail), now)
            case Permanent():
                order.fail(OrderError(_code_of(problem), f"{reason_of(problem)}: {problem.detail}"), now)
            case InvalidFields():
                order.fail(OrderError("provider_error", str(problem)), now)
            case _:
                order.fail(OrderError("backend_error", str(problem)), now)

    def _by(self, order: Order) -> Provenance:
        return of_process(NAME, self._history.origin(order.id), order.id, order.version)

    def _hold_back(self, order: Order, seconds: float, error: OrderError) -> None:
        """Renewals wait for as long as it takes; whoever asked for an order is told."""
        if order.is_renewal:
            order.wait(seconds, self._clock.now(), error)
        else:
            order.fail(error, self._clock.now())


def _patience(refused: CaRefused) -> float:
    """How long a refusal is waited out that is the account's: somebody has to act, or its key was just being changed."""
    return SOMEBODY_ACTS_SECONDS if refused.problem.name == "userActionRequired" else 1.0


SOMEBODY_ACTS_SECONDS = 3600.0
RATE_LIMITED: OrderErrorCode = "backend_rate_limited"
THROTTLED_OTHERWISE = timedelta(hours=1)  # where the CA does not say until when
NO_REPLACEMENT = frozenset({"alreadyReplaced", "malformed", "unauthorized"})
"""What CAs say to a `replaces` that they do not take (RFC 9773 §5 names the first)."""
MOST_EARLIER = 3
LONG_WAIT = timedelta(minutes=1)
REPUBLISH_AFTER = 3
MOST_DOWNLOADS = 5  # a chain that is no chain comes as an answer that is no ACME, and no number of tries mends it


def is_for_the_key_of(earlier: Order, order: Order) -> bool:
    """Whoever brought a key wants a certificate for that one; of ours any will do."""
    brought = order.brought_csr_der
    return not brought or (bool(earlier.csr_der) and key_of_csr(earlier.csr_der) == key_of_csr(brought))


def _by_provider(records: Sequence[Record]) -> Mapping[str, Sequence[Record]]:
    """Each provider gets one change."""
    by_provider: dict[str, list[Record]] = {}
    for record in records:
        by_provider.setdefault(record.dns_provider_id, []).append(record)
    return by_provider


def _code_of(failure: Failure) -> OrderErrorCode:
    match failure:
        case ZoneRefused() | ZoneThrottled() | ZoneUnreachable() | ZoneConflict() | EgressRefused():
            return "provider_error"
        case _:
            return "backend_error"


def _at_ca(order: Order) -> OrderObject:
    if order.at_ca is None:
        raise ValueError(f"{order.id} is not at the CA yet")
    return order.at_ca
