"""URLs in the headers of an answer: `Location`, and `Link` (RFC 8555 §7.1, §7.4.2). Some servers write them relative."""

from __future__ import annotations

import re

import httpx

from application.errors import CaUnavailable

_LINK = re.compile(r"<([^>]*)>([^<]*)")
_ALTERNATE = re.compile(r";\s*rel\s*=\s*(?:alternate\b|\"[^\"]*\balternate\b[^\"]*\")", re.IGNORECASE)
_MOST_ALTERNATES = 10


def location(response: httpx.Response) -> str:
    """Raises CaUnavailable where there is none."""
    named = response.headers.get("Location")
    if not named:
        raise CaUnavailable(f"{response.url} named no Location")
    return _absolute(response, named)


def alternate_urls(response: httpx.Response) -> list[str]:
    """The other chains of the same certificate, in the server's order. (httpx keeps one link of each relation.)"""
    links = _LINK.findall(", ".join(response.headers.get_list("Link")))
    alternates = [url for url, parameters in links if _ALTERNATE.search(parameters)]
    return [_absolute(response, url) for url in alternates[:_MOST_ALTERNATES]]


def _absolute(response: httpx.Response, reference: str) -> str:
    try:
        return str(response.url.join(reference))
    except httpx.InvalidURL as error:
        raise CaUnavailable(f"{response.url} named no URL") from error
