"""What receivers said is kept for a while, and goes by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Event

import pytest

from application.errors import StoreUnavailable
from interfaces.postgres.pool import Pool
from interfaces.postgres.response_log import KEPT_FOR, PostgresResponseLog


@pytest.fixture
def log(pool: Pool) -> PostgresResponseLog:
    return PostgresResponseLog(pool)


def expire(pool: Pool, *delivery_ids: str) -> None:
    with pool.connection() as connection:
        statement = "UPDATE delivery_responses SET expires_at = now() - interval '1 s' WHERE delivery_id = ANY(%s)"
        connection.execute(statement, [list(delivery_ids)])


def kept(pool: Pool) -> list[tuple[str, int, str]]:
    with pool.connection() as connection:
        query = "SELECT delivery_id, status, body FROM delivery_responses ORDER BY delivery_id"
        return connection.execute(query).fetchall()


def test_what_was_said_is_given_back_by_delivery(log: PostgresResponseLog) -> None:
    log.keep("del_1", 503, "try later")
    log.keep("del_2", 200, "ü\U0001f512")
    log.keep("del_3", 200, "")

    assert log.of(["del_1", "del_2", "del_nobody"]) == {"del_1": "try later", "del_2": "ü\U0001f512"}
    assert log.of(["del_3"]) == {"del_3": ""}
    assert log.of([]) == {}


def test_what_was_said_last_takes_the_place_of_what_was_said_before(pool: Pool, log: PostgresResponseLog) -> None:
    log.keep("del_1", 503, "try later")
    log.keep("del_1", 204, "thank you")

    assert kept(pool) == [("del_1", 204, "thank you")]


def test_it_is_kept_for_a_week(pool: Pool, log: PostgresResponseLog) -> None:
    assert timedelta(days=7) == KEPT_FOR
    log.keep("del_1", 503, "try later")

    with pool.connection() as connection:
        lasts = "SELECT expires_at > now() + %s, expires_at <= now() + %s FROM delivery_responses"
        row = connection.execute(lasts, [KEPT_FOR - timedelta(hours=1), KEPT_FOR]).fetchone()
    assert row == (True, True)


def test_what_is_past_its_time_is_not_shown(pool: Pool, log: PostgresResponseLog) -> None:
    log.keep("del_1", 503, "try later")
    log.keep("del_2", 503, "try later")
    expire(pool, "del_1")

    assert log.of(["del_1", "del_2"]) == {"del_2": "try later"}


def test_a_further_answer_to_the_same_delivery_is_kept_anew(pool: Pool, log: PostgresResponseLog) -> None:
    log.keep("del_1", 503, "try later")
    expire(pool, "del_1")

    log.keep("del_1", 204, "thank you")

    assert log.of(["del_1"]) == {"del_1": "thank you"}


def test_those_whose_time_is_over_are_forgotten_so_many_at_once(pool: Pool, log: PostgresResponseLog) -> None:
    for number in range(25):
        log.keep(f"del_{number:02}", 503, "try later")
    expire(pool, *(f"del_{number:02}" for number in range(24)))

    counts = []
    for _ in range(4):
        log.expire(10)
        counts.append(len(kept(pool)))

    assert counts == [15, 5, 1, 1]
    assert [delivery_id for delivery_id, _, _ in kept(pool)] == ["del_24"]


def test_what_is_forgotten_waits_for_nobody(pool: Pool, log: PostgresResponseLog) -> None:
    """Neither for what is just being kept anew, which could wait for another in its turn, nor it for this."""
    for number in range(2):
        log.keep(f"del_{number}", 503, "try later")
    expire(pool, "del_0", "del_1")
    with pool.connection() as connection, connection.transaction():
        connection.execute("SELECT FROM delivery_responses WHERE delivery_id = 'del_0' FOR UPDATE")
        log.expire(10)
        log.keep("del_1", 503, "again")
        assert [delivery_id for delivery_id, _, _ in kept(pool)] == ["del_0", "del_1"]


def test_many_at_once_keep_all_and_stand_in_nobodys_way(pool: Pool, log: PostgresResponseLog) -> None:
    for number in range(40):
        log.keep(f"del_old_{number}", 503, "try later")
    expire(pool, *(f"del_old_{number}" for number in range(40)))
    all_at_once = Barrier(4)

    def keep(number: int) -> None:
        all_at_once.wait(timeout=10)
        for of in range(5):
            log.keep(f"del_{number}_{of}", 503, "try later")
            log.keep("del_of_all", 503, f"said to {number}")
            log.expire(2)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(keep, range(4)))

    left = [delivery_id for delivery_id, _, _ in kept(pool)]
    assert left == sorted([*(f"del_{number}_{of}" for number in range(4) for of in range(5)), "del_of_all"])


def test_what_is_old_is_forgotten_now_and_then_and_an_outage_is_survived(
    pool: Pool, log: PostgresResponseLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.keep("del_1", 503, "try later")
    expire(pool, "del_1")
    forgets = [log.expire]

    def expire_after_an_outage(limit: int) -> None:
        if len(forgets) == 1:
            forgets.append(log.expire)
            raise StoreUnavailable("gone")
        forgets[0](limit)
        stop.set()

    stop = Event()
    monkeypatch.setattr("interfaces.postgres.response_log.EXPIRE_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(log, "expire", expire_after_an_outage)
    log.run(stop)
    assert kept(pool) == []
