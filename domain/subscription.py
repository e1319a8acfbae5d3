"""A standing wish to be told of events: which paths, which types, and where to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self, get_args

from eventsourcing.domain import BaseAggregate

from domain.event import DomainEvent, InitialEvent

EventType = Literal["certificate.issued", "certificate.renewed", "certificate.renewal_failed", "order.invalid"]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

SEGMENT = re.compile(r"(?:[A-Za-z0-9_.?*-])+")
LONGEST_GLOB = 512


@dataclass(frozen=True)
class WebhookTarget:
    """The signing secret is sealed under `sealed_secret_id`."""

    url: str
    sealed_secret_id: str
    ca_bundle_pem: str | None


class Subscription(BaseAggregate[str]):
    TOPIC = "subscription"

    class Event(DomainEvent):
        pass

    class Subscribed(InitialEvent, Event):
        """`identity_id` is whose wish it is."""

        TOPIC = "subscription.subscribed"
        tenant_id: str
        identity_id: str
        name: str
        paths: tuple[str, ...]
        event_types: tuple[EventType, ...]
        target: WebhookTarget

    def __init__(self, tenant_id: str, target: WebhookTarget) -> None:
        self.tenant_id = tenant_id
        self.target = target

    @classmethod
    def subscribe(
        cls,
        subscription_id: str,
        *,
        tenant_id: str,
        identity_id: str,
        name: str,
        paths: tuple[str, ...],
        event_types: tuple[EventType, ...],
        target: WebhookTarget,
        now: datetime,
    ) -> Self:
        return cls._create(
            cls.Subscribed,
            id=subscription_id,
            timestamp=now,
            tenant_id=tenant_id,
            identity_id=identity_id,
            name=name,
            paths=paths,
            event_types=event_types,
            target=target,
        )


@dataclass(frozen=True)
class Listener:
    """An active subscription, as far as finding it for an event needs."""

    subscription_id: str
    tenant_id: str
    paths: tuple[str, ...]
    event_types: tuple[str, ...]
    since_position: int

    def wants(self, tenant_id: str, path: str, event_type: str, position: int) -> bool:
        return (
            self.tenant_id == tenant_id
            and event_type in self.event_types
            and position > self.since_position
            and any(path_matches(glob, path) for glob in self.paths)
        )


def is_path_glob(glob: str) -> bool:
    """Segments without a leading slash; `**` only as a whole segment."""
    segments = glob.split("/")
    return len(glob) <= LONGEST_GLOB and all(
        SEGMENT.fullmatch(segment) and ("**" not in segment or segment == "**") for segment in segments
    )


def lies_under(glob: str, root: str) -> bool:
    """Whether everything that the glob can match lies under the literal first segment `root`."""
    return glob.startswith(root + "/")


def path_matches(glob: str, path: str) -> bool:
    """`*` matches within a segment, `**` any number of segments, `?` one character."""
    return _segments_match(tuple(glob.split("/")), tuple(path.split("/")))


def _segments_match(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    """Row by row over the segments, so that the time is the product of both lengths at most."""
    reachable = [True, *([False] * len(segments))]
    for part in pattern:
        if part == "**":
            for index in range(1, len(reachable)):
                reachable[index] = reachable[index] or reachable[index - 1]
        else:
            reachable = [False] + [
                reachable[index] and _segment_matches(part, segments[index]) for index in range(len(segments))
            ]
    return reachable[-1]


def _segment_matches(pattern: str, segment: str) -> bool:
    """Goes back to the last `*` only, so that the time is the product of both lengths at most."""
    at, star, after_star, resume = 0, False, 0, 0
    part = 0
    while at < len(segment):
        if part < len(pattern) and pattern[part] == "*":
            star, after_star, resume = True, part + 1, at
            part += 1
        elif part < len(pattern) and pattern[part] in {"?", segment[at]}:
            part += 1
            at += 1
        elif star:
            resume += 1
            part, at = after_star, resume
        else:
            return False
    return all(character == "*" for character in pattern[part:])
