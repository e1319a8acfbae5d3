"""One time for all processes: the database's, whatever their own clocks show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from application.errors import StoreUnavailable
from interfaces.postgres.pool import Pool
from interfaces.postgres.store_clock import LOOK_EVERY_SECONDS, StoreClock

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Monotonic:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FarClock(StoreClock):
    """Asks a database whose time a test sets, or that is away (None)."""

    def __init__(self, at: datetime | None, monotonic: Monotonic) -> None:
        self.at, self.asked = at, 0
        super().__init__(None, monotonic)  # type: ignore[arg-type]

    def _ask(self) -> datetime:
        self.asked += 1
        if self.at is None:
            raise StoreUnavailable("away")
        return self.at


def test_it_shows_the_database_s_time(pool: Pool) -> None:
    clock = StoreClock(pool)
    with pool.connection() as connection:
        ((before,),) = connection.execute("SELECT clock_timestamp()").fetchall()
        shown = clock.now()
        ((after,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    second = timedelta(seconds=1)
    assert before - second <= shown <= after + second
    assert shown.tzinfo is not None


def test_between_two_looks_the_time_goes_on() -> None:
    monotonic = Monotonic()
    clock = FarClock(NOON, monotonic)
    monotonic.seconds += LOOK_EVERY_SECONDS
    assert (clock.now(), clock.asked) == (NOON + timedelta(seconds=LOOK_EVERY_SECONDS), 1)


@pytest.mark.parametrize("jump", [timedelta(minutes=5), timedelta(days=1), timedelta(hours=-1)], ids=str)
def test_a_database_whose_clock_was_set_is_followed_at_the_next_look(jump: timedelta) -> None:
    monotonic = Monotonic()
    clock = FarClock(NOON, monotonic)
    clock.at = NOON + jump
    assert clock.now() == NOON
    monotonic.seconds += LOOK_EVERY_SECONDS + 1
    assert (clock.now(), clock.asked) == (NOON + jump, 2)


def test_while_the_database_is_away_the_time_goes_on_and_it_is_asked_now_and_then() -> None:
    monotonic = Monotonic()
    clock = FarClock(NOON, monotonic)
    clock.at = None
    for seconds in range(1, 100):
        monotonic.seconds = 1000.0 + seconds
        assert clock.now() == NOON + timedelta(seconds=seconds)
    assert clock.asked == 4


def test_without_a_first_look_there_is_no_time() -> None:
    with pytest.raises(StoreUnavailable):
        FarClock(None, Monotonic())
