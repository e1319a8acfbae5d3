"""TXT data (RFC 1035 §3.3.14): character strings of at most 255 octets, whose joint is the value; and how Route 53 spells them."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_STRING = 255
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', re.DOTALL)
ESCAPED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)


def txt_strings(value: str) -> Sequence[bytes]:
    """The value cut into strings; an empty value is one empty string."""
    octets = value.encode()
    return [octets[at : at + LONGEST_STRING] for at in range(0, max(len(octets), 1), LONGEST_STRING)]


def txt_value(strings: Sequence[bytes]) -> str:
    """The strings joined. What is no UTF-8 is nobody's challenge, and stays recognisable."""
    return b"".join(strings).decode(errors="backslashreplace")


def quoted(value: str) -> str:
    """The value as Route 53 takes it: quoted strings, other octets than printable ASCII as three octal digits."""
    return " ".join(f'"{"".join(map(_escaped, string))}"' for string in txt_strings(value))


def unquoted(text: str) -> str:
    """The value behind Route 53's spelling, in quotes or bare."""
    strings = [quoted_part or bare for quoted_part, bare in QUOTED.findall(text)]
    return txt_value([ESCAPED.sub(_octet, string.encode()) for string in strings])


def _escaped(octet: int) -> str:
    mark = chr(octet)
    if mark in '"\\':
        return "\\" + mark
    return mark if mark.isascii() and mark.isprintable() else f"\\{octet:03o}"


def _octet(escape: re.Match[bytes]) -> bytes:
    sign = escape[1]
    return bytes([int(sign, 8)]) if len(sign) == 3 and int(sign, 8) < 256 else sign  # noqa: PLR2004  three digits, one octet
