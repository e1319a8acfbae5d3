"""Words that others wrote, made fit to be stored and shown."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 1000


def clean(text: str, secrets: Iterable[str | None] = ()) -> str:
    """One line of at most 1000 printable characters, without any of `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[hidden]")
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST])
    return " ".join(printable.split())[:LONGEST]
