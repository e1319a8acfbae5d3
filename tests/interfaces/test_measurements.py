"""What is measured in memory, and what becomes of it in the table that all processes share."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from interfaces import measurements as measurements_module
from interfaces.measurements import BUCKETS, CA_SECONDS, Measurements, Series
from interfaces.postgres import measurements as postgres_module
from interfaces.postgres.measurements import MOST_HOSTS, OTHER, PostgresMeasurements
from interfaces.postgres.pool import Pool

THREADS, TIMES = 8, 500


def stored(pool: Pool) -> Mapping[tuple[Any, ...], float]:
    """By the name and the labels' values in the order of their names."""
    with pool.connection() as connection:
        rows = connection.execute("SELECT name, labels, value FROM measurements").fetchall()
    return {(name, *(labels[each] for each in sorted(labels))): value for name, labels, value in rows}


def seen(pool: Pool, host: str, measurements: Measurements | None = None) -> PostgresMeasurements:
    """One answer of that CA, flushed."""
    measurements = measurements or Measurements()
    measurements.count("asked", ca=host)
    process = PostgresMeasurements(pool, measurements)
    process.flush()
    return process


# --- in memory ------------------------------------------------------------------------------------------------------


def test_what_is_counted_is_added_up_by_name_and_labels() -> None:
    measurements = Measurements()
    measurements.count("asked", of="a", outcome="ok")
    measurements.count("asked", outcome="ok", of="a")
    measurements.count("asked", of="b", outcome="ok")
    measurements.count("told", of="a", outcome="ok")

    assert measurements.take() == {
        Series("asked", (("of", "a"), ("outcome", "ok"))): 2,
        Series("asked", (("of", "b"), ("outcome", "ok"))): 1,
        Series("told", (("of", "a"), ("outcome", "ok"))): 1,
    }


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [(0, "0.01"), (0.01, "0.01"), (0.010001, "0.025"), (0.3, "0.5"), (60, "60.0"), (60.1, "+Inf"), (1e9, "+Inf")],
)
def test_a_duration_is_in_the_one_bucket_whose_bound_it_does_not_pass(seconds: float, bound: str) -> None:
    measurements = Measurements()
    measurements.observe("took", seconds, of="a")

    assert measurements.take() == {
        Series("took", (("le", bound), ("of", "a"))): 1,
        Series("took_sum", (("of", "a"),)): seconds,
    }


def test_what_was_taken_is_not_there_any_more_until_it_is_given_back() -> None:
    measurements = Measurements()
    measurements.count("asked")
    taken = measurements.take()
    assert measurements.take() == {}

    measurements.count("asked")
    measurements.give_back(taken)

    assert measurements.take() == {Series("asked", ()): 2}


def test_many_threads_lose_nothing_while_somebody_takes() -> None:
    measurements = Measurements()
    found: list[float] = []

    def measure(_: int) -> None:
        for _ in range(TIMES):
            measurements.count("asked")

    with ThreadPoolExecutor(THREADS) as threads:
        running = threads.map(measure, range(THREADS))
        found += [sum(measurements.take().values()) for _ in range(100)]
        list(running)

    assert sum(found) + sum(measurements.take().values()) == THREADS * TIMES


def test_what_nobody_takes_grows_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements_module, "MOST_SERIES", 2)
    measurements = Measurements()
    for of in ("a", "b", "c", "a"):
        measurements.count("asked", of=of)

    assert measurements.take() == {Series("asked", (("of", "a"),)): 2, Series("asked", (("of", "b"),)): 1}


def test_the_bounds_rise() -> None:
    assert list(BUCKETS) == sorted(set(BUCKETS))


# --- in the table ---------------------------------------------------------------------------------------------------


def test_the_increments_of_all_processes_add_up_also_after_a_restart(pool: Pool) -> None:
    first, second = Measurements(), Measurements()
    one, other = PostgresMeasurements(pool, first), PostgresMeasurements(pool, second)
    totals = []
    for process, measured in ((one, first), (other, second), (one, first)):
        measured.observe("took", 0.3, of="a")
        process.flush()
        totals.append(stored(pool))
    after_restart = Measurements()
    after_restart.observe("took", 20, of="a")
    PostgresMeasurements(pool, after_restart).flush()
    totals.append(stored(pool))

    assert [total["took", "0.5", "a"] for total in totals] == [1, 2, 3, 3]
    assert [round(total["took_sum", "a"], 6) for total in totals] == [0.3, 0.6, 0.9, 20.9]
    assert totals[-1]["took", "30.0", "a"] == 1


def test_a_flush_without_anything_new_changes_nothing(pool: Pool) -> None:
    process = seen(pool, "ca.example")
    before = stored(pool)
    process.flush()
    assert stored(pool) == before


def test_what_could_not_be_written_is_written_the_next_time(pool: Pool) -> None:
    measurements = Measurements()
    process = PostgresMeasurements(pool, measurements)
    with pool.connection() as connection:
        connection.execute("ALTER TABLE measurements RENAME TO gone")
    measurements.count("asked")
    process.flush()
    measurements.count("asked")
    process.flush()
    with pool.connection() as connection:
        connection.execute("ALTER TABLE gone RENAME TO measurements")

    process.flush()

    assert stored(pool) == {("asked",): 2}


def test_a_database_that_is_away_fails_nobody_and_keeps_what_was_measured(pool: Pool) -> None:
    measurements = Measurements()
    measurements.count("asked")
    pool.close()

    PostgresMeasurements(pool, measurements).flush()

    assert measurements.take() == {Series("asked", ()): 1}


def test_a_table_that_somebody_holds_is_not_waited_for_long(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "LIMITS", "SET LOCAL lock_timeout = '50ms'")
    measurements = Measurements()
    measurements.count("asked")
    process = PostgresMeasurements(pool, measurements)
    with pool.connection() as connection, connection.transaction():
        connection.execute("LOCK TABLE measurements")
        begun = time.monotonic()
        process.flush()
        assert time.monotonic() - begun < 2
    process.flush()

    assert stored(pool) == {("asked",): 1}


def test_processes_that_flush_the_same_series_at_once_do_not_stand_in_each_others_way(pool: Pool) -> None:
    def measure(number: int) -> None:
        measurements = Measurements()
        process = PostgresMeasurements(pool, measurements)
        for _ in range(20):
            for host in range(10)[:: 1 if number % 2 else -1]:
                measurements.count("asked", ca=f"ca{host}.example")
            process.flush()
        assert measurements.take() == {}

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(measure, range(4)))

    assert stored(pool) == {("asked", f"ca{host}.example"): 80 for host in range(10)}


def test_it_flushes_until_it_is_told_to_stop(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_module, "FLUSH_SECONDS", 0.01)
    measurements, stop = Measurements(), threading.Event()
    flushing = threading.Thread(target=PostgresMeasurements(pool, measurements).run, args=[stop])
    flushing.start()
    try:
        measurements.count("asked")
        deadline = time.monotonic() + 30
        while not stored(pool) and time.monotonic() < deadline:
            stop.wait(0.01)
    finally:
        stop.set()
        flushing.join()
    assert stored(pool) == {("asked",): 1}


# --- hosts ----------------------------------------------------------------------------------------------------------


def test_only_so_many_hosts_have_series_of_their_own_whoever_saw_them(pool: Pool) -> None:
    for number in range(MOST_HOSTS + 10):
        seen(pool, f"ca{number:03}.example")

    found = stored(pool)
    assert len(found) == MOST_HOSTS + 1
    assert found["asked", OTHER] == 10
    assert ("asked", f"ca{MOST_HOSTS - 1:03}.example") in found


def test_so_it_is_with_many_at_once_which_are_counted_together(pool: Pool) -> None:
    measurements = Measurements()
    for number in range(MOST_HOSTS + 10):
        measurements.observe(CA_SECONDS, 0.3, ca=f"ca{number:03}.example", outcome="2xx")
    PostgresMeasurements(pool, measurements).flush()

    found = stored(pool)
    assert len(found) == 2 * (MOST_HOSTS + 1)
    assert found[CA_SECONDS, OTHER, "0.5", "2xx"] == 10
    assert found[CA_SECONDS + "_sum", OTHER, "2xx"] == pytest.approx(3)


def test_a_host_that_has_its_series_keeps_it_and_so_does_one_of_the_catalogue(pool: Pool) -> None:
    for number in range(MOST_HOSTS):
        seen(pool, f"ca{number:03}.example")
    measurements = Measurements()
    process = PostgresMeasurements(pool, measurements, ["acme.known.example"])
    for host in ("ca000.example", "acme.known.example", "late.example"):
        measurements.count("asked", ca=host)
    process.flush()

    found = stored(pool)
    assert found["asked", "ca000.example"] == 2
    assert found["asked", "acme.known.example"] == 1
    assert found["asked", OTHER] == 1
    assert ("asked", "late.example") not in found


def test_those_of_the_catalogue_take_nobodys_room(pool: Pool) -> None:
    named = [f"named{number}.example" for number in range(5)]
    measurements = Measurements()
    for host in named:
        measurements.count("asked", ca=host)
    process = PostgresMeasurements(pool, measurements, named)
    process.flush()
    for number in range(MOST_HOSTS):
        measurements.count("asked", ca=f"ca{number:03}.example")
    process.flush()

    assert len(stored(pool)) == MOST_HOSTS + len(named)
