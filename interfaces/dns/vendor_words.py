"""What a provider says of itself, made fit to be shown and stored."""

from __future__ import annotations

from collections.abc import Iterable

MOST_CHARACTERS = 300


def vendor_words(text: str, secrets: Iterable[str | None] = ()) -> str:
    """One line of at most 300 characters, without control characters and without any of `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[hidden]")
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())[:MOST_CHARACTERS]
