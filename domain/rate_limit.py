"""A CA's rate limits as token buckets: what an order takes out of which, and when there is room again.

The state of a bucket is one moment, at which it will be full again, and what the CA itself has said. What is taken and
given back stands in the events of orders (`Entry`), so that every bucket can be worked out from the history alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from domain.acme import Problem
from domain.names import base_name

LimitName = Literal[
    "new_registrations",
    "new_orders",
    "certificates_per_domain",
    "certificates_per_set",
    "failed_authorizations",
    "consecutive_failed_authorizations",
    "unnamed",
]
Kind = Literal["ari_renewal", "same_set", "new"]
"""What a CA takes an order for: a renewal in the window that it suggested, the names of an earlier certificate again, or
something new."""


@dataclass(frozen=True)
class Limit:
    """`capacity` tokens, of which one comes back each `refill`."""

    capacity: int
    refill: timedelta


@dataclass(frozen=True)
class Bucket:
    """`ca` is the directory's URL. `subject` is what the CA counts by: an account's id, a registered domain, the digest of
    a set of names, or an account's id and a name with a space between; "" for all there is."""

    ca: str
    limit: LimitName
    subject: str


@dataclass(frozen=True)
class Entry:
    """What happened to a bucket. `until` comes with `blocked`: the CA takes nothing for it before."""

    bucket: Bucket
    effect: Literal["taken", "returned", "reset", "blocked"]
    until: datetime | None = None


@dataclass(frozen=True)
class Level:
    """How full a bucket is: `full_at` is None where nothing was ever taken."""

    full_at: datetime | None = None
    blocked_until: datetime | None = None


FULL = Level()

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

# https://letsencrypt.org/docs/rate-limits/ and https://letsencrypt.org/docs/staging-environment/, as of August 2026. The
# staging environment's limits for certificates are out of anybody's reach. Registrations are counted by address; one of
# IPv4 is the narrower.
LIMITS: Mapping[str, Mapping[LimitName, Limit]] = {
    LETS_ENCRYPT: {
        "new_registrations": Limit(10, timedelta(minutes=18)),
        "new_orders": Limit(300, timedelta(seconds=36)),
        "certificates_per_domain": Limit(50, timedelta(minutes=202)),
        "certificates_per_set": Limit(5, timedelta(hours=34)),
        "failed_authorizations": Limit(5, timedelta(minutes=12)),
        "consecutive_failed_authorizations": Limit(1152, timedelta(days=1)),
    },
    LETS_ENCRYPT_STAGING: {
        "new_registrations": Limit(50, timedelta(seconds=216)),
        "new_orders": Limit(1500, timedelta(seconds=7.2)),
        "failed_authorizations": Limit(200, timedelta(seconds=18)),
        "consecutive_failed_authorizations": Limit(3600, timedelta(seconds=6)),
    },
}
"""By the directory's URL; what is not here is not known, and only what such a CA itself says counts."""

NO_LIMITS: Mapping[LimitName, Limit] = {}
RENEWAL_LOOKS_BACK = timedelta(days=120)
"""For how long the same set of names counts as a renewal (boulder, as of August 2026)."""


def limits_of(ca: str) -> Mapping[LimitName, Limit]:
    return LIMITS.get(ca, NO_LIMITS)


# --- what an order takes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """`taken` loses a token for the order; `gates` must have one, and are touched by failures alone."""

    kind: Kind
    taken: tuple[Bucket, ...]
    gates: tuple[Bucket, ...]


def cost_of(kind: Kind, ca: str, account_id: str, dns_names: Sequence[str], registered_domains: Sequence[str]) -> Cost:
    """`registered_domains` are those of all the names, each once. An exempt order passes all gates but what the CA said
    without naming a limit, or of one that is not known."""
    counted = _counted_buckets(ca, account_id, dns_names, registered_domains)
    exempt: Mapping[Kind, Sequence[LimitName]] = {
        "new": (),
        "same_set": ("new_orders", "certificates_per_domain"),
        "ari_renewal": ("new_orders", "certificates_per_domain", "certificates_per_set"),
    }
    taken = [each for each in counted if each.limit in limits_of(ca) and each.limit not in exempt[kind]]
    gates = gates_of(ca, account_id, dns_names, registered_domains, is_exempt=kind == "ari_renewal")
    return Cost(kind, tuple(taken), tuple(gates))


def gates_of(
    ca: str, account_id: str, dns_names: Sequence[str], registered_domains: Sequence[str], *, is_exempt: bool
) -> Sequence[Bucket]:
    """What an order takes nothing out of, and yet must have room. Of limits that are not known here only what the CA said
    counts; nor is it known what is exempt from them."""
    counted = _counted_buckets(ca, account_id, dns_names, registered_domains)
    failures = _failure_buckets(ca, account_id, dns_names)
    unknown = [each for each in (*counted, *failures) if each.limit not in limits_of(ca)]
    known = [] if is_exempt else failure_buckets(ca, account_id, dns_names)
    return [unnamed(ca, account_id), *unknown, *known]


def _counted_buckets(
    ca: str, account_id: str, dns_names: Sequence[str], registered_domains: Sequence[str]
) -> Sequence[Bucket]:
    """Those that orders are counted by, known or not."""
    return [
        Bucket(ca, "new_orders", account_id),
        *(Bucket(ca, "certificates_per_domain", domain) for domain in registered_domains),
        Bucket(ca, "certificates_per_set", set_digest(dns_names)),
    ]


def unnamed(ca: str, account_id: str) -> Bucket:
    """What stands for limits that we do not know: the CA said to wait, and not for what."""
    return Bucket(ca, "unnamed", account_id)


def failure_buckets(ca: str, account_id: str, dns_names: Sequence[str]) -> list[Bucket]:
    """Those of an account's failures at each name (a wildcard's is its base's)."""
    return [each for each in _failure_buckets(ca, account_id, dns_names) if each.limit in limits_of(ca)]


def _failure_buckets(ca: str, account_id: str, dns_names: Sequence[str]) -> list[Bucket]:
    """Known or not."""
    names = dict.fromkeys(map(base_name, dns_names))
    kinds: tuple[LimitName, ...] = ("failed_authorizations", "consecutive_failed_authorizations")
    return [Bucket(ca, limit, f"{account_id} {name}") for name in names for limit in kinds]


def set_digest(dns_names: Sequence[str]) -> str:
    """The same for the same set of names, in hex."""
    return hashlib.sha256(" ".join(sorted(dns_names)).encode()).hexdigest()


COUNTED_WHEN_PLACED: frozenset[LimitName] = frozenset({"new_orders"})
"""The others are counted when a certificate is issued, by boulder as here: what is only on its way takes nothing that other
tenants need."""


def entries_when_placed(charges: Sequence[Bucket]) -> tuple[Entry, ...]:
    return tuple(Entry(bucket, "taken") for bucket in charges if bucket.limit in COUNTED_WHEN_PLACED)


def entries_after_failure(
    ca: str, account_id: str, charges: Sequence[Bucket], failed_names: Sequence[str], *, ordered: bool, issued: bool
) -> tuple[Entry, ...]:
    """What the end of an order without a certificate does: gives back the order that the CA never saw, counts the
    certificate that it issued all the same, and takes for each name whose authorization failed. `ordered` and `issued`
    say how far the CA came."""
    returned = [entry for entry in entries_when_placed(charges) if not ordered]
    failures = [Entry(bucket, "taken") for bucket in failure_buckets(ca, account_id, failed_names)]
    return (
        *(Entry(entry.bucket, "returned") for entry in returned),
        *(_entries_when_issued(charges) if issued else ()),
        *failures,
    )


def entries_after_success(
    ca: str, account_id: str, charges: Sequence[Bucket], dns_names: Sequence[str]
) -> tuple[Entry, ...]:
    """A certificate is counted, and ends a row of failures."""
    ended = [
        Entry(bucket, "reset")
        for bucket in failure_buckets(ca, account_id, dns_names)
        if bucket.limit == "consecutive_failed_authorizations"
    ]
    # Boulder exempts a renewal from the check of the set alone: it counts each certificate for it.
    per_set = Bucket(ca, "certificates_per_set", set_digest(dns_names))
    counted = _entries_when_issued(charges)
    if per_set.limit in limits_of(ca) and per_set not in charges:
        counted = (*counted, Entry(per_set, "taken"))
    return (*counted, *ended)


def _entries_when_issued(charges: Sequence[Bucket]) -> tuple[Entry, ...]:
    return tuple(Entry(bucket, "taken") for bucket in charges if bucket.limit not in COUNTED_WHEN_PLACED)


# --- how full a bucket is --------------------------------------------------------------------------------------------


def after(level: Level, entry: Entry, at: datetime) -> Level:
    """The level when that has happened."""
    limit = limits_of(entry.bucket.ca).get(entry.bucket.limit)
    match entry.effect:
        case "taken" if limit is not None:
            return replace(level, full_at=max(level.full_at or at, at) + limit.refill)
        case "returned" if limit is not None and level.full_at is not None:
            return replace(level, full_at=level.full_at - limit.refill)
        case "reset":
            return Level()
        case "blocked" if entry.until is not None:
            # What the CA says last is right, also where it said otherwise before: at that moment there is one token.
            said = entry.until + (limit.capacity - 1) * limit.refill if limit is not None else None
            return Level(said, entry.until)
        case _:
            return level


def available(level: Level, limit: Limit, now: datetime) -> int:
    """How many tokens there are."""
    if level.blocked_until is not None and level.blocked_until > now:
        return 0
    if level.full_at is None or level.full_at <= now:
        return limit.capacity
    missing = -((now - level.full_at) // limit.refill)  # rounded up
    return max(0, limit.capacity - missing)


def ready_at(bucket: Bucket, level: Level) -> datetime | None:
    """From when on there is a token; None where there always was."""
    limit = limits_of(bucket.ca).get(bucket.limit)
    by_level = level.full_at - (limit.capacity - 1) * limit.refill if limit is not None and level.full_at else None
    return max((moment for moment in (by_level, level.blocked_until) if moment is not None), default=None)


# --- what a CA says --------------------------------------------------------------------------------------------------

# In the words of boulder, which other CAs run too; the first that is found decides.
WORDS: Sequence[tuple[str, LimitName]] = (
    ("exact set of identifiers", "certificates_per_set"),
    ("exact set of domains", "certificates_per_set"),
    ("new registrations", "new_registrations"),
    ("new orders", "new_orders"),
    ("consecutive", "consecutive_failed_authorizations"),
    ("temporarily prevented from requesting", "consecutive_failed_authorizations"),
    ("failed authorizations", "failed_authorizations"),
    ("certificates already issued", "certificates_per_domain"),
    ("certificates (", "certificates_per_domain"),
)
QUOTED = re.compile(r'"([^"\s]+)"')
PAUSED = re.compile(r"requesting certificates for ([^:]+?)(?: and possibly others)?\.(?:\s|$)")
MOST_PAUSED = 15


def buckets_named_in(problem: Problem, ca: str, account_id: str, dns_names: Sequence[str]) -> Sequence[Bucket]:
    """Which limits a `rateLimited` problem speaks of (RFC 8555 §6.6 leaves it to prose): one, or one for each name that
    is paused."""
    text = problem.detail.lower()
    quoted = QUOTED.search(text)
    plain = QUOTED.sub("", text)  # a name may consist of anything
    limit = next((name for words, name in WORDS if words in plain), None)
    match limit:
        case "new_registrations":
            return [Bucket(ca, limit, "")]
        case "new_orders":
            return [Bucket(ca, limit, account_id)]
        case "certificates_per_set":
            return [Bucket(ca, limit, set_digest(dns_names))]
        case "certificates_per_domain" if quoted:
            return [Bucket(ca, limit, quoted[1])]
        case "failed_authorizations" | "consecutive_failed_authorizations":
            names = [quoted[1]] if quoted else _paused_names(text)
            named = [Bucket(ca, limit, f"{account_id} {base_name(name)}") for name in names]
            return named or [unnamed(ca, account_id)]
        case _:
            return [unnamed(ca, account_id)]


def _paused_names(text: str) -> Sequence[str]:
    paused = PAUSED.search(text)
    return [name.strip() for name in paused[1].split(",")][:MOST_PAUSED] if paused else []
