"""Handing over what is owed (`fan_out.py` says to whom), until it is taken or given up.

An attempt is counted before it is made, by the claim of its row: whoever finds a row claimed before knows that the
attempt was cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from application.announcements import Announcements
from application.errors import StoreUnavailable
from application.event_store import EventStore, History
from application.ports import Chance, Clock, ResponseLog
from application.process.breaker import Breaker
from application.process.fan_out import PROCESS
from application.process.todo import Claim, Decision, Step, Turn, logged_step
from application.webhooks import Outcome, Webhooks
from domain.delivery import Delivery
from domain.errors import VersionConflict
from domain.provenance import of_process
from domain.subscription import ONLY_FAILURES_FOR, Subscription

NAME = PROCESS
MOST_CONFLICTS = 5

log = structlog.get_logger()


class Attempt(Step, frozen=True): ...


def next_step(delivery: Delivery) -> Step | None:
    """Pure."""
    return Attempt(delivery.due_at) if delivery.ended is None else None


def turn(delivery: Delivery) -> Turn:
    """A subscription's deliveries share its endpoint; those that keep an order wait for the earlier ones."""
    queue = f"{delivery.subscription_id}/{delivery.path}" if delivery.ordered else None
    return Turn(delivery.subscription_id, queue, delivery.position)


DECISION = Decision(NAME, next_step, turn)


class FailingSince(Protocol):
    def __call__(self, subscription_id: str) -> datetime | None:
        """The first failure after the last success; None where there is none."""


class Paused(Protocol):
    def __call__(self) -> Sequence[str]:
        """The ids of the subscriptions that are."""


class Deliveries:
    name = NAME

    def __init__(
        self,
        store: EventStore,
        history: History,
        announcements: Announcements,
        webhooks: Webhooks,
        responses: ResponseLog,
        failing_since: FailingSince,
        paused: Paused,
        breaker: Breaker,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._announcements = announcements
        self._webhooks = webhooks
        self._responses = responses
        self._failing_since = failing_since
        self._paused = paused
        self._breaker = breaker
        self._chance = chance
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return {**self._breaker.limits(), **dict.fromkeys(self._paused(), 0)}

    def perform(self, claim: Claim) -> None:
        """Attempts in a row, for as long as the claim is held: the next may be due as soon as one is recorded."""
        is_held = True
        if claim.attempts > 1:
            delivery = self._store.load(Delivery, claim.subject)
            delivery.attempt_cut_off(self._clock.now())
            is_held = self._record(delivery, claim=claim)
        while is_held:
            delivery = self._store.load(Delivery, claim.subject)
            step = next_step(delivery)
            if step is None:
                return
            with logged_step(step, delivery_id=delivery.id, subscription_id=delivery.subscription_id):
                is_held = self._perform(delivery, claim)

    def give_up(self, claim: Claim) -> None:
        delivery = self._store.load(Delivery, claim.subject)
        delivery.abandon("the service failed at this delivery", self._clock.now())
        self._record(delivery, claim=claim)

    def _perform(self, delivery: Delivery, claim: Claim) -> bool:
        """Whether the claim is held for another attempt."""
        subscription = self._store.load(Subscription, delivery.subscription_id)
        if subscription.status in {"disabled", "ended"}:
            delivery.abandon(f"the subscription is {subscription.status}", self._clock.now())
            return self._record(delivery, claim=claim)
        if subscription.status == "paused":
            return False
        announced = self._announcements.announced_at(delivery.position)
        outcome = self._webhooks.send(subscription, announced.event_id, announced.event_type, announced.body)
        if outcome.is_taken:
            self._breaker.succeeded(subscription.id)
        else:
            self._breaker.failed(subscription.id, outcome.duration_ms / 1000)
        is_held = self._report(delivery, subscription, outcome, claim)
        if outcome.status is not None and (outcome.text or delivery.attempts > 1):
            self._keep(delivery.id, outcome.status, outcome.text)
        return is_held

    def _keep(self, delivery_id: str, status: int, text: str) -> None:
        """It is a convenience, for which nothing else may fail."""
        try:
            self._responses.keep(delivery_id, status, text)
        except StoreUnavailable as failure:
            log.warning("store_unavailable", detail=failure.detail)

    def _report(self, delivery: Delivery, subscription: Subscription, outcome: Outcome, claim: Claim) -> bool:
        """What was learnt outside is not lost to somebody who changed the same thing meanwhile."""
        for _ in range(MOST_CONFLICTS):
            self._decide(delivery, subscription, outcome)
            try:
                return self._record(delivery, subscription, claim=claim)
            except VersionConflict:
                delivery = self._store.load(Delivery, delivery.id)
                subscription = self._store.load(Subscription, subscription.id)
        raise VersionConflict

    def _decide(self, delivery: Delivery, subscription: Subscription, outcome: Outcome) -> None:
        now = self._clock.now()
        if outcome.is_taken:
            delivery.delivered(outcome.status or 0, outcome.duration_ms, now)
            return
        if outcome.is_gone:
            delivery.give_up(outcome.status, outcome.detail, outcome.duration_ms, now)
            subscription.disable("gone", now)
            return
        delivery.attempt_failed(
            outcome.status, outcome.detail, outcome.retry_after_seconds, outcome.duration_ms, self._chance(), now
        )
        since = self._failing_since(subscription.id)
        if since is not None and now - max(since, subscription.tried_since) >= ONLY_FAILURES_FOR:
            subscription.disable("only_failures", now)

    def _record(self, delivery: Delivery, *others: Subscription, claim: Claim) -> bool:
        by = of_process(NAME, self._history.origin(delivery.id), delivery.id, delivery.version)
        return self._store.record(delivery, *others, by=by, claim=claim)
