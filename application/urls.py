"""URLs that somebody gave us."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit


def is_plain_url(text: str, schemes: Collection[str]) -> bool:
    """With a host and a sensible port, and without user information, which would be stored and shown."""
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  raises where it is none
    except ValueError:
        return False
    return url.scheme in schemes and bool(url.hostname) and "@" not in url.netloc
