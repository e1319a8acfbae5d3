"""Looking through what subscribers can be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from domain.announcement import Announced
from domain.subscription import Audience, Terms

PAGE = 500


class Announcements(Protocol):
    """What was announced, in the order of the history."""

    def announced_at(self, position: int) -> Announced:
        """Raises NotFound (`event`)."""

    def candidates(self, terms: Terms, after: int, upto: int, limit: int) -> Sequence[Announced]:
        """At most `limit` of those behind `after`, up to `upto`, among which are all that the terms ask for."""

    def positions(self, tenant_id: str, event_ids: Sequence[str]) -> Mapping[str, int]:
        """Of those of the events that there are."""

    def first_since(self, tenant_id: str, at: datetime) -> int | None:
        """The lowest position of the tenant's at that time or later. Times need not rise with positions."""

    def last_until(self, tenant_id: str, at: datetime) -> int:
        """The highest position of the tenant's up to that time; 0 where there is none."""

    def last_position(self) -> int:
        """0 where nothing was announced yet."""


def wanted(announcements: Announcements, terms: Terms, after: int, upto: int) -> Iterator[Announced]:
    """What the terms ask for behind `after`, up to `upto`, in order."""
    audience = Audience([terms])
    while True:
        page = announcements.candidates(terms, after, upto, PAGE)
        yield from (announced for announced in page if audience.of(announced))
        if len(page) < PAGE:
            return
        after = page[-1].position
