"""DNS names as a certificate may carry them (RFC 5280 §4.2.1.6, RFC 5890): A-labels, lower case, no final dot.

A name here is a `str` that `normalise_dns_name` gave back; a wildcard keeps its leading `*.`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase, translate

import idna

from domain.errors import FieldProblem, InvalidFields

WILDCARD = "*."
MOST_NAMES = 100  # the largest number any CA of the catalogue takes in one certificate (Let's Encrypt, profile classic)


def normalise_dns_name(text: str) -> str:
    """The name by UTS 46, non-transitional and strict. Raises ValueError with what is wrong."""
    wildcard = text.startswith(WILDCARD)
    base = text.removeprefix(WILDCARD)
    if "*" in base:
        raise ValueError("a wildcard is a single * as the whole first label")
    try:
        encoded = idna.encode(base, uts46=True, std3_rules=True, transitional=False)
    except idna.IDNAError as problem:
        raise ValueError(f"no valid DNS name: {problem}") from None
    ascii_name = encoded.decode().lower().removesuffix(".")
    labels = ascii_name.split(".")
    if len(labels) < 2:  # noqa: PLR2004
        raise ValueError("a name needs at least two labels")
    if labels[-1].isdigit():
        raise ValueError("an IP address is no DNS name")
    name = WILDCARD + ascii_name if wildcard else ascii_name
    if len(name) > 253:  # noqa: PLR2004  RFC 1035 §2.3.4, as text without the final dot
        raise ValueError("longer than 253 characters")
    return name


def base_name(dns_name: str) -> str:
    """The name without a wildcard's `*.`: the one that is authorized (RFC 8555 §7.1.4)."""
    return dns_name.removeprefix(WILDCARD)


def name_matches(glob: str, dns_name: str) -> bool:
    """In a glob `*` stands for any characters and `?` for one. A wildcard name stands for every label, so that only a
    glob that begins with `*` takes it."""
    return fnmatchcase(dns_name, glob) and (glob.startswith("*") or not dns_name.startswith(WILDCARD))


def any_glob_takes(globs: Sequence[str]) -> Callable[[str], bool]:
    """`name_matches` for many at once, made ready for many names."""
    of_names = re.compile("|".join(map(translate, globs)))
    of_wildcards = re.compile("|".join(translate(glob) for glob in globs if glob.startswith("*")) or r"(?!)")

    def takes(dns_name: str) -> bool:
        return (of_wildcards if dns_name.startswith(WILDCARD) else of_names).match(dns_name) is not None

    return takes


def names_for_certificate(texts: Sequence[str], is_public_suffix: Callable[[str], bool]) -> tuple[str, ...]:
    """Normalised, without repetition, in the order given. Raises InvalidFields naming each wrong `domains[i]`."""
    if len(texts) > MOST_NAMES:
        raise InvalidFields(FieldProblem("domains", "too_many", f"at most {MOST_NAMES} names fit in one certificate"))
    problems: list[FieldProblem] = []
    names: dict[str, None] = {}
    for index, text in enumerate(texts):
        try:
            name = normalise_dns_name(text)
        except ValueError as problem:
            problems.append(FieldProblem(f"domains[{index}]", "invalid_name", str(problem)))
            continue
        if is_public_suffix(base_name(name)):
            problems.append(FieldProblem(f"domains[{index}]", "public_suffix", f"{base_name(name)} is a public suffix"))
        names[name] = None
    if not texts:
        problems.append(FieldProblem("domains", "required", "at least one name is needed"))
    if problems:
        raise InvalidFields(*problems)
    return tuple(names)


def zone_covers(managed_zone: str, dns_name: str) -> bool:
    """`acme.example` covers itself and everything below; `*.acme.example` only what is below."""
    below = dns_name.endswith("." + base_name(managed_zone))
    return below or (dns_name == managed_zone and not managed_zone.startswith(WILDCARD))
