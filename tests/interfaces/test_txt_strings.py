"""TXT values as providers spell them, and others' words as we repeat them."""

from __future__ import annotations

import pytest

from interfaces.dns.txt_strings import quoted, txt_strings, txt_value, unquoted
from interfaces.foreign_text import clean


@pytest.mark.parametrize(
    ("length", "strings"), [(0, [0]), (1, [1]), (255, [255]), (256, [255, 1]), (511, [255, 255, 1])]
)
def test_a_value_is_cut_into_strings_of_at_most_255_octets(length: int, strings: list[int]) -> None:
    cut = txt_strings("x" * length)
    assert [len(string) for string in cut] == strings
    assert txt_value(cut) == "x" * length


def test_a_value_that_is_no_text_equals_no_text() -> None:
    assert txt_value([b"\xff"]) == "\\xff"


@pytest.mark.parametrize("value", ["", "plain", 'q"b\\s', "x" * 255, "x" * 256, "ümlaut\n", "0\\101", " a  b "])
def test_route53s_spelling_of_a_value_can_be_read_back(value: str) -> None:
    spelled = quoted(value)
    assert spelled.isascii()
    assert unquoted(spelled) == value


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ('"one" "two"', "onetwo"),
        ('"one""two"', "onetwo"),
        ("bare", "bare"),
        ('"\\141\\"\\\\"', 'a"\\'),
        ('"\\999"', "999"),
        ('""', ""),
    ],
)
def test_others_spelling_of_a_value_is_understood(spelled: str, value: str) -> None:
    assert unquoted(spelled) == value


def test_vendors_words_are_one_short_line_without_secrets() -> None:
    said = "bad key s3cr3t\r\n\x1b[31mfor\u202e you" + " x" * 4000
    words = clean(said, ["s3cr3t", None, ""])
    assert words.startswith("bad key [hidden] [31mfor you x")
    assert len(words) <= 1000
