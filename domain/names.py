"""DNS names as a certificate may carry them (RFC 5280 §4.2.1.6, RFC 5890): A-labels, lower case, no final dot.

A name here is a `str` that `normalise_dns_name` gave back; a wildcard keeps its leading `*.`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import idna

from domain.errors import FieldProblem, InvalidFields

WILDCARD = "*."
LONGEST_NAME = 253  # RFC 1035 §2.3.4, as text without the final dot
WILDCARD_CHARACTERS = frozenset("*?")
GLOB_LABEL = re.compile(r"[a-z0-9_*?-]+")
NOTHING = "(?!)"  # matches nowhere
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
    if len(name) > LONGEST_NAME:
        raise ValueError(f"longer than {LONGEST_NAME} characters")
    return name


def base_name(dns_name: str) -> str:
    """The name without a wildcard's `*.`: the one that is authorized (RFC 8555 §7.1.4)."""
    return dns_name.removeprefix(WILDCARD)


def normalise_name_glob(text: str) -> str:
    """A glob in the form in which names are kept: A-labels, lower case, no final dot. A label with `*` or `?` in it cannot
    be encoded, and has to be ASCII as it is. Raises ValueError with what is wrong."""
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        labels = [_glob_label(label) for label in mapped.removesuffix(".").split(".")]
    except idna.IDNAError as problem:
        raise ValueError(f"no glob of DNS names: {problem}") from None
    if any(mapped.count(wildcard) != text.count(wildcard) for wildcard in WILDCARD_CHARACTERS):
        raise ValueError("the wildcards are * and ? in ASCII")
    glob = ".".join(labels)
    if len(glob) > LONGEST_NAME:
        raise ValueError(f"longer than {LONGEST_NAME} characters")
    return glob


def _glob_label(label: str) -> str:
    if not label.isascii() and not WILDCARD_CHARACTERS & set(label):
        return idna.alabel(label).decode()
    if not GLOB_LABEL.fullmatch(label):
        raise ValueError("a label is letters, digits, hyphens and the wildcards * and ?; beside a wildcard in ASCII")
    return label


def name_matches(glob: str, dns_name: str) -> bool:
    """In a glob `*` stands for any characters, `?` for one, and everything else for itself. A wildcard name stands for
    every label, so that only a glob that begins with `*` takes it."""
    is_for_all = glob.startswith("*") or not dns_name.startswith(WILDCARD)
    return is_for_all and _pattern_of(glob).fullmatch(dns_name) is not None


def any_glob_takes(globs: Sequence[str]) -> Callable[[str], bool]:
    """`name_matches` for many at once, made ready for many names."""
    of_names = re.compile("|".join(map(_regex, globs)) or NOTHING)
    of_wildcards = re.compile("|".join(_regex(glob) for glob in globs if glob.startswith("*")) or NOTHING)

    def takes(dns_name: str) -> bool:
        return (of_wildcards if dns_name.startswith(WILDCARD) else of_names).fullmatch(dns_name) is not None

    return takes


@lru_cache(maxsize=4096)
def _pattern_of(glob: str) -> re.Pattern[str]:
    return re.compile(_regex(glob))


def _regex(glob: str) -> str:
    """What comes before a `*` is looked for once and never again (an atomic group): many of them cost no more than one."""
    first, *parts = (re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", glob))
    if not parts:
        return first
    *middle, last = parts
    return first + "".join(f"(?>.*?{part})" for part in middle) + f".*{last}"


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
