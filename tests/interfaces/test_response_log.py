"""What receivers said is kept for a while, and goes by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

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


def test_each_one_that_is_kept_takes_some_with_it_whose_time_is_over(pool: Pool, log: PostgresResponseLog) -> None:
    for number in range(25):
        log.keep(f"del_{number}", 503, "try later")
    expire(pool, *(f"del_{number}" for number in range(24)))

    counts = []
    for number in range(3):
        log.keep(f"del_new_{number}", 503, "try later")
        counts.append(len(kept(pool)))

    assert counts == [16, 7, 4]
    assert [delivery_id for delivery_id, _, _ in kept(pool)] == ["del_24", "del_new_0", "del_new_1", "del_new_2"]


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

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(keep, range(4)))

    left = [delivery_id for delivery_id, _, _ in kept(pool)]
    assert left == sorted([*(f"del_{number}_{of}" for number in range(4) for of in range(5)), "del_of_all"])
