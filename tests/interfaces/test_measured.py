"""What is measured of the outside where it is asked, and that measuring changes nothing of what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import ip_network

import httpx
import pytest

from application.errors import (
    CaUnavailable,
    EgressRefused,
    Failure,
    ResolverFailed,
    StoreUnavailable,
    ZoneConflict,
    ZoneRefused,
    ZoneThrottled,
    ZoneUnreachable,
)
from application.ports import ProviderAccess, TxtValue
from interfaces.acme.client import AcmeClient
from interfaces.dns.measured import MeasuredZone
from interfaces.dns.providers import Providers
from interfaces.egress import Egress
from interfaces.measured_http import MeasuredTransport, host_of
from interfaces.measurements import CA_SECONDS, DNS_SECONDS, Measurements
from tests.fakes_dns import FakeZone, MemoryValues
from tests.servers.https import Answer, Asked, ca_bundle_pem, serving

LOOPBACK = ip_network("127.0.0.0/8")
VALUE = TxtValue("_acme-challenge.acme.example", "value")
DIRECTORY = "https://ca.example/directory"


def counted(measurements: Measurements, name: str) -> Mapping[tuple[str, ...], float]:
    """How many there were, by the labels' values but the bucket's, in the order of their names."""
    found: dict[tuple[str, ...], float] = {}
    for series, value in measurements.take().items():
        if series.name == name:
            labels = tuple(value for label, value in series.labels if label != "le")
            found[labels] = found.get(labels, 0) + value
    return found


# --- HTTP -----------------------------------------------------------------------------------------------------------


class Told:
    """What was observed."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def __call__(self, seconds: float, outcome: str) -> None:
        assert 0 <= seconds < 60
        self.outcomes.append(outcome)


class Body(httpx.SyncByteStream):
    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure

    def __iter__(self) -> Iterator[bytes]:
        yield b"hel"
        if self._failure is not None:
            raise self._failure
        yield b"lo"


def client(told: Told, answer: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(transport=MeasuredTransport(httpx.MockTransport(answer), told))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "2xx"), (201, "2xx"), (302, "3xx"), (400, "4xx"), (429, "4xx"), (503, "5xx"), (700, "error")],
)
def test_an_answer_is_measured_by_the_class_of_its_status(status: int, outcome: str) -> None:
    told = Told()
    with client(told, lambda _: httpx.Response(status, stream=Body())) as asking:
        assert asking.get("https://ca.example/").text == "hello"
    assert told.outcomes == [outcome]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (httpx.ReadTimeout("late"), "timeout"),
        (httpx.ConnectTimeout("late"), "timeout"),
        (httpx.ConnectError("refused"), "error"),
        (EgressRefused("no"), "error"),
        (ResolverFailed("unknown"), "error"),
    ],
)
def test_an_end_without_an_answer_is_measured_and_raised_as_it_is(failure: Exception, outcome: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    told = Told()
    with client(told, fail) as asking, pytest.raises(type(failure)) as raised:
        asking.get("https://ca.example/")
    assert raised.value is failure
    assert told.outcomes == [outcome]


@pytest.mark.parametrize(
    ("failure", "outcome"), [(httpx.ReadTimeout("late"), "timeout"), (httpx.RemoteProtocolError("too long"), "error")]
)
def test_a_body_that_breaks_off_is_no_answer(failure: Exception, outcome: str) -> None:
    told = Told()
    with (
        client(told, lambda _: httpx.Response(200, stream=Body(failure))) as asking,
        pytest.raises(type(failure)) as raised,
    ):
        asking.get("https://ca.example/")
    assert raised.value is failure
    assert told.outcomes == [outcome]


def test_what_nobody_reads_is_measured_when_it_is_closed_once() -> None:
    told = Told()
    with client(told, lambda _: httpx.Response(200, stream=Body())) as asking:
        with asking.stream("GET", "https://ca.example/") as response:
            assert told.outcomes == []
        response.close()
    assert told.outcomes == ["2xx"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (DIRECTORY, "ca.example"),
        ("https://CA.Example:14000/dir", "ca.example"),
        ("https://[::1]:14000/dir", "::1"),
        ("https://user:secret@ca.example/", "ca.example"),
        ("https://[::1/", "other"),
        ("https:///dir", "other"),
        ("", "other"),
        ("https://" + "a" * 300 + "/", "other"),
        ('https://a"b/', "other"),
    ],
)
def test_a_ca_is_known_by_the_host_of_its_directory(url: str, host: str) -> None:
    assert host_of(url) == host


def test_a_client_measures_only_where_it_is_asked_to() -> None:
    measurements = Measurements()
    egress = Egress([LOOPBACK], lambda _host, _port: ["127.0.0.1"], measurements)
    with serving(lambda _: Answer(404, body=b"no")) as server:
        with egress.client(ca_bundle_pem()) as asking:
            assert asking.get(server.url).status_code == 404
        assert measurements.take() == {}
        with egress.client(ca_bundle_pem(), measured_as=DIRECTORY) as asking:
            assert asking.get(server.url).text == "no"
    assert counted(measurements, CA_SECONDS) == {("ca.example", "4xx"): 1}


def test_whatever_hosts_a_directory_names_all_is_told_of_its_own() -> None:
    measurements = Measurements()

    def directory(asked: Asked) -> Answer:
        if asked.path == "/directory":
            urls = {name: f"{server.url.replace('localhost', 'elsewhere')}/x" for name in ("newNonce", "newAccount")}
            return Answer(body=str({**urls, "newOrder": server.url}).replace("'", '"').encode())
        return Answer(503)

    with (
        serving(directory) as server,
        closing(AcmeClient(Egress([LOOPBACK], lambda _h, _p: ["127.0.0.1"], measurements), "test")) as ca,
    ):
        ca.capabilities(f"{server.url}/directory", ca_bundle_pem())
        assert counted(measurements, CA_SECONDS) == {("localhost", "2xx"): 1}
        with pytest.raises(CaUnavailable):
            ca._server(f"{server.url}/directory", ca_bundle_pem())._new_nonce()
    assert {host for host, _ in counted(measurements, CA_SECONDS)} == {"localhost"}


# --- DNS ------------------------------------------------------------------------------------------------------------


def measured() -> tuple[MeasuredZone, FakeZone, Measurements]:
    zone, measurements = FakeZone(["acme.example"]), Measurements()
    return MeasuredZone(zone, "route53", measurements), zone, measurements


def test_each_call_of_a_zone_is_measured_and_answered_as_ever() -> None:
    zone, behind, measurements = measured()
    zone.add([VALUE])
    assert behind.txt(VALUE.record_name) == [VALUE.value]
    zone.remove([VALUE])
    assert behind.txt(VALUE.record_name) == []
    assert list(zone.zones()) == ["acme.example"]

    operations = {("add", "ok", "route53"): 1, ("remove", "ok", "route53"): 1, ("zones", "ok", "route53"): 1}
    assert counted(measurements, DNS_SECONDS) == operations


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (ZoneThrottled("slow down"), "throttled"),
        (ZoneUnreachable("away"), "unreachable"),
        (ZoneConflict("again"), "conflict"),
        (ZoneRefused("credentials_rejected", "wrong key"), "refused"),
        (EgressRefused("no"), "refused"),
        (StoreUnavailable("away"), "error"),
    ],
)
def test_a_zones_failure_is_measured_and_raised_as_it_is(failure: Failure, outcome: str) -> None:
    zone, behind, measurements = measured()
    behind.failure = failure
    calls: Sequence[Callable[[], object]] = (lambda: zone.add([VALUE]), lambda: zone.remove([VALUE]), zone.zones)
    for call in calls:
        with pytest.raises(Failure) as raised:
            call()
        assert raised.value is failure

    assert {labels[1] for labels in counted(measurements, DNS_SECONDS)} == {outcome}


def test_the_zones_of_every_provider_are_measured() -> None:
    measurements = Measurements()
    providers = Providers(MemoryValues(), Egress([]), measurements=measurements)
    providers.connect(ProviderAccess("embedded", ["acme.example"], {}, {})).add([VALUE])

    assert counted(measurements, DNS_SECONDS) == {("add", "ok", "embedded"): 1}
