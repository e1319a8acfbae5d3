"""Subscribing to events, and what can be done with a subscription."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from application.announcements import Announcements, wanted
from application.caller import Caller
from application.errors import EgressRefused, ResolverFailed
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore, RequireDialable
from application.secret_value import SecretValue
from application.urls import is_plain_url
from application.webhooks import SEALED_KIND, Outcome, Webhooks
from application.x509 import require_ca_bundle
from domain.access import subscription_tested
from domain.acknowledgement import rewound
from domain.announcement import EVENT_TYPES, TEST, Announcement, EventType, SubscriptionTest
from domain.delivery import Delivery
from domain.errors import Denied, FieldProblem, InvalidFields, NotFound
from domain.globs import is_path_glob, lies_under
from domain.subscription import LONGEST_OVERLAP, Subscription, WebhookTarget
from domain.token import Token

SHORTEST_SECRET, LONGEST_SECRET = 16, 512
MOST_PATHS = 100
MOST_WILDCARDS = 16  # in one path: all subscribers' paths are looked up together
LARGEST_BUFFER = 10_000
LONGEST_DNS_NAME = 253


class Wish(msgspec.Struct, frozen=True):
    """What somebody asks to be told, and how; `url` is None for polling. `domains` are globs of DNS names."""

    name: str
    paths: Sequence[str]
    events: Sequence[str]
    domains: Sequence[str] = ()
    url: str | None = None
    ca_bundle_pem: str | None = None
    ordered: bool = False
    buffer_size: int = 1000


class Changes(msgspec.Struct, frozen=True):
    """What is to be different from now on. `identity_id` hands the subscription over to another token."""

    name: str | UnsetType = UNSET
    paths: Sequence[str] | UnsetType = UNSET
    events: Sequence[str] | UnsetType = UNSET
    domains: Sequence[str] | UnsetType = UNSET
    url: str | UnsetType = UNSET
    ca_bundle_pem: str | UnsetType | None = UNSET
    ordered: bool | UnsetType = UNSET
    buffer_size: int | UnsetType = UNSET
    identity_id: str | UnsetType = UNSET
    status: Literal["active", "paused"] | UnsetType = UNSET


class ReplayPlan(msgspec.Struct, frozen=True):
    """The events behind the position `after`, up to `upto`, of which the subscription wants `count`."""

    after: int
    upto: int
    count: int


class Subscriptions:
    def __init__(
        self,
        store: EventStore,
        keys: KeyStore,
        announcements: Announcements,
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
        event_types = _require_valid(wish)
        require_may_write(caller, wish.paths)
        require_within_limits(wish.paths, caller)
        self._require_reachable(wish.url)
        _require_good_secret(secret, "delivery.secret")
        subscription_id = self._ids.new("sub")
        target, generated = None, None
        if wish.url is not None:
            sealed_secret_id, generated = self._seal(caller.tenant_id, subscription_id, secret)
            target = WebhookTarget(wish.url, sealed_secret_id, wish.ca_bundle_pem)
        subscription = Subscription.subscribe(
            subscription_id,
            tenant_id=caller.tenant_id,
            identity_id=caller.token_id,
            name=wish.name,
            paths=tuple(wish.paths),
            event_types=event_types,
            target=target,
            dns_names=tuple(wish.domains),
            ordered=wish.ordered,
            buffer_size=wish.buffer_size,
            now=self._clock.now(),
        )
        self._store.record(subscription, by=caller.provenance)
        return subscription_id, generated

    def revise(self, subscription_id: str, changes: Changes, caller: Caller) -> None:
        """Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        if changes.status is not UNSET and not subscription.is_webhook:
            raise InvalidFields(FieldProblem("status", "not_a_webhook", "polling needs no pause"))
        wish = _revised(_wish_of(subscription), changes)
        if (wish.url is None) is subscription.is_webhook:
            raise InvalidFields(
                FieldProblem("delivery.url", "invalid", "a subscription stays what it is: webhook or polling")
            )
        event_types = _require_valid(wish)
        require_may_write(caller, wish.paths)
        require_within_limits(wish.paths, caller)
        if wish.url != subscription.url:
            self._require_reachable(wish.url)
        owner = subscription.identity_id if changes.identity_id is UNSET else changes.identity_id
        if owner != subscription.identity_id:
            self._require_may_hand_over(subscription, owner, caller)
        now = self._clock.now()
        subscription.revise(
            identity_id=owner,
            name=wish.name,
            paths=tuple(wish.paths),
            event_types=event_types,
            dns_names=tuple(wish.domains),
            ordered=wish.ordered,
            buffer_size=wish.buffer_size,
            url=wish.url,
            ca_bundle_pem=wish.ca_bundle_pem,
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
        """Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        _require_enabled(subscription)
        delivery = self._store.load(Delivery, delivery_id, caller.tenant_id)
        if delivery.subscription_id != subscription_id:
            raise NotFound(Delivery.TOPIC, delivery_id)
        require_within_limits([delivery.path], caller)
        delivery.reopen(self._clock.now())
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
        given them again. With `dry_run` they are only counted. Raises NotFound, InvalidFields, Denied."""
        subscription = self._load(subscription_id, caller)
        _require_enabled(subscription)
        if until is not None and not subscription.is_webhook:
            raise InvalidFields(FieldProblem("to", "invalid", "a polling subscription is replayed to the end"))
        plan = self._plan(subscription, since, until)
        if dry_run:
            return plan
        now = self._clock.now()
        if subscription.is_webhook:
            if plan.count:
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
        count = sum(1 for _ in wanted(self._announcements, subscription.terms(), after, upto))
        return ReplayPlan(after, upto, count)

    def _load(self, subscription_id: str, caller: Caller) -> Subscription:
        subscription = self._store.load(Subscription, subscription_id, caller.tenant_id)
        if subscription.status == "ended":
            raise NotFound(Subscription.TOPIC, subscription_id)
        require_may_write(caller, subscription.paths)
        require_within_limits(subscription.paths, caller)
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


def require_may_write(caller: Caller, paths: Sequence[str]) -> None:
    """`pki:admin` suffices where all paths lie under `pki/`. Raises Denied."""
    if not (caller.may("pki:admin") and all(lies_under(path, "pki") for path in paths)):
        caller.require("subscriptions:write")


def is_within_limits(paths: Sequence[str], caller: Caller) -> bool:
    """A token for certain certificates hears of those alone, each named; what a name limit lets through no path can
    say."""
    limits = caller.limits
    allowed = {f"pki/certificates/{certificate_id}" for certificate_id in limits.certificate_ids}
    return not limits.dns_names and (not allowed or allowed.issuperset(paths))


def require_within_limits(paths: Sequence[str], caller: Caller) -> None:
    """Raises Denied."""
    if not is_within_limits(paths, caller):
        raise Denied("access_denied", "this token may not hear of other certificates")


def _require_enabled(subscription: Subscription) -> None:
    if subscription.status == "disabled":
        raise InvalidFields(FieldProblem("status", "disabled", "the subscription is disabled: make it active first"))


def _require_good_secret(secret: SecretValue | None, field: str) -> None:
    if secret is not None and not SHORTEST_SECRET <= len(secret.reveal()) <= LONGEST_SECRET:
        raise InvalidFields(FieldProblem(field, "length", f"between {SHORTEST_SECRET} and {LONGEST_SECRET} characters"))


def _require_valid(wish: Wish) -> tuple[EventType, ...]:
    """The event types in the catalogue's order. Raises InvalidFields."""
    for field, values in (("paths", wish.paths), ("events", wish.events), ("filters.domains", wish.domains)):
        if len(values) > MOST_PATHS:
            raise InvalidFields(FieldProblem(field, "too_many", f"at most {MOST_PATHS}"))
    problems = list(_problems(wish))
    if problems:
        raise InvalidFields(*problems)
    require_ca_bundle(wish.ca_bundle_pem, "delivery.ca_bundle_pem")
    return tuple(event_type for event_type in EVENT_TYPES if event_type in wish.events)


def _problems(wish: Wish) -> Iterator[FieldProblem]:
    if not wish.paths:
        yield FieldProblem("paths", "required", "at least one path is needed")
    if not wish.events:
        yield FieldProblem("events", "required", "at least one event type is needed")
    for index, path in enumerate(wish.paths):
        if not is_path_glob(path) or sum(map(path.count, "*?")) > MOST_WILDCARDS:
            message = (
                f"segments without a leading slash; ** only as a whole segment; at most {MOST_WILDCARDS} wildcards"
            )
            yield FieldProblem(f"paths[{index}]", "invalid_glob", message)
    for index, event in enumerate(wish.events):
        if event not in EVENT_TYPES:
            yield FieldProblem(f"events[{index}]", "unknown", f"known are {', '.join(EVENT_TYPES)}")
    for index, domain in enumerate(wish.domains):
        if not 1 <= len(domain) <= LONGEST_DNS_NAME:
            yield FieldProblem(f"filters.domains[{index}]", "invalid", f"at most {LONGEST_DNS_NAME} characters")
    if wish.url is None and wish.ca_bundle_pem is not None:
        yield FieldProblem("delivery.ca_bundle_pem", "not_a_webhook", "polling takes none")
    if wish.url is not None and not is_plain_url(wish.url, {"http", "https"}):
        yield FieldProblem("delivery.url", "invalid", "an https URL without user information is needed")
    if not 1 <= wish.buffer_size <= LARGEST_BUFFER:
        yield FieldProblem("delivery.buffer_size", "out_of_range", f"between 1 and {LARGEST_BUFFER}")


def _wish_of(subscription: Subscription) -> Wish:
    return Wish(
        name=subscription.name,
        paths=subscription.paths,
        events=subscription.event_types,
        domains=subscription.dns_names,
        url=subscription.url,
        ca_bundle_pem=subscription.ca_bundle_pem,
        ordered=subscription.ordered,
        buffer_size=subscription.buffer_size,
    )


def _revised(wish: Wish, changes: Changes) -> Wish:
    given = {
        name: value
        for name, value in msgspec.structs.asdict(changes).items()
        if value is not UNSET and name in Wish.__struct_fields__
    }
    return msgspec.structs.replace(wish, **given)
