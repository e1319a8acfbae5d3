"""What a command recorded, in a form that a test can state in full."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from eventsourcing.domain import BaseAggregate

NOT_OF_ITS_OWN = ("originator_id", "originator_version", "originator_topic", "timestamp")


def recorded(aggregate: BaseAggregate[str], at: datetime) -> list[tuple[type, dict[str, Any]]]:
    """The class and the fields of its own of each event since the last call, all of which must have happened `at`."""
    events = aggregate.collect_events()
    assert all((event.originator_id, event.timestamp) == (aggregate.id, at) for event in events)
    return [
        (type(event), {name: value for name, value in vars(event).items() if name not in NOT_OF_ITS_OWN})
        for event in events
    ]
