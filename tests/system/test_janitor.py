"""A value that comes after its order removed it is gone after the next start, from a real name server, and no other is."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.prove.tutorial import ZONE, account_at, by_rfc2136
from tests.servers.bind import Bind
from tests.servers.pebble import Pebble
from tests.servers.process import wait_until
from tests.system.service import Client, open_folder, running_service

RECORD = f"_acme-challenge.{ZONE}"


@pytest.mark.peers
def test_a_start_removes_what_was_left_behind_and_nothing_else() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        dns = stack.enter_context(Bind(folder / "dns", [ZONE]))
        ca = stack.enter_context(Pebble(folder / "ca", dns.address))
        service = stack.enter_context(running_service(folder / "service"))
        client = stack.enter_context(Client(service.url, service.token("pki:issue pki:admin")))
        client.post("/v1/dns/providers", by_rfc2136(dns))
        account_id = client.post("/v1/pki/acme/accounts", account_at(ca.directory_url, ca.ca_bundle_pem))["id"]
        body = {"account_id": account_id, "domains": [ZONE], "challenge_type": "dns-01"}
        order = client.ended(client.post("/v1/pki/acme/issue", body)["order_id"])
        wait_until(lambda: not dns.txt(RECORD), what="the order has cleaned up")
        (challenge,) = order["challenges"]

        dns.add(RECORD, "TXT", f'"{challenge["record_value"]}"')
        dns.add(RECORD, "TXT", '"of another client"')
        service.kill()
        service.start()
        wait_until(lambda: dns.txt(RECORD) == ["of another client"], what="what was left behind is gone")
