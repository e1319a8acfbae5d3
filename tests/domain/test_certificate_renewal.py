"""What a certificate line decides about its renewals: each command does it, repeats it, and is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from domain.certificate import Certificate, Renewing, Suggestion
from domain.errors import AlreadyRevoked, NotFound, OrderInProgress
from domain.order import OrderError
from domain.rate_limit import LETS_ENCRYPT, Bucket
from domain.renewal import Plan, Window
from tests.domain.recorded import recorded
from tests.domain.test_certificate import FIRST, NOW, SECOND, issued

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
WINDOW = Window(NOW + 59 * DAY, NOW + 61 * DAY)
SUGGESTED = Suggestion("akid.serial", WINDOW, NOW + 60 * DAY)
DOWN = OrderError("backend_error", "the CA is down")
BUCKET = Bucket(LETS_ENCRYPT, "certificates_per_set", "digest")


def suggested() -> Certificate:
    certificate = issued()
    certificate.see_renewal_info(SUGGESTED, None, NOW + 6 * HOUR, NOW)
    certificate.collect_events()
    return certificate


def renew_by_itself(certificate: Certificate, at: datetime) -> None:
    """With a version that is valid from then on."""
    number = certificate.next_number
    certificate.begin_renewal(f"acme_order_{number}", "ari", at, automatic=True)
    version = replace(
        FIRST, number=number, order_id=f"acme_order_{number}", not_before=at, not_after=at + timedelta(days=90)
    )
    certificate.renew(version, "ari", at)
    certificate.collect_events()


# --- the plan ---


def test_a_new_line_is_renewed_by_the_rule_of_its_lifetime() -> None:
    certificate = issued()
    assert certificate.next_renewal == certificate.plan == FIRST.plan
    assert FIRST.lifetime.window.takes(FIRST.plan.at)


def test_a_suggestion_is_kept_with_its_instant() -> None:
    certificate = issued()
    certificate.see_renewal_info(SUGGESTED, "https://ca.example/why", NOW + 6 * HOUR, NOW)
    plan = Plan(SUGGESTED.renew_at, "ari")
    assert recorded(certificate, NOW) == [
        (
            Certificate.RenewalInfoSeen,
            {
                "version": 1,
                "suggestion": SUGGESTED,
                "explanation_url": "https://ca.example/why",
                "ask_again_at": NOW + 6 * HOUR,
                "next_renewal": plan,
            },
        )
    ]
    assert (certificate.next_renewal, certificate.ask_at) == (plan, NOW + 6 * HOUR)


def test_the_same_window_again_changes_nothing_whatever_would_be_drawn_now() -> None:
    certificate = suggested()
    certificate.see_renewal_info(replace(SUGGESTED, renew_at=WINDOW.start), None, NOW + DAY, NOW)
    assert recorded(certificate, NOW) == []
    assert certificate.plan.at == SUGGESTED.renew_at


def test_another_window_takes_its_place() -> None:
    certificate = suggested()
    past = Suggestion("akid.serial", Window(NOW - HOUR, NOW - MINUTE), NOW)
    certificate.see_renewal_info(past, None, NOW + DAY, NOW)
    assert certificate.next_renewal == Plan(NOW, "ari")


def test_a_suggestion_holds_for_its_version_alone() -> None:
    certificate = suggested()
    certificate.renew(SECOND, "requested", NOW + DAY)
    assert (certificate.suggestion, certificate.next_renewal) == (None, SECOND.plan)
    assert certificate.ask_at == NOW + DAY


# --- a renewal ---


@pytest.mark.parametrize(
    ("at", "in_window"), [(WINDOW.start, True), (WINDOW.end, False), (WINDOW.start - MINUTE, False)]
)
def test_a_renewal_is_begun_once_for_a_version(at: datetime, *, in_window: bool) -> None:
    certificate = suggested()
    certificate.begin_renewal("acme_order_2", "ari", at, automatic=True)
    fields = {"version": 1, "order_id": "acme_order_2", "reason": "ari", "automatic": True, "in_window": in_window}
    assert recorded(certificate, at) == [(Certificate.RenewalBegan, fields)]
    assert (certificate.renewing, certificate.next_renewal) == (
        Renewing("acme_order_2", automatic=True, began_at=at),
        None,
    )
    with pytest.raises(OrderInProgress) as refusal:
        certificate.begin_renewal("acme_order_3", "ari", at, automatic=True)
    assert refusal.value.order_id == "acme_order_2"
    assert recorded(certificate, at) == []


def test_without_a_window_nobody_says_whether_it_was_kept() -> None:
    certificate = issued()
    certificate.begin_renewal("acme_order_2", "lifetime", NOW, automatic=True)
    assert recorded(certificate, NOW)[0][1]["in_window"] is None


def test_a_failure_puts_the_next_attempt_off_and_ends_the_renewal() -> None:
    certificate = suggested()
    at = WINDOW.start
    for attempt, after in ((1, MINUTE), (2, 10 * MINUTE), (3, 100 * MINUTE), (4, DAY), (5, DAY)):
        certificate.begin_renewal(f"acme_order_{attempt}", "ari", at, automatic=True)
        certificate.renewal_failed(f"acme_order_{attempt}", DOWN, at)
        _, (_, fields) = recorded(certificate, at)
        assert (fields["attempt"], fields["next_attempt_at"]) == (attempt, max(at + after, SUGGESTED.renew_at))
        assert certificate.next_renewal == Plan(max(at + after, SUGGESTED.renew_at), "ari")
        at += after


def test_a_failure_long_before_the_plan_does_not_hasten_it() -> None:
    certificate = suggested()
    certificate.renewal_failed("acme_order_2", DOWN, NOW + DAY)
    assert certificate.next_renewal == Plan(SUGGESTED.renew_at, "ari")


def test_where_nothing_is_renewed_by_itself_no_attempt_follows_a_failure() -> None:
    certificate = issued()
    certificate.switch_auto_renewal(NOW, on=False)
    certificate.renewal_failed("acme_order_2", DOWN, NOW)
    assert recorded(certificate, NOW)[-1][1]["next_attempt_at"] is None
    assert certificate.next_renewal is None


def test_a_rate_limit_puts_it_off_and_is_told_once() -> None:
    certificate = suggested()
    until = WINDOW.end + DAY
    for _ in range(2):
        certificate.postpone_renewal(BUCKET, until, NOW)
    ((event, fields),) = recorded(certificate, NOW)
    assert (event, fields["bucket"]) == (Certificate.RenewalPostponed, BUCKET)
    assert until <= fields["until"] < until + 10 * MINUTE
    assert certificate.next_renewal == Plan(fields["until"], "ari")


# --- the breaker ---


def test_the_breaker_holds_the_second_renewal_within_six_hours() -> None:
    certificate = issued()
    renew_by_itself(certificate, NOW)
    assert certificate.hold_renewal(NOW + HOUR)
    ((event, fields),) = recorded(certificate, NOW + HOUR)
    assert event is Certificate.RenewalHeld
    assert (fields["renewals"], fields["since"], fields["until"]) == (1, NOW, NOW + 6 * HOUR)
    assert certificate.is_held
    assert certificate.next_renewal is not None
    assert certificate.next_renewal.at >= NOW + 6 * HOUR


def test_the_breaker_lets_it_go_when_its_time_has_come() -> None:
    certificate = issued()
    renew_by_itself(certificate, NOW)
    assert not certificate.hold_renewal(NOW + 6 * HOUR)
    assert recorded(certificate, NOW) == []


def test_the_fifth_in_a_week_waits_for_the_week_s_end() -> None:
    certificate = issued()
    for number in range(4):
        renew_by_itself(certificate, NOW + number * 6 * HOUR)
    assert certificate.hold_renewal(NOW + 2 * DAY)
    assert recorded(certificate, NOW + 2 * DAY)[0][1]["until"] == NOW + 7 * DAY


def test_what_somebody_asked_for_is_not_counted_by_the_breaker() -> None:
    certificate = issued()
    certificate.begin_renewal("acme_order_2", "requested", NOW, automatic=False)
    certificate.renew(replace(SECOND, order_id="acme_order_2"), "requested", NOW)
    assert not certificate.hold_renewal(NOW)


def test_the_breaker_is_lifted_with_a_reason_and_once() -> None:
    certificate = issued()
    certificate.release_renewal("nothing to lift", NOW)
    assert recorded(certificate, NOW) == []
    renew_by_itself(certificate, NOW)
    certificate.hold_renewal(NOW)
    certificate.collect_events()
    for _ in range(2):
        certificate.release_renewal("looked into", NOW)
    ((event, fields),) = recorded(certificate, NOW)
    assert (event, fields["reason"]) == (Certificate.RenewalReleased, "looked into")
    assert fields["next_renewal"] == certificate.next_renewal == certificate.plan
    assert not certificate.hold_renewal(NOW)


# --- what may be changed ---


def test_renewing_by_itself_is_switched() -> None:
    certificate = suggested()
    for on in (False, False, True, True):
        certificate.switch_auto_renewal(NOW + DAY, on=on)
    off, on_again = recorded(certificate, NOW + DAY)
    plan = Plan(SUGGESTED.renew_at, "ari")
    assert off == (Certificate.AutoRenewalSwitched, {"on": False, "next_renewal": None})
    assert on_again == (Certificate.AutoRenewalSwitched, {"on": True, "next_renewal": plan})
    assert (certificate.next_renewal, certificate.ask_at) == (plan, NOW + DAY)


def test_a_line_is_renamed() -> None:
    certificate = issued()
    for name in ("edge", "edge", None):
        certificate.rename(name, NOW)
    assert [fields["name"] for _, fields in recorded(certificate, NOW)] == ["edge", None]
    assert certificate.name is None


# --- the end ---


def test_each_warning_is_told_once() -> None:
    certificate = issued()
    for days_left in (28, 27, 26, 7, 6, 1):
        certificate.near_expiry(FIRST.not_after - days_left * DAY)
    told = [event for event in certificate.collect_events() if isinstance(event, Certificate.ExpiryNeared)]
    assert [event.before for event in told] == [27 * DAY, 7 * DAY, DAY]
    assert certificate.next_warning is None


def test_warnings_that_were_slept_through_are_told_as_one() -> None:
    certificate = issued()
    certificate.near_expiry(FIRST.not_after - 2 * DAY)
    ((_, fields),) = recorded(certificate, FIRST.not_after - 2 * DAY)
    assert fields["before"] == 7 * DAY
    assert certificate.next_warning == (DAY, FIRST.not_after - DAY)


def test_the_end_is_told_once_and_a_new_version_begins_anew() -> None:
    certificate = issued()
    for _ in range(2):
        certificate.expire(FIRST.not_after)
    fields = {"version": 1, "dns_names": certificate.dns_names, "serial_number": "04aa"}
    assert recorded(certificate, FIRST.not_after) == [(Certificate.Expired, fields)]
    for _ in range(2):
        certificate.near_expiry(FIRST.not_after)
    assert recorded(certificate, FIRST.not_after) == []
    certificate.renew(SECOND, "ari", FIRST.not_after)
    assert (certificate.has_expired, certificate.warned) == (False, None)


# --- revoking ---


def test_the_current_version_is_revoked_once_and_renewed_at_once() -> None:
    certificate = suggested()
    certificate.revoke(1, "key_compromise", NOW)
    fields = {
        "version": 1,
        "dns_names": certificate.dns_names,
        "serial_number": "04aa",
        "reason": "key_compromise",
        "next_renewal": Plan(NOW, "revoked"),
    }
    assert recorded(certificate, NOW) == [(Certificate.Revoked, fields)]
    assert certificate.next_renewal == Plan(NOW, "revoked")
    with pytest.raises(AlreadyRevoked):
        certificate.revoke(1, "superseded", NOW)
    certificate.see_renewal_info(replace(SUGGESTED, window=Window(NOW, NOW + HOUR)), None, NOW + DAY, NOW)
    assert certificate.next_renewal == Plan(NOW, "revoked")


def test_neither_the_breaker_nor_a_failure_before_puts_the_replacement_off() -> None:
    certificate = issued()
    renew_by_itself(certificate, NOW)
    certificate.hold_renewal(NOW)
    certificate.revoke(2, "superseded", NOW)
    assert certificate.next_renewal == Plan(NOW, "revoked")
    assert not certificate.hold_renewal(NOW)


def test_an_older_version_is_revoked_without_a_replacement() -> None:
    certificate = issued()
    certificate.renew(SECOND, "requested", NOW)
    certificate.revoke(1, "superseded", NOW)
    assert certificate.next_renewal == certificate.plan == SECOND.plan
    with pytest.raises(NotFound):
        certificate.revoke(3, "superseded", NOW)


def test_the_next_version_is_not_revoked() -> None:
    certificate = issued()
    certificate.revoke(1, "superseded", NOW)
    certificate.renew(SECOND, "revoked", NOW)
    assert certificate.next_renewal == SECOND.plan
    certificate.revoke(2, "superseded", NOW)
    assert certificate.revoked_versions == (1, 2)
