"""How an event is written down: a stable topic and its fields as JSON.

A stored event of every version ever shipped must load: an event class that changes its fields raises its
`class_version` and gains an `upcast_vN_vN+1` that turns the old fields into the new ones."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent
from eventsourcing.utils import get_topic, resolve_topic

import domain.access
import domain.account
import domain.acknowledgement
import domain.certificate
import domain.delivery
import domain.dns_provider
import domain.order
import domain.secret
import domain.subscription
import domain.token  # noqa: F401  importing a module registers its topics
from application.prepared_types import prepare_types
from domain.event import DomainEvent

VERSION_KEY = "class_version"
NOT_IN_STATE = ("originator_id", "originator_version")


class EventMapper(Mapper[str]):
    """The id and version of the originator are columns of the store, so they are not repeated in the state."""

    def __init__(self) -> None:
        prepare_types()
        self.compressor = None
        self.cipher = None

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        fields: dict[str, Any] = msgspec.to_builtins(domain_event)
        for name in NOT_IN_STATE:
            del fields[name]
        version = getattr(type(domain_event), VERSION_KEY, 1)
        if version > 1:
            fields[VERSION_KEY] = version
        return StoredEvent(
            originator_id=domain_event.originator_id,
            originator_version=domain_event.originator_version,
            topic=get_topic(type(domain_event)),
            state=msgspec.json.encode(fields),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEvent:
        event_class = resolve_topic(stored_event.topic)
        try:
            fields: dict[str, Any] = msgspec.json.decode(stored_event.state)
            for version in range(fields.pop(VERSION_KEY, 1), getattr(event_class, VERSION_KEY, 1)):
                getattr(event_class, f"upcast_v{version}_v{version + 1}")(fields)
            fields["originator_id"] = stored_event.originator_id
            fields["originator_version"] = stored_event.originator_version
            return cast("DomainEvent", msgspec.convert(fields, event_class))
        except msgspec.MsgspecError as problem:
            raise MapperDeserialisationError(
                f"{stored_event.topic} of {stored_event.originator_id} "
                f"version {stored_event.originator_version} does not load: {problem}"
            ) from problem
