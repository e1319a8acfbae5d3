"""What a test may change about the fake CA, and what happens at each of its calls."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import msgspec
from cryptography import x509

from application.errors import Failure
from application.ports import Capabilities
from domain.acme import Problem, RenewalInfo

Method = Literal[
    "capabilities",
    "register",
    "find_account",
    "update_account",
    "change_key",
    "deactivate_account",
    "revoke",
    "new_order",
    "order",
    "authorizations",
    "answer",
    "finalize",
    "chain",
    "renewal_info",
]
CertificateFault = Literal["wrong_key", "wrong_names", "garbage"]


def lets_encrypts_window(certificate: x509.Certificate) -> RenewalInfo:
    """Around two thirds of the validity, or half of one under ten days, 1 % to each side; asked again after six hours."""
    begins, validity = (
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc - certificate.not_valid_before_utc,
    )
    centre = begins + (validity * 2 / 3 if validity >= timedelta(days=10) else validity / 2)
    return RenewalInfo(centre - validity / 100, centre + validity / 100, retry_after_seconds=6 * 3600.0)


@dataclass
class Knobs:
    """What a test may change at any time. `invalid` and `preauthorized` are by name, without the wildcard's `*.`."""

    preauthorized: set[str] = field(default_factory=set)
    """Born valid; an order of such names alone is born ready."""
    invalid: dict[str, Problem] = field(default_factory=dict)
    """Names whose challenge fails once it is answered, whatever is in the DNS."""
    processing_polls: int = 0
    """How often an order is `processing` after `finalize`; endless below zero."""
    retry_after_seconds: float | None = None
    """Said with each order that is `processing`."""
    certificate_fault: CertificateFault | None = None
    certificate_lifetime: timedelta = timedelta(days=90)
    order_lifetime: timedelta = timedelta(days=7)
    terms_changed: bool = False
    """Then nothing but agreeing to them is done for an account (RFC 8555 §7.3.3)."""
    eab_kids: set[str] = field(default_factory=set)
    """Where there are any, a binding is required."""
    window: Callable[[x509.Certificate], RenewalInfo] = lets_encrypts_window
    """What is suggested for each certificate that is not in `windows`."""
    windows: dict[str, RenewalInfo] = field(default_factory=dict)
    """What is suggested for single certificates, by ARI id."""
    offers: Capabilities = field(
        default_factory=lambda: Capabilities(ari=True, profiles={}, eab_required=False, caa_identities=("ca.fake",))
    )
    """What the directory says. Without `ari` there is no renewal information, and `replaces` means nothing."""

    def turn_ari_off(self) -> None:
        self.offers = msgspec.structs.replace(self.offers, ari=False)


class Call:
    """One call of the port: alone, counted, and failing where a test wants it, before or after its work."""

    def __init__(
        self,
        lock: threading.RLock,
        before: deque[Failure],
        after: deque[Failure],
        requests: Counter[str],
        kind: str,
        count: int,
    ) -> None:
        self._lock, self._before, self._after = lock, before, after
        self._requests, self._kind, self._count = requests, kind, count

    def __enter__(self) -> None:
        with self._lock:
            self._requests[self._kind] += self._count
            if self._before:
                raise self._before.popleft()
        self._lock.acquire()

    def __exit__(self, kind: object, error: object, at: object) -> None:
        lost = self._after.popleft() if error is None and self._after else None
        self._lock.release()
        if lost is not None:
            raise lost
