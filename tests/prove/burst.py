"""Claim: forty orders at once end valid, through two workers, also when a worker is killed ten times meanwhile.

Each order is for a name and its wildcard. A proxy before the CA counts what each order cost; a zone transfer shows what
is left in DNS; the CA's own answers show that no order was finalized twice."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.prove.tutorial import account_at, by_rfc2136
from tests.servers.bind import Bind
from tests.servers.ca_proxy import CaProxy, proxied
from tests.servers.pebble import Pebble
from tests.servers.process import wait_until
from tests.system.service import Client, Process, open_folder, running_database

ZONE = "burst.example"
WORKERS = 2
DEADLINE_SECONDS = 240
FLOOR = 9


@dataclass(frozen=True)
class Fleet:
    """One API, two workers, one database; a CA behind a proxy, and a name server."""

    client: Client
    workers: Sequence[Process]
    proxy: CaProxy
    dns: Bind
    account_id: str


@dataclass(frozen=True)
class Outcome:
    """What became of the orders, by the service, the CA and the name server."""

    orders: int
    valid: int
    certificates: int
    finalized_twice: int
    values_left: int
    requests: Sequence[int]
    seconds: float
    kills: int

    @property
    def holds(self) -> bool:
        return (
            self.valid == self.orders
            and self.certificates == self.orders
            and self.finalized_twice == 0
            and self.values_left == 0
        )


@contextmanager
def fleet() -> Iterator[Fleet]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        dns = stack.enter_context(Bind(folder / "dns", [ZONE]))
        # Whether a valid authorization is used again is not what is counted here.
        pebble = stack.enter_context(Pebble(folder / "ca", dns.address, authz_reuse_percent=0))
        proxy = stack.enter_context(proxied(pebble.directory_url, pebble.ca_bundle_pem))
        settings = stack.enter_context(running_database(folder))
        api = stack.enter_context(Process(folder / "api", "api", settings))
        workers = [stack.enter_context(Process(folder / f"worker{n}", "worker", settings)) for n in range(WORKERS)]
        client = stack.enter_context(Client(api.url, api.token("pki:issue pki:admin")))
        client.post("/v1/dns/providers", by_rfc2136(dns))
        account = client.post("/v1/pki/acme/accounts", account_at(proxy.directory_url, proxy.ca_bundle_pem))
        yield Fleet(client, workers, proxy, dns, account["id"])


def place(world: Fleet, prefix: str, orders: int) -> Sequence[str]:
    """The ids of orders for so many names and their wildcards, placed at once."""

    def one(number: int) -> str:
        name = f"{prefix}{number:03}.{ZONE}"
        body = {"account_id": world.account_id, "domains": [f"*.{name}", name], "challenge_type": "dns-01"}
        return str(world.client.post("/v1/pki/acme/issue", body)["order_id"])

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(orders)))


def run(world: Fleet, prefix: str, orders: int, kills: int) -> Outcome:
    """Places the orders, kills a worker so many times while they run, each started again at once, and waits."""
    before = len(world.proxy.exchanges)
    started = time.monotonic()
    order_ids = place(world, prefix, orders)
    for kill in range(kills):
        _wait_for_progress(world, before, (kill + 1) * orders * FLOOR // (kills + 1))
        worker = world.workers[kill % len(world.workers)]
        worker.kill()
        worker.start()
    ended = [world.client.ended(order_id, DEADLINE_SECONDS) for order_id in order_ids]
    seconds = time.monotonic() - started
    records = [record for record in world.dns.transfer(ZONE) if record.type == "TXT"]
    certificates = {order["certificate_id"] for order in ended if order["status"] == "valid"}
    versions = [len(world.client.get(f"/v1/pki/certificates/{one}")["versions"]) for one in certificates if one]
    new = world.proxy.since(before)
    for order in ended:
        if order["status"] != "valid":
            print(order)
    return Outcome(
        orders=orders,
        valid=sum(order["status"] == "valid" for order in ended),
        certificates=sum(versions),
        finalized_twice=sum(count > 1 for count in new.finalizations().values()),
        values_left=len(records),
        requests=sorted(new.requests_by_order().values()),
        seconds=seconds,
        kills=kills,
    )


def _wait_for_progress(world: Fleet, before: int, exchanges: int) -> None:
    wait_until(
        lambda: len(world.proxy.exchanges) - before >= exchanges,
        what=f"{exchanges} requests reached the CA",
        deadline_seconds=DEADLINE_SECONDS,
    )


def report(outcome: Outcome) -> None:
    requests = outcome.requests
    print(f"orders {outcome.orders}, kills {outcome.kills}, {outcome.seconds:.1f} s")
    print(f"  valid {outcome.valid}, certificate versions {outcome.certificates}")
    print(f"  finalized twice {outcome.finalized_twice}, TXT values left {outcome.values_left}")
    median = statistics.median(requests)
    print(f"  CA requests an order: median {median:g}, least {requests[0]}, most {requests[-1]} (floor {FLOOR})")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    wanted = parser.parse_args(words)
    with fleet() as world:
        calm = run(world, "calm", wanted.orders, 0)
        report(calm)
        killed = run(world, "kill", wanted.orders, wanted.kills)
        report(killed)
    good = calm.holds and killed.holds
    print(
        f"burst: {calm.valid}/{calm.orders} valid, with {killed.kills} kills {killed.valid}/{killed.orders};"
        f" twice {calm.finalized_twice + killed.finalized_twice}, left {calm.values_left + killed.values_left},"
        f" median {statistics.median(calm.requests):g} CA requests"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
