"""Subscribing to events, and what can be done with a subscription."""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from msgspec import UNSET

from application.announcements import Announcements, looked_through
from application.caller import Caller
from application.errors import EgressRefused, ResolverFailed
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore, RequireDialable
from application.rights import require_may_write, require_within_limits
from application.secret_value import SecretValue
from application.webhooks import SEALED_KIND, Outcome, Webhooks
from application.wishes import Changes, Wish, accepted, revised
from domain.access import subscription_tested
from domain.acknowledgement import rewound
from domain.announcement import TEST, Announcement, SubscriptionTest
from domain.delivery import Delivery
from domain.errors import FieldProblem, InvalidFields, NotFound
from domain.subscription import LONGEST_OVERLAP, Subscription, WebhookTarget
from domain.terms import pattern_characters
from domain.token import Token

SHORTEST_SECRET, LONGEST_SECRET = 16, 512
MOST_SUBSCRIPTIONS = 500  # of a tenant
MOST_CHARACTERS = 1_000_000  # of all patterns of a tenant: all are looked up together
MOST_PAGES = 25  # looked through to count what a replay would send


class KnownSubscriptions(Announcements, Protocol):
    def subscribed(self, tenant_id: str) -> tuple[int, int]:
        """How many subscriptions the tenant has, and how many characters all their patterns have together."""


class ReplayPlan(msgspec.Struct, frozen=True):
    """The events behind the position `after`, up to `upto`. Of those up to `counted_upto` the subscription wants `count`;
    what lies further was not looked at."""

    after: int
    upto: int
    count: int
    counted_upto: int


class Subscriptions:
    def __init__(
        self,
        store: EventStore,
        keys: KeyStore,
        announcements: KnownSubscriptions,
        require_dialable: RequireDialable,
        webhooks: Webhooks,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._keys = keys
        self._announcements = announcements
        self._require_dialable = require_dialable
        self._webhooks = webhooks
        self._clock = clock
        self._ids = ids

    def subscribe(self, wish: Wish, secret: SecretValue | None, caller: Caller) -> tuple[str, SecretValue | None]:
        """The subscription's id, and the signing secret where none was given: it is shown this once.

        Raises InvalidFields, and Denied: `pki:admin` may subscribe below `pki/`, more needs `subscriptions:write`."""
        kept = accepted(wish)
        require_may_write(caller, kept.paths)
        self._require_room(caller.tenant_id, kept.characters, is_new=True)
        self._require_reachable(kept.url)
        _require_good_secret(secret, "delivery.secret")
        subscription_id = self._ids.new("sub")
        target, generated = None, None
        if kept.url is not None:
            sealed_secret_id, generated = self._seal(caller.tenant_id, subscription_id, secret)
            target = WebhookTarget(kept.url, sealed_secret_id, kept.ca_bundle_pem)
        subscription = Subscription.subscribe(
            subscription_id,
            tenant_id=caller.tenant_id,
            identity_id=caller.token_id,
            name=kept.name,
            paths=kept.paths,
            event_types=kept.event_types,
            target=target,
            dns_names=kept.dns_names,
            ordered=kept.ordered,
            buffer_size=kept.buffer_size,
            now=self._clock.now(),
        )
        self._store.record(subscription, by=caller.provenance)
        return subscription_id, generated

    def revise(self, subscription_id: str, changes: Changes, caller: Caller) -> None:
        """Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        kept = accepted(revised(subscription, changes))
        require_may_write(caller, kept.paths)
        more = kept.characters - pattern_characters(subscription.paths, subscription.dns_names)
        if more > 0:
            self._require_room(caller.tenant_id, more, is_new=False)
        if kept.url != subscription.url:
            self._require_reachable(kept.url)
        owner = subscription.identity_id if changes.identity_id is UNSET else changes.identity_id
        if owner != subscription.identity_id:
            self._require_may_hand_over(subscription, owner, caller)
        now = self._clock.now()
        subscription.revise(
            identity_id=owner,
            name=kept.name,
            paths=kept.paths,
            event_types=kept.event_types,
            dns_names=kept.dns_names,
            ordered=kept.ordered,
            buffer_size=kept.buffer_size,
            url=kept.url,
            ca_bundle_pem=kept.ca_bundle_pem,
            now=now,
        )
        if changes.status == "paused":
            subscription.pause(now)
        elif changes.status == "active":
            subscription.resume(now)
        self._store.record(subscription, by=caller.provenance)

    def unsubscribe(self, subscription_id: str, caller: Caller) -> None:
        """Raises NotFound, Denied."""
        subscription = self._load(subscription_id, caller)
        subscription.unsubscribe(self._clock.now())
        self._store.record(subscription, by=caller.provenance)

    def rotate_secret(
        self, subscription_id: str, secret: SecretValue | None, overlap: timedelta, caller: Caller
    ) -> tuple[SecretValue | None, datetime]:
        """The new secret where none was given, and until when the one before is used beside it.

        Raises NotFound, InvalidFields, Denied."""
        subscription = self._load_webhook(subscription_id, caller)
        _require_good_secret(secret, "secret")
        if overlap > LONGEST_OVERLAP:
            raise InvalidFields(FieldProblem("overlap", "too_long", f"at most {LONGEST_OVERLAP.days} days"))
        sealed_secret_id, generated = self._seal(caller.tenant_id, subscription_id, secret)
        now = self._clock.now()
        subscription.rotate_secret(sealed_secret_id, overlap, now)
        self._store.record(subscription, by=caller.provenance)
        return generated, now + overlap

    def test(self, subscription_id: str, caller: Caller) -> tuple[str, Outcome]:
        """Sends an event that is in no history, now and once: its id, and how it went. Raises NotFound, InvalidFields,
        Denied."""
        subscription = self._load_webhook(subscription_id, caller)
        now = self._clock.now()
        test = Announcement(
            event_id=self._ids.new("evt"),
            event_type=TEST,
            timestamp=now,
            tenant_id=caller.tenant_id,
            identity_id=caller.token_id,
            path=f"subscriptions/{subscription_id}",
            sequence=0,
            data=SubscriptionTest(subscription_id),
            request_id=caller.request_id,
        )
        outcome = self._webhooks.send(subscription, test.event_id, TEST, msgspec.json.encode(test).decode())
        tested = subscription_tested(
            self._ids.new("access"), subscription_id, outcome.status, outcome.detail, self._clock.now()
        )
        self._store.record(tested, by=caller.provenance)
        return test.event_id, outcome

    def redeliver(self, subscription_id: str, delivery_id: str, caller: Caller) -> None:
        """From the first attempt on again, whatever became of it; at once where it waits for its next attempt. Before its
        first one it is sent anyway, and nothing is recorded. A dead letter is there for as long as they are kept.

        Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        _require_enabled(subscription)
        delivery, now = self._store.load(Delivery, delivery_id, caller.tenant_id), self._clock.now()
        if delivery.subscription_id != subscription_id or delivery.is_forgotten(now):
            raise NotFound(Delivery.TOPIC, delivery_id)
        require_within_limits([delivery.path], caller)
        delivery.reopen(now)
        self._store.record(delivery, by=caller.provenance)

    def replay(
        self,
        subscription_id: str,
        since: int | datetime,
        until: int | datetime | None,
        caller: Caller,
        *,
        dry_run: bool,
    ) -> ReplayPlan:
        """From a position or time on, both ends included. A webhook is owed the events again; a polling subscription is
        given them again, by the terms of today. With `dry_run` they are only counted.

        Raises NotFound, InvalidFields, TooMany, Denied."""
        subscription = self._load(subscription_id, caller)
        _require_enabled(subscription)
        if until is not None and not subscription.is_webhook:
            raise InvalidFields(FieldProblem("to", "invalid", "a polling subscription is replayed to the end"))
        plan = self._plan(subscription, since, until)
        if dry_run:
            return plan
        now = self._clock.now()
        if subscription.is_webhook:
            if plan.count or plan.counted_upto < plan.upto:
                subscription.request_replay(self._ids.new("replay"), plan.after, plan.upto, now)
                self._store.record(subscription, by=caller.provenance)
            return plan
        self._store.record(rewound(self._ids.new("ack"), subscription_id, plan.after, now), by=caller.provenance)
        return plan

    def _plan(self, subscription: Subscription, since: int | datetime, until: int | datetime | None) -> ReplayPlan:
        tenant_id, last = subscription.tenant_id, self._announcements.last_position()
        if isinstance(since, datetime):
            first = self._announcements.first_since(tenant_id, since)
            after = last if first is None else first - 1
        else:
            after = min(last, max(0, since - 1))
        if isinstance(until, datetime):
            until = self._announcements.last_until(tenant_id, until)
        upto = last if until is None else max(after, min(last, until))
        found, counted_upto = looked_through(self._announcements, subscription.terms(), after, upto, MOST_PAGES)
        return ReplayPlan(after, upto, len(found), counted_upto)

    def _load(self, subscription_id: str, caller: Caller) -> Subscription:
        subscription = self._store.load(Subscription, subscription_id, caller.tenant_id)
        if subscription.status == "ended":
            raise NotFound(Subscription.TOPIC, subscription_id)
        require_may_write(caller, subscription.paths)
        return subscription

    def _load_webhook(self, subscription_id: str, caller: Caller) -> Subscription:
        subscription = self._load(subscription_id, caller)
        if not subscription.is_webhook:
            raise InvalidFields(FieldProblem("delivery.type", "not_a_webhook", "this subscription is polled"))
        return subscription

    def _seal(self, tenant_id: str, subscription_id: str, given: SecretValue | None) -> tuple[str, SecretValue | None]:
        """What it is sealed under, and the secret where it was generated."""
        generated = None if given else SecretValue("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
        secret = given or generated
        if secret is None:
            raise ValueError("neither given nor generated")
        return self._keys.seal(SEALED_KIND, tenant_id, subscription_id, secret), generated

    def _require_room(self, tenant_id: str, more_characters: int, *, is_new: bool) -> None:
        """Raises InvalidFields. Of some that come at the same moment each may count without the others."""
        count, characters = self._announcements.subscribed(tenant_id)
        if is_new and count >= MOST_SUBSCRIPTIONS:
            message = f"there are {MOST_SUBSCRIPTIONS} subscriptions, as many as there may be: end some first"
            raise InvalidFields(FieldProblem("name", "too_many", message))
        if characters + more_characters > MOST_CHARACTERS:
            message = f"the patterns of all subscriptions together have {MOST_CHARACTERS} characters at most"
            raise InvalidFields(FieldProblem("paths", "too_many", message))

    def _require_reachable(self, url: str | None) -> None:
        """A name that has no address now may have one later; each attempt looks again."""
        if url is None:
            return
        try:
            self._require_dialable(url)
        except EgressRefused as refusal:
            raise InvalidFields(FieldProblem("delivery.url", "forbidden_address", refusal.detail)) from None
        except ResolverFailed:
            return

    def _require_may_hand_over(self, subscription: Subscription, owner: str, caller: Caller) -> None:
        if subscription.identity_id != caller.token_id:
            caller.require("admin")
        unknown = InvalidFields(FieldProblem("identity_id", "unknown", "there is no such token"))
        try:
            token = self._store.load(Token, owner, caller.tenant_id)
        except NotFound:
            raise unknown from None
        if token.is_revoked:
            raise unknown


def _require_enabled(subscription: Subscription) -> None:
    if subscription.status == "disabled":
        raise InvalidFields(FieldProblem("status", "disabled", "the subscription is disabled: make it active first"))


def _require_good_secret(secret: SecretValue | None, field: str) -> None:
    if secret is not None and not SHORTEST_SECRET <= len(secret.reveal()) <= LONGEST_SECRET:
        raise InvalidFields(FieldProblem(field, "length", f"between {SHORTEST_SECRET} and {LONGEST_SECRET} characters"))
