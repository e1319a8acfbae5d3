"""Two years of renewals on a fake clock, with outages and incidents, held against a CA that counts for itself.

The certificates are in two halves, which share neither accounts nor registered domains: the limits of one do not reach the
other. Each half is deterministic by the seed; the digest is of all events of both. `tests/simulation/run.py` says what is
the real service and what is skipped, `tests/simulation/ca.py` how the CA counts."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context

from tests.simulation.ca import Book
from tests.simulation.population import INCIDENTS, OUTAGES, START
from tests.simulation.run import DAYS, Figures, simulate

HALVES = 2
LEAST_INSIDE = 0.999
WORTH_A_PROCESS = 2000
"""Certificates; fewer are done sooner in one process than two are started."""


def holds(certificates: int, seed: int, days: int = DAYS, book: Book = "boulder") -> tuple[bool, str]:
    """Prints its figures, and gives whether it holds with a line about it."""
    began = time.perf_counter()
    sizes = [certificates // HALVES + (half < certificates % HALVES) for half in range(HALVES)]
    halves = _in_processes(sizes, seed, days, book) if certificates >= WORTH_A_PROCESS else None
    if halves is None:
        halves = [simulate(size, seed, half, days, book) for half, size in enumerate(sizes)]
    report(halves, days, book)
    seconds, cpu_seconds = time.perf_counter() - began, sum(half.cpu_seconds for half in halves)
    renewed, over, expired = (sum(each) for each in zip(*map(_counts, halves), strict=True))
    share = _share_inside(halves)
    good = (
        expired == 0
        and over == 0
        and share >= LEAST_INSIDE
        and all(half.not_replaced == 0 and half.issued >= half.lines for half in halves)
    )
    return good, (
        f"simulation: {certificates} certificates, {days} days, {renewed} renewals, expired {expired}, over-limit {over},"
        f" in window {share:.3%}, {seconds:.0f} s ({cpu_seconds:.0f} s of CPU), digest {digest_of(halves)}"
    )


def digest_of(halves: Sequence[Figures]) -> str:
    return hashlib.sha256(" ".join(half.digest for half in halves).encode()).hexdigest()[:16]


def report(halves: Sequence[Figures], days: int, book: Book) -> None:
    def total(name: str) -> int:
        return sum(getattr(half, name) for half in halves)

    outside, over = Counter[str](), Counter[str]()
    for half in halves:
        outside.update(half.outside)
        over.update(half.over)
    end = START + timedelta(days=days)
    outages = sum(outage.start < end for outage in OUTAGES)
    incidents = sum(at < end for at in INCIDENTS)
    print(f"{total('lines')} certificates, {days} days, limits as by {book}: {total('events')} events")
    print(f"  issued {total('issued')}, renewed {total('renewed')}, of these by hand {total('renewed_by_hand')}")
    print(f"  expired {total('expired')}; {total('told_of_expiry')} warnings before the end")
    print(f"  least that was left of a lifetime at a renewal: {min(half.shortest_left for half in halves):.2%}")
    print(f"  orders that the CA refused for a limit: {over.total()} {dict(over) or ''}")
    print(f"  refused by our own ledger before the CA was asked: {total('refused_beforehand')} of those who ordered,")
    print(f"  {total('postponed')} renewals postponed; {total('held')} held by the breaker, {total('failed')} failed")
    print(f"  in the CA's window {total('inside')} ({_share_inside(halves):.3%} of those that could be),")
    print(f"  outside of it {dict(outside)}")
    longest = max((half.longest_to_replace for half in halves), default=timedelta())
    print(f"  {outages} outages of three days; {incidents} incidents with {total('revoked')} certificates in all,")
    print(f"  the last replaced after {longest.total_seconds() / 3600:.1f} h, not replaced {total('not_replaced')}")


def _counts(half: Figures) -> tuple[int, int, int]:
    return half.renewed, half.over.total(), max(half.expired, half.expired_events)


def _share_inside(halves: Sequence[Figures]) -> float:
    inside = sum(half.inside for half in halves)
    missed = sum(half.outside["unexplained"] for half in halves)
    return inside / (inside + missed) if inside + missed else 0.0


def _in_processes(sizes: Sequence[int], seed: int, days: int, book: Book) -> list[Figures]:
    with ProcessPoolExecutor(HALVES, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(simulate, size, seed, half, days, book) for half, size in enumerate(sizes)]
        return [each.result() for each in running]
