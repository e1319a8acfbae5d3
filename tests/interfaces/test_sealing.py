from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from application.secret_value import SecretValue
from domain.errors import SealBroken
from interfaces.postgres.key_store import PostgresKeyStore
from interfaces.postgres.pool import Pool
from interfaces.sealing.envelope import DoesNotOpen, Envelope, Sealer
from interfaces.sealing.master_keys import (
    MasterKey,
    make_master_key_file,
    parse_master_key,
    parse_master_keys,
    read_master_key_file,
)
from tests.fakes import CountingIds

LABEL = ["leaf-key", "tnt_default", "cert_1", "sealed_1"]
PLAINTEXT = SecretValue(b"the private key")
KEY = base64.b64encode(bytes(range(32))).decode()

labels = st.lists(st.text(max_size=8), max_size=5)


def master_key(key_id: str, byte: int) -> MasterKey:
    return MasterKey(key_id, SecretValue(bytes([byte]) * 32))


CURRENT = master_key("mk-2", 2)
sealer = Sealer(CURRENT)


# --- the envelope ---------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000), labels)
def test_what_was_sealed_opens_under_its_label(plaintext: bytes, label: list[str]) -> None:
    assert sealer.open(label, sealer.seal(label, SecretValue(plaintext))).reveal() == plaintext


@given(labels, labels)
def test_an_envelope_opens_under_no_other_label(label: list[str], other: list[str]) -> None:
    envelope = sealer.seal(label, PLAINTEXT)

    if label != other:
        with pytest.raises(DoesNotOpen):
            sealer.open(other, envelope)


@pytest.mark.parametrize(
    "other",
    [
        ["leaf-key", "tnt_default", "cert_1"],
        [*LABEL, ""],
        ["leaf-keytnt_default", "", "cert_1", "sealed_1"],
        ["leaf-key", "tnt_defaul", "tcert_1", "sealed_1"],
        ["leaf-key", "cert_1", "tnt_default", "sealed_1"],
        ["leaf-key", "tnt_default", "cert_1", "sealed_2"],
        ["Leaf-key", "tnt_default", "cert_1", "sealed_1"],
        ['leaf-key","tnt_default', "cert_1", "sealed_1"],
    ],
)
def test_a_label_that_only_looks_the_same_when_joined_is_another(other: Sequence[str]) -> None:
    with pytest.raises(DoesNotOpen):
        sealer.open(other, sealer.seal(LABEL, PLAINTEXT))


@given(st.data())
def test_one_changed_bit_anywhere_breaks_the_seal(data: st.DataObject) -> None:
    envelope = sealer.seal(LABEL, PLAINTEXT)
    field = data.draw(st.sampled_from(["wrapped_key", "ciphertext"]))
    sealed = bytearray(getattr(envelope, field))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(DoesNotOpen, match="the seal is broken"):
        sealer.open(LABEL, replace(envelope, **{field: bytes(sealed)}))


@given(st.data())
def test_a_shortened_envelope_does_not_open(data: st.DataObject) -> None:
    envelope = sealer.seal(LABEL, PLAINTEXT)
    field = data.draw(st.sampled_from(["wrapped_key", "ciphertext"]))
    sealed: bytes = getattr(envelope, field)
    length = data.draw(st.integers(0, len(sealed) - 1))

    with pytest.raises(DoesNotOpen, match="the seal is broken"):
        sealer.open(LABEL, replace(envelope, **{field: sealed[:length]}))


def test_the_halves_of_two_envelopes_do_not_go_together() -> None:
    first, second = sealer.seal(LABEL, PLAINTEXT), sealer.seal(LABEL, PLAINTEXT)

    with pytest.raises(DoesNotOpen):
        sealer.open(LABEL, Envelope(first.key_id, first.wrapped_key, second.ciphertext))


def test_the_same_value_is_never_sealed_the_same_twice() -> None:
    envelopes = [sealer.seal(LABEL, PLAINTEXT) for _ in range(50)]

    assert len({envelope.wrapped_key for envelope in envelopes}) == 50
    assert len({envelope.ciphertext for envelope in envelopes}) == 50
    assert all(PLAINTEXT.reveal() not in envelope.ciphertext for envelope in envelopes)


def test_previous_master_keys_still_open_and_the_current_one_seals() -> None:
    old = Sealer(master_key("mk-1", 1)).seal(LABEL, PLAINTEXT)
    rotated = Sealer(CURRENT, [master_key("mk-0", 0), master_key("mk-1", 1)])

    assert rotated.open(LABEL, old) == PLAINTEXT
    assert rotated.seal(LABEL, PLAINTEXT).key_id == "mk-2"
    assert sealer.open(LABEL, rotated.seal(LABEL, PLAINTEXT)) == PLAINTEXT


def test_a_missing_master_key_is_named() -> None:
    old = Sealer(master_key("mk-1", 1)).seal(LABEL, PLAINTEXT)

    with pytest.raises(DoesNotOpen, match="the master key mk-1 is missing"):
        sealer.open(LABEL, old)


def test_another_key_under_the_same_id_does_not_open() -> None:
    other = Sealer(master_key("mk-2", 9)).seal(LABEL, PLAINTEXT)

    with pytest.raises(DoesNotOpen, match="the seal is broken"):
        sealer.open(LABEL, other)


# --- master keys as text --------------------------------------------------------------------------------------------


def test_a_master_key_is_written_as_its_id_and_base64() -> None:
    key = parse_master_key(f"  mk-2026.01_a:{KEY}\n")

    assert key.key_id == "mk-2026.01_a"
    assert key.key.reveal() == bytes(range(32))
    assert KEY not in repr(key)


def encoded(length: int) -> str:
    return base64.b64encode(bytes(range(length))).decode()


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f":{KEY}",
        f"a key:{KEY}",
        f"{KEY}:mk-1",
        f"{KEY.rstrip('=')}:mk-1",
        f"{bytes(range(32)).hex()}:mk-1",
        f"mk-1:{bytes(range(32)).hex()}",
        f"mk-1:{KEY[:-2]}",
        f"mk-1:{KEY}:",
        f"mk-1:{KEY[:8]} {KEY[8:]}",
        f"mk-1:{KEY}é",
        f"mk-1:{encoded(31)}",
        f"mk-1:{encoded(33)}",
        f"mk-1:{encoded(64)}",
        f"{'m' * 33}:{KEY}",
        f"mk-é:{KEY}",
        "mk-1:",
        "",
    ],
)
def test_a_text_that_is_no_master_key_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="master key") as refused:
        parse_master_key(text)

    for part in text.split(":"):
        for begin in range(len(part) - 11):
            assert part[begin : begin + 12] not in str(refused.value)


def test_several_master_keys_are_parted_by_commas() -> None:
    keys = parse_master_keys(f"mk-1:{KEY}, mk-2:{KEY},")

    assert [key.key_id for key in keys] == ["mk-1", "mk-2"]
    assert parse_master_keys("") == []
    with pytest.raises(ValueError, match="is written id:base64"):
        parse_master_keys(f"mk-1:{KEY},nonsense")


# --- the master key's file ------------------------------------------------------------------------------------------


def test_a_made_key_file_is_its_owners_alone_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_master_key_file(path)

    assert path.stat().st_mode & 0o777 == 0o600
    key = read_master_key_file(path)
    assert key.key_id.startswith("mk-20")
    assert len(key.key.reveal()) == 32
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666])
def test_a_key_file_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_master_key_file(path)
    path.chmod(mode)

    with pytest.raises(ValueError, match="its mode must be 0600"):
        read_master_key_file(path)


def test_a_key_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_master_key_file(tmp_path / "master.key")


def test_a_key_in_use_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_master_key_file(path)
    before = path.read_text()

    make_master_key_file(path)

    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]


def test_many_who_make_the_key_at_once_end_with_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    all_at_once = Barrier(8)

    def start(_: int) -> MasterKey:
        all_at_once.wait(timeout=10)
        make_master_key_file(path)
        return read_master_key_file(path)

    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(start, range(8)))

    assert all(key == keys[0] for key in keys)
    assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_store(pool: Pool) -> PostgresKeyStore:
    return PostgresKeyStore(pool, Sealer(CURRENT), CountingIds())


def seal(key_store: PostgresKeyStore, plaintext: bytes) -> str:
    return key_store.seal("leaf-key", "tnt_default", "cert_1", SecretValue(plaintext))


def test_a_row_that_was_moved_to_another_id_does_not_open(key_store: PostgresKeyStore, pool: Pool) -> None:
    old, new = seal(key_store, b"old"), seal(key_store, b"new")
    with pool.connection() as connection:
        connection.execute(
            "UPDATE sealed SET (wrapped_key, ciphertext) ="
            " (SELECT wrapped_key, ciphertext FROM sealed WHERE sealed_id = %s) WHERE sealed_id = %s",
            [old, new],
        )

    with pytest.raises(SealBroken):
        key_store.open("leaf-key", "tnt_default", "cert_1", new)


def test_nothing_readable_is_in_the_table(key_store: PostgresKeyStore, pool: Pool) -> None:
    seal(key_store, b"-----BEGIN PRIVATE KEY-----")

    with pool.connection() as connection:
        (row,) = connection.execute("SELECT * FROM sealed").fetchall()

    assert not any(isinstance(value, bytes) and b"PRIVATE" in value for value in row)
    assert "PRIVATE" not in str(row)
    assert CURRENT.key_id in row


def test_shredding_leaves_no_key_and_no_value_behind(key_store: PostgresKeyStore, pool: Pool) -> None:
    key_store.shred([seal(key_store, b"secret")])

    with pool.connection() as connection:
        rows = connection.execute("SELECT key_id, wrapped_key, ciphertext FROM sealed").fetchall()
    assert rows == [(None, None, None)]


def test_what_a_previous_master_key_sealed_is_opened_by_a_store_that_still_has_it(
    key_store: PostgresKeyStore, pool: Pool
) -> None:
    sealed_id = seal(key_store, b"secret")
    following = master_key("mk-3", 3)

    rotated = PostgresKeyStore(pool, Sealer(following, [CURRENT]), CountingIds())
    assert rotated.open("leaf-key", "tnt_default", "cert_1", sealed_id).reveal() == b"secret"
    forgetful = PostgresKeyStore(pool, Sealer(following), CountingIds())
    with pytest.raises(SealBroken) as refused:
        forgetful.open("leaf-key", "tnt_default", "cert_1", sealed_id)
    assert "the master key mk-2 is missing" in str(refused.value.__cause__)
