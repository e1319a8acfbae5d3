"""What a subscription wants done in the background: owing again what is replayed, and destroying secrets that are
no longer in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import assert_never

from application.announcements import Announcements, looked_through
from application.event_store import EventStore, History
from application.ports import Clock, KeyStore
from application.process.fan_out import TOGETHER, owe
from application.process.todo import NO_LIMITS, Claim, Decision, Step, logged_step
from domain.provenance import Provenance, of_process
from domain.subscription import Replay, Subscription

NAME = "subscription"
MOST_PAGES = 25  # of the history in one step: others have a turn between


class OweReplay(Step, frozen=True): ...


class ShredSecrets(Step, frozen=True): ...


UpkeepStep = OweReplay | ShredSecrets


def next_step(subscription: Subscription) -> UpkeepStep | None:
    """The earliest of all. Pure."""
    return min(_steps(subscription), key=lambda step: step.due_at, default=None)


def _steps(subscription: Subscription) -> Iterator[UpkeepStep]:
    if subscription.replays:
        yield OweReplay(subscription.replays[0].since)
    ends = [secret.until for secret in subscription.secrets if secret.until is not None]
    if ends:
        yield ShredSecrets(min(ends))


DECISION = Decision(NAME, next_step)


class Upkeep:
    name = NAME

    def __init__(
        self,
        store: EventStore,
        history: History,
        announcements: Announcements,
        keys: KeyStore,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._announcements = announcements
        self._keys = keys
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> None:
        """One step: a long replay takes turns with others."""
        subscription = self._store.load(Subscription, claim.subject)
        step = next_step(subscription)
        if step is not None:
            with logged_step(step, subscription_id=subscription.id):
                self._perform(step, subscription, claim)

    def give_up(self, claim: Claim) -> None:
        """There is nothing that a subscription could be spared."""

    def _perform(self, step: UpkeepStep, subscription: Subscription, claim: Claim) -> None:
        match step:
            case OweReplay():
                self._owe(subscription, subscription.replays[0], claim)
            case ShredSecrets():
                self._shred(subscription, step.due_at, claim)
            case _:
                assert_never(step)

    def _owe(self, subscription: Subscription, replay: Replay, claim: Claim) -> None:
        terms = subscription.terms()
        found, upto = looked_through(self._announcements, terms, replay.after, replay.upto, MOST_PAGES, enough=TOGETHER)
        if len(found) > TOGETHER:
            found, upto = found[:TOGETHER], found[TOGETHER - 1]
        events = self._announcements.all_announced_at(found)
        deliveries = [owe(terms, announced, replay.id, self._clock) for announced in events]
        subscription.replay_advanced(replay.id, upto, self._clock.now())
        self._store.record(*deliveries, subscription, by=self._by(subscription), claim=claim)

    def _shred(self, subscription: Subscription, due_at: datetime, claim: Claim) -> None:
        """That it is due was said by the clock of the to-do list, which is right where ours is behind."""
        now = max(due_at, self._clock.now())
        ended = tuple(
            secret.sealed_id for secret in subscription.secrets if secret.until is not None and secret.until <= now
        )
        self._keys.shred(ended)
        subscription.secrets_shredded(ended, now)
        self._store.record(subscription, by=self._by(subscription), claim=claim)

    def _by(self, subscription: Subscription) -> Provenance:
        return of_process(NAME, self._history.origin(subscription.id), subscription.id, subscription.version)
