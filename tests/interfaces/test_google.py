"""What is Google's own: tokens of a service account, lists of pages, and sets that change only from what was read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from application.errors import Failure, ZoneConflict, ZoneRefused, ZoneThrottled, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns import google, record_sets
from interfaces.dns.providers import Providers
from interfaces.egress import Egress
from tests.dns_stand_ins.api import Answer, Request, answering
from tests.dns_stand_ins.google import HOUR, PROJECT, Google, refused
from tests.fakes_dns import MemoryValues

NAME = "_acme-challenge.acme.example"
OURS = [TxtValue(NAME, "ours")]


@pytest.fixture
def api() -> Iterator[Google]:
    with Google(["acme.example", "sub.acme.example"]) as api:
        yield api


def connect(api: Google, project: str = PROJECT) -> DnsZone:
    """With a lock of its own, as somebody else's programme."""
    secret = {"service_account_json": SecretValue(api.key_file(api.owner))}
    access = ProviderAccess("google", ["acme.example"], {"project": project, "base_url": api.base_url}, secret)
    return Providers(MemoryValues(), Egress([ip_network("127.0.0.0/8")])).connect(access)


def asked(api: Google, path: str) -> list[Request]:
    return [request for request in api.asked if request.path.endswith(path)]


def before_a_change(api: Google, meanwhile: Callable[[], object]) -> None:
    """Once, between the reading and the writing."""

    def fault(request: Request, act: Callable[[], Answer]) -> Answer:
        if request.path.endswith("/changes"):
            api.always = None
            meanwhile()
        return act()

    api.always = fault


def test_a_token_is_asked_for_once_and_kept(api: Google) -> None:
    zone = connect(api)
    zone.add(OURS)
    zone.remove(OURS)
    assert len(asked(api, "/token")) == 1


@pytest.mark.parametrize("seconds", [60, 1, 0, -5])
def test_a_token_that_is_about_to_end_is_asked_for_anew(api: Google, seconds: int) -> None:
    api.expires_in = seconds
    connect(api).zones()
    assert len(asked(api, "/token")) == len(asked(api, "/managedZones"))


def test_a_token_that_is_refused_is_renewed_once(api: Google) -> None:
    zone = connect(api)
    zone.zones()
    api.revoke()
    zone.add(OURS)
    assert api.txt(NAME) == ["ours"]
    assert len(asked(api, "/token")) == 2


def test_a_token_that_is_refused_again_is_what_ends_it(api: Google) -> None:
    def revoking(request: Request, act: Callable[[], Answer]) -> Answer:
        answer = act()
        if request.path == "/token":
            api.revoke()
        return answer

    api.always = revoking
    with pytest.raises(ZoneRefused) as ended:
        connect(api).zones()
    assert ended.value.reason == "credentials_rejected"
    assert len(asked(api, "/token")) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"access_token": "two words"},
        {"access_token": "line\nfeed", "expires_in": HOUR},
        {"access_token": "x", "expires_in": "soon"},
    ],
)
def test_an_answer_without_a_token_may_be_tried_again(api: Google, answer: object) -> None:
    api.always = answering(200, answer)
    with pytest.raises(ZoneUnreachable):
        connect(api).zones()


def test_a_token_endpoint_that_is_unwell_may_be_tried_again(api: Google) -> None:
    for status, error in ((400, "temporarily_unavailable"), (500, "internal_failure")):
        api.faults.append(answering(status, {"error": error}))
        with pytest.raises(ZoneUnreachable):
            connect(api).zones()


def test_a_token_endpoint_may_ask_for_patience(api: Google) -> None:
    api.faults.append(answering(429, {"error": "rate_limit_exceeded"}, Retry_After="9"))
    with pytest.raises(ZoneThrottled) as throttled:
        connect(api).zones()
    assert throttled.value.retry_after_seconds == 9


@pytest.mark.parametrize("as_error", [True, False])
def test_what_the_token_endpoint_says_is_told_without_the_assertion(api: Google, *, as_error: bool) -> None:
    def echo(request: Request, _act: Callable[[], Answer]) -> Answer:
        return Answer(400, {"error": "invalid_grant", "error_description": request.body} if as_error else request.body)

    api.always = echo
    with pytest.raises(Failure) as told:
        connect(api).zones()
    (request,) = api.asked
    assert request.body.rpartition("=")[2] not in told.value.detail
    assert "[hidden]" in told.value.detail


def test_what_the_api_says_in_its_own_form_is_told_without_the_token(api: Google) -> None:
    zone = connect(api)
    zone.zones()
    api.always = lambda request, _act: refused(404, "notFound", f"entity.change {request.headers}")
    with pytest.raises(ZoneConflict) as told:
        zone.zones()
    assert api.owner.token not in told.value.detail
    assert "[hidden]" in told.value.detail


def test_zones_of_many_pages_are_all_listed_but_the_private_ones(api: Google) -> None:
    assert connect(api).zones() == ["acme.example", "sub.acme.example"]
    assert [request.query.get("pageToken") for request in asked(api, "/managedZones")] == [
        None,
        "after-1",
        "after-2",
        "after-3",
    ]


def test_a_list_without_an_end_is_given_up(api: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google, "MOST_PAGES", 4)
    connected = connect(api)
    connected.zones()
    api.always = answering(200, {"managedZones": [], "nextPageToken": "again"})
    with pytest.raises(ZoneUnreachable):
        connected.zones()


def test_the_longest_zone_holds_a_name(api: Google) -> None:
    connect(api).add([TxtValue("_acme-challenge.www.sub.acme.example", "ours")])
    assert [request.path.split("/")[-2] for request in asked(api, "/changes")] == ["zone-1"]


def test_what_others_wrote_keeps_its_spelling_and_its_ttl(api: Google) -> None:
    api.write(NAME, "", spelt='"one" "\\195\\188ber"')
    zone = connect(api)
    zone.add(OURS)
    assert (api.rrset(NAME)["rrdatas"], api.rrset(NAME)["ttl"]) == (['"one" "\\195\\188ber"', '"ours"'], 300)
    zone.remove(OURS)
    assert api.rrset(NAME)["rrdatas"] == ['"one" "\\195\\188ber"']


def test_values_that_others_spelt_differently_all_stay(api: Google) -> None:
    for spelt in ('"ab"', '"a" "b"'):
        api.write(NAME, "", spelt=spelt)
    zone = connect(api)
    zone.add(OURS)
    zone.remove(OURS)
    assert api.rrset(NAME)["rrdatas"] == ['"ab"', '"a" "b"']


def test_a_set_that_came_meanwhile_is_added_to(api: Google) -> None:
    before_a_change(api, lambda: api.write(NAME, "foreign"))
    connect(api).add(OURS)
    assert api.txt(NAME) == ["foreign", "ours"]


def test_a_set_that_changed_meanwhile_is_read_again(api: Google) -> None:
    api.write(NAME, "foreign")
    before_a_change(api, lambda: api.write(NAME, "another"))
    connect(api).add(OURS)
    assert api.txt(NAME) == ["another", "foreign", "ours"]


def test_a_set_that_went_meanwhile_is_made_anew(api: Google) -> None:
    api.write(NAME, "foreign")
    before_a_change(api, lambda: api.erase(NAME))
    connect(api).add(OURS)
    assert api.txt(NAME) == ["ours"]


def test_a_conflict_without_an_end_may_be_tried_again_later(api: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_sets, "SECONDS_BETWEEN_ATTEMPTS", 0)

    def always(request: Request, act: Callable[[], Answer]) -> Answer:
        return refused(412, "conditionNotMet", "no") if request.path.endswith("/changes") else act()

    api.always = always
    with pytest.raises(ZoneConflict):
        connect(api).add(OURS)
    assert len(asked(api, "/changes")) == record_sets.ATTEMPTS


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"])
def test_limits_that_are_met_pass(api: Google, reason: str) -> None:
    zone = connect(api)
    zone.zones()
    api.always = lambda _request, _act: refused(403, reason, "Rate Limit Exceeded")
    with pytest.raises(ZoneThrottled):
        zone.add(OURS)


def test_another_project_may_not_be_looked_at(api: Google) -> None:
    with pytest.raises(ZoneRefused) as ended:
        connect(api, "another-project").zones()
    assert ended.value.reason == "permission_missing"


def test_a_zone_that_went_is_not_found(api: Google) -> None:
    zone = connect(api)
    zone.zones()
    api._zones.pop("zone-0")
    with pytest.raises(ZoneRefused) as ended:
        zone.add(OURS)
    assert ended.value.reason == "zone_not_found"
