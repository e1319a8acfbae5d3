"""The `webhooks` of the OpenAPI description: what is sent for each event type, made of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import datetime
from typing import Any, get_type_hints

import msgspec

from domain.announcement import CATALOGUE, TEST, Announcement, SubscriptionTest

HEADERS = {
    "X-ScaiVault-Event-Id": "The event's id, the same in each attempt",
    "X-ScaiVault-Event-Type": "The event's type",
    "X-ScaiVault-Timestamp": "When this attempt was signed, in Unix seconds",
    "X-ScaiVault-Signature": "`sha256=` and the HMAC of `{timestamp}.{body}` in hex; two of them during a rotation",
    "webhook-id": "The event's id, as Standard Webhooks has it",
    "webhook-timestamp": "The timestamp, as Standard Webhooks has it",
    "webhook-signature": "The signatures, as Standard Webhooks has them",
}


def webhooks() -> Mapping[str, Any]:
    """Path items by event type."""
    told: dict[str, Any] = {event_type: _path_item(event_type, data) for event_type, data in CATALOGUE.items()}
    return told | {TEST: _path_item(TEST, SubscriptionTest)}


def _path_item(event_type: str, data_type: type) -> Mapping[str, Any]:
    body = _schema(Announcement, {"data": _schema(data_type), "event_type": {"const": event_type}})
    return {
        "post": {
            "summary": event_type,
            "operationId": f"told_{event_type.replace('.', '_')}",
            "parameters": [
                {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
                for name, text in HEADERS.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "2XX": {"description": "Taken"},
                "410": {"description": "Not wanted any longer: the subscription is disabled"},
                "default": {"description": "Not taken: it is sent again"},
            },
            "security": [],
        }
    }


def _schema(dataclass_type: type, known: Mapping[str, Any] = {}) -> Mapping[str, Any]:
    """Of a dataclass, with those it holds written out; `known` are properties that are told already."""
    properties = {name: known.get(name) or _property(hint) for name, hint in get_type_hints(dataclass_type).items()}
    return {
        "type": "object",
        "title": dataclass_type.__name__,
        "properties": properties,
        "required": list(properties),
    }


def _property(hint: Any) -> Mapping[str, Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        return _schema(hint)
    schema = msgspec.json.schema(hint)
    if hint is datetime:
        return {**schema, "format": "date-time"}
    if hint == datetime | None:
        return {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    return schema
