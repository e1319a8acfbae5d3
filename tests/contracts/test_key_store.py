"""Sealed material: the fake and PostgreSQL's table mean the same."""

from __future__ import annotations

import pytest

from application.ports import KeyStore
from application.secret_value import SecretValue
from domain.errors import SealBroken
from interfaces.postgres.key_store import PostgresKeyStore
from interfaces.sealing.envelope import Sealer
from interfaces.sealing.master_keys import MasterKey
from tests.fakes import CountingIds, MemoryKeyStore

LABEL = ("leaf-key", "tnt_default", "cert_1")
PLAINTEXT = SecretValue("the private key")


@pytest.fixture(params=["memory", "postgres"])
def keys(request: pytest.FixtureRequest) -> KeyStore:
    if request.param == "memory":
        return MemoryKeyStore()
    master_key = MasterKey("mk-1", SecretValue(b"1" * 32))
    return PostgresKeyStore(request.getfixturevalue("pool"), Sealer(master_key), CountingIds())


@pytest.mark.parametrize("plaintext", [b"", b"\x00\xff" * 8, b"x" * 100_000])
def test_what_was_sealed_opens_again(plaintext: bytes, keys: KeyStore) -> None:
    sealed_id = keys.seal(*LABEL, SecretValue(plaintext))

    assert keys.open(*LABEL, sealed_id).reveal() == plaintext
    assert keys.open(*LABEL, sealed_id).reveal() == plaintext


def test_each_sealing_has_an_id_of_its_own(keys: KeyStore) -> None:
    first, second = keys.seal(*LABEL, PLAINTEXT), keys.seal(*LABEL, SecretValue("another"))

    assert first != second
    assert keys.open(*LABEL, first) == PLAINTEXT
    assert keys.open(*LABEL, second) == SecretValue("another")


@pytest.mark.parametrize(
    "words",
    [
        ("account-key", "tnt_default", "cert_1"),
        ("leaf-key", "tnt_2", "cert_1"),
        ("leaf-key", "tnt_default", "cert_2"),
        ("leaf-key", "cert_1", "tnt_default"),
    ],
)
def test_nothing_opens_under_other_words(words: tuple[str, str, str], keys: KeyStore) -> None:
    sealed_id = keys.seal(*LABEL, PLAINTEXT)

    with pytest.raises(SealBroken):
        keys.open(*words, sealed_id)


def test_an_id_that_was_never_given_opens_nothing(keys: KeyStore) -> None:
    keys.seal(*LABEL, PLAINTEXT)

    with pytest.raises(SealBroken):
        keys.open(*LABEL, "sealed_unknown")


def test_what_was_shredded_never_opens_again_and_the_rest_does(keys: KeyStore) -> None:
    first, second, third = (keys.seal(*LABEL, PLAINTEXT) for _ in range(3))

    keys.shred([first, third])

    for shredded in (first, third):
        with pytest.raises(SealBroken):
            keys.open(*LABEL, shredded)
    assert keys.open(*LABEL, second) == PLAINTEXT


def test_shredding_twice_or_nothing_or_what_never_was_is_no_error(keys: KeyStore) -> None:
    sealed_id = keys.seal(*LABEL, PLAINTEXT)

    keys.shred([])
    assert keys.open(*LABEL, sealed_id) == PLAINTEXT
    keys.shred([sealed_id])
    keys.shred([sealed_id, "sealed_unknown"])
