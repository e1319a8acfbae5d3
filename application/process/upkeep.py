"""What a subscription wants done in the background: owing again what is replayed, and destroying secrets that are
no longer in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import assert_never

from application.announcements import Announcements, wanted
from application.event_store import EventStore, History
from application.ports import Clock, KeyStore
from application.process.fan_out import TOGETHER, owe
from application.process.todo import NO_LIMITS, Claim, Decision, Step, logged_step
from domain.provenance import Provenance, of_process
from domain.subscription import Replay, Subscription

NAME = "subscription"


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
        """Steps in a row, for as long as the claim is held."""
        is_held = True
        while is_held:
            subscription = self._store.load(Subscription, claim.subject)
            step = next_step(subscription)
            if step is None:
                return
            with logged_step(step, subscription_id=subscription.id):
                is_held = self._perform(step, subscription, claim)

    def give_up(self, claim: Claim) -> None:
        """There is nothing that a subscription could be spared."""

    def _perform(self, step: UpkeepStep, subscription: Subscription, claim: Claim) -> bool:
        """Whether the claim is held for another step."""
        match step:
            case OweReplay():
                return self._owe(subscription, subscription.replays[0], claim)
            case ShredSecrets():
                return self._shred(subscription, claim)
            case _:
                assert_never(step)

    def _owe(self, subscription: Subscription, replay: Replay, claim: Claim) -> bool:
        terms = subscription.terms()
        events = list(islice(wanted(self._announcements, terms, replay.after, replay.upto), TOGETHER))
        deliveries = [owe(terms, announced, replay.id, self._clock) for announced in events]
        is_last = len(events) < TOGETHER
        subscription.replay_advanced(replay.id, replay.upto if is_last else events[-1].position, self._clock.now())
        by = self._by(subscription)
        return self._store.record(*deliveries, subscription, by=by, claim=claim)

    def _shred(self, subscription: Subscription, claim: Claim) -> bool:
        now = self._clock.now()
        ended = tuple(
            secret.sealed_id for secret in subscription.secrets if secret.until is not None and secret.until <= now
        )
        if not ended:
            return False
        self._keys.shred(ended)
        subscription.secrets_shredded(ended, now)
        return self._store.record(subscription, by=self._by(subscription), claim=claim)

    def _by(self, subscription: Subscription) -> Provenance:
        return of_process(NAME, self._history.origin(subscription.id), subscription.id, subscription.version)
