from __future__ import annotations

import copy
import json
import pickle
import string
from dataclasses import dataclass
from logging import Formatter, LogRecord

import msgspec
import pytest

from application.secret_value import SecretValue

TEXT = "hunter2-hunter2"
SECRET = SecretValue(TEXT)


class Holder(msgspec.Struct):
    secret: SecretValue


@dataclass
class PlainHolder:
    secret: SecretValue


def shown() -> list[str]:
    log_record = LogRecord("log", 20, "file.py", 1, "value %s %r", (SECRET, SECRET), None)
    return [
        str(SECRET),
        repr(SECRET),
        f"{SECRET}",
        f"{SECRET!s:>40}",
        f"{SECRET!r}",
        f"{SECRET:>30}",
        "{}".format(SECRET),  # noqa: UP032
        "%s and %r" % (SECRET, SECRET),  # noqa: UP031
        string.Template("$secret").substitute(secret=SECRET),
        repr([SECRET, {"secret": SECRET}]),
        repr(Holder(SECRET)),
        repr(PlainHolder(SECRET)),
        str(ValueError("bad", SECRET)),
        Formatter().format(log_record),
        json.dumps({"secret": SECRET}, default=str),
    ]


def test_a_secret_value_never_shows_itself() -> None:
    for text in shown():
        assert "hunter2" not in text
        assert "SecretValue(<hidden>)" in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_value_is_not_pickled(protocol: int) -> None:
    for holding in (SECRET, [SECRET], PlainHolder(SECRET)):
        with pytest.raises(TypeError, match="never pickled"):
            pickle.dumps(holding, protocol)


def test_a_secret_value_is_not_copied() -> None:
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            duplicate(SECRET)


def test_a_secret_value_is_not_encoded() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(Holder(SECRET))
    with pytest.raises(TypeError):
        json.dumps(SECRET)


def test_a_secret_value_has_no_dictionary_and_no_hash() -> None:
    assert not hasattr(SECRET, "__dict__")
    with pytest.raises(TypeError):
        hash(SECRET)
    with pytest.raises(AttributeError):
        SECRET.other = 1  # type: ignore[attr-defined]


def test_only_revealing_gives_it_away() -> None:
    assert SECRET.reveal() == TEXT.encode()
    assert SECRET.reveal_text() == TEXT
    assert SecretValue(b"\x00\xff").reveal() == b"\x00\xff"
    assert SecretValue("schlüssel").reveal_text() == "schlüssel"


def test_secret_values_are_equal_when_their_bytes_are() -> None:
    assert SecretValue(TEXT) == SecretValue(TEXT.encode())
    assert SecretValue(TEXT) != SecretValue(TEXT + "x")
    assert SECRET not in (TEXT, TEXT.encode())
