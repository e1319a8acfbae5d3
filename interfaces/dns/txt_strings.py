"""TXT data (RFC 1035 §3.3.14): character strings of at most 255 octets, whose joint is the value; and how they
are spelled: quoted, with a backslash and three digits for octets that do not print."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_STRING = 255
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', re.DOTALL)
OCTAL, DECIMAL = 8, 10
"""What the three digits are: octal at Route 53, decimal in zone files (RFC 1035 §5.1)."""
ESCAPED = {
    OCTAL: re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL),
    DECIMAL: re.compile(rb"\\([01][0-9]{2}|2[0-4][0-9]|25[0-5]|.)", re.DOTALL),
}


def txt_strings(value: str) -> Sequence[bytes]:
    """The value cut into strings; an empty value is one empty string."""
    octets = value.encode()
    return [octets[at : at + LONGEST_STRING] for at in range(0, max(len(octets), 1), LONGEST_STRING)]


def txt_value(strings: Sequence[bytes]) -> str:
    """The strings joined. What is no UTF-8 is nobody's challenge, and stays recognisable."""
    return b"".join(strings).decode(errors="backslashreplace")


def quoted(value: str, digits: int = OCTAL) -> str:
    """The value as quoted strings, other octets than printable ASCII as three digits."""
    return " ".join(f'"{"".join(_escaped(octet, digits) for octet in string)}"' for string in txt_strings(value))


def unquoted(text: str, digits: int = OCTAL) -> str:
    """The value behind that spelling, in quotes or bare."""
    strings = [quoted_part or bare for quoted_part, bare in QUOTED.findall(text)]
    return txt_value([ESCAPED[digits].sub(lambda found: _octet(found[1], digits), each.encode()) for each in strings])


def _escaped(octet: int, digits: int) -> str:
    mark = chr(octet)
    if mark in '"\\':
        return "\\" + mark
    if mark.isascii() and mark.isprintable():
        return mark
    return f"\\{octet:03o}" if digits == OCTAL else f"\\{octet:03d}"


def _octet(sign: bytes, digits: int) -> bytes:
    return sign if len(sign) == 1 else bytes([int(sign, digits)])
