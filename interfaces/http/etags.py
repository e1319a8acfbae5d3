"""Entity tags, and asking only for what is not known yet (RFC 9110 §8.8.3, §13.1.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence

TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
ANY = "*"


def is_known(etag: str, if_none_match: Sequence[str]) -> bool:
    """Whether a header's lines, taken together, name the tag: in a list, as a weak one, or by `*`. What is no list of tags
    names none."""
    text = ",".join(if_none_match).strip(" \t")
    return text == ANY or etag in _tags(text)


def _tags(text: str) -> Sequence[str]:
    """Without what makes them weak: here two are compared weakly. A tag may have commas in it."""
    found: list[str] = []
    place = 0
    while True:
        while place < len(text) and text[place] in ", \t":
            place += 1
        tag = TAG.match(text, place)
        if tag is None:
            return found if place == len(text) else ()
        found.append(tag[1])
        place = tag.end()
        rest = text[place:].lstrip(" \t")
        if rest and not rest.startswith(","):
            return ()
