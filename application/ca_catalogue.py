"""The CAs that can be named instead of a directory's URL. They are data (`ca_catalogue.json`), not code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from application.urls import is_plain_url
from domain.account import Environment
from domain.errors import FieldProblem, InvalidFields

CUSTOM = "custom"


class CaEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`key_change` says whether the CA changes the keys of accounts (RFC 8555 §7.3.5); `notes` are for people."""

    status: Literal["offered", "discontinued"]
    external_account_binding: Literal["none", "required"]
    directories: Mapping[Environment, str]
    key_change: bool = True
    notes: Sequence[str] = ()


def load_catalogue() -> Mapping[str, CaEntry]:
    text = files("application").joinpath("ca_catalogue.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, CaEntry])


def hosts_of(catalogue: Mapping[str, CaEntry]) -> frozenset[str]:
    """Of all directories."""
    urls = (url for entry in catalogue.values() for url in entry.directories.values())
    return frozenset(urlsplit(url).hostname or "" for url in urls)


def directory_for(
    catalogue: Mapping[str, CaEntry],
    provider: str,
    environment: Environment,
    directory_url: str | None,
    *,
    has_binding: bool,
) -> str:
    """The URL of the directory. Raises InvalidFields: unknown or discontinued, no such environment, a binding missing."""
    if provider == CUSTOM:
        if directory_url is None:
            raise InvalidFields(FieldProblem("directory_url", "required", "a custom CA needs its directory's URL"))
        if not is_plain_url(directory_url, {"https"}):
            raise InvalidFields(
                FieldProblem("directory_url", "invalid", "an https URL without user information is needed")
            )
        return directory_url
    if directory_url is not None:
        raise InvalidFields(FieldProblem("directory_url", "unexpected", f"{provider}'s directory is known"))
    entry = catalogue.get(provider)
    if entry is None:
        known = ", ".join([*sorted(catalogue), CUSTOM])
        raise InvalidFields(FieldProblem("provider", "unknown", f"known are {known}"))
    if entry.status == "discontinued":
        raise InvalidFields(FieldProblem("provider", "discontinued", f"{provider} does not issue any longer"))
    if environment not in entry.directories:
        raise InvalidFields(FieldProblem("environment", "unsupported", f"{provider} has no {environment} environment"))
    if entry.external_account_binding == "required" and not has_binding:
        raise InvalidFields(FieldProblem("eab", "required", f"{provider} takes accounts only with a binding"))
    return entry.directories[environment]
