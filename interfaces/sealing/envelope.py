"""Envelope encryption: each value under a data key of its own, each data key under a master key (AES-256-GCM, both).

What the value is and whose it is are authenticated with it, so a row that was moved or relabelled does not open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from application.secret_value import SecretValue
from interfaces.sealing.master_keys import MasterKey

NONCE_BYTES = 12


class Envelope(msgspec.Struct, frozen=True):
    """`wrapped_key` is the data key under the master key `key_id`; both byte strings begin with their nonce."""

    key_id: str
    wrapped_key: bytes
    ciphertext: bytes


class DoesNotOpen(Exception):
    """Another master key, another label, or a changed byte."""


class Sealer:
    """Seals under the current master key and opens under it or any of the previous ones."""

    def __init__(self, current: MasterKey, previous: Sequence[MasterKey] = ()) -> None:
        self._current = current
        self._keys: Mapping[str, MasterKey] = {key.key_id: key for key in (*previous, current)}

    def seal(self, label: Sequence[str], plaintext: SecretValue) -> Envelope:
        data_key = AESGCM.generate_key(bit_length=256)
        authenticated = _authenticated(label)
        return Envelope(
            key_id=self._current.key_id,
            wrapped_key=_encrypt(self._current.key.reveal(), data_key, authenticated),
            ciphertext=_encrypt(data_key, plaintext.reveal(), authenticated),
        )

    def knows(self, key_id: str) -> bool:
        return key_id in self._keys

    def open(self, label: Sequence[str], envelope: Envelope) -> SecretValue:
        """Raises DoesNotOpen."""
        master_key = self._keys.get(envelope.key_id)
        if master_key is None:
            raise DoesNotOpen(f"the master key {envelope.key_id} is missing")
        authenticated = _authenticated(label)
        try:
            data_key = _decrypt(master_key.key.reveal(), envelope.wrapped_key, authenticated)
            return SecretValue(_decrypt(data_key, envelope.ciphertext, authenticated))
        except (InvalidTag, ValueError):  # a ValueError where not even the nonce is whole
            raise DoesNotOpen("the seal is broken") from None


def _authenticated(label: Sequence[str]) -> bytes:
    return msgspec.json.encode(label)


def _encrypt(key: bytes, plaintext: bytes, authenticated: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, authenticated)


def _decrypt(key: bytes, sealed: bytes, authenticated: bytes) -> bytes:
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], authenticated)
