"""Master keys: 32 bytes with an id, written `id:base64`."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import msgspec

from application.secret_value import SecretValue

KEY_BYTES = 32
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")  # too short to be a key that was written in the place of its id
OTHERS_MAY = 0o077


class MasterKey(msgspec.Struct, frozen=True):
    key_id: str
    key: SecretValue


def parse_master_key(text: str) -> MasterKey:
    """Raises ValueError, which never repeats the text."""
    key_id, colon, encoded = text.strip().partition(":")
    if not colon or not KEY_ID.fullmatch(key_id):
        raise ValueError("a master key is written id:base64")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ValueError(f"the master key {key_id} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"the master key {key_id} has {len(key)} bytes instead of {KEY_BYTES}")
    return MasterKey(key_id, SecretValue(key))


def parse_master_keys(text: str) -> Sequence[MasterKey]:
    """A comma list. Raises ValueError."""
    return [parse_master_key(part) for part in text.split(",") if part.strip()]


def read_master_key_file(path: Path) -> MasterKey:
    """Raises ValueError where others may read it, OSError where nobody can."""
    mode = path.stat().st_mode
    if mode & OTHERS_MAY:
        raise ValueError(f"{path} is readable by others: its mode must be 0600")
    return parse_master_key(path.read_text())


def make_master_key_file(path: Path) -> None:
    """A new random key, readable by its owner alone. Nothing happens where the file exists."""
    text = f"mk-{date.today():%Y%m%d}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"  # noqa: DTZ011
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # the first of several wins, and a key in use is never replaced
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
