"""How far a polling subscriber has come. Each event is a stream of its own: acknowledging is frequent, and commutes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from eventsourcing.utils import register_topic

from domain.event import DomainEvent


@dataclass(frozen=True)
class Acknowledged(DomainEvent):
    """The events at `positions` are dealt with, and so is everything up to `cursor`. It was `after` when this was worked
    out: where it stands before that now, somebody asked for all again meanwhile, and nothing of this counts."""

    TOPIC = "acknowledgement.acknowledged"
    subscription_id: str
    positions: tuple[int, ...]
    after: int
    cursor: int


@dataclass(frozen=True)
class Rewound(DomainEvent):
    """Everything behind `cursor` is to be given out again, whatever was acknowledged."""

    TOPIC = "acknowledgement.rewound"
    subscription_id: str
    cursor: int


AcknowledgementEvent = Acknowledged | Rewound

for event_class in (Acknowledged, Rewound):
    register_topic(event_class.TOPIC, event_class)


def acknowledged(
    event_id: str, subscription_id: str, positions: tuple[int, ...], after: int, cursor: int, now: datetime
) -> Acknowledged:
    return Acknowledged(event_id, 1, now, subscription_id, positions, after, cursor)


def rewound(event_id: str, subscription_id: str, cursor: int, now: datetime) -> Rewound:
    return Rewound(event_id, 1, now, subscription_id, cursor)
