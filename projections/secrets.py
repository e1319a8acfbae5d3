"""Stored secrets as the API lists them: never a value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from domain.provenance import Recorded
from domain.secret import Secret
from projections.documents import DocumentView
from projections.times import whole_seconds


class SecretView(msgspec.Struct, frozen=True):
    path: str
    version: int
    secret_type: str
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime


def fold(secret: SecretView | None, recorded: Recorded) -> SecretView:
    event = recorded.event
    at = whole_seconds(event.timestamp)
    match event:
        case Secret.Stored():
            return SecretView(event.path, 1, event.secret_type, event.metadata, at, at)
        case Secret.VersionAdded() if secret is not None:
            return replace(
                secret,
                version=event.number,
                secret_type=event.secret_type,
                metadata=event.metadata,
                updated_at=at,
            )
        case _:
            raise ValueError(f"no rule for {event}")


SECRETS = DocumentView(name="secrets", document_type=SecretView, event_class=Secret.Event, fold=fold)
