"""Every form of an event that was ever stored loads, and today's is still written down in the same way.

A golden file `<topic>@<class_version>.json` is one stored event with every field filled. Files are only added: a class
whose fields change raises its `class_version`, gains an upcast, and a new file beside the old one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import MapperDeserialisationError, StoredEvent
from eventsourcing.utils import register_topic, resolve_topic

from application.mapper import VERSION_KEY, EventMapper
from domain.event import DomainEvent

FOLDER = Path(__file__).parent / "golden" / "events"
FILES = sorted(FOLDER.glob("*.json"))
MAPPER = EventMapper()


def stored(document: dict[str, Any]) -> StoredEvent:
    return StoredEvent(**{**document, "state": json.dumps(document["state"]).encode()})


def as_document(event: DomainEventProtocol[str]) -> dict[str, Any]:
    written = MAPPER.to_stored_event(event)
    return {
        "topic": written.topic,
        "originator_id": written.originator_id,
        "originator_version": written.originator_version,
        "state": json.loads(written.state),
    }


def as_text(document: dict[str, Any]) -> str:
    """In one order of keys, and unlike Python's `==` with a difference between 1, 1.0 and true."""
    return json.dumps(document, indent=2, sort_keys=True)


def in_full(value: Any) -> Any:
    """The same with every default as a value of its own: `msgspec.convert` leaves what a form lacks to the class, from
    where it is not written down again, so that a new field with a default would go unnoticed."""
    if isinstance(value, tuple):
        return tuple(in_full(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: in_full(getattr(value, field.name)) for field in fields(value)})
    return value


def current_version(event_class: type[DomainEvent]) -> int:
    return int(getattr(event_class, VERSION_KEY, 1))


def event_classes(root: type[DomainEvent] = DomainEvent) -> Iterator[type[DomainEvent]]:
    """Those of the product that can be stored."""
    for event_class in root.__subclasses__():
        if "TOPIC" in vars(event_class) and event_class.__module__.startswith("domain."):
            yield event_class
        yield from event_classes(event_class)


def unfilled(value: Any, path: str) -> Iterator[str]:
    """Where a value is null or empty, at any depth."""
    parts = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    if value in (None, "", [], {}):
        yield path
    for key, part in parts:
        yield from unfilled(part, f"{path}.{key}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_a_stored_event_loads_and_is_written_down_the_same(file: Path) -> None:
    document = json.loads(file.read_text())
    event = MAPPER.to_domain_event(stored(document))
    rewritten = as_document(in_full(event))
    if document["state"].get(VERSION_KEY, 1) == current_version(type(event)):
        assert as_text(rewritten) == as_text(document)
    assert MAPPER.to_domain_event(stored(rewritten)) == event


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_a_golden_file_is_named_after_its_topic_and_version_and_fills_every_field(file: Path) -> None:
    document = json.loads(file.read_text())
    assert file.stem == f"{document['topic']}@{document['state'].get(VERSION_KEY, 1)}"
    assert list(unfilled(document, "document")) == []


@pytest.mark.parametrize("event_class", sorted(set(event_classes()), key=lambda each: str(vars(each)["TOPIC"])))
def test_every_event_has_a_golden_file_of_its_current_form(event_class: type[DomainEvent]) -> None:
    topic = vars(event_class)["TOPIC"]
    assert resolve_topic(topic) is event_class
    file = FOLDER / f"{topic}@{current_version(event_class)}.json"
    assert file.is_file(), f"write {file.name}: one stored event of this form with every field filled"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("subscription.subscribed@1", {"dns_names": (), "ordered": False, "buffer_size": 1000}),
        ("delivery.owed@1", {"event_id": "", "path": "", "ordered": False, "replay_id": None}),
        ("delivery.delivered@1", {"subscription_id": "", "duration_ms": None}),
        ("delivery.attempt_failed@1", {"subscription_id": "", "duration_ms": None}),
        ("delivery.given_up@1", {"subscription_id": "", "duration_ms": None}),
    ],
)
def test_what_an_older_form_did_not_say_is_as_it_was_then(name: str, fields: dict[str, Any]) -> None:
    event = MAPPER.to_domain_event(stored(json.loads((FOLDER / f"{name}.json").read_text())))
    assert {field: getattr(event, field) for field in fields} == fields


@dataclass(frozen=True)
class Renamed:
    """Stored like an event, but none of the product's. Its `colour` was once a `color`, and before that there was none."""

    TOPIC: ClassVar = "golden.renamed"
    class_version: ClassVar = 3
    originator_id: str
    originator_version: int
    timestamp: datetime
    colour: str

    @staticmethod
    def upcast_v1_v2(fields: dict[str, Any]) -> None:
        fields["color"] = "grey"

    @staticmethod
    def upcast_v2_v3(fields: dict[str, Any]) -> None:
        fields["colour"] = fields.pop("color")


register_topic(Renamed.TOPIC, Renamed)

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RED = Renamed("x_1", 1, AT, "red")


def renamed(**state: Any) -> DomainEvent:
    state = {"timestamp": "2026-11-23T12:00:00Z", **state}
    return MAPPER.to_domain_event(StoredEvent("x_1", 1, Renamed.TOPIC, json.dumps(state).encode()))


@pytest.mark.parametrize(
    ("state", "colour"),
    [({}, "grey"), ({"class_version": 2, "color": "red"}, "red"), ({"class_version": 3, "colour": "red"}, "red")],
)
def test_an_older_form_goes_through_every_upcast_from_its_own_version_on(state: dict[str, Any], colour: str) -> None:
    assert vars(renamed(**state))["colour"] == colour


def test_a_later_form_is_written_with_its_version() -> None:
    assert as_document(RED)["state"] == {"timestamp": "2026-11-23T12:00:00Z", "colour": "red", "class_version": 3}


@pytest.mark.parametrize("state", [{}, {"colour": 1}, {"colour": None}])
def test_a_form_that_lacks_a_field_or_has_another_type_in_it_does_not_load(state: dict[str, Any]) -> None:
    with pytest.raises(MapperDeserialisationError, match=r"golden.renamed of x_1 version 1 does not load"):
        renamed(class_version=3, **state)
