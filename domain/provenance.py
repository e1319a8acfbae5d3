"""Who caused an event, and where it stands in the order of all events. Both are stored beside an event, never in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domain.event import DomainEvent

DEFAULT_TENANT = "tnt_default"

IdentityType = Literal["token", "operator", "system"]


@dataclass(frozen=True)
class Provenance:
    """`identity_id` is a token's id, the operator's login or the name of a process manager. `causation` is the
    `subject@version` whose state made a process manager act."""

    tenant_id: str
    identity_type: IdentityType
    identity_id: str
    request_id: str | None = None
    causation: str | None = None
    source_ip: str | None = None
    user_agent: str | None = None


def of_process(process: str, origin: Provenance, subject: str, version: int) -> Provenance:
    """What a process manager does stays under the request that began it all: `origin` is of the subject's first event."""
    return Provenance(
        origin.tenant_id, "system", process, request_id=origin.request_id, causation=f"{subject}@{version}"
    )


@dataclass(frozen=True)
class Recorded:
    """An event as it stands in the store. `position` is its place in the order of all events, from 1, without gaps."""

    position: int
    event: DomainEvent
    by: Provenance
