"""Renewing certificates when they are due, and telling of those that near their end all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import assert_never

from application.event_store import EventStore, History, Taken
from application.orders import record_order
from application.ports import Clock
from application.process.todo import NO_LIMITS, Claim, Decision, Step, logged_step
from application.renewals import Renewals
from domain.certificate import Certificate
from domain.errors import AccountNotActive, CaLimitReached, InvalidFields
from domain.order import Order, OrderError, OrderErrorCode
from domain.provenance import Provenance, of_process
from domain.renewal import pace

NAME = "renewal"
LONGEST_LOOK = timedelta(minutes=1)


class BeginRenewal(Step, frozen=True): ...


class CallOff(Step, frozen=True): ...


class TellOfExpiry(Step, frozen=True): ...


class TellOfEnd(Step, frozen=True): ...


RenewalStep = BeginRenewal | CallOff | TellOfExpiry | TellOfEnd


def next_step(certificate: Certificate) -> RenewalStep | None:
    """The earliest of all. Pure."""
    return min(_steps(certificate), key=lambda step: step.due_at, default=None)


def _steps(certificate: Certificate) -> Iterator[RenewalStep]:
    if certificate.next_renewal is not None:
        yield BeginRenewal(certificate.next_renewal.at)
    if certificate.call_off_at is not None:
        yield CallOff(certificate.call_off_at)
    if not certificate.has_expired:
        warning = certificate.next_warning
        if warning is not None:
            yield TellOfExpiry(warning[1])
        yield TellOfEnd(certificate.current.not_after)


DECISION = Decision(NAME, next_step)


class Renewal:
    name = NAME

    def __init__(self, store: EventStore, history: History, renewals: Renewals, clock: Clock) -> None:
        self._store = store
        self._history = history
        self._renewals = renewals
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> timedelta | None:
        certificate = self._store.load(Certificate, claim.subject)
        step = next_step(certificate)
        if step is None:
            return None
        early = step.due_at - self._clock.now()
        if early > timedelta():  # it has changed since it was claimed
            return min(early, LONGEST_LOOK)
        with logged_step(step, certificate_id=certificate.id):
            return self._perform(step, certificate, claim)

    def give_up(self, claim: Claim) -> None:
        """A renewal that cannot even be begun has failed, and is tried again as any other."""
        certificate = self._store.load(Certificate, claim.subject)
        if isinstance(next_step(certificate), BeginRenewal):
            error = OrderError("backend_error", "the service failed at this renewal again and again")
            certificate.renewal_failed(None, error, self._clock.now())
            self._store.record(certificate, by=self._by(certificate), claim=claim)

    def _perform(self, step: RenewalStep, certificate: Certificate, claim: Claim) -> timedelta | None:
        now = self._clock.now()
        match step:
            case BeginRenewal():
                if not certificate.hold_renewal(now):
                    return self._begin(certificate, claim)
            case CallOff() if certificate.renewing is not None:
                return self._call_off(certificate.renewing.order_id, certificate, claim)
            case CallOff():
                return None
            case TellOfExpiry() if now < certificate.current.not_after:
                certificate.near_expiry(now)
            case TellOfExpiry():  # nobody told of it in time
                certificate.expire(now)
            case TellOfEnd():
                certificate.expire(now)
            case _:
                assert_never(step)
        self._store.record(certificate, by=self._by(certificate), claim=claim)
        return None

    def _begin(self, certificate: Certificate, claim: Claim) -> timedelta | None:
        by = self._by(certificate)
        try:
            self._renewals.begin_by_itself(certificate, by, claim)
        except CaLimitReached as limit:
            certificate.postpone_renewal(limit.bucket, limit.ready_at, self._clock.now())
            self._store.record(certificate, by=by, claim=claim)
        except (AccountNotActive, InvalidFields) as refusal:  # nobody but its owner has another key
            code: OrderErrorCode = "backend_error" if isinstance(refusal, AccountNotActive) else "certificate_rejected"
            certificate.renewal_failed(None, OrderError(code, str(refusal)), self._clock.now())
            self._store.record(certificate, by=by, claim=claim)
        except Taken:  # somebody's order for the same names is in progress
            return self._wait_for_others(certificate.id, claim)
        return None

    def _wait_for_others(self, certificate_id: str, claim: Claim) -> timedelta | None:
        """What is to be told meanwhile is told."""
        certificate, now = self._store.load(Certificate, certificate_id), self._clock.now()
        certificate.near_expiry(now)
        if now >= certificate.current.not_after:
            certificate.expire(now)
        if certificate.pending_events:
            self._store.record(certificate, by=self._by(certificate), claim=claim)
            return None
        return LONGEST_LOOK * pace(certificate.current.lifetime)

    def _call_off(self, order_id: str, certificate: Certificate, claim: Claim) -> timedelta | None:
        """An order that takes too long makes room for another while there is time for one."""
        order = self._store.load(Order, order_id)
        if order.ended is None:
            error = OrderError("order_expired", "the order took too long for what is left of the certificate")
            order.fail(error, self._clock.now())
            record_order(self._store, order, self._by(certificate), claim, [certificate])
            return None
        certificate.renewal_failed(order_id, OrderError("order_expired", "the order has ended"), self._clock.now())
        self._store.record(certificate, by=self._by(certificate), claim=claim)
        return None

    def _by(self, certificate: Certificate) -> Provenance:
        return of_process(NAME, self._history.origin(certificate.id), certificate.id, certificate.version)
