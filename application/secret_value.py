"""A value that must not be shown: it refuses to print, format, pickle or compare itself openly."""

from __future__ import annotations

import hmac
from typing import NoReturn


class SecretValue:
    """Bytes of a private key, credential or token. Only `reveal` and `reveal_text` give them away."""

    __slots__ = ("_plaintext",)

    def __init__(self, plaintext: bytes | str) -> None:
        self._plaintext = plaintext.encode() if isinstance(plaintext, str) else plaintext

    def reveal(self) -> bytes:
        return self._plaintext

    def reveal_text(self) -> str:
        return self._plaintext.decode()

    def __repr__(self) -> str:
        return "SecretValue(<hidden>)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and hmac.compare_digest(self._plaintext, other._plaintext)

    __hash__ = None  # type: ignore[assignment]  # a hash would let a secret be a key, and keys get printed

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretValue is never pickled")
