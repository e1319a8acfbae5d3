"""Certificates that are renewed by themselves: when, with what, and what keeps them from it."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from application.certificates import NewName
from application.errors import CaRefused, CaThrottled, CaUnavailable
from application.process.renewal import TellOfEnd, next_step
from application.process.worker import MOST_CRASHES
from domain.acme import ERROR_NAMESPACE, Problem, RenewalInfo
from domain.certificate import Certificate
from domain.errors import VersionConflict
from domain.order import Order
from tests.application.world import ENDLESS, NAMES, OWNER, ZONE, World

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
ALREADY_REPLACED = CaRefused(Problem(ERROR_NAMESPACE + "alreadyReplaced", "there is a replacement"), 409)
RATE_LIMITED = Problem(ERROR_NAMESPACE + "rateLimited", "too many new orders (300) from this account")


@pytest.fixture
def world() -> World:
    world = World()
    world.issued()
    world.renew_by_itself()
    return world


def line(world: World) -> Certificate:
    first = next(event for event in world.recorded if isinstance(event, Certificate.Issued))
    return world.store.load(Certificate, first.originator_id)


def told(world: World, kind: type) -> list[object]:
    return [event for event in world.recorded if isinstance(event, kind)]


def always_past(world: World) -> None:
    now = world.clock.now
    world.ca.knobs.window = lambda _: RenewalInfo(now() - 2 * HOUR, now() - HOUR)


def until_due(world: World) -> None:
    """To just before the renewal is due."""
    world.run_for(MINUTE)
    due = line(world).next_renewal
    assert due is not None
    world.run_for(due.at - world.clock.now() - MINUTE)


def test_a_certificate_is_renewed_in_the_window_that_the_ca_suggests_and_says_what_it_replaces(world: World) -> None:
    world.run_for(70 * DAY)
    certificate = line(world)
    first, second = certificate.versions
    (began,) = told(world, Certificate.RenewalBegan)
    assert isinstance(began, Certificate.RenewalBegan)
    assert (began.reason, began.automatic, began.in_window) == ("ari", True, True)
    length = first.not_after - first.not_before
    assert abs(began.timestamp - (first.not_before + length * 2 / 3)) <= length / 100
    placed = world.events(began.order_id)[0]
    assert isinstance(placed, Order.Placed)
    (seen, _) = told(world, Certificate.RenewalInfoSeen)
    assert isinstance(seen, Certificate.RenewalInfoSeen)
    assert world.ca.replaces == [None, placed.replaces] == [None, seen.suggestion.ari_id]
    assert first.sealed_key_id != second.sealed_key_id


def test_it_goes_on_for_ever(world: World) -> None:
    world.run_for(2 * 365 * DAY)
    certificate = line(world)
    assert len(certificate.versions) == 13
    assert not told(world, Certificate.ExpiryNeared)
    for before, after in zip(certificate.versions, certificate.versions[1:], strict=False):
        assert after.not_before < before.not_after - before.lifetime.length / 4


def test_without_renewal_information_the_rule_of_the_lifetime_holds(world: World) -> None:
    world.ca.knobs.turn_ari_off()
    world.run_for(70 * DAY)
    (began,) = told(world, Certificate.RenewalBegan)
    assert isinstance(began, Certificate.RenewalBegan)
    assert (began.reason, began.in_window) == ("lifetime", None)
    assert world.ca.replaces == [None, None]
    first = line(world).versions[0]
    assert first.lifetime.window.takes(began.timestamp)


def test_the_ca_is_asked_at_least_twice_a_day_and_nothing_is_recorded_when_it_says_the_same(world: World) -> None:
    world.run_for(2 * HOUR)
    world.ca.requests.clear()
    before = len(world.recorded)
    world.run_for(10 * DAY)
    assert 20 <= world.ca.requests["renewalInfo"] <= 41
    assert len(world.recorded) == before


@pytest.mark.parametrize(
    "failure",
    [
        CaUnavailable("502"),
        CaRefused(Problem(ERROR_NAMESPACE + "malformed", "no such certificate"), 404),
        CaThrottled(Problem("about:blank", "slow down"), 7200),
    ],
)
def test_a_ca_that_cannot_say_is_asked_again_and_the_lifetime_s_rule_holds(
    world: World, failure: CaUnavailable | CaRefused | CaThrottled
) -> None:
    end = world.clock.now() + 80 * DAY
    world.calls.fail_while("ca.renewal_info", lambda: world.clock.now() < end, failure)
    world.run_for(DAY)
    asked = world.calls.made.count("ca.renewal_info")
    assert 2 <= asked <= 25
    world.run_for(69 * DAY)
    (began,) = told(world, Certificate.RenewalBegan)
    assert isinstance(began, Certificate.RenewalBegan)
    assert began.reason == "lifetime"


@pytest.mark.parametrize(
    ("start", "end"), [(61 * DAY, 60 * DAY), (60 * DAY, 60 * DAY), (5000 * DAY, 5001 * DAY)], ids=str
)
def test_a_window_that_is_none_is_passed_over(world: World, start: timedelta, end: timedelta) -> None:
    begin = world.clock.now()
    world.ca.knobs.window = lambda _: RenewalInfo(begin + start, begin + end, retry_after_seconds=0)
    world.run_for(10 * MINUTE)
    assert 10 <= world.ca.requests["renewalInfo"] <= 12
    assert not told(world, Certificate.RenewalInfoSeen)
    assert line(world).plan.rule == "lifetime"


def test_a_window_beyond_the_last_line_is_not_waited_for(world: World) -> None:
    begin = world.clock.now()
    world.ca.knobs.window = lambda _: RenewalInfo(begin + 85 * DAY, begin + 86 * DAY)
    world.run_for(80 * DAY)
    first, _ = line(world).versions
    (began,) = told(world, Certificate.RenewalBegan)
    assert isinstance(began, Certificate.RenewalBegan)
    assert (began.reason, began.in_window) == ("last_line", False)
    assert began.timestamp == first.lifetime.last_line


def test_a_window_that_moves_into_the_past_is_followed_at_once(world: World) -> None:
    world.run_for(5 * DAY)
    moved = world.clock.now()
    ari = line(world).suggestion
    assert ari is not None
    world.ca.knobs.windows[ari.ari_id] = RenewalInfo(moved - 2 * HOUR, moved - HOUR, "https://ca.example/incident")
    world.run_for(DAY)
    _, seen, _ = told(world, Certificate.RenewalInfoSeen)
    (began,) = told(world, Certificate.RenewalBegan)
    assert isinstance(seen, Certificate.RenewalInfoSeen)
    assert isinstance(began, Certificate.RenewalBegan)
    assert began.timestamp - seen.timestamp <= MINUTE
    assert (began.in_window, seen.explanation_url) == (False, "https://ca.example/incident")
    assert len(line(world).versions) == 2


def test_a_window_that_is_always_past_is_renewed_once_in_six_hours_and_four_times_in_a_week(world: World) -> None:
    always_past(world)
    world.run_for(15 * DAY)
    renewed = [event for event in world.recorded if isinstance(event, Certificate.Renewed)]
    assert len(renewed) == 12  # four in each of the two weeks, and in the day that is left
    for each in renewed:
        later = [other for other in renewed if other.timestamp >= each.timestamp]
        assert sum(other.timestamp < each.timestamp + 6 * HOUR for other in later) <= 1
        assert sum(other.timestamp < each.timestamp + 7 * DAY for other in later) <= 4
    first_held = next(index for index, event in enumerate(world.recorded) if isinstance(event, Certificate.RenewalHeld))
    assert sum(isinstance(event, Certificate.Renewed) for event in world.recorded[:first_held]) == 1


def test_a_breaker_that_is_lifted_lets_one_through(world: World) -> None:
    always_past(world)
    world.run_for(HOUR)
    assert line(world).is_held
    assert len(line(world).versions) == 2
    world.renewals.release(line(world).id, "the CA had a fault", OWNER)
    world.run_for(MINUTE)
    assert len(line(world).versions) == 3


def test_what_is_switched_off_is_not_renewed_but_told_of(world: World) -> None:
    world.certificates.revise(line(world).id, OWNER, auto_renew=False, new_name=None)
    world.run_for(100 * DAY)
    assert len(line(world).versions) == 1
    assert len(told(world, Certificate.ExpiryNeared)) == 3
    assert len(told(world, Certificate.Expired)) == 1
    assert [item.process for item in world.todo] == ["account"]


def test_what_is_switched_on_again_is_renewed_even_after_its_end(world: World) -> None:
    world.certificates.revise(line(world).id, OWNER, auto_renew=False, new_name=None)
    world.run_for(100 * DAY)
    world.certificates.revise(line(world).id, OWNER, auto_renew=True, new_name=None)
    world.run_for(MINUTE)
    assert len(line(world).versions) == 2


def test_a_ca_that_is_away_is_tried_again_and_each_failure_is_told(world: World) -> None:
    until_due(world)
    world.outage("ca.new_order", 3 * DAY, CaUnavailable("502"))
    world.run_for(5 * DAY)
    failed = [event for event in world.recorded if isinstance(event, Certificate.RenewalFailed)]
    assert len(line(world).versions) == 2
    assert 2 <= len(failed) <= 4
    assert [event.attempt for event in failed] == list(range(1, len(failed) + 1))
    assert [event.next_attempt_at - event.timestamp for event in failed if event.next_attempt_at] == [
        MINUTE,
        10 * MINUTE,
        100 * MINUTE,
        DAY,
    ][: len(failed)]


def test_a_name_that_cannot_be_validated_fails_and_is_tried_after_1_10_100_minutes_and_daily(world: World) -> None:
    until_due(world)
    world.ca.knobs.invalid[ZONE] = Problem(ERROR_NAMESPACE + "caa", "forbidden")
    world.run_for(4 * DAY)
    failed = [event for event in world.recorded if isinstance(event, Certificate.RenewalFailed)]
    gaps = [after.timestamp - before.timestamp for before, after in itertools.pairwise(failed)]
    assert len(failed) == 7
    for gap, wanted in zip(gaps, [MINUTE, 10 * MINUTE, 100 * MINUTE, DAY, DAY, DAY], strict=True):
        assert wanted <= gap <= wanted + MINUTE
    world.ca.knobs.invalid.clear()
    world.run_for(DAY)
    assert len(line(world).versions) == 2
    world.require_sound()


def test_a_rate_limit_that_the_ca_named_holds_a_renewal_until_it_is_over(world: World) -> None:
    until_due(world)
    world.ca.fail("new_order", CaThrottled(RATE_LIMITED, 7200))
    world.ca.requests.clear()
    world.run_for(10 * MINUTE)
    assert world.ca.requests["newOrder"] == 1
    assert line(world).renewing is not None
    world.run_for(3 * HOUR)
    assert len(line(world).versions) == 2
    assert not told(world, Certificate.RenewalFailed)


def test_a_limit_that_is_known_beforehand_puts_a_renewal_off_without_asking_the_ca(world: World) -> None:
    until_due(world)
    account_id = line(world).account_id
    world.ca.fail("new_order", CaThrottled(Problem(ERROR_NAMESPACE + "rateLimited", "slow down"), 4 * 3600))
    world.place(account_id, f"other.{ZONE}")
    world.run_for(MINUTE / 2)
    world.ca.requests.clear()
    world.run_for(3 * HOUR)
    assert world.ca.requests["newOrder"] == 0
    (postponed,) = told(world, Certificate.RenewalPostponed)
    assert isinstance(postponed, Certificate.RenewalPostponed)
    assert postponed.bucket.limit == "unnamed"
    world.run_for(3 * HOUR)
    assert len(line(world).versions) == 2


def test_a_replacement_that_the_ca_does_not_take_is_ordered_as_anything_else(world: World) -> None:
    until_due(world)
    world.ca.fail("new_order", ALREADY_REPLACED)
    world.run_for(HOUR)
    assert len(line(world).versions) == 2
    assert world.ca.replaces[-1] is None
    assert len(told(world, Order.ReplacementRefused)) == 1
    assert not told(world, Certificate.RenewalFailed)
    world.require_sound()


def test_what_an_earlier_order_of_ours_brought_is_adopted_with_its_key(world: World) -> None:
    until_due(world)
    lost = [True]
    world.calls.fail_while("ca.chain", lambda: bool(lost), CaRefused(Problem("about:blank", "gone"), 404))
    world.run_for(MINUTE * 1.5)
    (failed,) = told(world, Certificate.RenewalFailed)
    assert isinstance(failed, Certificate.RenewalFailed)
    earlier = world.order(failed.order_id or "")
    lost.clear()
    issued = len(world.ca.issued)
    world.run_for(HOUR)
    assert len(world.ca.issued) == issued  # no second certificate
    assert line(world).current.sealed_key_id == earlier.sealed_key_id
    assert len(told(world, Order.Adopted)) == 1
    world.require_sound()


def test_somebody_s_order_for_the_same_names_is_waited_for(world: World) -> None:
    until_due(world)
    world.resolver.stale.add("ns1.example:53")
    world.place(line(world).account_id, *NAMES)
    world.run_for(2 * MINUTE)
    assert not told(world, Certificate.RenewalBegan)
    world.resolver.stale.clear()
    world.run_for(10 * MINUTE)
    assert len(line(world).versions) == 2


def test_a_renewal_on_request_keeps_the_other_from_beginning(world: World) -> None:
    until_due(world)
    certificate = line(world)
    placed = world.renewals.renew(certificate.id, reason="requested", new_key=True, caller=OWNER)
    assert placed.is_new
    world.run_for(HOUR)
    assert len(line(world).versions) == 2
    assert len(told(world, Certificate.RenewalBegan)) == 1


def test_a_claim_of_what_has_changed_since_does_nothing_too_early(world: World) -> None:
    until_due(world)
    world.running = tuple(name for name in world.processes if name not in ENDLESS)
    world.clock.advance(2 * MINUTE)
    claim = world.claim_one("renewal")
    world.renewals.renew(line(world).id, reason="requested", new_key=True, caller=OWNER)
    world.run_until_quiet()
    with world.records_nothing():
        world.work(claim)
    assert len(line(world).versions) == 2


def test_a_renewal_that_cannot_even_be_begun_is_given_up_as_a_failure(world: World) -> None:
    until_due(world)
    world.clock.advance(2 * MINUTE)
    claim = world.claim_one("renewal")
    assert MOST_CRASHES > 1
    world.processes["renewal"].give_up(claim)
    (failed,) = told(world, Certificate.RenewalFailed)
    assert isinstance(failed, Certificate.RenewalFailed)
    assert (failed.order_id, failed.error.code) == (None, "backend_error")
    due = line(world).next_renewal
    assert due is not None
    assert due.at == world.clock.now() + MINUTE


def test_the_end_is_told_of_although_the_renewal_hangs(world: World) -> None:
    until_due(world)
    world.outage("ca.new_order", 60 * DAY, CaThrottled(RATE_LIMITED, 8 * 24 * 3600))
    world.run_for(40 * DAY)
    assert len(told(world, Certificate.ExpiryNeared)) == 3
    assert len(told(world, Certificate.Expired)) == 1
    step = next_step(line(world))
    assert not isinstance(step, TellOfEnd)


# --- what once let a certificate lapse ---


def test_a_certificate_that_was_no_good_is_not_taken_up_again(world: World) -> None:
    until_due(world)
    world.ca.knobs.certificate_fault = "wrong_names"
    world.run_for(5 * MINUTE)
    world.ca.knobs.certificate_fault = None
    world.run_for(DAY)
    assert len(line(world).versions) == 2


def test_an_order_whose_chain_is_gone_is_taken_up_once(world: World) -> None:
    until_due(world)
    issued = len(world.ca.issued)
    gone = CaRefused(Problem("about:blank", "gone"), 404)
    world.calls.fail_while("ca.chain", lambda: len(world.ca.issued) == issued + 1, gone)
    world.run_for(DAY)
    assert len(line(world).versions) == 2
    assert len(told(world, Order.Adopted)) == 1


def test_an_order_that_was_adopted_is_not_taken_up_for_another_version(world: World) -> None:
    until_due(world)
    lost = [True]
    world.calls.fail_while("ca.chain", lambda: bool(lost), CaRefused(Problem("about:blank", "gone"), 404))
    world.run_for(MINUTE * 1.5)
    lost.clear()
    world.run_for(200 * DAY)
    fingerprints = [version.fingerprint_sha256 for version in line(world).versions]
    assert len(fingerprints) == len(set(fingerprints)) >= 4


def test_an_order_that_hangs_makes_room_for_another_in_time(world: World) -> None:
    until_due(world)
    world.ca.knobs.processing_polls = -1
    world.run_for(2 * DAY)
    world.ca.knobs.processing_polls = 0
    world.run_for(20 * DAY)
    assert len(line(world).versions) == 2
    assert not told(world, Certificate.Expired)


def test_a_ca_that_fails_at_replacements_is_ordered_from_without(world: World) -> None:
    until_due(world)
    refusal = CaRefused(Problem(ERROR_NAMESPACE + "serverInternal", "replaces"), 400)
    new_order = world.ca.new_order

    def failing(account: object, names: object, profile: object, replaces: str | None = None) -> object:
        if replaces is not None:
            raise refusal
        return new_order(account, names, profile, replaces)  # type: ignore[arg-type]

    world.ca.new_order = failing  # type: ignore[assignment,method-assign]
    world.run_for(3 * DAY)
    assert len(line(world).versions) == 2
    assert len(told(world, Certificate.RenewalFailed)) == 3


def test_the_end_is_told_of_although_somebody_s_order_for_the_same_names_hangs() -> None:
    world = World()
    world.ca.knobs.certificate_lifetime = 2 * DAY
    world.issued()
    world.renew_by_itself()
    until_due(world)
    world.outage("ca.authorizations", 60 * DAY, CaUnavailable("502"))
    world.place(line(world).account_id, *NAMES)
    world.run_for(2 * DAY)
    assert len(told(world, Certificate.ExpiryNeared)) == 3
    assert len(told(world, Certificate.Expired)) == 1
    assert not told(world, Certificate.RenewalBegan)


def test_a_window_that_moves_with_each_asking_is_not_followed_each_time(world: World) -> None:
    now = world.clock.now
    world.ca.knobs.window = lambda _: RenewalInfo(now() + 20 * DAY, now() + 21 * DAY, retry_after_seconds=60)
    world.run_for(5 * DAY)
    assert len(told(world, Certificate.RenewalInfoSeen)) <= 22


def test_load_that_the_ca_sheds_is_waited_out(world: World) -> None:
    until_due(world)
    world.ca.fail("finalize", CaUnavailable("Service busy; retry later.", 60))
    world.run_for(HOUR)
    assert len(line(world).versions) == 2
    assert not told(world, Order.Throttled)


def test_a_limit_that_is_met_after_the_order_is_no_end_of_it(world: World) -> None:
    until_due(world)
    world.ca.fail("order", CaThrottled(RATE_LIMITED, 60))
    world.run_for(HOUR)
    assert len(line(world).versions) == 2
    assert not told(world, Order.Throttled)


def test_of_two_who_ask_at_the_same_moment_the_second_gets_the_first_one_s_order(world: World) -> None:
    until_due(world)
    first: list[str] = []

    def somebody_else() -> None:
        first.append(world.renewals.renew(line(world).id, reason="first", new_key=True, caller=OWNER).order_id)

    world.calls.before("store.insert_events", somebody_else)
    placed = world.renewals.renew(line(world).id, reason="second", new_key=True, caller=OWNER)
    assert ([placed.order_id], placed.is_new) == (first, False)
    assert len(told(world, Certificate.RenewalBegan)) == 1


def changes(world: World, name: str) -> None:
    world.certificates.revise(line(world).id, OWNER, auto_renew=None, new_name=NewName(name))


def test_a_line_that_changes_while_its_renewal_is_asked_for_is_renewed_all_the_same(world: World) -> None:
    """As a new one does, when the CA says its window."""
    until_due(world)
    world.calls.before("store.insert_events", lambda: changes(world, "meanwhile"))
    placed = world.renewals.renew(line(world).id, reason="requested", new_key=True, caller=OWNER)
    assert placed.is_new
    assert (line(world).name, len(told(world, Certificate.RenewalBegan))) == ("meanwhile", 1)


def test_a_line_that_changes_each_time_is_not_renewed_on_request(world: World) -> None:
    names = (f"again {number}" for number in itertools.count())

    def each_time() -> None:
        changes(world, next(names))
        world.calls.before("store.insert_events", each_time)

    until_due(world)
    each_time()
    with pytest.raises(VersionConflict):
        world.renewals.renew(line(world).id, reason="requested", new_key=True, caller=OWNER)
    assert not told(world, Certificate.RenewalBegan)
