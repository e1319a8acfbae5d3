from __future__ import annotations

import httpx
import pytest

from interfaces.retry_after import retry_after_seconds, seconds_in_words, seconds_since_1970

NOON = "Mon, 23 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("86401", 86400),
        ("9" * 5000, 86400),
        ("Mon, 23 Nov 2026 12:01:30 GMT", 90),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 23 Nov 2099 12:00:00 GMT", 86400),
        ("Monday, 23-Nov-26 12:01:30 GMT", 90),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
    ],
)
def test_both_forms_are_read_and_kept_within_a_day(said: str, seconds: float | None) -> None:
    headers = httpx.Headers([(b"Retry-After", said.encode()), (b"Date", NOON.encode())])
    assert retry_after_seconds(headers) == seconds


def test_the_longest_wait_is_the_callers_to_choose() -> None:
    for said in ("864000", "Thu, 03 Dec 2026 12:00:00 GMT"):
        assert retry_after_seconds(httpx.Headers({"Retry-After": said, "Date": NOON}), 8 * 86400) == 8 * 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("too many new orders, retry after 2026-11-23 12:10:00 UTC: see https://ca.example/", 600),
        ("too many new orders, retry after 2026-11-23T12:10:00Z", 600),
        ("Retry After 2026-11-23 12:00:30.75 UTC.", 30),
        ("issued before 2026-11-01 00:00:00 UTC, retry after 2026-11-23 12:00:01 UTC", 1),
        ("retry after 2026-11-23 11:59:59 UTC", 0),
        ("retry after 2099-01-01 00:00:00 UTC", 8 * 86400),
        ("retry after 2026-13-01 00:00:00 UTC", None),
        ("retry after 0000-01-01 00:00:00 UTC", None),
        ("retry after 2026-11-23 12:10:00", None),
        ("retry after 2026-11-23 12:10:00 UTCX", None),
        ("retry after ٢٠٢٦-11-23 12:10:00 UTC", None),
        ("retry after a while", None),
        ("", None),
    ],
)
def test_a_time_in_words_is_read_against_the_answers_own_date(text: str, seconds: float | None) -> None:
    assert seconds_in_words(text, httpx.Headers({"Date": NOON}), 8 * 86400) == seconds


def test_a_date_without_a_zone_is_in_utc() -> None:
    assert seconds_since_1970("Mon, 23 Nov 2026 12:00:00") == seconds_since_1970(NOON) == 1_795_435_200


def test_nothing_said_is_none() -> None:
    assert retry_after_seconds(httpx.Headers({"Date": NOON})) is None


@pytest.mark.parametrize("date", [{}, {"Date": "today"}])
def test_a_date_is_read_against_our_clock_where_the_server_tells_none(
    date: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_795_435_200.0)  # noon as above
    assert retry_after_seconds(httpx.Headers({"Retry-After": "Mon, 23 Nov 2026 12:00:10 GMT", **date})) == 10
