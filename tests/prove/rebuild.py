"""Claim: every view and the to-do list, dropped and made anew from the events, equal the live ones row by row.

The history is a lively one: certificates and renewals from a real CA, orders that failed, secrets, a revoked token, and
a webhook receiver that is gone, so that something is left to be done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import httpx
import psycopg

from projections.views import FOLLOWING, INLINE
from tests.prove.tutorial import ZONE, Surroundings, caddy_and_embedded
from tests.servers.process import LOOPBACK, free_port, wait_until
from tests.system.service import Client, Process, open_folder, running_database

VIEWS = [view.name for view in (*INLINE, *FOLLOWING)]
# A look at a CA's renewal information that brings nothing new moves its row and is no event: made anew, it is due sooner.
TODO = """
SELECT process, subject, version, step, CASE WHEN process <> 'renewal_info' THEN due_at END AS due_at, lane, queue, place
FROM todo
"""
WITHOUT_ROWS = frozenset({"rate_limits"})
"""This CA has no limits that are known."""
ORDERS = 5


def main() -> int:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        around = stack.enter_context(caddy_and_embedded(folder))
        database = stack.enter_context(running_database(folder))
        settings = {**database, "SCAIVAULT_DNS_BIND": around.dns_address or ""}
        with Process(folder / "service", "serve", settings) as service:
            make_history(service, around)
            live = service.run("rebuild", "--verify")
        quiet = service.run("rebuild", "--verify")  # brings what follows behind up to the end
        print(quiet.stdout, end="")
        before = rows(settings["DATABASE_URL"])
        drop_everything(settings["DATABASE_URL"])
        service.run("rebuild").check_returncode()
        after = rows(settings["DATABASE_URL"])
    different = [name for name in before if sorted(before[name]) != sorted(after[name])]
    for name, found in before.items():
        print(f"{name}: {len(found)} rows, {'DIFFERENT' if name in different else 'equal'} after drop and rebuild")
    total = sum(map(len, before.values()))
    holds = (
        not different
        and live.returncode == quiet.returncode == 0
        and all(found or name in WITHOUT_ROWS for name, found in before.items())
    )
    print(f"rebuild: {len(before) - len(different)} of {len(before)} tables equal, {total} rows")
    return 0 if holds else 1


def make_history(service: Process, around: Surroundings) -> None:
    """Every view gets rows, and the to-do list keeps one."""
    revoked = service.token("pki:read")
    service.run("token", "revoke", "tok_" + revoked.split("_")[1]).check_returncode()
    with Client(service.url, service.token("pki:issue pki:admin secrets:read audit:read")) as client:
        for number in range(3):
            body = {"data": {"n": number}, "secret_type": "json"}
            client.put(f"/v1/secrets/rebuild/{number % 2}", body)
        client.get("/v1/secrets/rebuild/0")
        client.post("/v1/dns/providers", around.provider)
        account_id = client.post("/v1/pki/acme/accounts", around.account)["id"]
        client.post(
            "/v1/subscriptions",
            {
                "name": "gone",
                "paths": ["pki/**"],
                "events": ["certificate.issued", "certificate.renewed", "order.invalid"],
                "delivery": {"type": "webhook", "url": f"http://{LOOPBACK}:{free_port()}/"},
            },
        )
        polled = {
            "name": "polled",
            "paths": ["pki/**"],
            "events": ["certificate.issued"],
            "delivery": {"type": "polling"},
        }
        polled_id = client.post("/v1/subscriptions", polled)["id"]
        for number in range(ORDERS):
            issue(client, account_id, [f"r{number}.{ZONE}"])
        failed = issue(client, account_id, ["elsewhere.example"])
        if failed["status"] != "invalid":
            raise AssertionError(failed)
        first = client.get("/v1/pki/certificates")["data"][0]["id"]
        client.ended(client.post(f"/v1/pki/certificates/{first}/renew")["order_id"])
        client.post(f"/v1/pki/certificates/{first}/private-key")
        told = client.get(f"/v1/subscriptions/{polled_id}/poll")["data"]
        client.post(f"/v1/subscriptions/{polled_id}/ack", {"event_ids": [told[0]["event_id"], told[-1]["event_id"]]})
        wait_until(lambda: bool(deliveries_tried(client)), what="a webhook was tried")


def issue(client: Client, account_id: str, names: Sequence[str]) -> Mapping[str, object]:
    body = {"account_id": account_id, "domains": list(names), "challenge_type": "dns-01"}
    ended: Mapping[str, object] = client.ended(client.post("/v1/pki/acme/issue", body)["order_id"])
    return ended


def deliveries_tried(client: Client) -> Sequence[object]:
    logs: Sequence[object] = client.get("/v1/audit/logs", action="webhook_delivery")["logs"]
    return logs


def rows(database_url: str) -> Mapping[str, Sequence[str]]:
    """Every row of every view and of the to-do list, as text."""
    with psycopg.connect(database_url) as connection:
        found = {name: connection.execute(f"SELECT t::text FROM {name} t").fetchall() for name in VIEWS}
        todo = connection.execute(f"SELECT t::text FROM ({TODO}) t").fetchall()
    return {name: [text for (text,) in texts] for name, texts in found.items()} | {"todo": [text for (text,) in todo]}


def drop_everything(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for name in VIEWS:
            connection.execute(f"DROP TABLE {name}")
        connection.execute("DELETE FROM todo")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except httpx.HTTPStatusError as problem:
        sys.exit(f"{problem}: {problem.response.text}")
