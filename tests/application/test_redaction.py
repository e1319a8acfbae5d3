"""What receivers say is kept without what looks like a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.redaction import HIDDEN, redact


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("all is well", "all is well"),
        ("try token=abc later", f"try token={HIDDEN} later"),
        ('{"error": "no", "api_key": "k\\"1", "n": 1}', f'{{"error": "no", "api_key": {HIDDEN}, "n": 1}}'),
        ("Authorization: Bearer abc.def", f"Authorization: {HIDDEN}"),
        ("password: hunter2\nuser: me", f"password: {HIDDEN}\nuser: me"),
        ("got skt_01abc_XYZ", f"got {HIDDEN}"),
        ("got whsec_AAA+/b=", f"got {HIDDEN}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_", HIDDEN),
        ("AKIAIOSFODNN7EXAMPLE is no good", f"{HIDDEN} is no good"),
        ("-----BEGIN EC PRIVATE KEY-----\nAAA\n-----END EC PRIVATE KEY-----\nrest", f"{HIDDEN}\nrest"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", HIDDEN),
    ],
)
def test_what_looks_like_a_secret_is_hidden(said: str, kept: str) -> None:
    assert redact(said) == kept


@given(st.text(), st.text(min_size=1), st.text())
def test_a_secret_that_is_known_is_hidden_wherever_it_stands(before: str, secret: str, after: str) -> None:
    if secret not in HIDDEN:
        assert not any(secret in left for left in redact(before + secret + after, [secret]).split(HIDDEN))


def test_an_empty_secret_hides_nothing() -> None:
    assert redact("all is well", ["", "x"]) == "all is well"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "part", ["a", "token", "secret-", "token=", '"', "eyJ", "eyJa.", "-----BEGIN PRIVATE KEY-----", " "]
)
def test_no_text_takes_long(part: str) -> None:
    redact(part * (16 * 1024 // len(part)))
