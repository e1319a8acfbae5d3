"""The guard at the door (`interfaces/egress.py`), as far as the DNS adapters need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import httpx


class Egress(Protocol):
    def addresses(self, host: str, port: int, *, only_allowed: bool = False) -> Sequence[str]:
        """The IP addresses behind `host`, at least one, all of which may be dialled; with `only_allowed` they lie in the
        operator's allow-list. Raises EgressRefused, ResolverFailed."""

    def client(self, ca_bundle_pem: str | None = None, timeout_seconds: float = 15) -> httpx.Client:
        """Dials nobody else. `timeout_seconds` is for a whole exchange."""
