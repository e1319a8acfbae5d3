"""Requests that wait for somebody outside, such as a CA: only so many at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from interfaces.http.problems import TooBusy
from interfaces.http.services import Services


@contextmanager
def outside_call(services: Services) -> Iterator[None]:
    """Raises TooBusy instead of waiting for its turn."""
    if not services.outside.acquire(blocking=False):
        raise TooBusy("too many requests wait for others outside")
    try:
        yield
    finally:
        services.outside.release()
