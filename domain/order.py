"""An order for one certificate, from the request to the last TXT value removed (RFC 8555 §7.4).

The order follows what the CA says about it. Values are removed after the end too, so an order that ended still acts
until `outstanding_records` is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, assert_never

from eventsourcing.domain import BaseAggregate

from domain.acme import AuthorizationObject, ChallengeStatus, OrderObject, Problem
from domain.challenge import dns01_record_name, dns01_record_value
from domain.errors import OrderAlreadyEnded, OrderInProgress
from domain.event import DomainEvent, InitialEvent
from domain.names import base_name
from domain.rate_limit import Bucket, Entry, entries_after_failure, entries_after_success

KeyType = Literal["ec256", "ec384", "rsa2048", "rsa3072", "rsa4096"]
OrderErrorCode = Literal[
    "zone_not_managed",
    "provider_error",
    "propagation_timeout",
    "challenge_failed",
    "caa_forbids",
    "rejected_identifier",
    "backend_rate_limited",
    "backend_error",
    "order_expired",
    "cancelled",
    "certificate_rejected",
]

Phase = Literal[
    "placing", "publishing", "propagating", "validating", "finalizing", "downloading", "cleaning_up", "done"
]

PLACING_MAY_TAKE = timedelta(hours=24)  # how long a CA may be out of reach before an order for it is given up
FOLLOWING_MAY_TAKE = timedelta(days=7)  # where the CA names no end (`expires`)
FIRST_LOOK = timedelta(milliseconds=200)  # after the CA was given something to work on
LONGEST_WAIT = timedelta(minutes=5)
LONGEST_WHEN_TOLD = timedelta(seconds=30)  # beyond what the CA asked for, where it said when to look again
MOST_ANSWERS = 3  # a challenge may be answered again while the CA leaves it pending with an error (RFC 8555 §8.2)


@dataclass(frozen=True)
class Assignment:
    """Which provider's zones hold a name; None when no active one manages it."""

    dns_name: str
    dns_provider_id: str | None


@dataclass(frozen=True)
class Record:
    """One TXT value in one provider's zones. `name` is absolute, without the final dot."""

    dns_provider_id: str
    name: str
    value: str


@dataclass(frozen=True)
class Home:
    """Where the CNAME at a challenge's name leads: the record's name there, and whose zones hold it. None where nobody's do:
    `obstacle` says why."""

    record_name: str
    dns_provider_id: str | None
    obstacle: str = ""


NO_ALIASES: Mapping[str, Home] = {}


@dataclass(frozen=True)
class Challenge:
    """`dns_name` is without the wildcard's `*.`. `record` is None where nothing has to be shown."""

    dns_name: str
    wildcard: bool
    type: str
    url: str
    status: ChallengeStatus
    record: Record | None


@dataclass(frozen=True)
class ErrorAtName:
    """What went wrong at one name; `dns_name` as ordered, with a wildcard's `*.`."""

    dns_name: str
    code: OrderErrorCode
    message: str
    problem: Problem | None = None


@dataclass(frozen=True)
class OrderError:
    code: OrderErrorCode
    message: str
    retry_after_seconds: int | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class UnseenRecord:
    """A value that `server` does not serve yet, and what its provider's settings say about waiting for it."""

    server: str
    record: Record
    strict: bool
    wait_for: timedelta


def _without_ledger(fields: dict[str, Any]) -> None:
    """The first form was of a time when rate limits were not reckoned."""
    fields["ledger"] = ()


class Order(BaseAggregate[str]):
    TOPIC = "order"

    class Event(DomainEvent):
        pass

    class Placed(InitialEvent, Event):
        """`certificate_id` is the line that the certificate will join; `renewal_reason` is None for the first of a line.
        `replaces` is the ARI id of the certificate that is renewed (RFC 9773 §5). `ca` is the directory's URL, `charges` are
        the buckets of its rate limits out of which the order takes. `csr_der` is the request that somebody brought whose key
        is not ours; empty where a key is made here."""

        TOPIC = "order.placed"
        class_version = 3
        tenant_id: str
        account_id: str
        certificate_id: str
        assignments: tuple[Assignment, ...]
        challenge_type: str
        key_type: KeyType
        auto_renew: bool
        name: str | None
        profile: str | None
        preferred_chain: str | None
        renewal_reason: str | None
        kept_key_id: str | None
        replaces: str | None
        ca: str
        charges: tuple[Bucket, ...]
        csr_der: bytes

        @staticmethod
        def upcast_v1_v2(fields: dict[str, Any]) -> None:
            fields.update(replaces=None, ca="", charges=())

        @staticmethod
        def upcast_v2_v3(fields: dict[str, Any]) -> None:
            fields["csr_der"] = b""

    class KeySealed(Event):
        """The leaf's key is stored; only now may its CSR leave the process."""

        TOPIC = "order.key_sealed"
        sealed_key_id: str
        csr_der: bytes

        def apply(self, aggregate: Order) -> None:
            aggregate.sealed_key_id = self.sealed_key_id
            aggregate.csr_der = self.csr_der
            aggregate.progressed(self.timestamp)

    class Accepted(Event):
        """The CA took the order and gave it a URL."""

        TOPIC = "order.accepted"
        order: OrderObject

        def apply(self, aggregate: Order) -> None:
            aggregate.at_ca = self.order
            aggregate.give_up_at = self.order.expires_at or self.timestamp + FOLLOWING_MAY_TAKE
            aggregate.progressed(self.timestamp)

    class Throttled(Event):
        """The CA takes nothing for that bucket before `until`; what follows from it for this order comes next."""

        TOPIC = "order.throttled"
        bucket: Bucket
        until: datetime

    class ReplacementRefused(Event):
        """The CA does not take the order as a renewal: it is placed again as any other, and counts for the `charges`."""

        TOPIC = "order.replacement_refused"
        problem: Problem
        charges: tuple[Bucket, ...]

        def apply(self, aggregate: Order) -> None:
            aggregate.replaces = None
            aggregate.charges = (*aggregate.charges, *self.charges)
            aggregate.progressed(self.timestamp)

    class Adopted(Event):
        """An earlier order of ours for the same names goes on at the CA, or was fulfilled, without our learning of it: its
        certificate, for its key, is what this order was to bring."""

        TOPIC = "order.adopted"
        order_id: str
        order: OrderObject
        sealed_key_id: str | None
        csr_der: bytes

        def apply(self, aggregate: Order) -> None:
            aggregate.at_ca = self.order
            aggregate.has_adopted = True
            aggregate.sealed_key_id = self.sealed_key_id
            aggregate.csr_der = self.csr_der
            aggregate.give_up_at = self.order.expires_at or self.timestamp + FOLLOWING_MAY_TAKE
            aggregate.progressed(self.timestamp)

    class ChallengesOffered(Event):
        """What has to be shown where. From here on the values count as written, whether or not the writing succeeds."""

        TOPIC = "order.challenges_offered"
        challenges: tuple[Challenge, ...]

        def apply(self, aggregate: Order) -> None:
            aggregate.challenges = self.challenges
            aggregate.outstanding_records = tuple(
                dict.fromkeys(challenge.record for challenge in self.challenges if challenge.record is not None)
            )
            aggregate.progressed(self.timestamp)

    class RecordPublished(Event):
        TOPIC = "order.record_published"
        record: Record

        def apply(self, aggregate: Order) -> None:
            aggregate.published_at = self.timestamp
            aggregate.progressed(self.timestamp)

    class RecordsPropagated(Event):
        """`unseen` names servers that were not waited for any longer, as the provider's settings allow."""

        TOPIC = "order.records_propagated"
        unseen: tuple[str, ...]

        def apply(self, aggregate: Order) -> None:
            aggregate.propagated = True
            aggregate.progressed(self.timestamp)

    class ChallengesAnswered(Event):
        TOPIC = "order.challenges_answered"
        look_at: datetime

        def apply(self, aggregate: Order) -> None:
            aggregate.is_answered = True
            aggregate.answers += 1
            aggregate.progressed(self.look_at)

    class ChallengesReopened(Event):
        """The CA left challenges pending with an error: they are to be answered again."""

        TOPIC = "order.challenges_reopened"
        problem: Problem
        answer_at: datetime

        def apply(self, aggregate: Order) -> None:
            aggregate.is_answered = False
            aggregate.due_at = self.answer_at

    class BecameReady(Event):
        TOPIC = "order.became_ready"

        def apply(self, aggregate: Order) -> None:
            aggregate.is_ready = True
            aggregate.progressed(self.timestamp)

    class Finalized(Event):
        TOPIC = "order.finalized"
        look_at: datetime

        def apply(self, aggregate: Order) -> None:
            aggregate.is_finalized = True
            aggregate.progressed(self.look_at)

    class Issued(Event):
        TOPIC = "order.issued"
        certificate_url: str

        def apply(self, aggregate: Order) -> None:
            aggregate.is_finalized = True
            aggregate.certificate_url = self.certificate_url
            aggregate.progressed(self.timestamp)

    class Completed(Event):
        """Chain and key are stored as `version` of the certificate line. `ledger` is what it does to rate limits."""

        TOPIC = "order.completed"
        class_version = 2
        certificate_id: str
        version: int
        ledger: tuple[Entry, ...]

        upcast_v1_v2 = staticmethod(_without_ledger)

        def apply(self, aggregate: Order) -> None:
            aggregate.ended = "valid"
            aggregate.progressed(self.timestamp)

    class Failed(Event):
        TOPIC = "order.failed"
        class_version = 2
        dns_names: tuple[str, ...]
        error: OrderError
        name_errors: tuple[ErrorAtName, ...]
        ledger: tuple[Entry, ...]

        upcast_v1_v2 = staticmethod(_without_ledger)

        def apply(self, aggregate: Order) -> None:
            aggregate.ended = "invalid"
            aggregate.failed_with = self.error.code
            aggregate.progressed(self.timestamp)

    class RecordRemoved(Event):
        """`outstanding` says how many of the order's values are still to be removed."""

        TOPIC = "order.record_removed"
        record: Record
        outstanding: int

        def apply(self, aggregate: Order) -> None:
            aggregate.without_record(self.record, self.timestamp)

    class RecordLeft(Event):
        """Another order shows the same value, and removes it; `outstanding` as above."""

        TOPIC = "order.record_left"
        record: Record
        outstanding: int

        def apply(self, aggregate: Order) -> None:
            aggregate.without_record(self.record, self.timestamp)

    class Postponed(Event):
        """Nothing to do before `until`. `error` is None where waiting is the normal course of the phase."""

        TOPIC = "order.postponed"
        phase: Phase
        until: datetime
        error: OrderError | None

        def apply(self, aggregate: Order) -> None:
            aggregate.due_at = self.until
            aggregate.setbacks += 1

    def __init__(
        self,
        tenant_id: str,
        account_id: str,
        certificate_id: str,
        assignments: tuple[Assignment, ...],
        challenge_type: str,
        key_type: KeyType,
        auto_renew: bool,
        name: str | None,
        profile: str | None,
        preferred_chain: str | None,
        renewal_reason: str | None,
        kept_key_id: str | None,
        replaces: str | None,
        ca: str,
        charges: tuple[Bucket, ...],
        csr_der: bytes,
        timestamp: datetime,
    ) -> None:
        self.tenant_id = tenant_id
        self.account_id = account_id
        self.certificate_id = certificate_id
        self.assignments = assignments
        self.challenge_type = challenge_type
        self.key_type = key_type
        self.auto_renew = auto_renew
        self.name = name
        self.profile = profile
        self.preferred_chain = preferred_chain
        self.renewal_reason = renewal_reason
        self.kept_key_id = kept_key_id
        self.replaces = replaces
        self.ca = ca
        self.charges = charges
        self.csr_der = csr_der
        self.give_up_at = timestamp + PLACING_MAY_TAKE
        self.due_at = timestamp
        self.setbacks = 0
        self.sealed_key_id: str | None = None
        self.at_ca: OrderObject | None = None
        self.challenges: tuple[Challenge, ...] | None = None
        self.published_at: datetime | None = None
        self.outstanding_records: tuple[Record, ...] = ()
        self.propagated = False
        self.answers = 0
        self.is_answered = False
        self.is_ready = False
        self.is_finalized = False
        self.certificate_url: str | None = None
        self.ended: Literal["valid", "invalid"] | None = None
        self.failed_with: OrderErrorCode | None = None
        self.has_adopted = False

    @classmethod
    def place(
        cls,
        order_id: str,
        *,
        tenant_id: str,
        account_id: str,
        certificate_id: str,
        assignments: tuple[Assignment, ...],
        challenge_type: str,
        key_type: KeyType,
        auto_renew: bool,
        name: str | None,
        profile: str | None,
        preferred_chain: str | None,
        renewal_reason: str | None,
        kept_key_id: str | None,
        replaces: str | None,
        ca: str,
        charges: tuple[Bucket, ...],
        csr_der: bytes,
        now: datetime,
    ) -> Order:
        """A name without a provider ends the order at once, before the CA is asked."""
        order = cls._create(
            cls.Placed,
            id=order_id,
            timestamp=now,
            tenant_id=tenant_id,
            account_id=account_id,
            certificate_id=certificate_id,
            assignments=assignments,
            challenge_type=challenge_type,
            key_type=key_type,
            auto_renew=auto_renew,
            name=name,
            profile=profile,
            preferred_chain=preferred_chain,
            renewal_reason=renewal_reason,
            kept_key_id=kept_key_id,
            replaces=replaces,
            ca=ca,
            charges=charges,
            csr_der=csr_der,
        )
        homeless = [assignment.dns_name for assignment in assignments if assignment.dns_provider_id is None]
        if homeless:
            message = "no active DNS provider manages this name"
            order.fail(
                OrderError("zone_not_managed", f"no active DNS provider manages {', '.join(homeless)}"),
                now,
                [ErrorAtName(dns_name, "zone_not_managed", message) for dns_name in homeless],
            )
        return order

    @property
    def dns_names(self) -> tuple[str, ...]:
        return tuple(assignment.dns_name for assignment in self.assignments)

    @property
    def provider_of_first_name(self) -> str | None:
        return self.assignments[0].dns_provider_id

    @property
    def is_renewal(self) -> bool:
        return self.renewal_reason is not None

    @property
    def brought_csr_der(self) -> bytes:
        """Empty where the key is ours."""
        return self.csr_der if self.sealed_key_id is None else b""

    @property
    def phase(self) -> Phase:
        """How far the order has come."""
        reached: tuple[tuple[object, Phase], ...] = (
            (self.ended is not None, "cleaning_up" if self.outstanding_records else "done"),
            (self.certificate_url, "downloading"),
            (self.is_ready or self.is_finalized, "finalizing"),
            (self.is_answered or self.propagated, "validating"),
            (self.published_at, "propagating"),
            (self.at_ca, "publishing"),
            (True, "placing"),
        )
        return next(phase for is_reached, phase in reached if is_reached)

    @property
    def open_challenges(self) -> tuple[Challenge, ...]:
        """Those that still have to be shown to the CA."""
        return tuple(challenge for challenge in self.challenges or () if challenge.record is not None)

    def without_record(self, record: Record, due_at: datetime) -> None:
        self.outstanding_records = tuple(known for known in self.outstanding_records if known != record)
        self.progressed(due_at)

    def progressed(self, due_at: datetime) -> None:
        self.due_at = due_at
        self.setbacks = 0

    def seal_key(self, sealed_key_id: str, csr_der: bytes, now: datetime) -> None:
        self._refuse_if_ended()
        if not self.csr_der:
            self.trigger_event(self.KeySealed, sealed_key_id=sealed_key_id, csr_der=csr_der, timestamp=now)

    def accept(self, at_ca: OrderObject, now: datetime) -> None:
        """The CA's answer to newOrder. It may be `ready` at birth when every name was authorized before."""
        self._refuse_if_ended()
        if self.at_ca is None:
            self.trigger_event(self.Accepted, order=at_ca, timestamp=now)
        if at_ca.status != "pending":
            self.follow(at_ca, (), now)

    def throttled(self, bucket: Bucket, until: datetime, now: datetime) -> None:
        """The CA said so; what becomes of the order is another command."""
        self._refuse_if_ended()
        self.trigger_event(self.Throttled, bucket=bucket, until=until, timestamp=now)

    def replacement_refused(self, problem: Problem, charges: tuple[Bucket, ...], now: datetime) -> None:
        """To be placed again, without `replaces`."""
        self._refuse_if_ended()
        if self.replaces is not None:
            self.trigger_event(self.ReplacementRefused, problem=problem, charges=charges, timestamp=now)

    def adopt(self, earlier: Order, at_ca: OrderObject, now: datetime) -> None:
        """Takes over what an earlier order for the same names, which ended here, has become at the CA since."""
        self._refuse_if_ended()
        self.trigger_event(
            self.Adopted,
            order_id=earlier.id,
            order=at_ca,
            sealed_key_id=earlier.sealed_key_id,
            csr_der=earlier.csr_der,
            timestamp=now,
        )
        if at_ca.status != "pending":
            self.follow(at_ca, (), now)

    def offer_challenges(
        self,
        authorizations: Sequence[AuthorizationObject],
        key_thumbprint: str,
        now: datetime,
        homes: Mapping[str, Home] = NO_ALIASES,
    ) -> None:
        """What the CA's authorizations ask to be shown. `homes` are, by base name, those whose challenge's name is an alias.
        Fails the order where a name offers no usable challenge, was not ordered and would have to be shown, or leads where
        nothing can be shown."""
        self._refuse_if_ended()
        if self.challenges is not None:
            return
        astray = [
            ErrorAtName(_as_ordered(each), "zone_not_managed", homes[each.dns_name].obstacle)
            for each in authorizations
            if each.status != "valid" and each.dns_name in homes and homes[each.dns_name].dns_provider_id is None
        ]
        if astray:
            self.fail(OrderError("zone_not_managed", f"{astray[0].dns_name}: {astray[0].message}"), now, astray)
            return
        ordered = {base_name(dns_name) for dns_name in self.dns_names}
        challenges = []
        for authorization in authorizations:
            if authorization.status != "valid" and authorization.dns_name not in ordered:
                detail = f"the CA asks for {authorization.dns_name}, which was not ordered"
                self.fail(OrderError("backend_error", detail), now)
                return
            challenge = self._challenge_of(authorization, key_thumbprint, homes.get(authorization.dns_name))
            if challenge is None:
                detail = f"the CA offers no {self.challenge_type} challenge for {authorization.dns_name}"
                self.fail(OrderError("backend_error", detail), now)
                return
            challenges.append(challenge)
        self.trigger_event(self.ChallengesOffered, challenges=tuple(challenges), timestamp=now)
        self._fail_if_any_was_rejected(authorizations, now)

    def record_published(self, record: Record, now: datetime) -> None:
        self._refuse_if_ended()
        self.trigger_event(self.RecordPublished, record=record, timestamp=now)

    def observe_propagation(self, unseen: Sequence[UnseenRecord], now: datetime) -> None:
        """Goes on when every server shows every value, or when a provider's settings do not let us wait longer."""
        self._refuse_if_ended()
        since = self.published_at or now
        late = [record for record in unseen if now >= since + record.wait_for]
        if any(record.strict for record in late):
            servers = ", ".join(sorted({record.server for record in late if record.strict}))
            error = OrderError("propagation_timeout", f"the TXT values did not appear on {servers}")
            self.fail(error, now, self._errors_at({record.record for record in late if record.strict}, error))
        elif len(late) == len(unseen):
            servers_left = tuple(sorted({record.server for record in late}))
            self.trigger_event(self.RecordsPropagated, unseen=servers_left, timestamp=now)
        else:
            self.wait(None, now, at_most_until=min(since + record.wait_for for record in unseen if record not in late))

    def challenges_answered(self, now: datetime) -> None:
        self._refuse_if_ended()
        self.trigger_event(self.ChallengesAnswered, look_at=now + FIRST_LOOK, timestamp=now)

    def follow(self, at_ca: OrderObject, authorizations: Sequence[AuthorizationObject], now: datetime) -> None:
        """What the CA says of the order now, and of its authorizations where they were asked for (RFC 8555 §7.1.6)."""
        self._refuse_if_ended()
        match at_ca.status:
            case "pending":
                self._follow_pending(at_ca, authorizations, now)
            case "ready":
                if self.is_ready:
                    self.wait(at_ca.retry_after_seconds, now)
                else:
                    self.trigger_event(self.BecameReady, timestamp=now)
            case "processing":
                if not self.is_finalized:
                    look_at = now + max(FIRST_LOOK, timedelta(seconds=at_ca.retry_after_seconds or 0))
                    self.trigger_event(self.Finalized, look_at=min(look_at, self.give_up_at), timestamp=now)
                else:
                    self.wait(at_ca.retry_after_seconds, now)
            case "valid":
                if at_ca.certificate_url is None:
                    self.fail(OrderError("backend_error", "the CA says valid but names no certificate"), now)
                else:
                    self.trigger_event(self.Issued, certificate_url=at_ca.certificate_url, timestamp=now)
            case "invalid":
                self._follow_invalid(at_ca, authorizations, now)
            case _:
                assert_never(at_ca.status)

    def complete(self, version: int, now: datetime) -> None:
        self._refuse_if_ended()
        ledger = entries_after_success(self.ca, self.account_id, self.charges, self.dns_names)
        self.trigger_event(
            self.Completed, certificate_id=self.certificate_id, version=version, ledger=ledger, timestamp=now
        )

    def fail(
        self,
        error: OrderError,
        now: datetime,
        name_errors: Sequence[ErrorAtName] = (),
        *,
        lost_names: Sequence[str] = (),
        may_be_issued: bool = True,
    ) -> None:
        """`lost_names` are those whose authorization failed at the CA. Once finalized, it may have issued, unless it says
        that it has not."""
        self._refuse_if_ended()
        ledger = entries_after_failure(
            self.ca,
            self.account_id,
            self.charges,
            lost_names,
            ordered=self.at_ca is not None,
            issued=may_be_issued and self.is_finalized,
        )
        self.trigger_event(
            self.Failed,
            dns_names=self.dns_names,
            error=error,
            name_errors=tuple(name_errors),
            ledger=ledger,
            timestamp=now,
        )

    def cancel(self, now: datetime) -> None:
        """Raises OrderAlreadyEnded, and OrderInProgress from the moment on at which the CA may issue at any time: a
        certificate that nobody records would be lost."""
        self._refuse_if_ended()
        if self.is_ready or self.is_finalized:
            raise OrderInProgress(self.id)
        self.fail(OrderError("cancelled", "cancelled on request"), now)

    def refused_by_ca(self, problem: Problem, now: datetime) -> None:
        """A problem that asking again would not change; each subproblem stands at its name (RFC 8555 §6.7.1)."""
        self.fail(error_of(problem), now, self._errors_of_subproblems(problem), may_be_issued=False)

    def wait(
        self,
        at_least_seconds: float | None,
        now: datetime,
        error: OrderError | None = None,
        at_most_until: datetime | None = None,
    ) -> None:
        """Not now. Each wait in a row is twice as long as the one before, never shorter than asked for, and no longer
        than to `at_most_until` or to the order's end, at which it is tried once more. An order that has come to its end
        fails with the last error; a renewal that a rate limit holds back waits on."""
        longest = LONGEST_WAIT if at_least_seconds is None or error is not None else LONGEST_WHEN_TOLD
        back_off = min(longest, timedelta(seconds=0.5 * 2 ** min(self.setbacks, 16)))
        until = now + max(back_off, timedelta(seconds=at_least_seconds or 0))
        until = min(until, at_most_until or until)
        is_held_back = self.is_renewal and error is not None and error.code == "backend_rate_limited"
        may_end = self.ended is None and not is_held_back
        if may_end and now >= self.give_up_at:
            expired = OrderError("order_expired", "the order was not fulfilled in time")
            self.fail(error or expired, now)
            return
        until = min(until, self.give_up_at) if may_end else until
        self.trigger_event(self.Postponed, phase=self.phase, until=until, error=error, timestamp=now)

    def record_removed(self, record: Record, now: datetime) -> None:
        if record in self.outstanding_records:
            outstanding = len(self.outstanding_records) - 1
            self.trigger_event(self.RecordRemoved, record=record, outstanding=outstanding, timestamp=now)

    def record_left(self, record: Record, now: datetime) -> None:
        """To another order in progress that has the same value to show."""
        if record in self.outstanding_records:
            outstanding = len(self.outstanding_records) - 1
            self.trigger_event(self.RecordLeft, record=record, outstanding=outstanding, timestamp=now)

    def _challenge_of(
        self, authorization: AuthorizationObject, key_thumbprint: str, home: Home | None
    ) -> Challenge | None:
        home = home or Home(
            dns01_record_name(authorization.dns_name),
            self._provider_of(authorization.dns_name, wildcard=authorization.wildcard),
        )
        for challenge in authorization.challenges:
            if challenge.type == self.challenge_type:
                done = authorization.status == "valid" or challenge.status == "valid"
                return Challenge(
                    dns_name=authorization.dns_name,
                    wildcard=authorization.wildcard,
                    type=challenge.type,
                    url=challenge.url,
                    status="valid" if done else challenge.status,
                    record=None
                    if done
                    else Record(
                        dns_provider_id=home.dns_provider_id or "",
                        name=home.record_name,
                        value=dns01_record_value(challenge.token, key_thumbprint),
                    ),
                )
        if authorization.status == "valid":  # by another challenge type, earlier
            return Challenge(authorization.dns_name, authorization.wildcard, self.challenge_type, "", "valid", None)
        return None

    def _provider_of(self, dns_name: str, *, wildcard: bool) -> str | None:
        wanted = f"*.{dns_name}" if wildcard else dns_name
        exact = [assignment for assignment in self.assignments if assignment.dns_name == wanted]
        alike = [assignment for assignment in self.assignments if base_name(assignment.dns_name) == dns_name]
        return next((assignment.dns_provider_id for assignment in exact or alike), None)

    def _follow_pending(self, at_ca: OrderObject, authorizations: Sequence[AuthorizationObject], now: datetime) -> None:
        if self._fail_if_any_was_rejected(authorizations, now):
            return
        stuck = [
            challenge.error
            for authorization in authorizations
            for challenge in authorization.challenges
            if challenge.type == self.challenge_type and challenge.status == "pending" and challenge.error
        ]
        if not stuck:
            self.wait(at_ca.retry_after_seconds, now)
        elif self.answers < MOST_ANSWERS:
            answer_at = now + max(timedelta(seconds=2**self.answers), timedelta(seconds=at_ca.retry_after_seconds or 0))
            self.trigger_event(self.ChallengesReopened, problem=stuck[0], answer_at=answer_at, timestamp=now)
        else:
            self._fail_challenges(authorizations, now)

    def _follow_invalid(self, at_ca: OrderObject, authorizations: Sequence[AuthorizationObject], now: datetime) -> None:
        if self._fail_if_any_was_rejected(authorizations, now):
            return
        if at_ca.error is not None:
            self.refused_by_ca(at_ca.error, now)
        else:
            unsaid = OrderError("backend_error", "the CA declared the order invalid and did not say why")
            self.fail(unsaid, now, may_be_issued=False)

    def _fail_if_any_was_rejected(self, authorizations: Sequence[AuthorizationObject], now: datetime) -> bool:
        """Whether the order failed. One lost authorization is the end of the order, whatever the order's own status."""
        if all(
            authorization.status == "valid"
            or (
                authorization.status == "pending"
                and all(challenge.status != "invalid" for challenge in authorization.challenges)
            )
            for authorization in authorizations
        ):
            return False
        self._fail_challenges(authorizations, now)
        return True

    def _fail_challenges(self, authorizations: Sequence[AuthorizationObject], now: datetime) -> None:
        name_errors = []
        for authorization in authorizations:
            if authorization.status == "valid":  # an error of an earlier attempt may still stand there
                continue
            dns_name = _as_ordered(authorization)
            problems = [challenge.error for challenge in authorization.challenges if challenge.error]
            if problems:
                at_name = error_of(problems[0], otherwise="challenge_failed")
                name_errors.append(ErrorAtName(dns_name, at_name.code, at_name.message, problems[0]))
            elif authorization.status != "pending":
                message = f"the authorization is {authorization.status}"
                name_errors.append(ErrorAtName(dns_name, "challenge_failed", message))
        first = name_errors[0] if name_errors else None
        code: OrderErrorCode = first.code if first else "challenge_failed"
        message = f"{first.dns_name}: {first.message}" if first else "an authorization was lost"
        lost = [
            each.dns_name
            for each in authorizations
            if each.status == "invalid" or any(challenge.status == "invalid" for challenge in each.challenges)
        ]
        error = OrderError(code, message, problem=first.problem if first else None)
        self.fail(error, now, name_errors, lost_names=lost, may_be_issued=False)

    def _errors_at(self, records: set[Record], error: OrderError) -> list[ErrorAtName]:
        return [
            ErrorAtName(_as_ordered(challenge), error.code, error.message)
            for challenge in self.open_challenges
            if challenge.record in records
        ]

    def _errors_of_subproblems(self, problem: Problem) -> list[ErrorAtName]:
        return [
            ErrorAtName(
                dns_name=subproblem.dns_name,
                code=error_of(Problem(subproblem.type, subproblem.detail)).code,
                message=subproblem.detail,
                problem=Problem(subproblem.type, subproblem.detail),
            )
            for subproblem in problem.subproblems
            if subproblem.dns_name
        ]

    def _refuse_if_ended(self) -> None:
        if self.ended is not None:
            raise OrderAlreadyEnded(self.id)


def _as_ordered(of: AuthorizationObject | Challenge) -> str:
    return f"*.{of.dns_name}" if of.wildcard else of.dns_name


CODES_BY_PROBLEM: dict[str, OrderErrorCode] = {
    "caa": "caa_forbids",
    "rejectedIdentifier": "rejected_identifier",
    "unsupportedIdentifier": "rejected_identifier",
    "rateLimited": "backend_rate_limited",
    "badCSR": "certificate_rejected",
    "unauthorized": "challenge_failed",
    "dns": "challenge_failed",
    "connection": "challenge_failed",
    "incorrectResponse": "challenge_failed",
}


def error_of(problem: Problem, otherwise: OrderErrorCode = "backend_error") -> OrderError:
    """The contract's code for a CA's problem (RFC 8555 §6.7)."""
    return OrderError(CODES_BY_PROBLEM.get(problem.name, otherwise), problem.detail or problem.type, problem=problem)
