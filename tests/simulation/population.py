"""Who wants which certificates when, drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from tests.simulation.ca import Outage

START = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)
OUTAGES = (
    Outage(START + 101.3 * DAY, START + 104.3 * DAY, frozenset({"new_order", "renewal_info", "issuance"})),
    Outage(START + 307.7 * DAY, START + 310.7 * DAY, frozenset({"new_order"})),
    Outage(START + 480.1 * DAY, START + 483.1 * DAY, frozenset({"renewal_info"})),
    Outage(START + 611.9 * DAY, START + 614.9 * DAY, frozenset({"new_order", "renewal_info"})),
)
INCIDENTS = (START + 203.4 * DAY, START + 555.6 * DAY)
REVOKED_SHARE = 0.02

ACCOUNTS = 4
PROFILES = {"classic": 0.62, "tlsserver": 0.3, "shortlived": 0.08}
MOST_AT_ONCE = 50
BIG_SHARE = 0.3
"""Of the certificates, in registered domains with more than 50 of them."""
LATER_SHARE = 0.2
"""Of those in a big domain that are ordered in bulk later, beside the renewals of the others."""
HASTY_SHARE = 0.01
"""Of the certificates that somebody renews by hand six times in two days."""
BROKEN_SHARE = 0.01
"""Of the certificates of which one name cannot be authorized for half a day, once."""
LEAST = 3
FAILURES = 0.004
"""Of the orders whose authorization fails for no reason that lasts."""


@dataclass
class Line:
    """A certificate that somebody wants to have for ever."""

    account: int
    names: tuple[str, ...]
    profile: str
    domain: str
    wanted_at: datetime
    certificate_id: str | None = None
    is_hasty: bool = False


@dataclass
class Population:
    lines: list[Line] = field(default_factory=list)
    by_hand: list[tuple[datetime, Line]] = field(default_factory=list)
    broken: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """By the name that cannot be authorized: from when to when."""

    def is_broken(self, name: str, at: datetime) -> bool:
        spell = self.broken.get(name)
        return spell is not None and spell[0] <= at < spell[1]


def populate(random: Random, lines: int, shard: int, days: int) -> Population:
    population = Population()
    for domain, size, begins in _domains(random, lines, shard, days):
        is_big = size > MOST_AT_ONCE
        later_at = START + random.uniform(30, max(31, days - 80)) * DAY
        account = random.randrange(ACCOUNTS)
        for number in range(size):
            wanted_at = begins if is_big else begins + random.uniform(0, 3) * DAY
            if is_big and random.random() < LATER_SHARE:
                wanted_at = later_at
            names = _names(random, f"h{number}.{domain}", f"h{number}.{domain.replace('.com', '.org')}")
            line = Line(
                account=random.randrange(ACCOUNTS) if is_big else account,
                names=names,
                profile=random.choices(list(PROFILES), list(PROFILES.values()))[0],
                domain=domain,
                wanted_at=wanted_at,
            )
            population.lines.append(line)
    for line in random.sample(population.lines, max(LEAST, int(lines * HASTY_SHARE))):
        line.is_hasty = True
        begins = random.choice(INCIDENTS) - random.uniform(0.5, 3) * DAY
        population.by_hand += [(begins + random.uniform(0, 2) * DAY, line) for _ in range(6)]
    for line in random.sample(population.lines, max(LEAST, int(lines * BROKEN_SHARE))):
        begins = START + random.uniform(0, days) * DAY
        if not any(begins - 4 * DAY < outage.start < begins + 8 * DAY for outage in OUTAGES):
            population.broken[line.names[0]] = (begins, begins + DAY / 2)
    return population


def _domains(random: Random, lines: int, shard: int, days: int) -> Sequence[tuple[str, int, datetime]]:
    """Each with the number of its certificates, and when the first are wanted."""
    found: list[tuple[str, int, datetime]] = []
    left, most_in_big = lines, lines * BIG_SHARE
    while left:
        size = random.randint(60, 200) if left > lines - most_in_big else random.choice((1, 1, 1, 2, 3, 20))
        size = min(size, left)
        found.append((f"d{len(found)}-{shard}.com", size, START + random.uniform(0, min(15, days)) * DAY))
        left -= size
    return found


def _names(random: Random, first: str, elsewhere: str) -> tuple[str, ...]:
    names = [first]
    if random.random() < 0.25:
        names.append(f"*.{first}")
    if random.random() < 0.1:
        names.append(f"www.{first}")
    if random.random() < 0.05:
        names.append(elsewhere)
    return tuple(names)
