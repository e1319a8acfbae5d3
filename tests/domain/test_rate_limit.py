"""The ledger of a CA's rate limits, against a bucket counted the naive way, and against the exemptions' table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.acme import ERROR_NAMESPACE, Problem
from domain.rate_limit import (
    FULL,
    LETS_ENCRYPT,
    LETS_ENCRYPT_STAGING,
    LIMITS,
    Bucket,
    Entry,
    Kind,
    Level,
    after,
    available,
    buckets_named_in,
    cost_of,
    entries_after_failure,
    entries_after_success,
    entries_when_placed,
    limits_of,
    ready_at,
    set_digest,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OTHER_CA = "https://ca.example/directory"
ACCOUNT = "acme_production_1"
NAMES = ("shop.acme.example", "*.shop.acme.example", "www.other.example")
DOMAINS = ("acme.example", "other.example")
ORDERS = Bucket(LETS_ENCRYPT, "new_orders", ACCOUNT)
PER_SET = Bucket(LETS_ENCRYPT, "certificates_per_set", set_digest(NAMES))
PER_DOMAIN = tuple(Bucket(LETS_ENCRYPT, "certificates_per_domain", domain) for domain in DOMAINS)
UNNAMED = Bucket(LETS_ENCRYPT, "unnamed", ACCOUNT)
FAILURES = tuple(
    Bucket(LETS_ENCRYPT, limit, f"{ACCOUNT} {name}")
    for name in ("shop.acme.example", "www.other.example")
    for limit in ("failed_authorizations", "consecutive_failed_authorizations")
)


def after_all(entries: Sequence[tuple[Entry, datetime]], level: Level = FULL) -> Level:
    for entry, at in entries:
        level = after(level, entry, at)
    return level


def taken(bucket: Bucket, count: int, at: datetime = NOW) -> Level:
    return after_all([(Entry(bucket, "taken"), at)] * count)


# --- what an order costs ---


@pytest.mark.parametrize(
    ("kind", "paid", "gates"),
    [
        ("ari_renewal", (), (UNNAMED,)),
        ("same_set", (PER_SET,), (UNNAMED, *FAILURES)),
        ("new", (ORDERS, *PER_DOMAIN, PER_SET), (UNNAMED, *FAILURES)),
    ],
)
def test_an_order_takes_what_the_table_of_exemptions_says(
    kind: Kind, paid: tuple[Bucket, ...], gates: tuple[Bucket, ...]
) -> None:
    cost = cost_of(kind, LETS_ENCRYPT, ACCOUNT, NAMES, DOMAINS)
    assert (cost.taken, cost.gates) == (paid, gates)


def test_of_a_ca_whose_limits_are_not_known_only_its_own_words_count() -> None:
    assert limits_of(OTHER_CA) == {}
    for kind in get_args(Kind):  # nor is it known what is exempt
        cost = cost_of(kind, OTHER_CA, ACCOUNT, NAMES, DOMAINS)
        said_of = (UNNAMED, ORDERS, *PER_DOMAIN, PER_SET, *FAILURES)
        assert cost.taken == ()
        assert set(cost.gates) == {replace(bucket, ca=OTHER_CA) for bucket in said_of}


def test_the_limits_for_certificates_of_the_staging_environment_are_out_of_reach() -> None:
    cost = cost_of("new", LETS_ENCRYPT_STAGING, ACCOUNT, NAMES, DOMAINS)
    assert [bucket.limit for bucket in cost.taken] == ["new_orders"]


def test_a_set_of_names_is_the_same_in_any_order() -> None:
    assert set_digest(NAMES) == set_digest(NAMES[::-1]) != set_digest(NAMES[1:])


@pytest.mark.parametrize(
    ("limit", "span"),
    [
        ("new_registrations", 3 * HOUR),
        ("new_orders", 3 * HOUR),
        ("certificates_per_domain", timedelta(days=7)),
        ("certificates_per_set", timedelta(days=7)),
        ("failed_authorizations", HOUR),
    ],
)
def test_a_bucket_fills_in_the_time_that_its_limit_names(limit: str, span: timedelta) -> None:
    known = LIMITS[LETS_ENCRYPT][limit]  # type: ignore[index]
    assert abs(known.capacity * known.refill - span) <= timedelta(hours=2)


# --- how full it is ---


@pytest.mark.parametrize("count", [0, 1, 4, 5, 7])
def test_each_order_takes_a_token(count: int) -> None:
    level = taken(PER_SET, count)
    limit = limits_of(LETS_ENCRYPT)["certificates_per_set"]
    assert available(level, limit, NOW) == max(0, 5 - count)


def test_tokens_come_back_one_by_one() -> None:
    level, limit = taken(PER_SET, 5), limits_of(LETS_ENCRYPT)["certificates_per_set"]
    refills = [NOW + number * limit.refill for number in range(7)]
    assert [available(level, limit, at) for at in refills] == [0, 1, 2, 3, 4, 5, 5]
    just_before = refills[1] - timedelta(microseconds=1)
    assert available(level, limit, just_before) == 0
    assert ready_at(PER_SET, level) == refills[1]


class NaiveBucket:
    """Counts in fractions of a token, from call to call."""

    def __init__(self, capacity: int, refill: timedelta) -> None:
        self.capacity, self.refill, self.tokens, self.at = capacity, refill, float(capacity), NOW

    def available(self, now: datetime) -> float:
        self.tokens = min(self.capacity, self.tokens + (now - self.at) / self.refill)
        self.at = now
        return self.tokens

    def take(self) -> None:
        self.tokens -= 1


@given(st.lists(st.timedeltas(timedelta(), timedelta(days=3)), max_size=60))
def test_it_agrees_with_a_bucket_that_is_counted_naively(waits: list[timedelta]) -> None:
    limit = limits_of(LETS_ENCRYPT)["certificates_per_set"]
    naive, level, now = NaiveBucket(limit.capacity, limit.refill), FULL, NOW
    for wait in waits:
        now += wait
        there = naive.available(now)
        if abs(there - round(there)) > 1e-6:
            assert available(level, limit, now) == int(there)
        if available(level, limit, now) >= 1 and there >= 1:
            naive.take()
            level = after(level, Entry(PER_SET, "taken"), now)
    at = ready_at(PER_SET, level)
    if at is not None and at > now:
        assert abs(naive.available(at) - 1) < 1e-6


def test_what_is_given_back_is_as_if_it_had_not_been_taken() -> None:
    level = after(taken(PER_SET, 3), Entry(PER_SET, "returned"), NOW + HOUR)
    assert level == taken(PER_SET, 2)


def test_nothing_can_be_given_back_to_a_bucket_that_is_not_known() -> None:
    unknown = Bucket(OTHER_CA, "new_orders", ACCOUNT)
    for effect in ("taken", "returned"):
        assert after(FULL, Entry(unknown, effect), NOW) == FULL
    assert after(FULL, Entry(PER_SET, "returned"), NOW) == FULL


def test_what_the_ca_says_counts_whatever_was_reckoned() -> None:
    until, limit = NOW + 2 * HOUR, limits_of(LETS_ENCRYPT)["certificates_per_set"]
    level = after(FULL, Entry(PER_SET, "blocked", until), NOW)
    assert (available(level, limit, until - timedelta(seconds=1)), ready_at(PER_SET, level)) == (0, until)
    assert available(level, limit, until) == 1  # it says when one token is back, not all of them


def test_the_ca_s_words_are_obeyed_where_its_limits_are_not_known() -> None:
    bucket = Bucket(OTHER_CA, "unnamed", ACCOUNT)
    level = after(FULL, Entry(bucket, "blocked", NOW + HOUR), NOW)
    assert ready_at(bucket, level) == NOW + HOUR
    latest = after(level, Entry(bucket, "blocked", NOW + HOUR / 2), NOW)
    assert ready_at(bucket, latest) == NOW + HOUR / 2  # its last word is right
    assert ready_at(bucket, FULL) is None


def test_a_success_ends_a_row_of_failures() -> None:
    consecutive = FAILURES[1]
    level = taken(consecutive, 1152)
    assert available(level, limits_of(LETS_ENCRYPT)["consecutive_failed_authorizations"], NOW) == 0
    *_, entry = entries_after_success(LETS_ENCRYPT, ACCOUNT, (), NAMES[:2])
    assert entry == Entry(consecutive, "reset")
    assert after(level, entry, NOW) == FULL
    assert entries_after_success(OTHER_CA, ACCOUNT, (), NAMES) == ()


def test_a_renewal_is_exempt_from_the_check_of_the_set_and_counted_for_it_all_the_same() -> None:
    exempt, charged = (entries_after_success(LETS_ENCRYPT, ACCOUNT, charges, NAMES) for charges in ((), (PER_SET,)))
    assert Entry(PER_SET, "taken") in exempt
    assert list(charged).count(Entry(PER_SET, "taken")) == 1


# --- how an order ends ---


def effects(*failed: str, ordered: bool, issued: bool) -> list[tuple[str, str]]:
    charges = cost_of("new", LETS_ENCRYPT, ACCOUNT, NAMES, DOMAINS).taken
    entries = entries_after_failure(LETS_ENCRYPT, ACCOUNT, charges, failed, ordered=ordered, issued=issued)
    return [(entry.effect, entry.bucket.limit) for entry in entries]


CERTIFICATES = [("taken", "certificates_per_domain")] * 2 + [("taken", "certificates_per_set")]


def test_an_order_that_never_reached_the_ca_has_cost_nothing() -> None:
    assert effects(ordered=False, issued=False) == [("returned", "new_orders")]


def test_an_order_without_a_certificate_has_cost_an_order_and_each_failure() -> None:
    failures = [("taken", "failed_authorizations"), ("taken", "consecutive_failed_authorizations")]
    assert effects("*.shop.acme.example", "shop.acme.example", ordered=True, issued=False) == failures


def test_a_certificate_that_was_issued_and_refused_here_is_counted_there() -> None:
    assert effects(ordered=True, issued=True) == CERTIFICATES


def test_an_order_is_counted_when_it_is_placed_and_a_certificate_when_it_is_issued() -> None:
    charges = cost_of("new", LETS_ENCRYPT, ACCOUNT, NAMES, DOMAINS).taken
    assert entries_when_placed(charges) == (Entry(ORDERS, "taken"),)
    counted = [entry.bucket for entry in entries_after_success(LETS_ENCRYPT, ACCOUNT, charges, NAMES)]
    assert counted[:3] == [*PER_DOMAIN, PER_SET]


# --- what the CA says ---

PAUSED = (
    "Your account is temporarily prevented from requesting certificates for shop.acme.example and possibly others. "
    "Please visit: https://portal.example/sfe/v1/unpause?jwt=x"
)


@pytest.mark.parametrize(
    ("text", "bucket"),
    [
        (
            (
                "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-23 13:00:00 UTC: see "
                "https://letsencrypt.org/docs/rate-limits/#new-orders-per-account"
            ),
            ORDERS,
        ),
        (
            'too many certificates (50) already issued for "acme.example" in the last 168h0m0s, retry after …',
            PER_DOMAIN[0],
        ),
        ("too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s", PER_SET),
        ('too many failed authorizations (5) for "shop.acme.example" in the last 1h0m0s', FAILURES[0]),
        (
            PAUSED,
            FAILURES[1],
        ),
        ("too many new registrations (10) from this IP address in the last 3h0m0s", None),
        ("slow down, please", UNNAMED),
        ("", UNNAMED),
        ("too many certificates (50) already issued", UNNAMED),
    ],
)
def test_which_limit_was_met_is_read_from_the_words(text: str, bucket: Bucket | None) -> None:
    wanted = bucket or Bucket(LETS_ENCRYPT, "new_registrations", "")
    problem = Problem(ERROR_NAMESPACE + "rateLimited", text)
    assert list(buckets_named_in(problem, LETS_ENCRYPT, ACCOUNT, NAMES)) == [wanted]


def test_each_paused_name_has_a_bucket_of_its_own() -> None:
    text = (
        "Your account is temporarily prevented from requesting certificates for a.example, b.example. Please visit: x"
    )
    found = buckets_named_in(Problem(ERROR_NAMESPACE + "rateLimited", text), LETS_ENCRYPT, ACCOUNT, NAMES)
    assert [bucket.subject for bucket in found] == [f"{ACCOUNT} a.example", f"{ACCOUNT} b.example"]


def test_a_name_in_the_words_is_no_limit() -> None:
    text = 'too many certificates (50) already issued for "consecutive.example" in the last 168h0m0s'
    (found,) = buckets_named_in(Problem(ERROR_NAMESPACE + "rateLimited", text), LETS_ENCRYPT, ACCOUNT, NAMES)
    assert found == Bucket(LETS_ENCRYPT, "certificates_per_domain", "consecutive.example")
