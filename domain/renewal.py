"""When a certificate is renewed, by rules alone: the window that the CA suggests (RFC 9773), or one by the certificate's
lifetime; a last line; what a failure puts off; and the breaker, which keeps a fault from ordering without end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Rule = Literal["ari", "lifetime", "last_line", "revoked"]

SHORT_LIVED = timedelta(days=10)  # of such, half is left when they are renewed; of others a third
WIDTH = 50  # a window by the lifetime is a fiftieth of it wide, as Let's Encrypt's own windows are
LAST_LINE = 6  # with a sixth of the lifetime left it is renewed whatever anybody suggests
FULL_PACE = timedelta(days=7)  # shorter lifetimes have all the times below scaled down

RETRIES = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))  # Let's Encrypt's integration guide
LATER_RETRIES = timedelta(days=1)
SHORTEST_RETRY = timedelta(seconds=1)
BREAKER: Sequence[tuple[int, timedelta]] = ((1, timedelta(hours=6)), (4, timedelta(days=7)))
"""So many automatic renewals are made within so long a time at most."""

DRAWN_FROM = 0.98  # the order has to arrive before the window's end
SPREAD = timedelta(
    minutes=10
)  # those that wait for the same moment come within so long after it, or a tenth of the wait
MOST_REPLACING = (
    3  # failures, after which an order is placed as any other: it may be the replacing that the CA fails at
)
SHORTEST_ORDER = timedelta(seconds=30)

SOONEST_ASKED = timedelta(minutes=1)  # RFC 9773 §4.3.2 names a minute and a day; twice a day is the least
LATEST_ASKED = timedelta(hours=12)
ASKED_OTHERWISE = timedelta(hours=6)

WARNINGS: Sequence[tuple[timedelta, int, int]] = (
    (timedelta(days=30), 3, 10),
    (timedelta(days=7), 1, 10),
    (timedelta(days=1), 1, 50),
)
"""How long before the end it is told, and of which share of the lifetime that is at most: a certificate that is renewed
in time is never told of."""


@dataclass(frozen=True)
class Window:
    """From `start` on, and before `end`."""

    start: datetime
    end: datetime

    def takes(self, at: datetime) -> bool:
        return self.start <= at < self.end


@dataclass(frozen=True)
class Lifetime:
    not_before: datetime
    not_after: datetime

    @property
    def length(self) -> timedelta:
        return self.not_after - self.not_before

    @property
    def last_line(self) -> datetime:
        return self.not_after - self.length / LAST_LINE

    @property
    def window(self) -> Window:
        """Where the CA suggests none."""
        left = self.length / 2 if self.length < SHORT_LIVED else self.length / 3
        end = self.not_after - left
        return Window(end - self.length / WIDTH, end)


@dataclass(frozen=True)
class Plan:
    """The instant of the next renewal, and the rule that set it."""

    at: datetime
    rule: Rule


def plan_by_lifetime(lifetime: Lifetime, fraction: float) -> Plan:
    """`fraction`, in [0, 1), says where in the window."""
    window = lifetime.window
    return Plan(window.start + (window.end - window.start) * fraction, "lifetime")


def plan_by_ari(lifetime: Lifetime, renew_at: datetime) -> Plan:
    """`renew_at` was drawn once from the CA's window. The last line holds whatever the window was."""
    return Plan(renew_at, "ari") if renew_at <= lifetime.last_line else Plan(lifetime.last_line, "last_line")


def is_usable(window: Window, lifetime: Lifetime) -> bool:
    """Whether a suggestion is one: it has a length, and begins while the certificate lasts (RFC 9773 §4.2)."""
    return window.start < window.end and window.start < lifetime.not_after


def draw(window: Window, fraction: float, now: datetime) -> datetime:
    """An instant in what is left of the window; now where it is over (RFC 9773 §4.2). `fraction` is in [0, 1)."""
    begin = max(window.start, now)
    return begin + (window.end - begin) * fraction * DRAWN_FROM if begin < window.end else now


def fraction_of(fingerprint_sha256: str) -> float:
    """A number in [0, 1) that is the same for the same certificate, and for all of them evenly spread."""
    return int(fingerprint_sha256[:13], 16) / 16**13


def ask_again_after(retry_after_seconds: float | None) -> timedelta:
    """When the CA is asked for its window again."""
    if retry_after_seconds is None:
        return ASKED_OTHERWISE
    return min(LATEST_ASKED, max(SOONEST_ASKED, timedelta(seconds=min(retry_after_seconds, 1e6))))


def pace(lifetime: Lifetime) -> float:
    """1, or less for lifetimes under a week: what is rare in months must be frequent in minutes."""
    return min(1.0, lifetime.length / FULL_PACE)


def retry_after(attempt: int, lifetime: Lifetime) -> timedelta:
    """How long after the failure of that attempt, counted from 1, the next is made."""
    delay = RETRIES[attempt - 1] if attempt <= len(RETRIES) else LATER_RETRIES
    return max(SHORTEST_RETRY, delay * pace(lifetime))


def held_until(renewed_at: Sequence[datetime], lifetime: Lifetime) -> datetime | None:
    """The breaker: until when no further renewal is begun by itself, after those at `renewed_at`, the latest last. None
    where there were so few that it never held."""
    moments = [renewed_at[-most] + within * pace(lifetime) for most, within in BREAKER if len(renewed_at) >= most]
    return max(moments, default=None)


MOST_REMEMBERED = max(most for most, _ in BREAKER)


def warnings(lifetime: Lifetime) -> Sequence[tuple[timedelta, datetime]]:
    """How long before its end it is told that a certificate nears it, with the moments, the first one first."""
    befores = [min(before, lifetime.length * share / of) for before, share, of in WARNINGS]
    return [(before, lifetime.not_after - before) for before in befores]


def call_off_at(began_at: datetime, lifetime: Lifetime) -> datetime:
    """Until when an order may take that renews a certificate: half of what was left of it when it began. Then there is
    time for another."""
    left = max(lifetime.not_after - began_at, lifetime.length / LAST_LINE)
    return began_at + max(SHORTEST_ORDER, left / 2)
