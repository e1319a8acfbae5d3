from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.http.etags import is_known

ETAG = '"abc-pem"'


@pytest.mark.parametrize(
    "lines",
    [
        ['"abc-pem"'],
        ['W/"abc-pem"'],
        ['"x", "abc-pem"'],
        ['"x","abc-pem","y"'],
        ["*"],
        [' \t"abc-pem"\t'],
        ['"x"', 'W/"abc-pem"'],
        [',, "x" , ,"abc-pem",'],
        ['"with,comma", "abc-pem"'],
        ['""', '"abc-pem"'],
    ],
)
def test_a_tag_is_known_by_any_list_that_names_it_and_by_a_star(lines: list[str]) -> None:
    assert is_known(ETAG, lines)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["abc-pem"],
        ['"abc"'],
        ['"abc-pem'],
        ['"x "abc-pem""'],
        ['"x, "abc-pem"'],
        ['"x""abc-pem"'],
        ['w/"abc-pem"'],
        ['W/ "abc-pem"'],
        ['"abc-pem"; q=1'],
        ['*, "x"'],
        ['"*"'],
        ['"not abc-pem"'],
    ],
)
def test_what_is_no_list_with_it_names_it_not(lines: list[str]) -> None:
    assert not is_known(ETAG, lines)


@given(st.lists(st.text('"W/*, \tabc-pem', max_size=30), max_size=3))
def test_whatever_is_sent_has_an_answer(lines: list[str]) -> None:
    assert is_known(ETAG, lines) in {True, False}
