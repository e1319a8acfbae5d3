"""The read models in memory, as far as the use cases ask them, and a store that writes them in the same transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from eventsourcing.persistence import StoredEvent

from application.event_store import Append, Taken
from domain.account import Account
from domain.acknowledgement import Acknowledged, Rewound
from domain.announcement import Announced, announcement_of, causation
from domain.certificate import Certificate
from domain.delivery import Delivery
from domain.dns_provider import DnsProvider, ManagedZones, Removal
from domain.errors import NotFound
from domain.event import DomainEvent
from domain.order import Order
from domain.provenance import Recorded
from domain.rate_limit import FULL, Bucket, Level, after, set_digest
from domain.subscription import Subscription
from domain.terms import Candidate, Terms, pattern_characters
from projections.rate_limits import entries_of
from tests.fakes import FakeClock, MemoryStore


class AnnouncedView:
    """As `projections/announcements.py`."""

    def __init__(self) -> None:
        self.all: list[Announced] = []

    def apply(self, recorded: Recorded) -> None:
        told = announcement_of(recorded)
        if told is not None:
            announced = Announced(
                position=told.sequence,
                event_id=told.event_id,
                tenant_id=told.tenant_id,
                event_type=told.event_type,
                path=told.path,
                dns_names=getattr(told.data, "domains", ()),
                at=told.timestamp,
                causation=causation(recorded),
                request_id=told.request_id,
                body=msgspec.json.encode(told).decode(),
            )
            self.all.append(announced)

    def of(self, tenant_id: str) -> Sequence[Announced]:
        return [announced for announced in self.all if announced.tenant_id == tenant_id]

    def candidates(self, terms: Terms, after: int, upto: int, limit: int) -> Sequence[Candidate]:
        is_wild = any(set("*?") & set(path) for path in terms.paths)
        beginnings = tuple(path.partition("*")[0].partition("?")[0] for path in terms.paths)
        return [
            Candidate(
                announced.position, announced.tenant_id, announced.event_type, announced.path, announced.dns_names
            )
            for announced in self.of(terms.tenant_id)
            if after < announced.position <= upto
            and announced.event_type in terms.event_types
            and (announced.path.startswith(beginnings) if is_wild else announced.path in terms.paths)
        ][:limit]


class TermsView:
    """As `projections/terms.py`: of each subscription all terms, in order."""

    def __init__(self) -> None:
        self.all: dict[str, list[Terms]] = {}
        self._polled: set[str] = set()

    def apply(self, recorded: Recorded) -> None:
        event, position = recorded.event, recorded.position
        terms = self.all.get(event.originator_id, [])
        match event:
            case Subscription.Subscribed():
                if event.target is None:
                    self._polled.add(event.originator_id)
                self.all[event.originator_id] = [
                    Terms(
                        subscription_id=event.originator_id,
                        tenant_id=event.tenant_id,
                        paths=event.paths,
                        event_types=event.event_types,
                        dns_names=event.dns_names,
                        ordered=event.ordered,
                        after=position,
                        upto=None,
                    )
                ]
            case Subscription.Revised() if terms:
                revised = replace(
                    terms[-1],
                    paths=event.paths,
                    event_types=event.event_types,
                    dns_names=event.dns_names,
                    ordered=event.ordered,
                    after=position,
                    upto=None if terms[-1].upto is None else position,
                )
                if replace(revised, after=terms[-1].after, upto=terms[-1].upto) != terms[-1]:
                    self._close(terms, position)
                    terms.append(revised)
            case Subscription.Disabled() | Subscription.Unsubscribed() if terms:
                self._close(terms, position)
            case Subscription.Enabled() if terms:
                terms.append(replace(terms[-1], after=position, upto=None))
            case Rewound(subscription_id=subscription_id, cursor=after) if subscription_id in self._polled:
                last = self.all[subscription_id][-1]
                earlier = (each for each in self.all[subscription_id][:-1] if each.after < after)
                self.all[subscription_id] = [
                    *(replace(each, upto=min(each.upto or after, after)) for each in earlier),
                    replace(last, after=min(last.after, after)),
                ]
            case _:
                pass

    def since(self, after: int) -> Sequence[Terms]:
        webhooks = (of_one for subscription_id, of_one in self.all.items() if subscription_id not in self._polled)
        found = (terms for of_one in webhooks for terms in of_one if terms.upto is None or terms.upto > after)
        return sorted(found, key=lambda terms: (terms.after, terms.subscription_id))

    def polled(self, subscription_id: str) -> Sequence[Terms]:
        return list(self.all[subscription_id]) if subscription_id in self._polled else []

    def _close(self, terms: list[Terms], position: int) -> None:
        if terms[-1].upto is None:
            terms[-1] = replace(terms[-1], upto=position)


class CursorsView:
    """As `projections/polling_cursors.py`."""

    def __init__(self) -> None:
        self.all: dict[str, tuple[int, frozenset[int]]] = {}

    def apply(self, recorded: Recorded) -> None:
        match recorded.event:
            case Subscription.Subscribed(target=None, originator_id=subscription_id):
                self.all[subscription_id] = (recorded.position, frozenset())
            case Acknowledged(subscription_id=subscription_id) as event if subscription_id in self.all:
                position, beyond = self.all[subscription_id]
                position = max(position, event.cursor)
                beyond = frozenset(p for p in beyond.union(event.positions) if p > position)
                self.all[subscription_id] = (position, beyond)
            case Rewound(subscription_id=subscription_id) as event if subscription_id in self.all:
                position, beyond = self.all[subscription_id]
                position = min(position, event.cursor)
                self.all[subscription_id] = (position, frozenset(p for p in beyond if position < p <= event.cursor))
            case Subscription.Unsubscribed(originator_id=subscription_id):
                self.all.pop(subscription_id, None)
            case _:
                pass


class FailuresView:
    """As `projections/delivery_statistics.py`: by subscription, minute by minute, the first failure and whether there was
    a success."""

    def __init__(self) -> None:
        self._minutes: defaultdict[str, dict[datetime, tuple[datetime | None, bool]]] = defaultdict(dict)

    def apply(self, recorded: Recorded) -> None:
        event = recorded.event
        match event:
            case Delivery.Delivered(subscription_id=subscription_id):
                failed_at, succeeded = None, True
            case (
                Delivery.AttemptFailed(subscription_id=subscription_id)
                | Delivery.GivenUp(subscription_id=subscription_id)
            ):
                failed_at, succeeded = event.timestamp, False
            case _:
                return
        minutes = self._minutes[subscription_id]
        minute = event.timestamp.replace(second=0, microsecond=0)
        first, any_success = minutes.get(minute, (None, False))
        minutes[minute] = (first or failed_at, any_success or succeeded)

    def since(self, subscription_id: str) -> datetime | None:
        since = None
        for _, (first, any_success) in sorted(self._minutes[subscription_id].items()):
            since = None if any_success else since or first
        return since


class LedgerView:
    """As `projections/rate_limits.py`, and what was issued by which CA when, by the set of names."""

    def __init__(self) -> None:
        self.levels: dict[Bucket, Level] = {}
        self._cas: dict[str, str] = {}
        self._accounts: dict[str, str] = {}
        self.renewing: dict[str, str] = {}
        """By certificate line the account, of those that are renewed by themselves."""
        self.issued: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)

    def apply(self, recorded: Recorded) -> None:
        for entry in entries_of(recorded):
            self.levels[entry.bucket] = after(self.levels.get(entry.bucket, FULL), entry, recorded.event.timestamp)
        event = recorded.event
        match event:
            case Account.Registered(directory_url=ca):
                self._cas[event.originator_id] = ca
            case Certificate.Issued(account_id=account_id):
                self._accounts[event.originator_id] = account_id
                self._switch(event.originator_id, on=event.auto_renew)
                self._note(event)
            case Certificate.AutoRenewalSwitched(on=on):
                self._switch(event.originator_id, on=on)
            case Certificate.Renewed():
                self._note(event)
            case _:
                pass

    def _switch(self, certificate_id: str, *, on: bool) -> None:
        if on:
            self.renewing[certificate_id] = self._accounts[certificate_id]
        else:
            self.renewing.pop(certificate_id, None)

    def _note(self, event: Certificate.Issued | Certificate.Renewed) -> None:
        ca = self._cas.get(self._accounts[event.originator_id], "")
        self.issued[ca, set_digest(event.dns_names)].append(event.version.not_before)


class Views:
    """What the read models know that the use cases ask for, and what must be unique among them."""

    def __init__(self) -> None:
        self._announced, self._terms = AnnouncedView(), TermsView()
        self._cursors, self._failures = CursorsView(), FailuresView()
        self._ledger = LedgerView()
        self._failed: list[tuple[str, str]] = []
        self._removals: list[tuple[str, Removal]] = []
        self._busy: set[tuple[str, str]] = set()
        self._renewing: dict[str, str] = {}
        self._paused: set[str] = set()
        self._ended: set[str] = set()
        self._zones: defaultdict[str, list[ManagedZones]] = defaultdict(list)
        self._names: set[tuple[str, ...]] = set()
        self._running: dict[str, tuple[str, frozenset[str]]] = {}
        self._embedded: list[tuple[str, str]] = []
        self._shown: dict[str, set[str]] = {}

    def managed_zones(self, tenant_id: str) -> list[ManagedZones]:
        return self._zones[tenant_id]

    def is_account_name(self, tenant_id: str, name: str) -> bool:
        return (Account.Registered.TOPIC, tenant_id, name) in self._names

    def embedded_zones_of_others(self, tenant_id: str) -> Sequence[str]:
        return [zone for other, zone in self._embedded if other != tenant_id]

    def is_shown_for_another(self, order_id: str, record_value: str) -> bool:
        return any(record_value in values for other, values in self._shown.items() if other != order_id)

    def shown_by(self, order_id: str, record_values: set[str]) -> None:
        self._shown[order_id] = record_values

    def running_order(self, account_id: str, dns_names: Sequence[str]) -> str | None:
        return self._running_for(account_id, dns_names)

    def renewing_through(self, account_id: str, most: int) -> Sequence[str]:
        return [line for line, account in self._ledger.renewing.items() if account == account_id][:most]

    def running_orders(self, account_id: str, most: int) -> Sequence[str]:
        return [order_id for order_id, (account, _) in self._running.items() if account == account_id][:most]

    def order_at_provider(self, dns_provider_id: str) -> str | None:
        busy = {order_id for provider_id, order_id in self._busy if provider_id == dns_provider_id}
        return next(iter(sorted(busy)), None)

    def removals(self, dns_provider_id: str, after: int, since: datetime, limit: int) -> Sequence[Removal]:
        return [
            each
            for provider_id, each in self._removals
            if provider_id == dns_provider_id and each.position > after and each.at >= since
        ][:limit]

    def failed_renewals(self, certificate_id: str, most: int) -> Sequence[str]:
        return [order_id for certificate, order_id in reversed(self._failed) if certificate == certificate_id][:most]

    def levels(self, buckets: Collection[Bucket]) -> Mapping[Bucket, Level]:
        return {bucket: self._ledger.levels[bucket] for bucket in buckets if bucket in self._ledger.levels}

    def was_issued(self, ca: str, names_digest: str, since: datetime) -> bool:
        return any(at >= since for at in self._ledger.issued[ca, names_digest])

    def all_terms(self, after: int) -> Sequence[Terms]:
        return self._terms.since(after)

    def polling_terms(self, subscription_id: str) -> Sequence[Terms]:
        return self._terms.polled(subscription_id)

    def subscribed(self, tenant_id: str) -> tuple[int, int]:
        latest = [of_one[-1] for of_one in self._terms.all.values() if of_one[-1].tenant_id == tenant_id]
        there = [terms for terms in latest if terms.subscription_id not in self._ended]
        return len(there), sum(pattern_characters(terms.paths, terms.dns_names) for terms in there)

    def paused(self) -> Sequence[str]:
        return sorted(self._paused)

    def failing_since(self, subscription_id: str) -> datetime | None:
        return self._failures.since(subscription_id)

    def polling_cursor(self, subscription_id: str) -> tuple[int, frozenset[int]] | None:
        return self._cursors.all.get(subscription_id)

    def announced(self, after: int, limit: int) -> Sequence[Announced]:
        return [announced for announced in self._announced.all if announced.position > after][:limit]

    def announced_at(self, position: int) -> Announced:
        for announced in self._announced.all:
            if announced.position == position:
                return announced
        raise NotFound("event", f"at {position}")

    def all_announced_at(self, positions: Sequence[int]) -> Sequence[Announced]:
        return [announced for announced in self._announced.all if announced.position in positions]

    def candidates(self, terms: Terms, after: int, upto: int, limit: int) -> Sequence[Candidate]:
        return self._announced.candidates(terms, after, upto, limit)

    def positions(self, tenant_id: str, event_ids: Sequence[str]) -> Mapping[str, int]:
        return {each.event_id: each.position for each in self._announced.of(tenant_id) if each.event_id in event_ids}

    def first_since(self, tenant_id: str, at: datetime) -> int | None:
        return min((each.position for each in self._announced.of(tenant_id) if each.at >= at), default=None)

    def last_until(self, tenant_id: str, at: datetime) -> int:
        return max((each.position for each in self._announced.of(tenant_id) if each.at <= at), default=0)

    def last_position(self) -> int:
        return max((each.position for each in self._announced.all), default=0)

    def _running_for(self, account_id: str, dns_names: Sequence[str]) -> str | None:
        wanted = (account_id, frozenset(dns_names))
        return next((order_id for order_id, running in self._running.items() if running == wanted), None)

    def require_free(self, events: Sequence[DomainEvent]) -> None:
        """Raises Taken."""
        ends = {event.originator_id for event in events if isinstance(event, Order.Failed)}
        for event in events:
            match event:
                case DnsProvider.Connected() | Account.Registered() if _name_of(event) in self._names:
                    raise Taken("name")
                case Order.Placed(originator_id=order_id) if order_id not in ends:
                    if self._running_for(event.account_id, _names_of(event)) is not None:
                        raise Taken("orders_running")

    def apply(self, recorded: Recorded) -> None:
        for view in (self._announced, self._terms, self._cursors, self._failures, self._ledger):
            view.apply(recorded)
        event = recorded.event
        if isinstance(event, Order.Placed) and event.renewal_reason is not None:
            self._renewing[event.originator_id] = event.certificate_id
        if isinstance(event, Order.Failed) and event.originator_id in self._renewing:
            self._failed.append((self._renewing[event.originator_id], event.originator_id))
        if isinstance(event, Order.RecordRemoved | Order.RecordLeft):
            record = event.record
            removal = Removal(recorded.position, event.timestamp, event.originator_id, record.name, record.value)
            self._removals.append((record.dns_provider_id, removal))
        if isinstance(event, Subscription.Unsubscribed):
            self._ended.add(event.originator_id)
        match event:
            case DnsProvider.Revised(managed_zones=zones):
                for held in self._zones.values():
                    held[:] = [
                        ManagedZones(each.dns_provider_id, zones, each.connected_at)
                        if each.dns_provider_id == event.originator_id
                        else each
                        for each in held
                        if each.dns_provider_id != event.originator_id or event.is_active
                    ]
            case DnsProvider.Disconnected():
                for held in self._zones.values():
                    held[:] = [each for each in held if each.dns_provider_id != event.originator_id]
            case DnsProvider.Connected(managed_zones=zones, timestamp=at):
                self._names.add(_name_of(event))
                self._zones[event.tenant_id].append(ManagedZones(event.originator_id, zones, at))
                if event.provider_type == "embedded":
                    self._embedded += [(event.tenant_id, zone) for zone in zones]
            case Account.Registered():
                self._names.add(_name_of(event))
            case Order.RecordRemoved(outstanding=0) | Order.RecordLeft(outstanding=0):
                self._busy = {each for each in self._busy if each[1] != event.originator_id}
            case Order.Placed(account_id=account_id):
                self._busy |= {(each.dns_provider_id or "", event.originator_id) for each in event.assignments}
                self._running[event.originator_id] = (account_id, frozenset(_names_of(event)))
            case Order.ChallengesOffered(challenges=challenges):
                self._shown[event.originator_id] = {offered.record.value for offered in challenges if offered.record}
            case Order.Completed() | Order.Failed():
                if event.originator_id not in self._shown:
                    self._busy = {each for each in self._busy if each[1] != event.originator_id}
                del self._running[event.originator_id]
                self._shown.pop(event.originator_id, None)
            case Subscription.Paused():
                self._paused.add(event.originator_id)
            case Subscription.Resumed() | Subscription.Disabled() | Subscription.Unsubscribed():
                self._paused.discard(event.originator_id)
            case _:
                pass


def _name_of(event: DnsProvider.Connected | Account.Registered) -> tuple[str, ...]:
    return (type(event).TOPIC, event.tenant_id, event.name)


def _names_of(event: Order.Placed) -> Sequence[str]:
    return [assignment.dns_name for assignment in event.assignments]


class ViewedStore(MemoryStore):
    """With the views written in the same transaction."""

    def __init__(self, clock: FakeClock, views: Views) -> None:
        super().__init__(clock)
        self._views = views

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        append: Append = kwargs["append"]
        self._views.require_free(append.events)
        positions = super().insert_events(stored_events, **kwargs)
        for position, event, by in zip(positions or (), append.events, append.by, strict=True):
            self._views.apply(Recorded(position, event, by))
        return positions
