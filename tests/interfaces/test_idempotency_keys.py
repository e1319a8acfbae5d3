"""A key is claimed by one at a time, answers for a day, and is free again when it is not answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

from application.secret_value import SecretValue
from interfaces.clock import UlidIds
from interfaces.postgres import idempotency_keys
from interfaces.postgres.idempotency_keys import KEPT_FOR, LEASE, Claim, InProgress, PostgresIdempotencyKeys
from interfaces.postgres.key_store import PostgresKeyStore
from interfaces.postgres.pool import Pool
from interfaces.sealing.envelope import Sealer
from interfaces.sealing.master_keys import MasterKey

ANSWER = SecretValue(b"the answer, which is a secret")
MOMENT = timedelta(minutes=1)


@pytest.fixture
def keys(pool: Pool) -> PostgresIdempotencyKeys:
    ids = UlidIds()
    sealer = Sealer(MasterKey("test", SecretValue(bytes(32))), ())
    return PostgresIdempotencyKeys(pool, PostgresKeyStore(pool, sealer, ids), ids)


def claimed(
    keys: PostgresIdempotencyKeys, key: str = "key", token_id: str = "tok_1", tenant_id: str = "tnt_1"
) -> Claim:
    claim = keys.claim(tenant_id, token_id, key)
    assert isinstance(claim, Claim)
    return claim


def pass_time(pool: Pool, by: timedelta) -> None:
    with pool.connection() as connection:
        connection.execute(
            "UPDATE idempotency_keys SET lease_until = lease_until - %s, expires_at = expires_at - %s", [by, by]
        )


def count(pool: Pool, table: bytes) -> int:
    with pool.connection() as connection:
        row = connection.execute(b"SELECT count(*) FROM " + table).fetchone()
    assert row is not None
    return int(row[0])


def test_what_was_answered_is_given_to_who_asks_again(keys: PostgresIdempotencyKeys) -> None:
    keys.keep(claimed(keys), ANSWER)
    assert keys.claim("tnt_1", "tok_1", "key") == ANSWER
    assert keys.claim("tnt_1", "tok_1", "key") == ANSWER


def test_keys_are_each_tokens_own(keys: PostgresIdempotencyKeys) -> None:
    keys.keep(claimed(keys), ANSWER)
    for other in (
        claimed(keys, "another"),
        claimed(keys, token_id="tok_2"),
        claimed(keys, tenant_id="tnt_2"),
        claimed(keys, "KEY"),
    ):
        keys.free(other)


def test_a_key_is_claimed_once_however_many_ask_at_once(keys: PostgresIdempotencyKeys) -> None:
    together = Barrier(8)

    def ask() -> bool:
        together.wait()
        try:
            return isinstance(keys.claim("tnt_1", "tok_1", "key"), Claim)
        except InProgress:
            return False

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask) for _ in range(8)]
        assert sum(each.result() for each in asked) == 1


def test_a_key_that_was_freed_can_be_claimed_again(keys: PostgresIdempotencyKeys) -> None:
    keys.free(claimed(keys))
    claimed(keys)


def test_a_claim_whose_process_died_is_free_when_its_lease_ends(keys: PostgresIdempotencyKeys, pool: Pool) -> None:
    claimed(keys)
    pass_time(pool, LEASE - MOMENT)
    with pytest.raises(InProgress):
        keys.claim("tnt_1", "tok_1", "key")
    pass_time(pool, MOMENT)
    claimed(keys)


def test_who_lost_the_lease_neither_keeps_nor_frees_anothers_claim(keys: PostgresIdempotencyKeys, pool: Pool) -> None:
    late = claimed(keys)
    pass_time(pool, LEASE)
    second = claimed(keys)
    keys.free(late)
    keys.keep(late, SecretValue(b"late"))
    with pytest.raises(InProgress):
        keys.claim("tnt_1", "tok_1", "key")
    keys.keep(second, ANSWER)
    keys.keep(late, SecretValue(b"late"))
    keys.free(second)
    assert keys.claim("tnt_1", "tok_1", "key") == ANSWER


def test_an_answer_is_kept_for_a_day_and_then_the_key_is_free(keys: PostgresIdempotencyKeys, pool: Pool) -> None:
    keys.keep(claimed(keys), ANSWER)
    pass_time(pool, KEPT_FOR - MOMENT)
    assert keys.claim("tnt_1", "tok_1", "key") == ANSWER
    pass_time(pool, MOMENT)
    claimed(keys)
    assert count(pool, b"sealed") == 0


def test_what_is_old_goes_with_its_answer_a_bounded_number_at_a_time(keys: PostgresIdempotencyKeys, pool: Pool) -> None:
    for number in range(3):
        keys.keep(claimed(keys, f"key{number}"), ANSWER)
    claimed(keys, "unanswered")
    pass_time(pool, KEPT_FOR)
    keys.keep(claimed(keys, "new"), ANSWER)
    keys.expire(2)
    assert count(pool, b"idempotency_keys") == 3
    keys.expire(10)
    assert (count(pool, b"idempotency_keys"), count(pool, b"sealed")) == (1, 1)
    assert keys.claim("tnt_1", "tok_1", "new") == ANSWER


def test_nothing_of_an_answer_is_stored_in_the_clear(keys: PostgresIdempotencyKeys, pool: Pool) -> None:
    keys.keep(claimed(keys), ANSWER)
    with pool.connection() as connection:
        rows = connection.execute("SELECT * FROM sealed, idempotency_keys").fetchall()
    assert ANSWER.reveal() not in repr(rows).encode()
    assert idempotency_keys.SEALED_KIND in repr(rows)
