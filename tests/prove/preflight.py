"""Claim: the preflight check finds what is wrong in some forty zones and nothing else, and asks the CA nothing.

Knot serves the zones of `preflight_fixtures`, signed ones among them, and BIND resolves and validates them for the service.
What the service answers is compared with the reports in `tests/golden/preflight`, word by word. Requests to the CA and
connections to the DNS provider are counted where they would arrive, events in the database."""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg

from tests.interfaces.scripted_ca import ScriptedCa, json_answer
from tests.prove.nearby_service import PORT, NearbyService
from tests.prove.preflight_fixtures import ACCOUNT_URL, CA_IDENTITY, FIXTURES, OWN_PROVIDER, PROVIDER, served
from tests.prove.tutorial import account_at
from tests.servers.https import ca_bundle_pem, serving
from tests.servers.process import LOOPBACK
from tests.system.service import Client, open_folder, running_database

LONGEST_SECONDS = 20.0


def knocks(door: socket.socket) -> int:
    """How many have come since the last look."""
    count = 0
    while True:
        try:
            door.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def events(settings: Mapping[str, str]) -> int:
    with psycopg.connect(settings["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM events").fetchone()
    return int(row[0]) if row else 0


def report_of(client: Client, account_id: str, domains: Sequence[str]) -> tuple[Any, float]:
    """The report, and how long it took."""
    started = time.monotonic()
    body = {"account_id": account_id, "domains": domains, "challenge_type": "dns-01"}
    report = client.post("/v1/pki/acme/preflight", body)
    return report, time.monotonic() - started


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=100, help="in the order of the last check")
    wanted = parser.parse_args(words)
    ca = ScriptedCa()
    ca.directory = {"meta": {"caaIdentities": [CA_IDENTITY]}}
    ca.replies["/newAccount"] = [json_answer({"status": "valid"}, 201, {"Location": ACCOUNT_URL})]
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        zones = stack.enter_context(served(folder / "dns"))
        at_ca = stack.enter_context(serving(ca.answer))
        ca.url = at_ca.url
        door = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        door.setblocking(False)
        database = stack.enter_context(running_database(folder))
        settings = {**database, "SCAIVAULT_DNS_RESOLVERS": zones.resolver, PORT: str(zones.port)}
        service = stack.enter_context(NearbyService(folder / "service", "serve", settings))
        client = stack.enter_context(Client(service.url, service.token("pki:issue pki:admin")))
        server = {"server": LOOPBACK, "port": door.getsockname()[1]}
        client.post("/v1/dns/providers", {**PROVIDER, "config": server})
        client.post("/v1/dns/providers", OWN_PROVIDER)
        account = client.post("/v1/pki/acme/accounts", account_at(f"{at_ca.url}/directory", ca_bundle_pem()))
        registering, before = len(at_ca.asked), events(settings)

        passed, seconds = 0, []
        for fixture in FIXTURES:
            report, took = report_of(client, account["id"], fixture.ordered)
            seconds.append(took)
            is_right = report == fixture.golden()
            passed += is_right
            codes = ", ".join(dict.fromkeys(finding["code"] for finding in report["findings"])) or "nothing found"
            print(f"  {fixture.name}: {codes}{'' if is_right else '  WRONG'}")
        many, longest = report_of(client, account["id"], [f"n{n}.good.example" for n in range(wanted.names)])
        requests, recorded = len(at_ca.asked) - registering, events(settings) - before
        connections = knocks(door)
    print(f"CA requests: {registering} to register, {requests} by {len(FIXTURES) + 1} checks")
    print(f"connections to the DNS provider {connections}, events recorded {recorded}")
    print(
        f"seconds: median {statistics.median(seconds):.2f}, most {max(seconds):.1f}; {wanted.names} names {longest:.1f}"
    )
    good = (
        passed == len(FIXTURES)
        and many == {"ready": True, "findings": []}
        and registering > 0
        and requests == connections == recorded == 0
        and max(*seconds, longest) < LONGEST_SECONDS
    )
    print(
        f"preflight: {passed}/{len(FIXTURES)} fixtures passed, {requests} CA requests,"
        f" {recorded} events, {connections} connections to the provider; {wanted.names} names in {longest:.1f} s"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
