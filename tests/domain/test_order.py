from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.acme import (
    ERROR_NAMESPACE,
    AuthorizationObject,
    AuthorizationStatus,
    ChallengeObject,
    ChallengeStatus,
    OrderObject,
    OrderStatus,
    Problem,
    Subproblem,
)
from domain.errors import OrderAlreadyEnded, OrderInProgress
from domain.order import Assignment, Challenge, ErrorAtName, Order, OrderError, Record, UnseenRecord, error_of
from domain.rate_limit import Bucket
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
EXPIRES_AT = NOW + timedelta(days=1)

WWW = Assignment("www.acme.example", "dnsp_www")
APEX = Assignment("acme.example", "dnsp_apex")
WILDCARD = Assignment("*.acme.example", "dnsp_wildcard")

# printf '%s' "$TOKEN.$THUMBPRINT" | openssl dgst -sha256 -binary | basenc --base64url | tr -d =
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
VALUE = "ZTRx1Ckl1-tM05o5zaizTTA0yUy5AGereMgSNWC6Ll8"
RECORD = Record("dnsp_www", "_acme-challenge.www.acme.example", VALUE)

ORDER_URL = "https://ca.example/order/1"
CERTIFICATE_URL = "https://ca.example/certificate/1"


def at_ca(status: OrderStatus = "pending", **said: Any) -> OrderObject:
    said.setdefault("expires_at", EXPIRES_AT)
    return OrderObject(ORDER_URL, status, f"{ORDER_URL}/finalize", ("https://ca.example/authorization/1",), **said)


def problem(name: str, detail: str = "not today", *subproblems: Subproblem) -> Problem:
    return Problem(ERROR_NAMESPACE + name, detail, subproblems)


def authorization(
    dns_name: str = "www.acme.example",
    status: AuthorizationStatus = "pending",
    challenge: ChallengeStatus = "pending",
    *,
    wildcard: bool = False,
    token: str = TOKEN,
    error: Problem | None = None,
) -> AuthorizationObject:
    url = f"https://ca.example/challenge/{dns_name}"
    offered = (
        ChallengeObject("dns-01", url, challenge, token, error),
        ChallengeObject("http-01", url + "/http", "pending", token),
    )
    return AuthorizationObject(f"https://ca.example/authorization/{dns_name}", dns_name, wildcard, status, offered)


def challenge_url(dns_name: str) -> str:
    return f"https://ca.example/challenge/{dns_name}"


ORDERS = Bucket("https://ca.example/directory", "new_orders", "acme_staging_1")


def placed_with(*assignments: Assignment, **asked: Any) -> Order:
    return Order.place(
        "acme_order_1",
        **{
            "tenant_id": "tnt_default",
            "account_id": "acme_staging_1",
            "certificate_id": "cert_1",
            "assignments": assignments or (WWW,),
            "challenge_type": "dns-01",
            "key_type": "ec256",
            "auto_renew": True,
            "name": "shop",
            "profile": "tlsserver",
            "preferred_chain": "ISRG Root X1",
            "renewal_reason": None,
            "kept_key_id": None,
            "replaces": None,
            "ca": "https://ca.example/directory",
            "charges": (),
            "csr_der": b"",
            "now": NOW,
            **asked,
        },
    )


def as_stored(order: Order) -> Order:
    """What was recorded on the way here is history."""
    order.collect_events()
    return order


def placed(*assignments: Assignment) -> Order:
    return as_stored(placed_with(*assignments))


def accepted(*assignments: Assignment, expires_at: datetime | None = EXPIRES_AT) -> Order:
    order = placed(*assignments)
    order.accept(at_ca(expires_at=expires_at), NOW)
    return as_stored(order)


def offered(*authorizations: AuthorizationObject) -> Order:
    order = accepted()
    order.offer_challenges(authorizations or [authorization()], THUMBPRINT, NOW)
    return as_stored(order)


def offered_for_apex_and_wildcard() -> Order:
    order = accepted(APEX, WILDCARD)
    order.offer_challenges(
        [authorization("acme.example"), authorization("acme.example", wildcard=True, token="other")], THUMBPRINT, NOW
    )
    return as_stored(order)


def published() -> Order:
    order = offered()
    order.record_published(RECORD, NOW)
    return as_stored(order)


def propagated() -> Order:
    order = published()
    order.observe_propagation([], NOW)
    return as_stored(order)


def answered(times: int = 1) -> Order:
    order = propagated()
    for _ in range(times):
        order.challenges_answered(NOW)
    return as_stored(order)


def ready() -> Order:
    order = answered()
    order.follow(at_ca("ready"), [], NOW)
    return as_stored(order)


def finalized() -> Order:
    order = ready()
    order.follow(at_ca("processing"), [], NOW)
    return as_stored(order)


def issued() -> Order:
    order = finalized()
    order.follow(at_ca("valid", certificate_url=CERTIFICATE_URL), [], NOW)
    return as_stored(order)


def completed() -> Order:
    order = issued()
    order.complete(1, NOW)
    return as_stored(order)


def failed(error: OrderError, *name_errors: ErrorAtName, dns_names: tuple[str, ...] = (WWW.dns_name,)) -> Any:
    return (Order.Failed, {"dns_names": dns_names, "error": error, "name_errors": name_errors, "ledger": ()})


def postponed(order: Order, seconds: float, error: OrderError | None = None, at: datetime = NOW) -> Any:
    return (Order.Postponed, {"phase": order.phase, "until": at + timedelta(seconds=seconds), "error": error})


# Placing


def test_an_order_is_placed_with_all_that_was_asked() -> None:
    order = placed_with(WWW, renewal_reason="ari", kept_key_id="key_1", replaces="akid.serial", charges=(ORDERS,))
    assert recorded(order, NOW) == [
        (
            Order.Placed,
            {
                "tenant_id": "tnt_default",
                "account_id": "acme_staging_1",
                "certificate_id": "cert_1",
                "assignments": (WWW,),
                "challenge_type": "dns-01",
                "key_type": "ec256",
                "auto_renew": True,
                "name": "shop",
                "profile": "tlsserver",
                "preferred_chain": "ISRG Root X1",
                "renewal_reason": "ari",
                "kept_key_id": "key_1",
                "replaces": "akid.serial",
                "ca": "https://ca.example/directory",
                "charges": (ORDERS,),
                "csr_der": b"",
            },
        )
    ]
    assert (order.id, order.dns_names, order.due_at, order.ended) == ("acme_order_1", ("www.acme.example",), NOW, None)


@pytest.mark.parametrize(("reason", "is_renewal"), [(None, False), ("requested", True)])
def test_an_order_with_a_renewal_reason_is_a_renewal(reason: str | None, is_renewal: bool) -> None:
    assert placed_with(WWW, renewal_reason=reason).is_renewal is is_renewal


def test_an_order_for_a_name_without_provider_ends_at_once() -> None:
    homeless = Assignment("a.elsewhere.example", None), Assignment("b.elsewhere.example", None)
    order = placed_with(WWW, *homeless)
    _, end = recorded(order, NOW)
    message = "no active DNS provider manages this name"
    assert end == failed(
        OrderError("zone_not_managed", "no active DNS provider manages a.elsewhere.example, b.elsewhere.example"),
        ErrorAtName("a.elsewhere.example", "zone_not_managed", message),
        ErrorAtName("b.elsewhere.example", "zone_not_managed", message),
        dns_names=order.dns_names,
    )
    assert (order.ended, order.phase) == ("invalid", "done")


def test_the_key_is_sealed_with_its_csr() -> None:
    order = placed()
    order.seal_key("key_1", b"csr", NOW)
    assert recorded(order, NOW) == [(Order.KeySealed, {"sealed_key_id": "key_1", "csr_der": b"csr"})]


def test_a_sealed_key_is_not_sealed_again() -> None:
    order = placed()
    order.seal_key("key_1", b"csr", NOW)
    as_stored(order)
    order.seal_key("key_2", b"other", LATER)
    assert recorded(order, LATER) == []
    assert (order.sealed_key_id, order.csr_der) == ("key_1", b"csr")


def test_the_ca_s_order_is_accepted() -> None:
    order = placed()
    order.accept(at_ca(), NOW)
    assert recorded(order, NOW) == [(Order.Accepted, {"order": at_ca()})]
    assert (order.at_ca, order.phase) == (at_ca(), "publishing")


def test_an_order_is_accepted_once() -> None:
    order = accepted()
    order.accept(at_ca(), LATER)
    assert recorded(order, LATER) == []


def test_an_order_may_be_born_ready() -> None:
    order = placed()
    order.accept(at_ca("ready"), NOW)
    assert recorded(order, NOW) == [(Order.Accepted, {"order": at_ca("ready")}), (Order.BecameReady, {})]
    assert order.phase == "finalizing"


def test_an_order_may_be_born_invalid() -> None:
    order = placed()
    said = at_ca("invalid", error=problem("caa"))
    order.accept(said, NOW)
    assert recorded(order, NOW) == [(Order.Accepted, {"order": said}), failed(error_of(problem("caa")))]


# Challenges


def test_a_challenge_is_offered_with_the_value_of_rfc_8555_section_8_4() -> None:
    order = accepted()
    order.offer_challenges([authorization()], THUMBPRINT, NOW)
    shown = Challenge("www.acme.example", False, "dns-01", challenge_url("www.acme.example"), "pending", RECORD)
    assert recorded(order, NOW) == [(Order.ChallengesOffered, {"challenges": (shown,)})]
    assert order.open_challenges == (shown,)


def test_values_count_as_written_from_the_offer_on() -> None:
    assert offered().outstanding_records == (RECORD,)


def test_challenges_are_offered_once() -> None:
    order = offered()
    order.offer_challenges([authorization(token="another")], THUMBPRINT, LATER)
    assert recorded(order, LATER) == []


def test_a_wildcard_and_its_apex_have_two_values_at_one_name_each_with_its_own_provider() -> None:
    order = offered_for_apex_and_wildcard()
    assert [(record.name, record.dns_provider_id) for record in order.outstanding_records] == [
        ("_acme-challenge.acme.example", "dnsp_apex"),
        ("_acme-challenge.acme.example", "dnsp_wildcard"),
    ]
    assert len({record.value for record in order.outstanding_records}) == 2


def test_a_value_that_is_asked_for_twice_is_one_record() -> None:
    order = offered(authorization(), authorization())
    assert order.outstanding_records == (RECORD,)


def test_a_wildcard_s_provider_is_found_where_the_ca_does_not_say_that_it_is_one() -> None:
    order = accepted(WILDCARD)
    order.offer_challenges([authorization("acme.example")], THUMBPRINT, NOW)
    assert [record.dns_provider_id for record in order.outstanding_records] == ["dnsp_wildcard"]


@pytest.mark.parametrize(
    "said", [authorization(status="valid"), authorization(challenge="valid")], ids=["authorization", "challenge"]
)
def test_a_name_that_is_authorized_already_is_kept_and_needs_no_record(said: AuthorizationObject) -> None:
    order = offered(said)
    assert order.challenges == (
        Challenge("www.acme.example", False, "dns-01", challenge_url("www.acme.example"), "valid", None),
    )
    assert (order.open_challenges, order.outstanding_records) == ((), ())


def test_a_name_may_have_been_authorized_by_another_type_of_challenge() -> None:
    by_http = ChallengeObject("http-01", "https://ca.example/challenge/1", "valid", TOKEN)
    order = offered(AuthorizationObject("https://ca.example/a/1", "www.acme.example", False, "valid", (by_http,)))
    assert order.challenges == (Challenge("www.acme.example", False, "dns-01", "", "valid", None),)
    assert order.ended is None


def test_an_order_fails_where_a_name_offers_no_usable_challenge() -> None:
    order = accepted()
    order.offer_challenges(
        [AuthorizationObject("https://ca.example/a/1", "www.acme.example", False, "pending", ())], THUMBPRINT, NOW
    )
    message = "the CA offers no dns-01 challenge for www.acme.example"
    assert recorded(order, NOW) == [failed(OrderError("backend_error", message))]


def test_an_order_fails_where_the_ca_asks_for_a_name_that_was_not_ordered() -> None:
    order = accepted()
    order.offer_challenges([authorization("evil.example")], THUMBPRINT, NOW)
    message = "the CA asks for evil.example, which was not ordered"
    assert recorded(order, NOW) == [failed(OrderError("backend_error", message))]


def test_a_name_above_that_is_authorized_already_is_no_obstacle() -> None:
    order = offered(authorization("acme.example", "valid"))
    assert (order.open_challenges, order.ended) == ((), None)


def test_an_authorization_that_was_lost_before_it_was_read_ends_the_order() -> None:
    order = accepted()
    caa = problem("caa", 'issue ";"')
    order.offer_challenges([authorization(status="invalid", challenge="invalid", error=caa)], THUMBPRINT, NOW)
    (what, _), end = recorded(order, NOW)
    assert what is Order.ChallengesOffered
    assert end == failed(
        OrderError("caa_forbids", 'www.acme.example: issue ";"', problem=caa),
        ErrorAtName("www.acme.example", "caa_forbids", 'issue ";"', caa),
    )


# Publishing and propagation


def unseen(record: Record = RECORD, *, strict: bool, seconds: float, server: str = "ns1.example") -> UnseenRecord:
    return UnseenRecord(server, record, strict, timedelta(seconds=seconds))


def test_a_published_record_is_on_record() -> None:
    order = offered()
    order.record_published(RECORD, NOW)
    assert recorded(order, NOW) == [(Order.RecordPublished, {"record": RECORD})]
    assert order.phase == "propagating"


def test_values_that_every_server_shows_have_propagated() -> None:
    order = published()
    order.observe_propagation([], LATER)
    assert recorded(order, LATER) == [(Order.RecordsPropagated, {"unseen": ()})]
    assert order.phase == "validating"


@pytest.mark.parametrize("strict", [True, False])
def test_a_value_that_may_still_appear_is_waited_for(strict: bool) -> None:
    order = published()
    order.observe_propagation([unseen(strict=strict, seconds=61)], LATER)
    assert recorded(order, LATER) == [postponed(order, 0.5, at=LATER)]


def test_propagation_is_looked_at_again_when_the_first_limit_comes_at_the_latest() -> None:
    order = published()
    waits(order, 8)
    order.observe_propagation(
        [unseen(strict=False, seconds=60), unseen(strict=True, seconds=75), unseen(strict=True, seconds=90)], LATER
    )
    assert recorded(order, LATER) == [postponed(order, 15, at=LATER)]


def test_a_strict_provider_s_missing_value_ends_the_order_at_its_very_limit() -> None:
    order = published()
    order.observe_propagation(
        [unseen(strict=True, seconds=60, server="ns2.example"), unseen(strict=True, seconds=60)], LATER
    )
    error = OrderError("propagation_timeout", "the TXT values did not appear on ns1.example, ns2.example")
    assert recorded(order, LATER) == [failed(error, ErrorAtName("www.acme.example", error.code, error.message))]


def test_an_advisory_provider_s_missing_value_is_told_and_passed_over() -> None:
    order = published()
    order.observe_propagation(
        [unseen(strict=False, seconds=60, server="ns2.example"), unseen(strict=False, seconds=60)], LATER
    )
    assert recorded(order, LATER) == [(Order.RecordsPropagated, {"unseen": ("ns1.example", "ns2.example")})]


def test_a_strict_provider_s_value_is_waited_for_though_an_advisory_one_s_is_late() -> None:
    order = published()
    order.observe_propagation([unseen(strict=False, seconds=60), unseen(strict=True, seconds=90)], LATER)
    assert recorded(order, LATER) == [postponed(order, 0.5, at=LATER)]


def test_only_the_strict_provider_s_names_are_blamed_for_a_missing_value() -> None:
    order = offered_for_apex_and_wildcard()
    apex, wildcard = order.outstanding_records
    order.record_published(apex, NOW)
    order.record_published(wildcard, NOW)
    as_stored(order)
    order.observe_propagation(
        [
            unseen(apex, strict=False, seconds=30, server="ns1.example"),
            unseen(wildcard, strict=True, seconds=30, server="ns2.example"),
        ],
        LATER,
    )
    error = OrderError("propagation_timeout", "the TXT values did not appear on ns2.example")
    assert recorded(order, LATER) == [
        failed(error, ErrorAtName("*.acme.example", error.code, error.message), dns_names=order.dns_names)
    ]


# What the CA says


def test_the_ca_is_looked_at_soon_after_the_answer() -> None:
    order = propagated()
    order.challenges_answered(NOW)
    look_at = NOW + timedelta(milliseconds=200)
    assert recorded(order, NOW) == [(Order.ChallengesAnswered, {"look_at": look_at})]
    assert (order.is_answered, order.answers, order.due_at, order.phase) == (True, 1, look_at, "validating")


FOLLOWED_AT_ANY_TIME = pytest.mark.parametrize(
    "stage", [accepted, offered, published, propagated, answered], ids=lambda stage: str(stage.__name__)
)


@FOLLOWED_AT_ANY_TIME
def test_ready_is_followed_at_any_time(stage: Callable[[], Order]) -> None:
    order = stage()
    order.follow(at_ca("ready"), [], LATER)
    assert recorded(order, LATER) == [(Order.BecameReady, {})]
    assert order.phase == "finalizing"


@FOLLOWED_AT_ANY_TIME
def test_processing_is_followed_at_any_time(stage: Callable[[], Order]) -> None:
    order = stage()
    order.follow(at_ca("processing"), [], LATER)
    look_at = LATER + timedelta(milliseconds=200)
    assert recorded(order, LATER) == [(Order.Finalized, {"look_at": look_at})]
    assert (order.due_at, order.phase) == (look_at, "finalizing")


@FOLLOWED_AT_ANY_TIME
def test_valid_is_followed_at_any_time(stage: Callable[[], Order]) -> None:
    order = stage()
    order.follow(at_ca("valid", certificate_url=CERTIFICATE_URL), [], LATER)
    assert recorded(order, LATER) == [(Order.Issued, {"certificate_url": CERTIFICATE_URL})]
    assert (order.is_finalized, order.phase) == (True, "downloading")


@FOLLOWED_AT_ANY_TIME
def test_invalid_is_followed_at_any_time(stage: Callable[[], Order]) -> None:
    order = stage()
    order.follow(at_ca("invalid", error=problem("serverInternal")), [], LATER)
    assert recorded(order, LATER) == [failed(error_of(problem("serverInternal")))]
    assert order.ended == "invalid"


def test_ready_said_twice_is_waited_out() -> None:
    order = ready()
    order.follow(at_ca("ready", retry_after_seconds=3), [], NOW)
    assert recorded(order, NOW) == [postponed(order, 3)]


def test_processing_said_twice_is_waited_out() -> None:
    order = finalized()
    order.follow(at_ca("processing", retry_after_seconds=3), [], NOW)
    assert recorded(order, NOW) == [postponed(order, 3)]


def test_the_first_look_at_a_processing_order_is_not_before_the_ca_wants_it() -> None:
    order = ready()
    order.follow(at_ca("processing", retry_after_seconds=15), [], NOW)
    assert recorded(order, NOW) == [(Order.Finalized, {"look_at": NOW + timedelta(seconds=15)})]


def test_the_first_look_at_a_processing_order_is_not_after_its_end() -> None:
    order = ready()
    order.follow(at_ca("processing", retry_after_seconds=2 * 86400), [], NOW)
    assert recorded(order, NOW) == [(Order.Finalized, {"look_at": EXPIRES_AT})]


def test_valid_without_a_certificate_is_a_failure() -> None:
    order = finalized()
    order.follow(at_ca("valid"), [], NOW)
    assert recorded(order, NOW) == [failed(OrderError("backend_error", "the CA says valid but names no certificate"))]


def test_invalid_without_a_reason_is_a_failure_too() -> None:
    order = finalized()
    order.follow(at_ca("invalid"), [], NOW)
    assert recorded(order, NOW) == [
        failed(OrderError("backend_error", "the CA declared the order invalid and did not say why"))
    ]


def test_a_pending_order_is_waited_for() -> None:
    order = answered()
    order.follow(at_ca(retry_after_seconds=3), [authorization(challenge="processing")], NOW)
    assert recorded(order, NOW) == [postponed(order, 3)]


def test_an_invalid_order_tells_the_authorization_s_problem_rather_than_its_own() -> None:
    order = answered()
    dns = problem("dns", "NXDOMAIN")
    order.follow(
        at_ca("invalid", error=problem("malformed")),
        [authorization(status="invalid", challenge="invalid", error=dns)],
        NOW,
    )
    assert recorded(order, NOW) == [
        failed(
            OrderError("challenge_failed", "www.acme.example: NXDOMAIN", problem=dns),
            ErrorAtName("www.acme.example", "challenge_failed", "NXDOMAIN", dns),
        )
    ]


def test_an_order_that_lingers_pending_fails_with_its_invalid_challenge() -> None:
    order = answered()
    refused = problem("unauthorized", "wrong TXT")
    order.follow(at_ca(), [authorization(challenge="invalid", error=refused)], NOW)
    assert recorded(order, NOW) == [
        failed(
            OrderError("challenge_failed", "www.acme.example: wrong TXT", problem=refused),
            ErrorAtName("www.acme.example", "challenge_failed", "wrong TXT", refused),
        )
    ]


@pytest.mark.parametrize("status", ["invalid", "deactivated", "expired", "revoked"])
def test_a_lost_authorization_without_a_problem_is_named_by_its_status(status: AuthorizationStatus) -> None:
    order = answered()
    order.follow(at_ca(), [authorization(status=status)], NOW)
    message = f"the authorization is {status}"
    assert recorded(order, NOW) == [
        failed(
            OrderError("challenge_failed", f"www.acme.example: {message}"),
            ErrorAtName("www.acme.example", "challenge_failed", message),
        )
    ]


def test_a_wildcard_s_problem_stands_at_the_wildcard_s_name() -> None:
    order = offered_for_apex_and_wildcard()
    lost = authorization("acme.example", "invalid", "invalid", wildcard=True, error=problem("caa", "no issuewild"))
    order.follow(at_ca("invalid"), [authorization("acme.example", "valid", "valid"), lost], NOW)
    ((_, end),) = recorded(order, NOW)
    assert [(at.dns_name, at.code) for at in end["name_errors"]] == [("*.acme.example", "caa_forbids")]


def test_each_lost_name_has_its_own_error_and_the_first_one_s_is_the_order_s() -> None:
    order = accepted(WWW, APEX)
    dns, caa = problem("dns", "NXDOMAIN"), problem("caa", "forbidden")
    order.follow(
        at_ca("invalid"),
        [
            authorization("www.acme.example", "invalid", "invalid", error=dns),
            authorization("acme.example", "invalid", "invalid", error=caa),
        ],
        NOW,
    )
    assert recorded(order, NOW) == [
        failed(
            OrderError("challenge_failed", "www.acme.example: NXDOMAIN", problem=dns),
            ErrorAtName("www.acme.example", "challenge_failed", "NXDOMAIN", dns),
            ErrorAtName("acme.example", "caa_forbids", "forbidden", caa),
            dns_names=order.dns_names,
        )
    ]


def test_a_name_that_was_authorized_after_an_error_is_not_blamed_for_another_one_s_loss() -> None:
    order = accepted(WWW, APEX)
    recovered = authorization("www.acme.example", "valid", "valid", error=problem("dns", "SERVFAIL at first"))
    lost = authorization("acme.example", "invalid", "invalid", error=problem("caa", "forbidden"))
    order.follow(at_ca("invalid"), [recovered, lost], NOW)
    assert recorded(order, NOW) == [
        failed(
            OrderError("caa_forbids", "acme.example: forbidden", problem=problem("caa", "forbidden")),
            ErrorAtName("acme.example", "caa_forbids", "forbidden", problem("caa", "forbidden")),
            dns_names=order.dns_names,
        )
    ]


def test_another_challenge_that_failed_is_no_loss_where_the_name_is_authorized() -> None:
    by_http = ChallengeObject("http-01", "https://ca.example/http", "invalid", TOKEN, problem("connection"))
    by_dns = ChallengeObject("dns-01", challenge_url("www.acme.example"), "valid", TOKEN)
    authorized = AuthorizationObject("https://ca.example/a", "www.acme.example", False, "valid", (by_http, by_dns))
    order = answered()
    order.follow(at_ca(), [authorized], NOW)
    assert recorded(order, NOW) == [postponed(order, 0.5)]


STUCK = problem("dns", "SERVFAIL looking up TXT")


@pytest.mark.parametrize(("answers", "seconds"), [(1, 2), (2, 4)])
def test_a_challenge_left_pending_with_an_error_is_reopened(answers: int, seconds: int) -> None:
    order = answered(answers)
    order.follow(at_ca(), [authorization(error=STUCK)], NOW)
    answer_at = NOW + timedelta(seconds=seconds)
    assert recorded(order, NOW) == [(Order.ChallengesReopened, {"problem": STUCK, "answer_at": answer_at})]
    assert (order.is_answered, order.due_at, order.phase) == (False, answer_at, "validating")


def test_a_reopened_challenge_is_not_answered_before_the_ca_wants_it() -> None:
    order = answered()
    order.follow(at_ca(retry_after_seconds=30), [authorization(error=STUCK)], NOW)
    assert order.due_at == NOW + timedelta(seconds=30)


def test_a_challenge_that_was_answered_three_times_in_vain_ends_the_order() -> None:
    order = answered(3)
    order.follow(at_ca(), [authorization(error=STUCK)], NOW)
    assert recorded(order, NOW) == [
        failed(
            OrderError("challenge_failed", f"www.acme.example: {STUCK.detail}", problem=STUCK),
            ErrorAtName("www.acme.example", "challenge_failed", STUCK.detail, STUCK),
        )
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rateLimited", "backend_rate_limited"),
        ("caa", "caa_forbids"),
        ("rejectedIdentifier", "rejected_identifier"),
        ("unsupportedIdentifier", "rejected_identifier"),
        ("badCSR", "certificate_rejected"),
        ("dns", "challenge_failed"),
        ("connection", "challenge_failed"),
        ("unauthorized", "challenge_failed"),
        ("incorrectResponse", "challenge_failed"),
        ("serverInternal", "backend_error"),
        ("somethingNew", "backend_error"),
    ],
)
def test_a_refusal_of_the_ca_has_the_contract_s_code_and_subproblems_at_their_names(name: str, code: Any) -> None:
    order = accepted(WWW, WILDCARD)
    www = Subproblem("www.acme.example", ERROR_NAMESPACE + name, "not this one")
    wildcard = Subproblem("*.acme.example", ERROR_NAMESPACE + "caa", "nor that one")
    refusal = problem(name, "no", www, wildcard)
    order.refused_by_ca(refusal, NOW)
    assert recorded(order, NOW) == [
        failed(
            OrderError(code, "no", problem=refusal),
            ErrorAtName("www.acme.example", code, "not this one", problem(name, "not this one")),
            ErrorAtName("*.acme.example", "caa_forbids", "nor that one", problem("caa", "nor that one")),
            dns_names=order.dns_names,
        )
    ]


def test_a_subproblem_that_names_no_name_stands_at_none() -> None:
    order = accepted()
    refusal = problem("rejectedIdentifier", "no", Subproblem("", ERROR_NAMESPACE + "caa", "one of them"))
    order.refused_by_ca(refusal, NOW)
    assert recorded(order, NOW) == [failed(OrderError("rejected_identifier", "no", problem=refusal))]


def test_a_problem_of_another_namespace_without_detail_is_told_by_its_type() -> None:
    said = Problem("about:blank", "")
    assert error_of(said) == OrderError("backend_error", "about:blank", problem=said)


# The end


def test_an_order_is_completed_as_a_version_of_its_line() -> None:
    order = issued()
    order.complete(4, NOW)
    assert recorded(order, NOW) == [(Order.Completed, {"certificate_id": "cert_1", "version": 4, "ledger": ()})]
    assert (order.ended, order.phase) == ("valid", "cleaning_up")


def test_an_order_fails_with_what_it_was_told() -> None:
    order = accepted()
    at_name = ErrorAtName("www.acme.example", "provider_error", "the zone is locked")
    order.fail(OrderError("provider_error", "no"), NOW, [at_name])
    assert recorded(order, NOW) == [failed(OrderError("provider_error", "no"), at_name)]


def test_an_order_is_cancelled() -> None:
    order = published()
    order.cancel(NOW)
    assert recorded(order, NOW) == [failed(OrderError("cancelled", "cancelled on request"))]
    assert (order.ended, order.phase) == ("invalid", "cleaning_up")


REFUSED_AT_THE_END: dict[str, Callable[[Order], None]] = {
    "seal_key": lambda order: order.seal_key("key_2", b"csr", LATER),
    "accept": lambda order: order.accept(at_ca(), LATER),
    "offer_challenges": lambda order: order.offer_challenges([authorization()], THUMBPRINT, LATER),
    "record_published": lambda order: order.record_published(RECORD, LATER),
    "observe_propagation": lambda order: order.observe_propagation([], LATER),
    "challenges_answered": lambda order: order.challenges_answered(LATER),
    "follow": lambda order: order.follow(at_ca("ready"), [], LATER),
    "complete": lambda order: order.complete(2, LATER),
    "fail": lambda order: order.fail(OrderError("backend_error", "late"), LATER),
    "cancel": lambda order: order.cancel(LATER),
    "refused_by_ca": lambda order: order.refused_by_ca(problem("caa"), LATER),
}


@pytest.mark.parametrize("command", REFUSED_AT_THE_END.values(), ids=REFUSED_AT_THE_END)
def test_an_order_that_has_ended_refuses(command: Callable[[Order], None]) -> None:
    order = completed()
    with pytest.raises(OrderAlreadyEnded) as refusal:
        command(order)
    assert refusal.value.order_id == "acme_order_1"
    assert recorded(order, LATER) == []


def test_a_removed_record_is_told_with_how_many_are_left() -> None:
    order = offered_for_apex_and_wildcard()
    apex, wildcard = order.outstanding_records
    order.cancel(NOW)
    as_stored(order)
    phases = []
    for record in (apex, wildcard):
        order.record_removed(record, LATER)
        phases.append(order.phase)
    assert phases == ["cleaning_up", "done"]
    assert recorded(order, LATER) == [
        (Order.RecordRemoved, {"record": apex, "outstanding": 1}),
        (Order.RecordRemoved, {"record": wildcard, "outstanding": 0}),
    ]


def test_a_record_that_is_left_to_another_order_is_off_the_list_once() -> None:
    order = completed()
    order.record_left(RECORD, NOW)
    assert recorded(order, NOW) == [(Order.RecordLeft, {"record": RECORD, "outstanding": 0})]
    assert order.phase == "done"
    as_stored(order)
    order.record_left(RECORD, LATER)
    assert recorded(order, LATER) == []


def test_a_record_is_removed_once() -> None:
    order = completed()
    order.record_removed(RECORD, NOW)
    as_stored(order)
    order.record_removed(RECORD, LATER)
    assert recorded(order, LATER) == []


def test_a_record_of_somebody_else_is_not_this_order_s_to_remove() -> None:
    order = completed()
    order.record_removed(Record("dnsp_www", RECORD.name, "another value"), NOW)
    assert recorded(order, NOW) == []
    assert order.outstanding_records == (RECORD,)


# Waiting


def waits(order: Order, times: int) -> list[float]:
    """How many seconds each wait takes when nothing else is asked for."""
    seconds = []
    for _ in range(times):
        order.wait(None, NOW)
        ((_, fields),) = recorded(order, NOW)
        seconds.append((fields["until"] - NOW).total_seconds())
    return seconds


def test_waits_in_a_row_double_up_to_five_minutes() -> None:
    assert waits(accepted(), 12) == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_thousand_waits_are_as_long_as_the_longest() -> None:
    assert waits(accepted(), 1000)[-1] == 300


def test_progress_makes_the_next_wait_short_again() -> None:
    order = offered()
    waits(order, 5)
    order.record_published(RECORD, NOW)
    as_stored(order)
    assert waits(order, 2) == [0.5, 1]


def test_a_wait_is_never_shorter_than_asked_for() -> None:
    order = accepted()
    order.wait(90.5, NOW)
    assert recorded(order, NOW) == [postponed(order, 90.5)]
    assert order.due_at == NOW + timedelta(seconds=90.5)


def test_a_wait_is_never_shorter_than_the_back_off() -> None:
    order = accepted()
    waits(order, 4)
    order.wait(2, NOW)
    assert recorded(order, NOW) == [postponed(order, 8)]


@pytest.mark.parametrize(("asked", "waited"), [(1, 30), (45, 45), (400, 400)])
def test_a_ca_that_says_when_to_look_again_is_not_left_waiting_for_long(asked: float, waited: float) -> None:
    order = accepted()
    waits(order, 20)
    order.wait(asked, NOW)
    assert recorded(order, NOW) == [postponed(order, waited)]


def test_a_failure_is_tried_again_ever_more_slowly_whatever_was_asked_for() -> None:
    order = accepted()
    error = OrderError("backend_error", "the CA is down")
    waits(order, 20)
    order.wait(1, NOW, error)
    (event,) = order.collect_events()
    assert isinstance(event, Order.Postponed)
    assert event.until == NOW + timedelta(minutes=5)


def test_a_wait_tells_its_phase_and_its_reason() -> None:
    order = finalized()
    error = OrderError("backend_error", "the CA is down", retry_after_seconds=7)
    order.wait(7, NOW, error)
    assert recorded(order, NOW) == [
        (Order.Postponed, {"phase": "finalizing", "until": NOW + timedelta(seconds=7), "error": error})
    ]


@pytest.mark.parametrize("seconds", [86400, 86401, 10 * 86400])
def test_a_wait_beyond_the_end_is_one_to_the_end(seconds: int) -> None:
    order = accepted()
    order.wait(seconds, NOW)
    assert recorded(order, NOW) == [postponed(order, 86400)]


def test_a_wait_at_the_very_end_ends_the_order_with_the_last_error() -> None:
    order = accepted()
    error = OrderError("backend_error", "the CA is down")
    order.wait(1, EXPIRES_AT, error)
    assert recorded(order, EXPIRES_AT) == [failed(error)]


def test_a_wait_that_ends_before_the_end_is_granted() -> None:
    order = accepted()
    order.wait(86399, NOW)
    assert recorded(order, NOW) == [postponed(order, 86399)]


def test_an_order_that_waited_without_an_error_has_expired() -> None:
    order = accepted()
    order.wait(None, EXPIRES_AT)
    assert recorded(order, EXPIRES_AT) == [failed(OrderError("order_expired", "the order was not fulfilled in time"))]


@pytest.mark.parametrize(
    ("order", "give_up_at"),
    [
        (placed(), NOW + timedelta(hours=24)),
        (accepted(), EXPIRES_AT),
        (accepted(expires_at=None), NOW + timedelta(days=7)),
    ],
    ids=["placing", "as the CA says", "the CA says nothing"],
)
def test_an_order_is_given_up_when_the_ca_lets_it_expire(order: Order, give_up_at: datetime) -> None:
    assert order.give_up_at == give_up_at


@pytest.mark.parametrize("at", [LATER, EXPIRES_AT, EXPIRES_AT + timedelta(days=365)])
def test_cleaning_up_waits_and_never_fails(at: datetime) -> None:
    order = completed()
    error = OrderError("provider_error", "the provider is down")
    order.wait(60, at, error)
    assert recorded(order, at) == [postponed(order, 60, error, at)]
    assert (order.ended, order.phase) == ("valid", "cleaning_up")


# Phases


@pytest.mark.parametrize(
    ("order", "phase"),
    [
        (placed(), "placing"),
        (accepted(), "publishing"),
        (offered(), "publishing"),
        (published(), "propagating"),
        (propagated(), "validating"),
        (answered(), "validating"),
        (ready(), "finalizing"),
        (finalized(), "finalizing"),
        (issued(), "downloading"),
        (completed(), "cleaning_up"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_phase_follows_from_what_happened(order: Order, phase: str) -> None:
    assert order.phase == phase


# Any command at any time

ORDER_STATUSES: list[OrderStatus] = ["pending", "ready", "processing", "valid", "invalid"]
PROBLEMS = st.sampled_from([problem("caa"), problem("dns"), problem("rateLimited")])
ORDERS_AT_CA = st.builds(
    at_ca,
    st.sampled_from(ORDER_STATUSES),
    certificate_url=st.sampled_from([None, CERTIFICATE_URL]),
    error=st.none() | PROBLEMS,
    retry_after_seconds=st.none() | st.floats(0, 86400),
)
AUTHORIZATIONS = st.lists(
    st.builds(
        authorization,
        st.sampled_from(["acme.example", "www.acme.example", "evil.example"]),
        st.sampled_from(["pending", "pending", "valid", "invalid", "expired"]),
        st.sampled_from(["pending", "pending", "processing", "valid", "invalid"]),
        wildcard=st.booleans(),
        token=st.sampled_from(["one", "two"]),
        error=st.none() | PROBLEMS,
    ),
    max_size=3,
)
RECORDS = st.sampled_from([RECORD, *offered_for_apex_and_wildcard().outstanding_records])


class AnyCommandAtAnyTime(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.order = placed_with(WWW, APEX, WILDCARD)
        self.history = list(self.order.collect_events())

    def ask(self, command: Callable[[], None]) -> None:
        had_ended = self.order.ended
        with suppress(OrderAlreadyEnded, OrderInProgress):
            command()
        events = self.order.collect_events()
        self.history += events
        for event in events[-1:]:
            if isinstance(event, Order.RecordRemoved):
                assert event.outstanding == len(self.order.outstanding_records)
        if had_ended is not None:
            assert self.order.ended == had_ended
            assert all(isinstance(event, Order.RecordRemoved | Order.Postponed) for event in events)

    @rule(seconds=st.integers(0, 20000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def seal_key(self) -> None:
        self.ask(lambda: self.order.seal_key("key_1", b"csr", self.now))

    @rule(said=ORDERS_AT_CA)
    def accept(self, said: OrderObject) -> None:
        self.ask(lambda: self.order.accept(said, self.now))

    @rule(authorizations=AUTHORIZATIONS)
    def offer_challenges(self, authorizations: list[AuthorizationObject]) -> None:
        self.ask(lambda: self.order.offer_challenges(authorizations, THUMBPRINT, self.now))

    @rule(record=RECORDS)
    def record_published(self, record: Record) -> None:
        self.ask(lambda: self.order.record_published(record, self.now))

    @rule(late=st.lists(st.builds(unseen, RECORDS, strict=st.booleans(), seconds=st.integers(0, 600)), max_size=3))
    def observe_propagation(self, late: list[UnseenRecord]) -> None:
        self.ask(lambda: self.order.observe_propagation(late, self.now))

    @rule()
    def challenges_answered(self) -> None:
        self.ask(lambda: self.order.challenges_answered(self.now))

    @rule(said=ORDERS_AT_CA, authorizations=AUTHORIZATIONS)
    def follow(self, said: OrderObject, authorizations: list[AuthorizationObject]) -> None:
        self.ask(lambda: self.order.follow(said, authorizations, self.now))

    @rule(seconds=st.none() | st.floats(0, 86400))
    def wait(self, seconds: float | None) -> None:
        self.ask(lambda: self.order.wait(seconds, self.now, OrderError("backend_error", "down")))

    @precondition(lambda self: self.order.certificate_url)
    @rule()
    def complete(self) -> None:
        self.ask(lambda: self.order.complete(1, self.now))

    @precondition(lambda self: self.order.challenges)
    @rule()
    def cancel(self) -> None:
        self.ask(lambda: self.order.cancel(self.now))

    @rule(record=RECORDS)
    def record_removed(self, record: Record) -> None:
        self.ask(lambda: self.order.record_removed(record, self.now))

    @invariant()
    def the_history_makes_the_same_order(self) -> None:
        order: Any = None
        for event in self.history:
            order = event.mutate(order)
        assert order == self.order

    @invariant()
    def it_is_done_only_when_nothing_is_left_behind(self) -> None:
        is_done = self.order.ended is not None and not self.order.outstanding_records
        assert (self.order.phase == "done") is is_done


TestAnyCommandAtAnyTime = AnyCommandAtAnyTime.TestCase
TestAnyCommandAtAnyTime.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
