from __future__ import annotations

import httpx
import pytest

from interfaces.retry_after import retry_after_seconds

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


def test_nothing_said_is_none() -> None:
    assert retry_after_seconds(httpx.Headers({"Date": NOON})) is None


@pytest.mark.parametrize("date", [{}, {"Date": "today"}])
def test_a_date_is_read_against_our_clock_where_the_server_tells_none(
    date: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_795_435_200.0)  # noon as above
    assert retry_after_seconds(httpx.Headers({"Retry-After": "Mon, 23 Nov 2026 12:00:10 GMT", **date})) == 10
