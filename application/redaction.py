"""Hiding what looks like a secret in words that others wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\b(?:skt|whsec|sdk)_[A-Za-z0-9+/=_-]+"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]+"),
    re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+"),  # a JWT
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
)
NAMED = re.compile(
    r"""(?x) (?<![\w-]) (["']? ([\w-]{1,128}+) ["']? \s*+ (?:=>|[:=]) \s*+ )
    (?!\[hidden\]) ("(?:[^"\\]|\\.)*+" | '[^']*+' | [^\s,;&}\]]++)"""
)
SECRETIVE = re.compile(r"(?i)passw|pwd|secret|token|api[_-]?key|private_?key|credential|authorization|cookie|signature")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Without the secrets given, and without what is named or formed like one."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    for pattern in PATTERNS:
        text = pattern.sub(HIDDEN, text)
    return NAMED.sub(lambda named: named[1] + HIDDEN if SECRETIVE.search(named[2]) else named[0], text)
