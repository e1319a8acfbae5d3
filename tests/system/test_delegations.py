"""Challenges delegated by CNAME, on a real name server and a real CA: values are written where the alias leads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import pytest

from tests.prove.tutorial import ZONE, account_at, by_rfc2136
from tests.servers.authoritative import TIMEOUT_SECONDS, Record
from tests.servers.bind import Bind
from tests.servers.pebble import Pebble
from tests.servers.responder import DnsResponder
from tests.system.service import Client, open_folder, running_service

CHALLENGES = "challenges.example"
FOREIGN = "of another client"


@dataclass(frozen=True)
class World:
    client: Client
    dns: Bind
    account_id: str

    def alias(self, label: str, target: str) -> None:
        self.dns.add(f"_acme-challenge.{label}.{ZONE}", "CNAME", f"{target}.")

    def issue(self, *domains: str) -> Any:
        """The order at its end."""
        body = {"account_id": self.account_id, "domains": domains, "challenge_type": "dns-01"}
        return self.client.ended(self.client.post("/v1/pki/acme/issue", body)["order_id"])

    def texts(self) -> list[Record]:
        return [record for zone in self.dns.zones for record in self.dns.transfer(zone) if record.type == "TXT"]


def recursive(server: Bind) -> DnsResponder:
    """What a CA asks: it follows CNAMEs from zone to zone, which the server does not."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        (question,) = query.question
        name = question.name
        while True:
            asked = dns.message.make_query(name, question.rdtype)
            said = dns.query.udp(asked, server.host, timeout=TIMEOUT_SECONDS, port=server.port)
            response.answer += said.answer
            response.set_rcode(said.rcode())
            aliases = [rrset for rrset in said.answer if rrset.rdtype == dns.rdatatype.CNAME]
            if not aliases or len(aliases) < len(said.answer):
                return response
            name = aliases[-1][0].target

    return DnsResponder(answer)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        server = stack.enter_context(Bind(folder / "dns", [ZONE, CHALLENGES]))
        resolver = stack.enter_context(recursive(server))
        ca = stack.enter_context(Pebble(folder / "ca", resolver.address, authz_reuse_percent=0))
        service = stack.enter_context(running_service(folder / "service"))
        client = stack.enter_context(Client(service.url, service.token("pki:issue pki:admin audit:read")))
        client.post("/v1/dns/providers", {**by_rfc2136(server), "name": "names", "managed_zones": [ZONE]})
        client.post("/v1/dns/providers", {**by_rfc2136(server), "name": "challenges", "managed_zones": [CHALLENGES]})
        account = client.post("/v1/pki/acme/accounts", account_at(ca.directory_url, ca.ca_bundle_pem))
        yield World(client, server, account["id"])


@pytest.mark.peers
def test_the_values_of_a_name_and_its_wildcard_are_written_in_the_zone_where_the_alias_leads(world: World) -> None:
    target = f"shop.{CHALLENGES}"
    world.alias("shop", f"hop.{ZONE}")
    world.dns.add(f"hop.{ZONE}", "CNAME", f"{target}.")
    world.dns.add(target, "TXT", f'"{FOREIGN}"')
    order = world.issue(f"shop.{ZONE}", f"*.shop.{ZONE}")
    assert order["status"] == "valid", order
    assert {challenge["record_name"] for challenge in order["challenges"]} == {target}
    assert world.texts() == [Record(target, "TXT", FOREIGN)]
    rows = world.client.get("/v1/audit/logs", action="dns_record_create")["logs"]
    mine = [row for row in rows if row["resource_path"].endswith(order["order_id"])]
    assert {row["extra_data"]["record_name"] for row in mine} == {target}


@pytest.mark.peers
@pytest.mark.parametrize(
    ("label", "target", "why"),
    [
        ("circle", f"_acme-challenge.circle.{ZONE}", "circle"),
        ("elsewhere", "there.unmanaged.example", "which no active DNS provider manages"),
    ],
)
def test_an_alias_that_leads_nowhere_of_ours_stands_at_its_name(
    world: World, label: str, target: str, why: str
) -> None:
    world.alias(label, f"back-{label}.{ZONE}")
    world.dns.add(f"back-{label}.{ZONE}", "CNAME", f"{target}.")
    order = world.issue(f"{label}.{ZONE}", f"sound-{label}.{ZONE}")
    assert (order["status"], order["error"]["code"]) == ("invalid", "zone_not_managed")
    errors = {challenge["domain"]: challenge["error"] for challenge in order["challenges"]}
    assert errors[f"sound-{label}.{ZONE}"] is None
    assert why in errors[f"{label}.{ZONE}"]["message"]


@pytest.mark.peers
def test_an_alias_that_a_wildcard_makes_gives_way_to_the_value(world: World) -> None:
    world.dns.add(f"*.caught.{ZONE}", "CNAME", "balancer.unmanaged.example.")
    order = world.issue(f"www.caught.{ZONE}")
    assert order["status"] == "valid", order
    assert order["challenges"][0]["record_name"] == f"_acme-challenge.www.caught.{ZONE}"
