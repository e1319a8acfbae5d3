"""What is Azure's own: tokens of an application, lists that go on at a link, and sets that change only from their ETag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote_plus

import pytest

from application.errors import Failure, ZoneConflict, ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns import azure
from interfaces.dns.providers import Providers
from interfaces.egress import Egress
from tests.dns_stand_ins.api import Answer, Request, answering
from tests.dns_stand_ins.azure import GROUP, SUBSCRIPTION, TENANT, Azure, not_granted, refused
from tests.fakes_dns import MemoryValues

NAME = "_acme-challenge.acme.example"
OURS = [TxtValue(NAME, "ours")]
NOBODY = "99999999-9999-9999-9999-999999999999"


@pytest.fixture
def api() -> Iterator[Azure]:
    with Azure(["acme.example", "sub.acme.example"]) as api:
        yield api


def connect(api: Azure, credentials: dict[str, str] | None = None, **config: str) -> DnsZone:
    """With a lock of its own, as somebody else's programme."""
    given = {"tenant_id": TENANT, "client_id": api.owner.client_id, "client_secret": api.owner.secret}
    secret = {name: SecretValue(value) for name, value in {**given, **(credentials or {})}.items()}
    settings: dict[str, Any] = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "base_url": api.url, **config}
    access = ProviderAccess("azure", ["acme.example"], settings, secret)
    return Providers(MemoryValues(), Egress([ip_network("127.0.0.0/8")])).connect(access)


def asked(api: Azure, path: str) -> list[Request]:
    return [request for request in api.asked if request.path.endswith(path)]


def before_a_change(api: Azure, meanwhile: Callable[[], object]) -> None:
    """Once, between the reading and the writing."""

    def fault(request: Request, act: Callable[[], Answer]) -> Answer:
        if request.method in ("PUT", "DELETE"):
            api.always = None
            meanwhile()
        return act()

    api.always = fault


def test_a_token_is_asked_for_once_and_kept_until_it_is_refused(api: Azure) -> None:
    zone = connect(api)
    zone.add(OURS)
    zone.remove(OURS)
    assert len(asked(api, "/token")) == 1
    api.revoke()
    zone.add(OURS)
    assert api.txt(NAME) == ["ours"]
    assert len(asked(api, "/token")) == 2


@pytest.mark.parametrize("wrong", [{"tenant_id": NOBODY}, {"client_id": NOBODY}, {"client_secret": "wrong"}])
def test_whom_the_directory_does_not_know_is_refused_with_its_word(api: Azure, wrong: dict[str, str]) -> None:
    with pytest.raises(ZoneRefused, match="AADSTS") as ended:
        connect(api, wrong).zones()
    assert ended.value.reason == "credentials_rejected"
    assert len(api.asked) == 1


@pytest.mark.parametrize(("status", "error"), [(503, "temporarily_unavailable"), (400, "temporarily_unavailable")])
def test_a_directory_that_is_unwell_may_be_tried_again(api: Azure, status: int, error: str) -> None:
    api.always = lambda _request, _act: not_granted(status, error, 90033, "A transient error has occurred.")
    with pytest.raises(ZoneUnreachable):
        connect(api).zones()


def test_what_the_directory_says_is_told_without_the_secret(api: Azure) -> None:
    api.always = lambda request, _act: not_granted(401, "invalid_client", 7000215, f"{request.body} {api.owner.secret}")
    with pytest.raises(Failure) as told:
        connect(api).zones()
    assert api.owner.secret not in told.value.detail
    assert quote_plus(api.owner.secret) not in told.value.detail
    assert told.value.detail.count("[hidden]") == 2


def test_what_the_api_says_in_its_own_form_is_told_without_the_token(api: Azure) -> None:
    zone = connect(api)
    zone.zones()
    api.always = lambda request, _act: refused(409, "ScopeLocked", f"{request.headers}")
    with pytest.raises(ZoneRefused) as told:
        zone.zones()
    assert api.owner.token not in told.value.detail
    assert "[hidden]" in told.value.detail


def test_zones_of_many_pages_are_all_listed_but_the_private_ones(api: Azure) -> None:
    assert connect(api).zones() == ["acme.example", "sub.acme.example"]
    assert [request.query.get("$skiptoken") for request in asked(api, "/dnsZones")] == [None, "1", "2"]


def test_zones_behind_a_path_are_listed_too(api: Azure) -> None:
    """What stands before the API takes its prefix away, and leaves links as they are."""

    def behind(request: Request, _act: Callable[[], Answer]) -> Answer:
        path = request.path.removeprefix("/azure")
        return api.answer(Request(request.method, path, request.query, request.headers, request.body))

    api.always = behind
    assert connect(api, base_url=f"{api.url}/azure/").zones() == ["acme.example", "sub.acme.example"]
    assert [request.path.startswith("/azure/") for request in api.asked] == [True, True, False, False]


@pytest.mark.parametrize(
    "link",
    ["https://evil.example", "http://127.0.0.1:1", "http://{}@evil.example", "//evil.example", "", "http://{}.evil"],
)
def test_a_list_that_goes_on_elsewhere_is_not_followed(api: Azure, link: str) -> None:
    api.next_link_origin = link.format(api.url.removeprefix("http://"))
    with pytest.raises(ZoneUnreachable, match="elsewhere"):
        connect(api).zones()
    assert len(asked(api, "/dnsZones")) == 1


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://management.azure.com", ("https://management.azure.com", "")),
        ("https://Management.Azure.com:443/a?b", ("https://management.azure.com", "/a?b")),
        ("http://localhost:80/", ("http://localhost", "/")),
        ("https://localhost:80/", ("https://localhost:80", "/")),
        ("https://localhost?a=/b", ("https://localhost", "?a=/b")),
        ("https://good\\@evil/", ("https://good", "\\@evil/")),
        ("/relative", ("", "")),
        ("ftp://host/", ("", "")),
    ],
)
def test_an_origin_is_compared_as_it_is_meant(url: str, parts: tuple[str, str]) -> None:
    assert azure._origin_and_rest(url) == parts


def test_a_list_without_an_end_is_given_up(api: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "MOST_PAGES", 3)
    zone = connect(api)
    zone.zones()
    api.always = answering(200, {"value": [], "nextLink": f"{api.url}/again"})
    with pytest.raises(ZoneUnreachable, match="end"):
        zone.zones()


@pytest.mark.parametrize("answer", [{}, [], {"value": [{}]}, {"value": "none"}])
def test_an_answer_in_another_form_may_be_tried_again(api: Azure, answer: object) -> None:
    zone = connect(api)
    zone.zones()
    api.always = answering(200, answer)
    with pytest.raises(ZoneUnreachable):
        zone.zones()


def test_the_longest_zone_holds_a_name(api: Azure) -> None:
    name = "_acme-challenge.www.sub.acme.example"
    connect(api).add([TxtValue(name, "ours")])
    assert asked(api, "/Sub.acme.example/TXT/_acme-challenge.www")


def test_a_zone_itself_has_values_too(api: Azure) -> None:
    zone = connect(api)
    zone.add([TxtValue("acme.example", "ours")])
    assert api.txt("acme.example") == ["ours"]
    zone.remove([TxtValue("acme.example", "ours")])
    assert api.txt("acme.example") == []


def test_what_others_wrote_keeps_its_strings_its_ttl_and_its_metadata(api: Azure) -> None:
    api.write(NAME, "one", "two")
    zone = connect(api)
    zone.add(OURS)
    held = api.set_of(NAME)
    assert (held.values, held.ttl, held.metadata) == ([["one", "two"], ["ours"]], 300, {"owner": "somebody"})
    zone.remove(OURS)
    assert api.set_of(NAME).values == [["one", "two"]]


def test_values_that_others_cut_differently_all_stay(api: Azure) -> None:
    api.write(NAME, "ab")
    api.write(NAME, "a", "b")
    zone = connect(api)
    zone.add(OURS)
    zone.remove(OURS)
    assert api.set_of(NAME).values == [["ab"], ["a", "b"]]


def test_strings_are_counted_in_octets(api: Azure) -> None:
    zone, value = connect(api), "ü€😀" * 100
    zone.add([TxtValue(NAME, value)])
    assert api.txt(NAME) == [value]


def test_a_set_without_values_is_added_to(api: Azure) -> None:
    api.empty(NAME)
    connect(api).add(OURS)
    assert api.txt(NAME) == ["ours"]


def test_a_set_that_came_meanwhile_is_added_to(api: Azure) -> None:
    before_a_change(api, lambda: api.write(NAME, "foreign"))
    connect(api).add(OURS)
    assert api.txt(NAME) == ["foreign", "ours"]


def test_a_set_that_changed_meanwhile_is_read_again(api: Azure) -> None:
    api.write(NAME, "foreign")
    before_a_change(api, lambda: api.write(NAME, "another"))
    connect(api).add(OURS)
    assert api.txt(NAME) == ["another", "foreign", "ours"]


def test_a_set_that_went_meanwhile_is_made_anew(api: Azure) -> None:
    api.write(NAME, "foreign")
    before_a_change(api, lambda: api.erase(NAME))
    connect(api).add(OURS)
    assert api.txt(NAME) == ["ours"]


def test_a_set_that_changed_before_it_was_to_go_stays(api: Azure) -> None:
    zone = connect(api)
    zone.add(OURS)
    before_a_change(api, lambda: api.write(NAME, "foreign"))
    zone.remove(OURS)
    assert api.txt(NAME) == ["foreign"]


def test_a_conflict_of_which_nothing_more_is_said_may_be_tried_again_later(api: Azure) -> None:
    zone = connect(api)
    zone.zones()
    api.always = lambda _request, _act: refused(409, "Conflict", "Another operation is in progress.")
    with pytest.raises(ZoneConflict):
        zone.zones()


@pytest.mark.parametrize("code", ["ScopeLocked", "ReadOnlyDisabledSubscription"])
def test_what_an_administrator_locked_is_a_missing_permission(api: Azure, code: str) -> None:
    zone = connect(api)
    zone.zones()

    def locked(request: Request, act: Callable[[], Answer]) -> Answer:
        return act() if request.method == "GET" else refused(409, code, "The scope cannot perform write operation.")

    api.always = locked
    with pytest.raises(ZoneRefused) as ended:
        zone.add(OURS)
    assert ended.value.reason == "permission_missing"


@pytest.mark.parametrize(("field", "value"), [("subscription_id", NOBODY), ("resource_group", "another")])
def test_a_place_that_is_not_there_has_no_zones(api: Azure, field: str, value: str) -> None:
    with pytest.raises(ZoneRefused) as ended:
        connect(api, None, **{field: value}).zones()
    assert ended.value.reason == "zone_not_found"


def test_a_zone_that_went_is_not_found(api: Azure) -> None:
    zone = connect(api)
    zone.zones()
    api._zones.pop("Acme.example")
    with pytest.raises(ZoneRefused) as ended:
        zone.add(OURS)
    assert ended.value.reason == "zone_not_found"


def test_a_base_url_that_is_none_may_be_tried_again() -> None:
    """Whoever wrote it may change it."""
    with Azure([]) as api, pytest.raises(ZoneUnreachable):
        connect(api, base_url="http://[::").zones()
