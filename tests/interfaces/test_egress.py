from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from application.errors import EgressRefused, ResolverFailed
from interfaces.egress import Egress, check_ca_bundle
from tests.servers.https import Answer, Asked, ca_bundle_pem, serving

LOOPBACK = ip_network("127.0.0.0/8")
PUBLIC = "93.184.215.14"


def resolving_to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda _host, _port: addresses


def hello(_asked: Asked) -> Answer:
    return Answer(body=b"hello")


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
    def drip(write: Callable[[bytes], object]) -> None:
        write(head)
        for _ in range(200):
            write(b"H")
            time.sleep(0.02)

    with (
        serving(lambda _asked: Answer(raw=drip)) as server,
        Egress([LOOPBACK]).client(ca_bundle_pem(), timeout_seconds=0.3) as client,
    ):
        started = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            client.get(server.url)
        assert time.monotonic() - started < 2
