from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from ipaddress import ip_network
from itertools import chain, repeat
from pathlib import Path
from typing import Self, TypeVar

import dns.message
import dns.name
import dns.query
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import httpx
import pytest

from application.errors import EgressRefused, EndpointUnreachable, Failure, ResolverFailed
from application.ports import WebhookRequest
from interfaces import lookups
from interfaces.egress import Egress, check_ca_bundle
from interfaces.webhooks.sender import HttpWebhookSender
from tests.servers.https import Answer, Asked, ca_bundle_pem, serving
from tests.servers.knot import Knot
from tests.servers.responder import DnsResponder

LOOPBACK = ip_network("127.0.0.0/8")
LOOPBACK6 = ip_network("::1/128")
HERE, BESIDE = "127.0.0.1", "127.0.0.2"
PUBLIC = "93.184.215.14"
DEADLINE_SECONDS = 60

Given = TypeVar("Given")
Door = Callable[[Egress, str], object]


def resolving_to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda _host, _port: addresses


def hello(_asked: Asked) -> Answer:
    return Answer(body=b"hello")


def in_time(call: Callable[[], Given]) -> Given:
    """What a call gives or raises, which must not take for ever."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(call).result(DEADLINE_SECONDS)
    finally:
        pool.shutdown(wait=False)


def check(egress: Egress, url: str) -> None:
    egress.require_dialable(url)


def get(egress: Egress, url: str) -> None:
    with egress.client(timeout_seconds=0.3) as client:
        client.get(url)


def deliver(egress: Egress, url: str) -> None:
    with closing(HttpWebhookSender(egress, 0.3)) as sender:
        sender.send(WebhookRequest(url, {}, b"{}"))


every_door = pytest.mark.parametrize("door", [check, get, deliver])


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
    ],
)
def test_a_special_purpose_address_is_refused(address: str) -> None:
    with pytest.raises(EgressRefused):
        Egress([], resolving_to(address)).addresses("ca.example", 443)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_given(address: str) -> None:
    assert Egress([], resolving_to(address)).addresses("ca.example", 443) == [address]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "localhost", "::1", "0"]
)
def test_every_spelling_of_loopback_is_refused(host: str) -> None:
    with pytest.raises(EgressRefused):
        Egress([]).addresses(host, 443)


def test_one_unfit_answer_among_fit_ones_spoils_all() -> None:
    with pytest.raises(EgressRefused):
        Egress([], resolving_to(PUBLIC, "10.0.0.1")).addresses("ca.example", 443)


def test_an_address_in_an_allowed_network_is_given() -> None:
    egress = Egress([ip_network("10.1.0.0/16"), ip_network("fd00::/8")], resolving_to("10.1.2.3", "fd00::1", PUBLIC))
    assert egress.addresses("ca.example", 443) == ["10.1.2.3", "fd00::1", PUBLIC]
    with pytest.raises(EgressRefused):
        Egress([ip_network("10.1.0.0/16")], resolving_to("10.2.2.3")).addresses("ca.example", 443)


def test_the_mapped_form_is_allowed_where_its_address_is_but_the_translated_form_is_not() -> None:
    assert Egress([LOOPBACK], resolving_to("::ffff:127.0.0.1")).addresses("a.example", 1) == ["::ffff:127.0.0.1"]
    with pytest.raises(EgressRefused):
        Egress([LOOPBACK], resolving_to("64:ff9b::7f00:1")).addresses("a.example", 1)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 64 + ".example"])
def test_a_name_that_does_not_resolve_may_be_tried_later(host: str) -> None:
    with pytest.raises(ResolverFailed):
        Egress([]).addresses(host, 443)


def test_a_name_without_addresses_may_be_tried_later() -> None:
    with pytest.raises(ResolverFailed):
        Egress([], resolving_to()).addresses("ca.example", 443)


def test_the_address_dialled_is_the_one_that_was_checked() -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    with serving(hello) as server, Egress([LOOPBACK], lambda _h, _p: answers.pop(0)).client(ca_bundle_pem()) as client:
        assert client.get(f"https://hooks.example:{server.port}/").text == "hello"
        assert server.asked[0].headers["Host"] == f"hooks.example:{server.port}"
        assert len(answers) == 1


def test_the_next_address_is_dialled_when_the_first_does_not_answer() -> None:
    egress = Egress([LOOPBACK, ip_network("::1/128")], resolving_to("::1", "127.0.0.1"))
    with serving(hello) as server, egress.client(ca_bundle_pem()) as client:
        assert client.get(f"https://hooks.example:{server.port}/").text == "hello"


def test_a_request_to_a_refused_address_dials_nobody() -> None:
    with serving(hello) as server, Egress([]).client(ca_bundle_pem()) as client:
        with pytest.raises(EgressRefused):
            client.get(server.url)
        assert server.asked == []


def test_plain_http_is_spoken_to_allowed_networks_only() -> None:
    with serving(hello, tls=False) as server:
        with Egress([LOOPBACK]).client() as client:
            assert client.get(server.url).text == "hello"
        with Egress([], resolving_to(PUBLIC)).client() as client, pytest.raises(EgressRefused, match="https only"):
            client.get("http://ca.example/")


def test_other_schemes_are_refused() -> None:
    with Egress([LOOPBACK]).client() as client, pytest.raises(EgressRefused):
        client.get("ftp://localhost/")


def test_a_given_bundle_is_the_only_trust_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "roots.pem"
    bundle.write_text(ca_bundle_pem())
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(bundle))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with serving(hello) as server:
        with Egress([LOOPBACK]).client(ca_bundle_pem()) as client:
            assert client.get(server.url).text == "hello"
        with (
            Egress([LOOPBACK]).client() as client,
            pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.get(server.url)


def test_the_certificate_must_be_for_the_name_that_was_asked_for() -> None:
    egress = Egress([LOOPBACK], resolving_to("127.0.0.1"))
    failure = pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED")
    with serving(hello) as server, egress.client(ca_bundle_pem()) as client, failure:
        client.get(f"https://other.example:{server.port}/")


@pytest.mark.parametrize(
    "bundle",
    ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "Müller", "\ud800"],
)
def test_a_bundle_without_certificates_is_refused(bundle: str) -> None:
    with pytest.raises(EgressRefused):
        Egress([]).client(bundle)
    with pytest.raises(ValueError, match="no PEM"):
        check_ca_bundle(bundle)


def test_a_bundle_with_certificates_is_fit() -> None:
    check_ca_bundle(ca_bundle_pem())


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(EgressRefused, match="no port"):
        Egress([LOOPBACK], resolving_to("127.0.0.1")).addresses("ca.example", port)


def test_connections_are_kept_and_redirects_and_cookies_are_not() -> None:
    def elsewhere(_asked: Asked) -> Answer:
        return Answer(302, {"Location": "/other", "Set-Cookie": "a=b"})

    with serving(elsewhere) as server, Egress([LOOPBACK]).client(ca_bundle_pem()) as client:
        assert [client.get(server.url).status_code for _ in range(3)] == [302] * 3
        assert {asked.path for asked in server.asked} == {"/"}
        assert len({asked.peer for asked in server.asked}) == 1
        assert not any("Cookie" in asked.headers for asked in server.asked)


def test_a_response_beyond_the_limit_is_cut_off() -> None:
    def big(_asked: Asked) -> Answer:
        return Answer(body=b"x" * 1001)

    limited = Egress([LOOPBACK]).client(ca_bundle_pem(), max_response_bytes=1000)
    failure = pytest.raises(httpx.RemoteProtocolError, match="more than 1000 bytes")
    with serving(big) as server, limited as client, failure:
        client.get(server.url)


def test_a_compressed_response_is_refused_because_its_length_says_nothing() -> None:
    def compressed(asked: Asked) -> Answer:
        assert asked.headers["Accept-Encoding"] == "identity"
        return Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"x" * 10_000_000))

    failure = pytest.raises(httpx.DecodingError)
    with serving(compressed) as server, Egress([LOOPBACK]).client(ca_bundle_pem()) as client, failure:
        client.get(server.url)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"], ids=["head", "body"])
def test_the_time_limit_is_for_the_whole_exchange_however_the_bytes_drip(head: bytes) -> None:
    gone = threading.Event()

    def drip(write: Callable[[bytes], object]) -> None:
        write(head)
        while not gone.wait(0.02):
            write(b"H")

    with (
        serving(lambda _asked: Answer(raw=drip)) as server,
        Egress([LOOPBACK]).client(ca_bundle_pem(), timeout_seconds=0.3) as client,
    ):
        with pytest.raises(httpx.ReadTimeout):
            in_time(lambda: client.get(server.url))
        gone.set()


def test_where_a_redirect_leads_is_not_even_read() -> None:
    with (
        serving(lambda _asked: Answer(302, {"Location": "https://xn--/"})) as server,
        Egress([LOOPBACK]).client(ca_bundle_pem()) as client,
    ):
        assert client.get(server.url).status_code == 302


# --- what is checked when a URL is given ---


def test_a_url_that_may_be_dialled_is_fit_and_nobody_is_dialled() -> None:
    with Listeners() as listeners:
        for url in (f"https://localhost:{listeners.port}/hook?a=b#c", f"http://{HERE}:{listeners.port}"):
            Egress([LOOPBACK]).require_dialable(url)
        assert listeners.connections() == 0
    for url in ("https://hooks.example/", "https://hooks.example:8443", "HTTPS://HOOKS.example.", "https://8.8.8.8"):
        Egress([], resolving_to(PUBLIC)).require_dialable(url)
    Egress([], resolving_to(PUBLIC)).require_dialable("https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//hooks.example/",
        "ftp://hooks.example/",
        "http://hooks.example/",
        "https:",
        "https:///hook",
        "https:/hooks.example",
        "https://:443/",
        "https://hooks.example:0/",
        "https://hooks.example:65536/",
        "https://hooks.example:-1/",
        "https://hooks.example:port/",
        "https://user@hooks.example/",
        "https://user:password@hooks.example/",
        "https://:password@hooks.example/",
        "https://hooks .example/",
        "https://hooks..example/",
        "https://.hooks.example/",
        "https://xn--/",
        "https://hooks.example/\n",
        " https://hooks.example/",
        "https://hooks.example/" + "x" * 70_000,
        "https://\ud800.example/",
    ],
)
def test_a_url_that_nothing_can_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(EgressRefused):
        Egress([], resolving_to(PUBLIC)).require_dialable(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(EgressRefused) as refusal:
        Egress([], resolving_to(PUBLIC)).require_dialable("https://user:hunter2@hooks.example/")
    assert "hunter2" not in refusal.value.detail


def test_a_url_whose_name_does_not_resolve_now_may_be_given_later() -> None:
    with pytest.raises(ResolverFailed):
        Egress([]).require_dialable("https://nowhere.invalid/")


# --- nobody is dialled who must not be ---


class Listeners:
    """Sockets at one port of some addresses of ours, which count who came."""

    def __init__(self, *hosts: str) -> None:
        self._open = ExitStack()
        self._sockets: dict[str, socket.socket] = {}
        self._came: dict[str, int] = {}
        self.port = 0
        for host in hosts or (HERE, "::1"):
            self._listen(host)

    def connections(self, *hosts: str) -> int:
        """Made so far. The system makes them before anybody accepts, so nothing needs to be waited for."""
        for host, listener in self._sockets.items():
            while True:
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    break
                connection.close()
                self._came[host] += 1
        return sum(self._came[host] for host in hosts or self._came)

    def _listen(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, self.port), family=family)
        except OSError:
            if family == socket.AF_INET:
                raise
            return  # this machine has no IPv6
        listener.setblocking(False)
        self._sockets[host], self._came[host] = self._open.enter_context(listener), 0
        self.port = int(listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@pytest.fixture(scope="module")
def listeners() -> Iterator[Listeners]:
    with Listeners() as listening:
        yield listening


@pytest.fixture(scope="module")
def nobody_allowed() -> Egress:
    return Egress([])


@pytest.mark.allow_hosts([HERE, "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", [HERE, "localhost", "LocalHost", "[::1]", "[::ffff:127.0.0.1]", "127\u30020\u30020\u30021"]
)
@pytest.mark.parametrize("door", [get, deliver])
def test_the_listeners_would_notice(door: Door, host: str) -> None:
    with Listeners() as listeners:
        with pytest.raises((httpx.TimeoutException, EndpointUnreachable)):
            door(Egress([LOOPBACK, LOOPBACK6]), f"https://{host}:{listeners.port}/")
        assert listeners.connections() > 0


@every_door
@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize(
    "host",
    [
        # as they are written
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[fc00::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        # an IPv4 address inside
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[0:0:0:0:0:ffff:169.254.169.254]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::1]",
        "[2002:a9fe:a9fe::]",
        "[2001:0:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
        # other ways to write IPv4
        "127.1",
        "127.0.1",
        "0",
        "0.0",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0177.1",
        "00000177.0.0.1",
        "127.00.00.01",
        "0x7f000001",
        "0x7F.0.0.1",
        "0x7f.1",
        "0x7f.0x0.0x0.0x1",
        "0x",
        "4294967297",
        "256.256.256.256",
        "1.2.3.4.5",
        "2852039166",
        # zones
        "[::1%lo]",
        "[::1%25lo]",
        "[::1%1]",
        "[fe80::1%25eth0]",
        "[fe80::1%\N{LATIN SMALL LETTER E WITH ACUTE}]",
        # dots and case
        "127.0.0.1.",
        "127.1.",
        "127.0.0.1..",
        "2130706433.",
        "LOCALHOST",
        "LocalHost",
        "localhost..",
        ".localhost",
        # what IDNA makes of it
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "127\uff0e0\uff0e0\uff0e1",
        "127\uff610\uff610\uff611",
        "\u2460\u2461\u2466.0.0.1",
        "\u0661\u0662\u0667.0.0.1",
        "\u24c1ocalhost",
        "localho\u017ft",
        "local\u00adhost",
        "127.0.0.1\u200b",
        # what a browser would decode
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        "127.0.0.1%2e",
        "%6cocalhost",
        "127.0.0.1%00.hooks.example",
        "127.0.0.1%20",
        "127.0.0.1%23.hooks.example",
        "[%3a%3a1]",
        # not where it seems to lead
        "hooks.example@127.0.0.1",
        "user:password@127.0.0.1",
        "8.8.8.8@127.0.0.1",
        "8.8.8.8%40127.0.0.1",
        "8.8.8.8\\@127.0.0.1",
        "127.0.0.1\\@8.8.8.8",
        "127.0.0.1\\.hooks.example",
        "\\127.0.0.1",
        "[127.0.0.1]",
        "[::1]hooks.example",
        "[v1.::1]",
        "::1",
        "127.0.0.1:80",
    ],
)
def test_no_spelling_leads_to_an_address_that_must_not_be_dialled(
    listeners: Listeners, nobody_allowed: Egress, door: Door, scheme: str, host: str
) -> None:
    refusal = (EgressRefused, httpx.InvalidURL, UnicodeError) if door is get else EgressRefused
    with pytest.raises(refusal):
        door(nobody_allowed, f"{scheme}://{host}:{listeners.port}/")
    assert listeners.connections() == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("door", ["client", "sender"])
def test_a_redirect_leads_nowhere_even_where_its_target_may_be_dialled(
    listeners: Listeners, door: str, status: int
) -> None:
    def elsewhere(_asked: Asked) -> Answer:
        return Answer(status, {"Location": f"http://{HERE}:{listeners.port}/"})

    with serving(elsewhere, tls=False) as server:
        if door == "client":
            with Egress([LOOPBACK]).client() as client:
                assert client.get(server.url).status_code == status
        else:
            with closing(HttpWebhookSender(Egress([LOOPBACK]))) as sender:
                assert sender.send(WebhookRequest(server.url, {}, b"{}")).status == status
    assert listeners.connections() == 0


# --- names ---


def asking(host: str, port: int) -> Callable[[str, int], Sequence[str]]:
    """Resolves a name at a DNS server, along its aliases, afresh each time."""

    def values(name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> list[str]:
        for _ in range(10):
            said = dns.query.udp(dns.message.make_query(name, rdtype), host, timeout=5, port=port)
            found = said.get_rrset(said.answer, name, dns.rdataclass.IN, rdtype)
            if found is not None:
                return [rdata.to_text() for rdata in found]
            alias = said.get_rrset(said.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME)
            if alias is None:
                return []
            name = dns.name.from_text(alias[0].to_text())
        return []

    def resolve(name: str, _port: int) -> Sequence[str]:
        asked = dns.name.from_text(name)
        return values(asked, dns.rdatatype.A) + values(asked, dns.rdatatype.AAAA)

    return resolve


ZONES: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "hooks.example": [
        ("loopback", "A", HERE),
        ("loopback6", "AAAA", "::1"),
        ("mapped", "AAAA", "::ffff:127.0.0.1"),
        ("translated", "AAAA", "64:ff9b::7f00:1"),
        ("sixtofour", "AAAA", "2002:7f00:1::1"),
        ("teredo", "AAAA", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
        ("metadata", "A", "169.254.169.254"),
        ("private", "A", "10.0.0.1"),
        ("alias", "CNAME", "loopback.hooks.example."),
        ("longer", "CNAME", "alias.hooks.example."),
        ("leaving", "CNAME", "intern.corp.example."),
        ("mixed", "A", PUBLIC),
        ("mixed", "A", HERE),
        ("families", "A", PUBLIC),
        ("families", "AAAA", "::1"),
        ("families6", "A", HERE),
        ("families6", "AAAA", "2606:4700::1111"),
        ("127.0.0.1", "A", PUBLIC),
        ("*.wild", "A", HERE),
    ],
    "corp.example": [("intern", "A", HERE)],
}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knot]:
    with Knot(tmp_path_factory.mktemp("names"), list(ZONES)) as server:
        for zone, records in ZONES.items():
            for name, type_, value in records:
                server.add(f"{name}.{zone}", type_, value)
        yield server


@pytest.mark.peers
@every_door
@pytest.mark.parametrize(
    "name",
    [
        "loopback",
        "loopback6",
        "mapped",
        "translated",
        "sixtofour",
        "teredo",
        "metadata",
        "private",
        "alias",
        "longer",
        "leaving",
        "mixed",
        "families",
        "families6",
        "anything.wild",
    ],
)
def test_no_name_leads_to_an_address_that_must_not_be_dialled(
    names: Knot, listeners: Listeners, door: Door, name: str
) -> None:
    egress = Egress([], asking(names.host, names.port))
    for host in (f"{name}.hooks.example", f"{name}.hooks.example.", f"{name}.hooks.example".upper()):
        with pytest.raises(EgressRefused, match="must not be dialled"):
            door(egress, f"https://{host}:{listeners.port}/")
    assert listeners.connections() == 0


@pytest.mark.peers
def test_a_public_name_is_fit_whatever_its_labels_look_like(names: Knot) -> None:
    Egress([], asking(names.host, names.port)).require_dialable("https://127.0.0.1.hooks.example/")


class Rebinding:
    """A name server that says another address each time it is asked for one."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = chain(addresses, repeat(addresses[-1]))
        self.asked = 0

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        (question,) = query.question
        if question.rdtype == dns.rdatatype.A:
            self.asked += 1
            response.answer = [dns.rrset.from_text(question.name, 0, "IN", "A", next(self._addresses))]
        return response


@pytest.mark.allow_hosts([HERE, BESIDE])
@pytest.mark.parametrize("door", [get, deliver])
def test_a_name_that_changes_its_address_leads_to_the_one_that_was_judged(door: Door) -> None:
    names = Rebinding(BESIDE, HERE)
    with Listeners(HERE, BESIDE) as listeners, DnsResponder(names.answer) as dns_server:
        egress = Egress([ip_network(f"{BESIDE}/32")], asking(dns_server.host, dns_server.port))
        url = f"https://rebinding.example:{listeners.port}/"
        with pytest.raises((httpx.TimeoutException, EndpointUnreachable)):
            door(egress, url)
        assert (names.asked, listeners.connections(BESIDE)) == (1, 1)
        with pytest.raises(EgressRefused):
            door(egress, url)
        assert (names.asked, listeners.connections(BESIDE), listeners.connections(HERE)) == (2, 1, 0)


@pytest.mark.allow_hosts([HERE, BESIDE])
@pytest.mark.parametrize("door", [get, deliver])
def test_a_url_that_was_fit_when_it_was_given_is_judged_again_when_it_is_dialled(door: Door) -> None:
    names = Rebinding(BESIDE, HERE)
    with Listeners(HERE, BESIDE) as listeners, DnsResponder(names.answer) as dns_server:
        egress = Egress([ip_network(f"{BESIDE}/32")], asking(dns_server.host, dns_server.port))
        url = f"https://rebinding.example:{listeners.port}/"
        egress.require_dialable(url)
        with pytest.raises(EgressRefused):
            door(egress, url)
        assert listeners.connections() == 0


# --- names that hang ---


class NeverAnswering:
    """A resolver that says nothing about some names until it is let go, and at once where all others are."""

    def __init__(self, *hanging: str) -> None:
        self._hanging = hanging
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if host in self._hanging and not self.let_go.wait(DEADLINE_SECONDS):
            raise ResolverFailed(f"{host!r} was never let go")
        return [HERE]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()


def test_a_name_that_never_resolves_ends_with_the_time_for_the_exchange() -> None:
    with NeverAnswering("silent.example") as resolve:
        egress = Egress([LOOPBACK], resolve)
        with pytest.raises(ResolverFailed, match="in time"):
            in_time(lambda: get(egress, "https://silent.example/"))
        with pytest.raises(EndpointUnreachable, match="in time"):
            in_time(lambda: deliver(egress, "https://silent.example/"))
        with pytest.raises(ResolverFailed, match="in time"):
            in_time(lambda: egress.addresses("silent.example", 443, timeout_seconds=0.1))


def test_a_name_that_hangs_is_looked_up_once_however_many_ask() -> None:
    with NeverAnswering("silent.example") as resolve, ThreadPoolExecutor(21) as askers:
        egress = Egress([LOOPBACK], resolve)

        def ask(port: int, timeout_seconds: float = 0.1) -> Future[Sequence[str]]:
            return askers.submit(egress.addresses, "silent.example", port, timeout_seconds=timeout_seconds)

        impatient = [ask(port) for port in range(1, 21)]
        assert all(isinstance(each.exception(DEADLINE_SECONDS), ResolverFailed) for each in impatient)
        patient = ask(443, DEADLINE_SECONDS)
        assert egress.addresses("lively.example", 443) == [HERE]
        assert resolve.asked == ["silent.example", "lively.example"]
        resolve.let_go.set()
        assert patient.result(DEADLINE_SECONDS) == [HERE]


def test_a_name_is_looked_up_anew_each_time() -> None:
    with NeverAnswering() as resolve:
        egress = Egress([LOOPBACK], resolve)
        for _ in range(3):
            egress.addresses("lively.example", 443)
        assert resolve.asked == ["lively.example"] * 3


def test_when_names_hang_in_all_threads_others_wait_and_addresses_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST_LOOKUPS", 2)
    with NeverAnswering("silent1.example", "silent2.example") as resolve, ThreadPoolExecutor(1) as askers:
        egress = Egress([LOOPBACK], resolve)
        for name in ("silent1.example", "silent2.example"):
            with pytest.raises(ResolverFailed, match="in time"):
                egress.addresses(name, 443, timeout_seconds=0.05)
        with pytest.raises(ResolverFailed, match="too many"):
            in_time(lambda: egress.addresses("lively.example", 443, timeout_seconds=0.05))
        assert in_time(lambda: egress.addresses(HERE, 443)) == [HERE]
        waiting: Future[Sequence[str]] = askers.submit(
            egress.addresses, "lively.example", 443, timeout_seconds=DEADLINE_SECONDS
        )
        resolve.let_go.set()
        assert waiting.result(DEADLINE_SECONDS) == [HERE]


def test_a_failure_to_resolve_is_told_to_all_who_asked_and_frees_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST_LOOKUPS", 1)

    def resolve(host: str, _port: int) -> Sequence[str]:
        raise ResolverFailed(f"{host} has no address today")

    egress = Egress([], resolve)
    for host in ("a.example", "b.example", "a.example"):
        with pytest.raises(Failure, match=f"{host} has no address today"):
            egress.addresses(host, 443)
