"""Each server of the tests does what the tests rely on."""

import json
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.query
import dns.rcode
import dns.tsig
import dns.update
import httpx
import pytest
from cryptography import x509
from mypy_boto3_route53.literals import RRTypeType
from mypy_boto3_route53.type_defs import ChangeTypeDef, ResourceRecordSetTypeDef, ResourceRecordTypeDef

from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.authoritative import AuthoritativeServer, DnsRefused, Record
from tests.servers.bind import Bind
from tests.servers.caddy import CaddyCa
from tests.servers.knot import Knot
from tests.servers.pdns import Pdns
from tests.servers.pebble import Pebble
from tests.servers.process import LOOPBACK, PeerMissing, ServerFailed, ServerProcess, free_port, peer_path
from tests.servers.route53 import MotoRoute53
from tests.servers.webhooks import WebhookReceiver

ZONE = "acme.example"
NAME = f"_acme-challenge.www.{ZONE}"


class Ending(ServerProcess):
    """A server that gives up at once."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no port for me')"]

    def is_ready(self) -> bool:
        return False


@pytest.fixture(params=[Bind, Knot])
def dns_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuthoritativeServer]:
    server: type[AuthoritativeServer] = request.param
    with server(tmp_path / "dns", [ZONE, f"sub.{ZONE}"]) as running:
        yield running


def get(url: str, ca_bundle_pem: str) -> httpx.Response:
    return httpx.get(url, verify=ssl.create_default_context(cadata=ca_bundle_pem), trust_env=False)


def upsert(route53: MotoRoute53, zone: str, name: str, type_: RRTypeType, values: list[str]) -> None:
    records: list[ResourceRecordTypeDef] = [{"Value": value} for value in values]
    rrset: ResourceRecordSetTypeDef = {"Name": name, "Type": type_, "TTL": 60, "ResourceRecords": records}
    change: ChangeTypeDef = {"Action": "UPSERT", "ResourceRecordSet": rrset}
    route53.client.change_resource_record_sets(HostedZoneId=route53.zone_ids[zone], ChangeBatch={"Changes": [change]})


def test_a_missing_program_is_named_with_the_package_that_brings_it() -> None:
    with pytest.raises(PeerMissing, match="no-such-named is not installed: it comes with Debian's package bind9"):
        peer_path("no-such-named", "Debian's package bind9")


def test_a_server_that_ends_before_it_serves_fails_with_the_tail_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no port for me"), Ending(tmp_path):
        pass


def test_caddys_directory_answers_over_tls_that_its_root_verifies(tmp_path: Path) -> None:
    with CaddyCa(tmp_path / "ca", resolver=f"{LOOPBACK}:{free_port()}") as ca:
        directory = get(ca.directory_url, ca.ca_bundle_pem).json()
        pid = ca.pid

    assert directory["newOrder"] == ca.directory_url.replace("directory", "new-order")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_caddy_keeps_its_root_and_its_address_over_a_restart(tmp_path: Path) -> None:
    with CaddyCa(tmp_path / "ca", resolver=f"{LOOPBACK}:{free_port()}") as ca:
        root_pem = ca.root_pem
        ca.kill()
        ca.start()

        assert ca.root_pem == root_pem
        assert get(ca.directory_url, root_pem).is_success


@pytest.mark.peers
def test_pebbles_directory_answers_over_verified_tls_and_its_requests_are_counted(tmp_path: Path) -> None:
    with Pebble(tmp_path / "ca", dns_server=f"{LOOPBACK}:{free_port()}", nonce_reject_percent=0) as ca:
        before = ca.requests_by_path()["GET /dir"]
        directory = get(ca.directory_url, ca.ca_bundle_pem).json()
        root = x509.load_pem_x509_certificate(ca.root_pem().encode())
        after = ca.requests_by_path()["GET /dir"]

    assert directory["newOrder"] == ca.directory_url.replace("dir", "order-plz")
    assert root.issuer == root.subject
    assert after == before + 1


@pytest.mark.peers
def test_acme2certifier_suggests_renewals_and_keeps_its_address_over_a_restart(tmp_path: Path) -> None:
    with Acme2Certifier(tmp_path / "ca", dns_server=f"{LOOPBACK}:{free_port()}") as ca:
        ca.kill()
        ca.start()
        directory = get(ca.directory_url, ca.ca_bundle_pem).json()

    assert directory["newOrder"] == ca.directory_url.replace("directory", "acme/neworders")
    assert directory["renewalInfo"] == ca.directory_url.replace("directory", "acme/renewal-info")


@pytest.mark.peers
def test_a_signed_update_is_served_transferred_and_kept_over_a_crash(dns_server: AuthoritativeServer) -> None:
    dns_server.add(NAME, "TXT", '"one"')
    dns_server.add(NAME, "TXT", '"two"')
    dns_server.add(f"_acme-challenge.sub.{ZONE}", "CNAME", f"{NAME}.")
    dns_server.kill()
    dns_server.start()

    assert dns_server.txt(NAME) == ["one", "two"]
    assert dns_server.txt(f"nothing-here.{ZONE}") == []
    assert [record for record in dns_server.transfer(ZONE) if record.type == "TXT"] == [
        Record(NAME, "TXT", "one"),
        Record(NAME, "TXT", "two"),
    ]
    assert Record(f"_acme-challenge.sub.{ZONE}", "CNAME", f"{NAME}.") in dns_server.transfer(f"sub.{ZONE}")


@pytest.mark.peers
@pytest.mark.parametrize("keyring", [None, dns.tsig.Key("acme-updates", "d3Jvbmc=", "hmac-sha256")])
def test_an_update_without_the_key_is_refused(dns_server: AuthoritativeServer, keyring: dns.tsig.Key | None) -> None:
    update = dns.update.UpdateMessage(ZONE, keyring=keyring)
    update.add("_acme-challenge.www", 60, "TXT", '"foreign"')

    try:
        rcode = dns.query.tcp(update, dns_server.host, port=dns_server.port, timeout=5).rcode()
    except dns.tsig.PeerBadSignature:
        rcode = dns.rcode.NOTAUTH

    assert rcode in (dns.rcode.REFUSED, dns.rcode.NOTAUTH)
    assert dns_server.txt(NAME) == []


@pytest.mark.peers
def test_what_powerdns_api_is_told_is_answered_over_dns_and_kept_over_a_crash(tmp_path: Path) -> None:
    with Pdns(tmp_path / "dns", [ZONE, f"sub.{ZONE}"]) as pdns:
        pdns.add(NAME, "one")
        pdns.add(NAME, "two")
        pdns.kill()
        pdns.start()

        assert pdns.txt(NAME) == ["one", "two"]
        assert pdns.txt(f"nothing-here.{ZONE}") == []
        assert pdns.tenant._replace(key="wrong").call("GET", ZONE).status_code == 401


def test_what_motos_api_is_told_is_answered_over_dns(tmp_path: Path) -> None:
    with MotoRoute53(tmp_path / "route53", zones=[ZONE, "far.example"]) as route53:
        upsert(route53, ZONE, NAME, "CNAME", ["there.far.example."])
        upsert(route53, "far.example", "there.far.example", "TXT", [f'"{letter * 200}"' for letter in "abcd"])

        # Four times 200 bytes do not fit in a plain datagram: the question comes again over TCP.
        assert route53.txt(NAME) == [letter * 200 for letter in "abcd"]
        assert route53.txt(f"www.{ZONE}") == []
        with pytest.raises(DnsRefused, match="REFUSED"):
            route53.txt("elsewhere.example")
        assert Record(NAME, "CNAME", "there.far.example.") in route53.records(ZONE)
        assert [record.type for record in route53.records(ZONE)] == ["CNAME", *["NS"] * 4, "SOA"]
        route53.stop()
        with pytest.raises(DnsRefused, match="SERVFAIL"):
            route53.txt(NAME)


def test_a_delivery_is_logged_and_answered_with_the_next_status(tmp_path: Path) -> None:
    with WebhookReceiver(tmp_path / "hook", statuses=[503]) as hook, httpx.Client(trust_env=False) as client:
        answers = [
            client.post(f"{hook.url}/events?a=1", content="é", headers={"Webhook-Id": str(number)}).status_code
            for number in range(2)
        ]
        came = hook.wait_for(lambda deliveries: len(deliveries) == 2)

    assert answers == [503, 204]
    assert [delivery.headers["webhook-id"] for delivery in came] == ["0", "1"]
    lines = [json.loads(line) for line in hook.log_path.read_text().splitlines()]
    assert [(line["path"], line["body"]) for line in lines] == [("/events?a=1", "é")] * 2


def test_waiting_for_a_delivery_that_does_not_come_ends(tmp_path: Path) -> None:
    with WebhookReceiver(tmp_path / "hook") as hook, pytest.raises(TimeoutError):
        hook.wait_for(bool, timeout_seconds=0.01)
