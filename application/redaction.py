"""Hiding what looks like a secret in words that others wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
PATTERNS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\b(?:skt|whsec|sdk)_[A-Za-z0-9+/=_-]+"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]+"),
    re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),  # a JWT
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
)
NAMED = re.compile(
    r"""(?ix) (["']?[\w-]{0,64}(?:password|passwd|secret|token|api[_-]?key|credential|authorization|signature)[\w-]{0,64}["']?\s*[:=]\s*)
    (?!\[hidden\]) ("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&}\]]+)"""
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Without the secrets given, and without what is named or formed like one."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    for pattern in PATTERNS:
        text = pattern.sub(HIDDEN, text)
    return NAMED.sub(rf"\1{HIDDEN}", text)
