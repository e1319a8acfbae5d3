"""What msgspec knows of our types, learnt before there are threads.

It learns a type when it first meets it, and shows what it has learnt to other threads before it is done: two that meet the
same nested type for the first time at the same moment end the process (seen with 0.22)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from domain.event import DomainEvent
from domain.provenance import Provenance

OURS = frozenset({"application", "domain", "interfaces", "projections"})


def prepare_types() -> None:
    """All stored events and all structs of the modules that are imported by now. What is known already costs nothing."""
    for kind in (*_below(DomainEvent), *_below(msgspec.Struct), Provenance):
        if kind.__module__.partition(".")[0] in OURS:
            with suppress(TypeError):  # what cannot be read from JSON at all is read nowhere
                msgspec.json.Decoder(kind)


def _below(base: type[Any]) -> Iterator[type[Any]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _below(kind)
