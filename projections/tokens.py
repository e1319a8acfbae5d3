"""API tokens as operators list them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from domain.provenance import Recorded
from domain.token import Token
from projections.documents import DocumentView, Pool
from projections.times import whole_seconds


class TokenView(msgspec.Struct, frozen=True):
    id: str
    name: str | None
    scopes: Sequence[str]
    status: str
    expires_at: datetime
    created_at: datetime


def fold(token: TokenView | None, recorded: Recorded) -> TokenView:
    event = recorded.event
    match event:
        case Token.Issued():
            return TokenView(
                id=event.originator_id,
                name=event.name,
                scopes=event.scopes,
                status="active",
                expires_at=whole_seconds(event.expires_at),
                created_at=whole_seconds(event.timestamp),
            )
        case Token.Revoked() if token is not None:
            return replace(token, status="revoked")
        case _:
            raise ValueError(f"no rule for {event}")


def usable(pool: Pool, token_ids: Sequence[str], now: datetime) -> frozenset[str]:
    """Those of them that are neither revoked nor expired."""
    query = "SELECT document::text FROM tokens WHERE id = ANY(%s)"
    with pool.connection() as connection:
        rows = connection.execute(query, [list(token_ids)]).fetchall()
    tokens = [msgspec.json.decode(text, type=TokenView) for (text,) in rows]
    return frozenset(token.id for token in tokens if token.status == "active" and token.expires_at > now)


TOKENS = DocumentView(name="tokens", document_type=TokenView, event_class=Token.Event, fold=fold)
