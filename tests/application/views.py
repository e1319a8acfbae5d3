"""The read models in memory, as far as the use cases ask them, and a store that writes them in the same transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent

from application.event_store import Append, Taken
from domain.account import Account
from domain.dns_provider import DnsProvider, ManagedZones
from domain.event import DomainEvent
from domain.order import Order
from domain.provenance import Recorded
from domain.subscription import Listener, Subscription
from tests.fakes import FakeClock, MemoryStore


class Views:
    """What the read models know that the use cases ask for, and what must be unique among them."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
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
        event = recorded.event
        match event:
            case DnsProvider.Connected(managed_zones=zones, timestamp=at):
                self._names.add(_name_of(event))
                self._zones[event.tenant_id].append(ManagedZones(event.originator_id, zones, at))
                if event.provider_type == "embedded":
                    self._embedded += [(event.tenant_id, zone) for zone in zones]
            case Account.Registered():
                self._names.add(_name_of(event))
            case Order.Placed(account_id=account_id):
                self._running[event.originator_id] = (account_id, frozenset(_names_of(event)))
            case Order.ChallengesOffered(challenges=challenges):
                self._shown[event.originator_id] = {offered.record.value for offered in challenges if offered.record}
            case Order.Completed() | Order.Failed():
                del self._running[event.originator_id]
                self._shown.pop(event.originator_id, None)
            case Subscription.Subscribed(tenant_id=tenant_id, paths=paths, event_types=types):
                self.listeners.append(Listener(event.originator_id, tenant_id, paths, types, recorded.position))


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
        for position, event in zip(positions or (), append.events, strict=True):
            self._views.apply(Recorded(position, event, append.by))
        return positions
