"""What every event of every aggregate carries.

The library's own `DomainEvent` insists on UUIDs; ids here are text (`cert_01k…`), so the root of the tree is ours.
Who caused an event and why is not in it: that is its provenance, stored beside it (`application/event_store.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from eventsourcing.domain import CanInitAggregate, CanMutateAggregate, MetaDomainEvent


@dataclass(frozen=True)
class DomainEvent(CanMutateAggregate[str], metaclass=MetaDomainEvent):
    """A fact. `timestamp` is when it happened by the clock of the process that decided it, aware and in UTC."""

    originator_id: str
    originator_version: int
    timestamp: datetime


@dataclass(frozen=True)
class InitialEvent(DomainEvent, CanInitAggregate[str]):
    """The first event of an aggregate; `originator_topic` names the aggregate's class."""

    originator_topic: str
