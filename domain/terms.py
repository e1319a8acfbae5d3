"""What a subscription asks for, and who is to be told of an event."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from domain.globs import GlobIndex
from domain.names import any_glob_takes


class Heading(Protocol):
    """What decides who is told of an event: all but its body."""

    @property
    def position(self) -> int: ...

    @property
    def tenant_id(self) -> str: ...

    @property
    def event_type(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def dns_names(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Candidate:
    """A heading alone."""

    position: int
    tenant_id: str
    event_type: str
    path: str
    dns_names: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """What a subscription asked for at the positions behind `after`, up to `upto` (None: to this day)."""

    subscription_id: str
    tenant_id: str
    paths: tuple[str, ...]
    event_types: tuple[str, ...]
    dns_names: tuple[str, ...]
    ordered: bool
    after: int
    upto: int | None

    def ask_for(self, heading: Heading) -> bool:
        """Whether everything fits but the path, which an `Audience` looks up for all terms at once."""
        return (
            self.tenant_id == heading.tenant_id
            and heading.event_type in self.event_types
            and self.after < heading.position
            and (self.upto is None or heading.position <= self.upto)
            and (not self.dns_names or _any_taken(self.dns_names, heading.dns_names))
        )


def pattern_characters(paths: Iterable[str], dns_names: Iterable[str]) -> int:
    """How many a subscription's patterns have together: what looking them up costs goes with it."""
    return sum(map(len, paths)) + sum(map(len, dns_names))


class Audience:
    """Finds who is to be told. Safe in many threads."""

    def __init__(self, all_terms: Sequence[Terms]) -> None:
        self._terms = all_terms
        self._index = GlobIndex((glob, number) for number, terms in enumerate(all_terms) for glob in terms.paths)

    def of(self, heading: Heading) -> Sequence[Terms]:
        """In the order in which they were given."""
        found = (self._terms[number] for number in sorted(self._index.owners(heading.path)))
        return [terms for terms in found if terms.ask_for(heading)]


def _any_taken(globs: tuple[str, ...], dns_names: Iterable[str]) -> bool:
    takers = _takers(globs)
    return any(takers(dns_name) for dns_name in dns_names)


@lru_cache(maxsize=4096)
def _takers(globs: tuple[str, ...]) -> Callable[[str], bool]:
    return any_glob_takes(globs)
