"""The simulation is the same each time, and the CA in it counts as it should."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.errors import CaRefused, CaThrottled, CaUnavailable
from application.ports import CaAccount
from application.secret_value import SecretValue
from tests.simulation.ca import ASK_AGAIN, LIMITS, SHORTER, SHORTEST, SimulatedCa, TokenBucket, validity
from tests.simulation.population import OUTAGES, START
from tests.simulation.run import simulate
from tests.simulation.service import Clock, Suffixes

ONE = CaAccount("https://ca.example/directory", "https://ca.example/account/1", SecretValue(""))
OTHER = CaAccount("https://ca.example/directory", "https://ca.example/account/2", SecretValue(""))
MOMENT = timedelta(microseconds=1)


class Stage:
    def __init__(self, book: str = "documented") -> None:
        self.clock = Clock(START)
        self.ca = SimulatedCa(self.clock, Suffixes(), OUTAGES, "", book)  # type: ignore[arg-type]

    def order(self, *names: str, replaces: str | None = None, account: CaAccount = ONE) -> str:
        return self.ca.new_order(account, names, "classic", replaces).url

    def issued(self, *names: str, replaces: str | None = None) -> str:
        return self.ca.issue(self.order(*names, replaces=replaces)).serial

    def kind(self, url: str) -> str:
        return self.ca.orders[url].kind


def test_two_runs_of_one_seed_are_equal_and_another_seed_is_not() -> None:
    one, again, other = (simulate(12, seed, days=60).digest for seed in (1, 1, 2))
    assert one == again != other


def test_nothing_that_was_simulated_is_left_out() -> None:
    figures = simulate(12, 3, days=60)
    assert (figures.issued, figures.expired, figures.expired_events) == (12, 0, 0)
    assert figures.events > 0


def test_a_bucket_gives_one_token_back_each_refill_and_never_more_than_it_holds() -> None:
    bucket = TokenBucket(2, timedelta(hours=1), START)
    for _ in range(2):
        bucket.take(START)
    assert not bucket.has_one(START + timedelta(hours=1) - MOMENT)
    assert bucket.has_one(START + timedelta(hours=1))
    assert bucket.count(START + timedelta(days=9)) == timedelta(hours=2)


def test_lifetimes_shrink_on_their_days() -> None:
    assert validity("classic", SHORTER - MOMENT) == timedelta(days=90)
    assert validity("classic", SHORTER) == timedelta(days=64)
    assert validity("classic", SHORTEST) == validity("tlsserver", START) == timedelta(days=45)
    assert validity("shortlived", SHORTEST) == timedelta(hours=160)


def test_the_fifty_first_certificate_of_a_registered_domain_is_refused_whoever_asks() -> None:
    stage = Stage()
    for number in range(LIMITS["domain"][0]):
        stage.order(f"h{number}.acme.com", account=OTHER if number % 2 else ONE)
    with pytest.raises(CaThrottled, match="certificates") as refusal:
        stage.order("h50.acme.com")
    assert refusal.value.retry_after_seconds == 202 * 60
    assert [(limit, subject) for _, limit, subject, _ in stage.ca.over] == [("domain", "acme.com")]
    stage.clock.at += timedelta(minutes=202)
    stage.order("h50.acme.com")


def test_by_the_documentation_what_comes_to_nothing_is_given_back() -> None:
    stage = Stage()
    urls = [stage.order(f"h{number}.acme.com") for number in range(LIMITS["domain"][0])]
    stage.ca.lose(urls[0], None)
    stage.order("h50.acme.com")


def test_by_boulder_certificates_are_counted_when_they_are_issued() -> None:
    stage = Stage("boulder")
    urls = [stage.order("acme.com") for _ in range(LIMITS["set"][0] + 1)]
    for url in urls[1:]:
        stage.ca.issue(url)
    with pytest.raises(CaThrottled, match="exact set"):
        stage.order("acme.com")


def test_by_boulder_a_certificate_counts_for_its_set_although_its_order_was_exempt() -> None:
    for book, left in (("documented", 5), ("boulder", 4)):
        stage = Stage(book)
        serial = stage.issued("acme.com")
        stage.clock.at, _ = stage.ca.certificates[serial].window
        stage.issued("acme.com", replaces=serial)
        capacity, refill = LIMITS["set"]
        bucket = stage.ca._bucket("set", "acme.com")
        assert (bucket.capacity, bucket.count(stage.clock.at) // refill) == (capacity, left)


def test_a_renewal_in_its_window_is_exempt_and_before_it_only_from_what_the_same_names_are_exempt_from() -> None:
    stage = Stage()
    serial = stage.issued("acme.com", "www.acme.com")
    assert stage.kind(stage.order("acme.com", "www.acme.com", replaces=serial)) == "same_set"
    start, end = stage.ca.certificates[serial].window
    for at, kind in ((start - MOMENT, "same_set"), (start, "ari"), (end - MOMENT, "ari"), (end, "same_set")):
        stage.clock.at = at
        assert stage.kind(stage.order("acme.com", "www.acme.com", replaces=serial)) == kind
    stage.clock.at = start
    assert stage.kind(stage.order("acme.com", "www.acme.com", replaces=serial, account=OTHER)) == "same_set"
    assert stage.kind(stage.order("acme.com", replaces=serial)) == "ari"  # shares a name
    assert stage.kind(stage.order("other.com", replaces=serial)) == "new"


def test_what_is_replaced_is_not_replaced_again() -> None:
    stage = Stage()
    serial = stage.issued("acme.com")
    stage.issued("acme.com", replaces=serial)
    with pytest.raises(CaRefused, match="replaced already"):
        stage.order("acme.com", replaces=serial)


def test_the_same_names_are_new_again_after_120_days() -> None:
    stage = Stage()
    stage.issued("acme.com")
    for days, kind in ((120, "same_set"), (121, "new")):
        stage.clock.at = START + timedelta(days=days)
        assert stage.kind(stage.order("acme.com")) == kind


def test_failures_keep_a_name_from_new_orders_of_its_account_until_a_token_is_back() -> None:
    stage = Stage()
    for _ in range(LIMITS["failures"][0]):
        stage.ca.lose(stage.order("*.acme.com"), "*.acme.com")
    with pytest.raises(CaThrottled, match="failed authorizations"):
        stage.order("acme.com")
    stage.order("acme.com", account=OTHER)
    stage.clock.at += timedelta(minutes=12)
    stage.order("acme.com")


def test_an_incident_moves_the_window_into_the_past() -> None:
    stage = Stage()
    serial = stage.issued("acme.com")
    stage.ca.revoke([serial])
    said = stage.ca.renewal_info(ONE, serial)
    assert said.window_start < said.window_end < stage.clock.at
    assert said.retry_after_seconds == ASK_AGAIN.total_seconds()


def test_in_an_outage_nothing_of_what_is_out_is_answered() -> None:
    stage = Stage()
    serial = stage.issued("acme.com")
    stage.clock.at = OUTAGES[1].start
    with pytest.raises(CaUnavailable):
        stage.order("acme.com")
    stage.ca.renewal_info(ONE, serial)
    stage.clock.at = OUTAGES[1].end
    stage.order("acme.com")
