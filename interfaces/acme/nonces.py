"""The anti-replay nonces that a server gave and nobody has used yet (RFC 8555 §6.5)."""

from __future__ import annotations

import threading
from collections import deque

from josepy.b64 import b64decode
from josepy.json_util import encode_b64jose

_MOST = 64


class NoncePool:
    """Holds a bounded number of nonces, gives each away once and the newest first. Safe in many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nonces: deque[bytes] = deque(maxlen=_MOST)

    def take(self) -> bytes | None:
        with self._lock:
            return self._nonces.pop() if self._nonces else None

    def keep(self, nonce: bytes | None) -> None:
        if nonce is not None:
            with self._lock:
                self._nonces.append(nonce)


def nonce_in(replay_nonce: str | None) -> bytes | None:
    """The octets of a `Replay-Nonce`. One that is no base64url is ignored (RFC 8555 §6.5.2), and so is one that
    would not be sent back letter by letter."""
    if not replay_nonce:
        return None
    try:
        nonce = b64decode(replay_nonce)
    except ValueError:
        return None
    return nonce if encode_b64jose(nonce) == replay_nonce else None
