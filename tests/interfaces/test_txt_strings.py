"""TXT values as providers spell them, and others' words as we repeat them."""

from __future__ import annotations

import pytest

from interfaces.dns.txt_strings import DECIMAL, OCTAL, quoted, txt_strings, txt_value, unquoted
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
@pytest.mark.parametrize("digits", [OCTAL, DECIMAL])
def test_the_spelling_of_a_value_can_be_read_back(value: str, digits: int) -> None:
    spelled = quoted(value, digits)
    assert spelled.isascii()
    assert unquoted(spelled, digits) == value


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


@pytest.mark.parametrize(("digits", "spelled"), [(OCTAL, '"\\303\\274\\012\\\\"'), (DECIMAL, '"\\195\\188\\010\\\\"')])
def test_octets_that_do_not_print_are_spelled_in_octal_or_decimal_digits(digits: int, spelled: str) -> None:
    assert quoted("ü\n\\", digits) == spelled


@pytest.mark.parametrize(("spelled", "value"), [('"\\097\\256\\9"', "a2569"), ("\\034", '"')])
def test_what_is_no_octet_in_decimal_digits_is_taken_as_it_stands(spelled: str, value: str) -> None:
    assert unquoted(spelled, DECIMAL) == value


def test_vendors_words_are_one_short_line_without_secrets() -> None:
    said = "bad key s3cr3t\r\n\x1b[31mfor\u202e you" + " x" * 4000
    words = clean(said, ["s3cr3t", None, ""])
    assert words.startswith("bad key [hidden] [31mfor you x")
    assert len(words) <= 1000
