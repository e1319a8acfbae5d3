"""The one event store of the service: where every fact goes, and from where every aggregate comes.

It is the `eventsourcing` library's Application with a mapper and a recorder of our own. One call of `record` is one
transaction: the events in their order, the to-do rows that follow from them, and the inline views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import BaseAggregate
from eventsourcing.persistence import ApplicationRecorder, Mapper, RecordConflictError
from eventsourcing.utils import Environment, EnvType

from application.mapper import EventMapper
from application.process.todo import Claim, Decision, TodoItem
from domain.errors import NotFound, VersionConflict
from domain.event import DomainEvent
from domain.provenance import Provenance, Recorded

A = TypeVar("A", bound=BaseAggregate[str])
Decisions = Mapping[type[BaseAggregate[str]], Sequence[Decision]]
"""By the class of the aggregate: who decides what to do next."""

Subject = BaseAggregate[str] | DomainEvent


class Taken(Exception):
    """Something that must be unique is in use; `what` names it (a constraint of an inline view)."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Append(msgspec.Struct):
    """What the recorder is given beside the stored events, as the keyword argument `append` of `insert_events`. It
    answers with `still_held`: whether the claim goes on to the next step, which is due already. `by` has one for each
    event."""

    events: Sequence[DomainEvent]
    todo: Sequence[TodoItem]
    by: Sequence[Provenance]
    claim: Claim | None
    still_held: bool = False


class InlineView(Protocol):
    """A read model that is written in the transaction of the events, so that a client reads its own writes."""

    def apply(self, cursor: Any, events: Sequence[Recorded]) -> None: ...


class History(Protocol):
    """Reads the events of all aggregates in the order in which they were recorded, those of one, and who was at its
    beginning."""

    def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """Those after the position `after`, at most `limit`; an event is never passed over."""

    def of(self, subject_id: str) -> Sequence[Recorded]:
        """All events of one aggregate, the first one first."""

    def origin(self, subject_id: str) -> Provenance:
        """Who caused the first event of an aggregate. Raises NotFound (`event`)."""


class EventStore(Application[str]):
    """Give it a recorder and, by the class of the aggregate, who decides what to do next."""

    name = "scaivault"

    def __init__(self, recorder: ApplicationRecorder, decisions: Decisions) -> None:
        self._recorder = recorder
        self._decisions = decisions
        super().__init__()

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Nothing of the process's environment reaches the library."""
        return Environment(name, dict(env or {}))

    def construct_mapper(self) -> Mapper[str]:
        return EventMapper()

    def construct_recorder(self) -> ApplicationRecorder:
        return self._recorder

    def load(self, aggregate_class: type[A], subject_id: str, tenant_id: str | None = None) -> A:
        """The aggregate as it is now. Raises NotFound, also where it belongs to another tenant than the one given."""
        try:
            aggregate: Any = self.repository.get(subject_id)
        except AggregateNotFoundError:
            aggregate = None
        if not isinstance(aggregate, aggregate_class) or tenant_id not in {None, getattr(aggregate, "tenant_id", None)}:
            raise NotFound(aggregate_class.TOPIC, subject_id)  # type: ignore[attr-defined]
        return aggregate

    def record(self, *subjects: Subject, by: Provenance, claim: Claim | None = None) -> bool:
        """Appends what is pending in the aggregates, and the single events given, all or nothing.

        Says whether `claim` is held for another step, which is due already. Raises VersionConflict, Taken,
        StoreUnavailable, and LeaseLost where `claim` is no longer held. Then everything is still pending."""
        return self.record_each([(subject, by) for subject in subjects], claim)

    def record_each(self, subjects: Sequence[tuple[Subject, Provenance]], claim: Claim | None = None) -> bool:
        """The same, where not all is caused by the same."""
        pending = [(event, by) for subject, by in subjects for event in _pending(subject)]
        if not pending:
            return False
        events = [event for event, _ in pending]
        aggregates = [
            subject for subject, _ in subjects if isinstance(subject, BaseAggregate) and subject.pending_events
        ]
        todo = [
            decision.item(aggregate)
            for aggregate in aggregates
            for decision in self._decisions.get(type(aggregate), ())
        ]
        append = Append(events, todo, [by for _, by in pending], claim)
        try:
            self.save(*events, append=append)
        except RecordConflictError:
            raise VersionConflict from None
        for aggregate in aggregates:
            aggregate.collect_events()
        return append.still_held


def _pending(subject: Subject) -> Iterator[DomainEvent]:
    if isinstance(subject, DomainEvent):
        yield subject
    else:
        yield from subject.pending_events  # type: ignore[misc]
