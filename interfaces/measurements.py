"""What this process measures of the outside: counters and histograms, added up in memory until somebody takes them.

Nothing is exposed from here: any number of processes add what they measured to one table
(`interfaces/postgres/measurements.py`), of which every replica tells the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from threading import Lock
from typing import NamedTuple

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of a histogram's buckets, in seconds; above them is one more, without end."""

SUM = "_sum"
"""Ends the name under which the seconds of a histogram are added up."""

BOUND = "le"
"""The label of a bucket: its upper bound. What is counted in one is in no other."""

CA_SECONDS = "ca_request_duration_seconds"
DNS_SECONDS = "dns_request_duration_seconds"
QUERY_FAILURES = "metrics_query_failures"

MOST_SERIES = 10_000
_BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


class Series(NamedTuple):
    """`labels` are pairs, sorted by name."""

    name: str
    labels: tuple[tuple[str, str], ...]


class Measurements:
    """Safe in many threads, and in nobody's way: nothing is dialled, written or raised here. What nobody takes grows no
    further than to `MOST_SERIES` series; new ones are then not counted."""

    def __init__(self) -> None:
        self._values: dict[Series, float] = {}
        self._adding = Lock()

    def count(self, name: str, **labels: str) -> None:
        self._add({Series(name, tuple(sorted(labels.items()))): 1})

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """One more value of a histogram."""
        bucket = {**labels, BOUND: _BOUNDS[bisect_left(BUCKETS, seconds)]}
        self._add(
            {
                Series(name, tuple(sorted(bucket.items()))): 1,
                Series(name + SUM, tuple(sorted(labels.items()))): seconds,
            }
        )

    def take(self) -> Mapping[Series, float]:
        """What came since the last time. It is forgotten here."""
        with self._adding:
            taken, self._values = self._values, {}
        return taken

    def give_back(self, taken: Mapping[Series, float]) -> None:
        """What could not be kept anywhere: it is taken again the next time, with what came meanwhile."""
        self._add(taken)

    def _add(self, increments: Mapping[Series, float]) -> None:
        with self._adding:
            for series, increment in increments.items():
                if series in self._values or len(self._values) < MOST_SERIES:
                    self._values[series] = self._values.get(series, 0) + increment
