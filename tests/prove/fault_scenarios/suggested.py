"""What a CA suggests (RFC 9773 §4.2), as a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.servers.ca_faults import suggestion
from tests.servers.https import Answer

FAR, LATER = timedelta(days=30), timedelta(days=31)


def from_now(start: timedelta, end: timedelta, retry_after_seconds: float | None = 21600) -> Answer:
    """The same for each certificate, whatever its lifetime."""
    now = datetime.now(UTC)
    return suggestion(now + start, now + end, retry_after_seconds=retry_after_seconds)


def in_a_month() -> Answer:
    return from_now(FAR, LATER)


def at_once() -> Answer:
    """Wholly in the past, as Let's Encrypt says after a revocation."""
    return from_now(timedelta(hours=-1), timedelta(minutes=-30))


class Windows:
    """For single certificates by ARI id, for all others by the rule, which is asked once for each. `asked` is in the order
    of the first questions."""

    def __init__(self, rule: Callable[[], Answer] = in_a_month) -> None:
        self.rule = rule
        self.asked: dict[str, Answer] = {}

    def __call__(self, ari_id: str) -> Answer:
        if ari_id not in self.asked:
            self.asked[ari_id] = self.rule()
        return self.asked[ari_id]

    def set(self, ari_id: str | None, answer: Answer) -> None:
        if ari_id is None:
            raise ValueError("the certificate does not say which key signed it")
        self.asked[ari_id] = answer
