"""A certificate line: one id for ever, under which each renewal is a version.

A version exists only with its chain and key, which belong together; older versions stay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.errors import AlreadyRevoked, NotFound, OrderInProgress, PrivateKeyNotStored
from domain.event import DomainEvent, InitialEvent
from domain.order import KeyType, OrderError
from domain.rate_limit import Bucket
from domain.renewal import (
    MOST_REMEMBERED,
    MOST_REPLACING,
    SPREAD,
    Lifetime,
    Plan,
    Window,
    call_off_at,
    fraction_of,
    held_until,
    plan_by_ari,
    plan_by_lifetime,
    retry_after,
    warnings,
)

RevocationReason = Literal[
    "unspecified", "key_compromise", "affiliation_changed", "superseded", "cessation_of_operation"
]


@dataclass(frozen=True)
class Version:
    """One issued certificate. `serial_number` is hex without separators, `fingerprint_sha256` of the leaf's DER in hex,
    `chain_pem` leaf first. `sealed_key_id` is None where the key was never here (the order came with a CSR)."""

    number: int
    order_id: str
    serial_number: str
    fingerprint_sha256: str
    issuer: str
    key_type: KeyType
    not_before: datetime
    not_after: datetime
    chain_pem: str
    sealed_key_id: str | None

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime(self.not_before, self.not_after)

    @property
    def plan(self) -> Plan:
        """When it is renewed as long as the CA suggests nothing."""
        return plan_by_lifetime(self.lifetime, fraction_of(self.fingerprint_sha256))


@dataclass(frozen=True)
class Suggestion:
    """The CA's window for the certificate of that ARI id, and the instant drawn from it (RFC 9773 §4.1, §4.2)."""

    ari_id: str
    window: Window
    renew_at: datetime


@dataclass(frozen=True)
class Renewing:
    """The order that renews the current version, and whether anybody asked for it."""

    order_id: str
    automatic: bool
    began_at: datetime


class Certificate(BaseAggregate[str]):
    TOPIC = "certificate"

    class Event(DomainEvent):
        pass

    class Issued(InitialEvent, Event):
        TOPIC = "certificate.issued"
        tenant_id: str
        account_id: str
        name: str | None
        dns_names: tuple[str, ...]
        auto_renew: bool
        version: Version

    class Renewed(Event):
        """`old_serial_number` and `old_not_after` are the previous version's."""

        TOPIC = "certificate.renewed"
        dns_names: tuple[str, ...]
        version: Version
        reason: str
        old_serial_number: str
        old_not_after: datetime

        def apply(self, aggregate: Certificate) -> None:
            if aggregate.renewing is not None and aggregate.renewing.automatic:
                latest = (*aggregate.renewed_by_itself_at, self.timestamp)
                aggregate.renewed_by_itself_at = latest[-MOST_REMEMBERED:]
            aggregate.versions = (*aggregate.versions, self.version)
            aggregate.begin_version(self.timestamp)

    class RenewalFailed(Event):
        """`attempt` counts from the last version on; `not_after` is that version's. `next_attempt_at` is None where
        nothing is tried by itself, `order_id` where it did not come to an order."""

        TOPIC = "certificate.renewal_failed"
        class_version = 2
        dns_names: tuple[str, ...]
        order_id: str | None
        attempt: int
        error: OrderError
        not_after: datetime
        next_attempt_at: datetime | None

        @staticmethod
        def upcast_v1_v2(fields: dict[str, Any]) -> None:
            """The first form was of a time when nothing was renewed by itself."""
            fields["next_attempt_at"] = None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.renewing = None
            aggregate.is_held = False
            aggregate.failed_renewals = self.attempt
            aggregate.not_before_at = self.next_attempt_at

    class RenewalInfoSeen(Event):
        """The CA suggests a window, or another one than before. `renew_at` was drawn from it once; it is asked again at
        `ask_again_at`, and not recorded as long as it says the same. `next_renewal` is what follows from it all."""

        TOPIC = "certificate.renewal_info_seen"
        version: int
        suggestion: Suggestion
        explanation_url: str | None
        ask_again_at: datetime
        next_renewal: Plan | None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.suggestion = self.suggestion
            aggregate.ask_at = self.ask_again_at

    class RenewalBegan(Event):
        """An order for the next version was placed. `in_window` says whether that was in the CA's window; None where it
        suggested none."""

        TOPIC = "certificate.renewal_began"
        version: int
        order_id: str
        reason: str
        automatic: bool
        in_window: bool | None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.renewing = Renewing(self.order_id, self.automatic, self.timestamp)
            aggregate.is_held = False

    class RenewalPostponed(Event):
        """A rate limit of the CA has no room before `until`."""

        TOPIC = "certificate.renewal_postponed"
        until: datetime
        bucket: Bucket

        def apply(self, aggregate: Certificate) -> None:
            aggregate.not_before_at = self.until

    class RenewalHeld(Event):
        """The breaker: it was renewed by itself so often, the last `renewals` times since `since`, that something is wrong.
        Nothing is tried before `until`, unless somebody lifts it."""

        TOPIC = "certificate.renewal_held"
        dns_names: tuple[str, ...]
        renewals: int
        since: datetime
        until: datetime
        not_after: datetime
        attempt: int

        def apply(self, aggregate: Certificate) -> None:
            aggregate.not_before_at = self.until
            aggregate.is_held = True

    class RenewalReleased(Event):
        """Somebody has looked into it, and takes the breaker's memory away."""

        TOPIC = "certificate.renewal_released"
        reason: str
        next_renewal: Plan | None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.renewed_by_itself_at = ()
            aggregate.not_before_at = None
            aggregate.is_held = False

    class Revoked(Event):
        """The CA has revoked a version at our request. The current one is replaced at once where it is renewed by itself."""

        TOPIC = "certificate.revoked"
        version: int
        dns_names: tuple[str, ...]
        serial_number: str
        reason: RevocationReason
        next_renewal: Plan | None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.revoked_versions = (*aggregate.revoked_versions, self.version)
            if self.reason == "key_compromise":
                aggregate.compromised_versions = (*aggregate.compromised_versions, self.version)
            if self.version == aggregate.current.number:
                aggregate.revoked_at = self.timestamp
                aggregate.not_before_at = None
                aggregate.renewed_by_itself_at = ()
                aggregate.is_held = False

    class AutoRenewalSwitched(Event):
        TOPIC = "certificate.auto_renewal_switched"
        on: bool
        next_renewal: Plan | None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.auto_renew = self.on
            aggregate.ask_at = self.timestamp

    class Renamed(Event):
        TOPIC = "certificate.renamed"
        name: str | None

        def apply(self, aggregate: Certificate) -> None:
            aggregate.name = self.name

    class ExpiryNeared(Event):
        """The current version ends in less than `before`, and none has followed it."""

        TOPIC = "certificate.expiry_neared"
        version: int
        dns_names: tuple[str, ...]
        before: timedelta
        not_after: datetime

        def apply(self, aggregate: Certificate) -> None:
            aggregate.warned = self.before

    class Expired(Event):
        TOPIC = "certificate.expired"
        version: int
        dns_names: tuple[str, ...]
        serial_number: str

        def apply(self, aggregate: Certificate) -> None:
            aggregate.has_expired = True

    def __init__(
        self,
        tenant_id: str,
        account_id: str,
        name: str | None,
        dns_names: tuple[str, ...],
        auto_renew: bool,
        version: Version,
        timestamp: datetime,
    ) -> None:
        self.tenant_id = tenant_id
        self.account_id = account_id
        self.name = name
        self.dns_names = dns_names
        self.auto_renew = auto_renew
        self.versions: tuple[Version, ...] = (version,)
        self.renewed_by_itself_at: tuple[datetime, ...] = ()
        self.revoked_versions: tuple[int, ...] = ()
        self.compromised_versions: tuple[int, ...] = ()
        self.begin_version(timestamp)

    @classmethod
    def issue(
        cls,
        certificate_id: str,
        *,
        tenant_id: str,
        account_id: str,
        name: str | None,
        dns_names: tuple[str, ...],
        auto_renew: bool,
        version: Version,
        now: datetime,
    ) -> Self:
        """The first version of a new line."""
        return cls._create(
            cls.Issued,
            id=certificate_id,
            timestamp=now,
            tenant_id=tenant_id,
            account_id=account_id,
            name=name,
            dns_names=dns_names,
            auto_renew=auto_renew,
            version=version,
        )

    def begin_version(self, at: datetime) -> None:
        """Nothing is known yet of the current version's end."""
        self.failed_renewals = 0
        self.renewing: Renewing | None = None
        self.suggestion: Suggestion | None = None
        self.ask_at = at
        self.not_before_at: datetime | None = None
        self.is_held = False
        self.revoked_at: datetime | None = None
        self.warned: timedelta | None = None
        self.has_expired = False

    @property
    def current(self) -> Version:
        return self.versions[-1]

    @property
    def plan(self) -> Plan:
        """When the current version is to be renewed, and by which rule."""
        if self.revoked_at is not None:
            return Plan(self.revoked_at, "revoked")
        if self.suggestion is None:
            return self.current.plan
        return plan_by_ari(self.current.lifetime, self.suggestion.renew_at)

    @property
    def next_renewal(self) -> Plan | None:
        """When a renewal is begun: as planned, or when what puts it off is over. None while there is an order for it, and
        where nothing is done by itself."""
        return self._next_renewal(self.plan, self.not_before_at, on=self.auto_renew)

    @property
    def call_off_at(self) -> datetime | None:
        """Until when the order for the next version may take; None where there is none."""
        return None if self.renewing is None else call_off_at(self.renewing.began_at, self.current.lifetime)

    @property
    def replaceable(self) -> str | None:
        """The ARI id that an order for the next version names; None where the CA knows none, or may be failing at it."""
        if self.suggestion is None or self.failed_renewals >= MOST_REPLACING:
            return None
        return self.suggestion.ari_id

    @property
    def next_warning(self) -> tuple[timedelta, datetime] | None:
        """Of what is to be told before the end: how long before, and when. What has been passed over is not told any
        more."""
        ahead = [each for each in warnings(self.current.lifetime) if self.warned is None or each[0] < self.warned]
        return ahead[0] if ahead else None

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of all versions."""
        return frozenset(version.fingerprint_sha256 for version in self.versions)

    @property
    def next_number(self) -> int:
        return self.current.number + 1

    def version_numbered(self, number: int | None) -> Version:
        """The current one for None. Raises NotFound (`version`)."""
        if number is None:
            return self.current
        for version in self.versions:
            if version.number == number:
                return version
        raise NotFound("version", f"{self.id} version {number}")

    def sealed_key_of(self, number: int | None) -> tuple[Version, str]:
        """The version and what its key is sealed under. Raises NotFound, PrivateKeyNotStored."""
        version = self.version_numbered(number)
        if version.sealed_key_id is None:
            raise PrivateKeyNotStored(self.id, version.number)
        return version, version.sealed_key_id

    def renew(self, version: Version, reason: str, now: datetime) -> None:
        """A further version. The same order's version again changes nothing."""
        if any(known.order_id == version.order_id for known in self.versions):
            return
        self.trigger_event(
            self.Renewed,
            dns_names=self.dns_names,
            version=version,
            reason=reason,
            old_serial_number=self.current.serial_number,
            old_not_after=self.current.not_after,
            timestamp=now,
        )

    def begin_renewal(self, order_id: str, reason: str, now: datetime, *, automatic: bool) -> None:
        """An order for the next version is placed together with this. Raises OrderInProgress: there is one."""
        if self.renewing is not None:
            raise OrderInProgress(self.renewing.order_id)
        self.trigger_event(
            self.RenewalBegan,
            version=self.current.number,
            order_id=order_id,
            reason=reason,
            automatic=automatic,
            in_window=None if self.suggestion is None else self.suggestion.window.takes(now),
            timestamp=now,
        )

    def renewal_failed(self, order_id: str | None, error: OrderError, now: datetime) -> None:
        attempt = self.failed_renewals + 1
        again_at = max(self.plan.at, now + retry_after(attempt, self.current.lifetime))
        next_attempt_at = again_at if self.auto_renew else None
        self.trigger_event(
            self.RenewalFailed,
            dns_names=self.dns_names,
            order_id=order_id,
            attempt=attempt,
            error=error,
            not_after=self.current.not_after,
            next_attempt_at=next_attempt_at,
            timestamp=now,
        )

    def hold_renewal(self, now: datetime) -> bool:
        """Whether the breaker holds it, which is put on record."""
        until = held_until(self.renewed_by_itself_at, self.current.lifetime)
        if until is None or until <= now:
            return False
        self.trigger_event(
            self.RenewalHeld,
            dns_names=self.dns_names,
            renewals=len(self.renewed_by_itself_at),
            since=self.renewed_by_itself_at[0],
            until=until,
            not_after=self.current.not_after,
            attempt=self.failed_renewals,
            timestamp=now,
        )
        return True

    def release_renewal(self, reason: str, now: datetime) -> None:
        """Nothing happens where the breaker does not hold it."""
        if self.is_held:
            planned = self._next_renewal(self.plan, None, on=self.auto_renew)
            self.trigger_event(self.RenewalReleased, reason=reason, next_renewal=planned, timestamp=now)

    def postpone_renewal(self, bucket: Bucket, until: datetime, now: datetime) -> None:
        """Not all lines at the same moment. The same again changes nothing."""
        until += fraction_of(self.current.fingerprint_sha256) * min(SPREAD, (until - now) / 10)
        if self.not_before_at != until:
            self.trigger_event(self.RenewalPostponed, bucket=bucket, until=until, timestamp=now)

    def see_renewal_info(
        self, suggestion: Suggestion, explanation_url: str | None, ask_again_at: datetime, now: datetime
    ) -> None:
        """The same window for the same certificate again changes nothing: the instant that was drawn stays."""
        known = self.suggestion
        if known is not None and (known.ari_id, known.window) == (suggestion.ari_id, suggestion.window):
            return
        plan = plan_by_ari(self.current.lifetime, suggestion.renew_at) if self.revoked_at is None else self.plan
        self.trigger_event(
            self.RenewalInfoSeen,
            version=self.current.number,
            suggestion=suggestion,
            explanation_url=explanation_url,
            ask_again_at=ask_again_at,
            next_renewal=self._next_renewal(plan, self.not_before_at, on=self.auto_renew),
            timestamp=now,
        )

    def revoke(self, number: int, reason: RevocationReason, now: datetime) -> None:
        """The CA has done it. Raises NotFound (`version`), AlreadyRevoked."""
        version = self.revocable(number)
        is_current = version.number == self.current.number
        planned = Plan(now, "revoked") if is_current else self.plan
        self.trigger_event(
            self.Revoked,
            version=version.number,
            dns_names=self.dns_names,
            serial_number=version.serial_number,
            reason=reason,
            next_renewal=self._next_renewal(planned, None if is_current else self.not_before_at, on=self.auto_renew),
            timestamp=now,
        )

    def revocable(self, number: int | None) -> Version:
        """The current one for None. Raises NotFound (`version`), AlreadyRevoked."""
        version = self.version_numbered(number)
        if version.number in self.revoked_versions:
            raise AlreadyRevoked(self.id, version.number)
        return version

    def switch_auto_renewal(self, now: datetime, *, on: bool) -> None:
        if on != self.auto_renew:
            planned = self._next_renewal(self.plan, self.not_before_at, on=on)
            self.trigger_event(self.AutoRenewalSwitched, on=on, next_renewal=planned, timestamp=now)

    def rename(self, name: str | None, now: datetime) -> None:
        if name != self.name:
            self.trigger_event(self.Renamed, name=name, timestamp=now)

    def near_expiry(self, now: datetime) -> None:
        """The latest of the warnings that are due; those before it are told with it, and none after the end."""
        due = [
            before
            for before, at in warnings(self.current.lifetime)
            if at <= now and (self.warned is None or before < self.warned)
        ]
        if due and now < self.current.not_after:
            self.trigger_event(
                self.ExpiryNeared,
                version=self.current.number,
                dns_names=self.dns_names,
                before=due[-1],
                not_after=self.current.not_after,
                timestamp=now,
            )

    def expire(self, now: datetime) -> None:
        if not self.has_expired:
            self.trigger_event(
                self.Expired,
                version=self.current.number,
                dns_names=self.dns_names,
                serial_number=self.current.serial_number,
                timestamp=now,
            )

    def _next_renewal(self, plan: Plan, not_before_at: datetime | None, *, on: bool) -> Plan | None:
        if not on or self.renewing is not None:
            return None
        return Plan(max(plan.at, not_before_at or plan.at), plan.rule)
