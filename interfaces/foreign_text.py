"""Words that others wrote, made fit to be stored and shown."""

from __future__ import annotations

LONGEST = 1000


def clean(text: str) -> str:
    """One line of at most 1000 printable characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST])
    return " ".join(printable.split())[:LONGEST]
