"""Looking through what subscribers can be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Protocol

from domain.announcement import Announced
from domain.terms import Audience, Candidate, Terms

PAGE = 2000


class Announcements(Protocol):
    """What was announced, in the order of the history."""

    def announced_at(self, position: int) -> Announced:
        """Raises NotFound (`event`)."""

    def all_announced_at(self, positions: Sequence[int]) -> Sequence[Announced]:
        """Those that there are, in order."""

    def candidates(self, terms: Terms, after: int, upto: int, limit: int) -> Sequence[Candidate]:
        """At most `limit` of those behind `after`, up to `upto`, among which are all that the terms ask for."""

    def positions(self, tenant_id: str, event_ids: Sequence[str]) -> Mapping[str, int]:
        """Of those of the events that there are."""

    def first_since(self, tenant_id: str, at: datetime) -> int | None:
        """The lowest position of the tenant's at that time or later. Times need not rise with positions."""

    def last_until(self, tenant_id: str, at: datetime) -> int:
        """The highest position of the tenant's up to that time; 0 where there is none."""

    def last_position(self) -> int:
        """0 where nothing was announced yet."""


def pages(announcements: Announcements, terms: Terms, after: int, upto: int) -> Iterator[tuple[Sequence[int], int]]:
    """The positions of what the terms ask for behind `after`, up to `upto`, in order and page by page, each with the
    position up to which was looked by then. A page costs much the same, whether anything of it is wanted or not."""
    audience = Audience([terms])
    while after < upto:
        page = announcements.candidates(terms, after, upto, PAGE)
        after = page[-1].position if len(page) == PAGE else upto
        asked_for = filter(terms.ask_for, page)  # costs less than looking up the path
        yield [candidate.position for candidate in asked_for if audience.of(candidate)], after


def looked_through(
    announcements: Announcements, terms: Terms, after: int, upto: int, most_pages: int, enough: int | None = None
) -> tuple[list[int], int]:
    """The positions of so many pages at most, or of the first ones that have `enough`, and up to where was looked."""
    found: list[int] = []
    for positions, looked_upto in islice(pages(announcements, terms, after, upto), most_pages):
        found += positions
        after = looked_upto
        if enough is not None and len(found) >= enough:
            break
    return found, after
