"""What Prometheus is told: the figures as families of samples, in its text format (`docs/metrics.md`).

Every replica tells the same, for all of it comes from the database. No label tells of a tenant or of a name."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import accumulate
from typing import Any, get_args

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from domain.order import OrderErrorCode
from interfaces import measurements
from interfaces.measurements import BOUND, CA_SECONDS, DNS_SECONDS, QUERY_FAILURES, SUM
from projections.order_statistics import MEASURED_PHASES, PHASE_BUCKETS

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.removesuffix("; charset=utf-8")  # the framework says it of every text
FRESH_SECONDS = 1.0

Rows = Sequence[tuple[Any, ...]]
Read = Callable[[], Mapping[str, Rows]]
"""By query what it found. One that failed is not there, and neither are its families then."""

LEFT = ("expired", "<1d", "<7d", "<14d", "<30d", "<60d", ">=60d")
DELIVERY_STATES = ("pending", "dead")
RENEWAL_WINDOWS = ("yes", "no", "none")
ERROR_CODES: tuple[str, ...] = get_args(OrderErrorCode)


class Metrics:
    """However many ask at the same time, one collection serves them all, and those who come within a second of it."""

    def __init__(
        self,
        read: Read,
        version: str,
        thread: Executor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._version = version
        self._thread = thread
        self._monotonic = monotonic
        self._collecting: asyncio.Future[bytes] | None = None
        self._collected_at = 0.0

    async def exposition(self) -> bytes:
        """Raises StoreUnavailable."""
        collecting = self._collecting
        if collecting is None or (collecting.done() and not self._is_fresh(collecting)):
            loop = asyncio.get_running_loop()
            collecting = self._collecting = loop.run_in_executor(self._thread, self._collect)
        return await asyncio.shield(collecting)  # who hangs up spoils it for nobody

    def _is_fresh(self, collected: asyncio.Future[bytes]) -> bool:
        is_good = not collected.cancelled() and collected.exception() is None
        return is_good and self._monotonic() < self._collected_at + FRESH_SECONDS

    def _collect(self) -> bytes:
        found = self._read()
        text = generate_latest(_Families([self._build(), *self._families(found)]))
        self._collected_at = self._monotonic()
        return text

    def _build(self) -> Metric:
        family = GaugeMetricFamily("scaivault_build_info", "The version that answers; always 1.", labels=["version"])
        family.add_metric([self._version], 1)
        return family

    def _families(self, found: Mapping[str, Rows]) -> Iterator[Metric]:
        for query, families in FAMILIES.items():
            if query in found:
                yield from families(found[query])


class _Families:
    """What `generate_latest` calls a registry."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _events(rows: Rows) -> Iterator[Metric]:
    yield CounterMetricFamily("scaivault_events", "Events in the history.", rows[0][0])


def _followers(rows: Rows) -> Iterator[Metric]:
    behind = GaugeMetricFamily(
        "scaivault_follower_behind_events", "How far each follower is behind the history.", labels=["follower"]
    )
    for follower, events in rows:
        behind.add_metric([follower], events)
    yield behind


def _certificates(rows: Rows) -> Iterator[Metric]:
    counts: Mapping[Any, int] = dict(rows)
    family = GaugeMetricFamily("scaivault_certificates", "Certificate lines by the time left to them.", labels=["left"])
    for place, left in enumerate(LEFT):
        family.add_metric([left], counts.get(place, 0))
    yield family


def _todo(rows: Rows) -> Iterator[Metric]:
    depth = GaugeMetricFamily("scaivault_todo", "Rows of the to-do list.", labels=["process", "state"])
    oldest = GaugeMetricFamily(
        "scaivault_todo_oldest_due_seconds", "How long the oldest due row waits for a worker.", labels=["process"]
    )
    for process, due, waiting, held, oldest_seconds in rows:
        for state, count in (("due", due), ("waiting", waiting), ("held", held)):
            depth.add_metric([process, state], count)
        oldest.add_metric([process], float(oldest_seconds))
    yield depth
    yield oldest


def _deliveries(rows: Rows) -> Iterator[Metric]:
    counts: Mapping[Any, int] = dict(rows)
    family = GaugeMetricFamily("scaivault_webhook_deliveries", "Deliveries that were not made.", labels=["state"])
    for state in DELIVERY_STATES:
        family.add_metric([state], counts.get(state, 0))
    yield family


def _orders(rows: Rows) -> Iterator[Metric]:
    sums: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for kind, subject, part, amount in rows:
        sums[kind][subject, part] = amount
    ended = CounterMetricFamily("scaivault_orders_ended", "Orders by how they ended.", labels=["result", "error"])
    ended.add_metric(["completed", ""], sums["ended"].pop(("completed", ""), 0))
    for code, amount in (dict.fromkeys(ERROR_CODES, 0) | {code: n for (code, _), n in sums["ended"].items()}).items():
        ended.add_metric(["failed", code], amount)
    yield ended
    yield _phases(sums["phase"], sums["phase_ms"])
    renewals = CounterMetricFamily(
        "scaivault_renewals",
        "Renewals that nobody asked for, by whether they began in the CA's window.",
        labels=["in_window"],
    )
    for in_window in RENEWAL_WINDOWS:
        renewals.add_metric([in_window], sums["renewal"].get((in_window, ""), 0))
    yield renewals


def _phases(counts: Mapping[tuple[str, str], int], milliseconds: Mapping[tuple[str, str], int]) -> Metric:
    family = HistogramMetricFamily(
        "scaivault_order_phase_duration_seconds", "How long orders were in a phase that ended well.", labels=["phase"]
    )
    for phase in MEASURED_PHASES:
        in_buckets = {bound: count for (named, bound), count in counts.items() if named == phase}
        seconds = milliseconds.get((phase, ""), 0) / 1000
        family.add_metric([phase], _cumulative(in_buckets, PHASE_BUCKETS), seconds)
    return family


def _running(rows: Rows) -> Iterator[Metric]:
    counts: Mapping[Any, int] = dict(rows)
    family = GaugeMetricFamily("scaivault_orders_running", "Orders under way, by phase.", labels=["phase"])
    for phase in MEASURED_PHASES:
        family.add_metric([phase], counts.get(phase, 0))
    yield family


def _values_left(rows: Rows) -> Iterator[Metric]:
    ((values, oldest_seconds),) = rows
    yield GaugeMetricFamily(
        "scaivault_orphan_txt_values", "TXT values of orders that have ended, not removed yet.", int(values)
    )
    yield GaugeMetricFamily(
        "scaivault_orphan_txt_oldest_seconds", "How long ago the first of their orders ended.", float(oldest_seconds)
    )


def _measured(rows: Rows) -> Iterator[Metric]:
    by_name: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    for name, labels, value in rows:
        by_name[name].append((labels, value))
    for name, documentation, names in (
        (CA_SECONDS, "Requests to CAs, by what came of them.", ("ca", "outcome")),
        (DNS_SECONDS, "Calls of DNS providers, by what came of them.", ("provider_type", "operation", "outcome")),
    ):
        yield _histogram(name, documentation, names, by_name[name], by_name[name + SUM])
    failures = CounterMetricFamily(
        f"scaivault_{QUERY_FAILURES}", "Queries for these metrics that failed.", labels=["query"]
    )
    failed = {labels["query"]: value for labels, value in by_name[QUERY_FAILURES]}
    for query in {**FAMILIES, **failed}:
        failures.add_metric([query], failed.get(query, 0))
    yield failures


def _histogram(
    name: str,
    documentation: str,
    names: Sequence[str],
    counts: Iterable[tuple[Mapping[str, str], float]],
    seconds: Iterable[tuple[Mapping[str, str], float]],
) -> Metric:
    in_buckets: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for labels, value in counts:
        in_buckets[_values(labels, names)][labels[BOUND]] = value
    sums = {_values(labels, names): value for labels, value in seconds}
    family = HistogramMetricFamily(f"scaivault_{name}", documentation, labels=names)
    for values in sorted(in_buckets):
        family.add_metric(values, _cumulative(in_buckets[values], measurements.BUCKETS), sums.get(values, 0))
    return family


def _values(labels: Mapping[str, str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels.get(name, "") for name in names)


def _cumulative(in_buckets: Mapping[str, float], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """As Prometheus counts: in each bucket also what is in those below. Stored bounds that are none any more still
    count."""
    found = {float(bound): count for bound, count in in_buckets.items()}
    all_bounds = sorted({*bounds, *found, float("inf")})
    sums = accumulate(found.get(bound, 0) for bound in all_bounds)
    return [
        ("+Inf" if bound == float("inf") else str(bound), count) for bound, count in zip(all_bounds, sums, strict=True)
    ]


FAMILIES: Mapping[str, Callable[[Rows], Iterator[Metric]]] = {
    "events": _events,
    "followers": _followers,
    "todo": _todo,
    "certificates": _certificates,
    "deliveries": _deliveries,
    "orders": _orders,
    "orders_running": _running,
    "values_left": _values_left,
    "measurements": _measured,
}
