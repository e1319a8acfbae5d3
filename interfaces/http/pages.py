"""Lists: how long, from where on, and how they go on."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import msgspec
from litestar.di import NamedDependency
from litestar.params import FromQuery

from domain.errors import FieldProblem, InvalidFields

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000
START = -1
PLACE = re.compile(rb"after:([0-9]{1,18})")


class Page(msgspec.Struct, frozen=True):
    """`after` is the place behind which the list goes on."""

    after: int
    limit: int


FromPage = NamedDependency[Page]
"""What a handler's parameter `page` is."""


def page_of(limit: FromQuery[int | None] = None, cursor: FromQuery[str | None] = None) -> Page:
    """A dependency. Raises InvalidFields."""
    if limit is not None and not 1 <= limit <= LARGEST_LIMIT:
        raise InvalidFields(FieldProblem("limit", "out_of_range", f"between 1 and {LARGEST_LIMIT}"))
    return Page(after=_place(cursor) if cursor is not None else START, limit=limit or DEFAULT_LIMIT)


def _place(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
    except (ValueError, binascii.Error):
        text = b""
    match = PLACE.fullmatch(text)
    if match is None:
        raise InvalidFields(FieldProblem("cursor", "invalid_cursor", "not a cursor of this list"))
    return int(match[1])


def cursor_at(place: int) -> str:
    return base64.urlsafe_b64encode(f"after:{place}".encode()).rstrip(b"=").decode()


def next_cursor(places: Sequence[int], page: Page) -> str | None:
    """Where the list goes on; `places` are those of one row more than the page holds, if there are so many."""
    return cursor_at(places[page.limit - 1]) if len(places) > page.limit else None
