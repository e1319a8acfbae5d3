"""Certificates of 119 s on a real CA, renewed by the service itself again and again: each is replaced before its end, and
no second has more than a twentieth of all orders.

The first orders are placed one by one over half a lifetime, as if the certificates had come about over time: what spreads
them later is the service. The oracle is no view of the service: the chains in the history of events, read here, say from
when to when there was a certificate, and the proxy before the CA says when each order came."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import psycopg
from cryptography import x509

from tests.prove.tutorial import account_at
from tests.servers.ca_proxy import CaProxy, proxied
from tests.servers.pebble import Pebble
from tests.servers.process import LOOPBACK, free_port
from tests.system.service import Client, Process, open_folder, running_database

ZONE = "soak.example"
LIFETIME_SECONDS = 119
MOST_OF_A_SECOND = 0.05
WORKERS = 8
"""Orders in flight. Many at once can deadlock Pebble."""
CREATED = 201

VERSIONS = """
SELECT originator_id, (state->>'timestamp')::timestamptz, state->'version'->>'chain_pem' FROM events
WHERE topic IN ('certificate.issued', 'certificate.renewed') ORDER BY position
"""
FAILURES = """
SELECT state->'error'->>'code', count(*) FROM events WHERE topic = 'order.failed' GROUP BY 1
"""


@dataclass(frozen=True)
class World:
    client: Client
    proxy: CaProxy
    account_id: str
    database_url: str


@dataclass(frozen=True)
class Held:
    """One version: had since `since`, good until `until`."""

    since: datetime
    until: datetime
    length: timedelta


def holds(certificates: int, minutes: float) -> tuple[bool, str]:
    """Prints its figures, and gives whether it holds with a line about it."""
    with world() as around:
        place(around, certificates)
        time.sleep(max(0.0, minutes * 60 - LIFETIME_SECONDS / 2))
        end = datetime.now(UTC)
        versions, failures = history(around.database_url)
        orders = [each.at for each in around.proxy.since(0).at("new-order") if each.status == CREATED and each.at < end]
    lines = versions.values()
    count = sum(map(len, lines))
    remaining = sorted(before.until - after.since for line in lines for before, after in pairwise(line))
    ended = [line for line in lines if line[-1].until <= end]
    gaps = sum(each <= timedelta() for each in remaining)
    seconds = Counter(int(at.timestamp()) for at in orders)
    share = max(seconds.values()) / len(orders)
    fewest = min(map(len, lines), default=0)
    print(f"{len(versions)} certificates of {LIFETIME_SECONDS} s, {minutes:g} minutes: {count} versions issued")
    print(f"  each line has {fewest} to {max(map(len, lines))}; expired at some second {len(ended) + gaps}")
    if remaining:
        least, median = remaining[0].total_seconds(), remaining[len(remaining) // 2].total_seconds()
        print(f"  left at replacement: least {least:.1f} s, median {median:.1f} s of {LIFETIME_SECONDS} s")
        print(f"  least by minute: {' '.join(f'{left:.0f}' for left in least_by_minute(lines))}")
    print(f"  {len(orders)} orders at the CA; most in a second {max(seconds.values())} ({share:.2%})")
    print(f"  orders that failed: {sum(failures.values())} {dict(failures) or ''}")
    wanted = int((minutes * 60 - LIFETIME_SECONDS / 2) / LIFETIME_SECONDS)  # were each replaced at its very end
    good = len(versions) == certificates and not ended and gaps == 0 and share <= MOST_OF_A_SECOND and fewest > wanted
    least_left = remaining[0].total_seconds() if remaining else 0
    return good, (
        f"soak: {certificates} certificates, {count} versions, expired {len(ended) + gaps}, least left {least_left:.0f} s,"
        f" most in a second {share:.2%}"
    )


def least_by_minute(lines: Collection[Sequence[Held]]) -> Sequence[float]:
    """In seconds: whether it keeps up, or falls behind by and by."""
    replaced = [(after.since, before.until) for line in lines for before, after in pairwise(line)]
    begin = min(since for since, _ in replaced)
    least: defaultdict[int, float] = defaultdict(lambda: LIFETIME_SECONDS)
    for since, until in replaced:
        minute = (since - begin) // timedelta(minutes=1)
        least[minute] = min(least[minute], (until - since).total_seconds())
    return [left for _, left in sorted(least.items())]


@contextmanager
def world() -> Iterator[World]:
    """`scaivault serve` on a database of our own, with the embedded DNS, which the CA asks."""
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        dns_address = f"{LOOPBACK}:{free_port()}"
        pebble = stack.enter_context(
            Pebble(folder / "ca", dns_address, authz_reuse_percent=0, certificate_validity_seconds=LIFETIME_SECONDS)
        )
        proxy = stack.enter_context(proxied(pebble.directory_url, pebble.ca_bundle_pem))
        database = stack.enter_context(running_database(folder))
        settings = {**database, "SCAIVAULT_DNS_BIND": dns_address, "SCAIVAULT_WORKERS": str(WORKERS)}
        service = stack.enter_context(Process(folder / "service", "serve", settings))
        client = stack.enter_context(Client(service.url, service.token("pki:issue pki:admin")))
        provider = {
            "name": "own",
            "provider_type": "embedded",
            "managed_zones": [ZONE],
            "config": {"nameservers": [dns_address]},
        }
        client.post("/v1/dns/providers", provider)
        account = client.post("/v1/pki/acme/accounts", account_at(proxy.directory_url, proxy.ca_bundle_pem))
        yield World(client, proxy, account["id"], database["DATABASE_URL"])


def place(around: World, certificates: int) -> None:
    """One order after the other, over half a lifetime."""
    began, each = time.monotonic(), LIFETIME_SECONDS / 2 / certificates
    for number in range(certificates):
        time.sleep(max(0.0, began + number * each - time.monotonic()))
        body = {
            "account_id": around.account_id,
            "domains": [f"h{number:04}.{ZONE}"],
            "challenge_type": "dns-01",
            "auto_renew": True,
        }
        around.client.post("/v1/pki/acme/issue", body)


def history(database_url: str) -> tuple[Mapping[str, Sequence[Held]], Counter[str]]:
    """By certificate line its versions in their order, and by their codes the orders that failed."""
    versions: defaultdict[str, list[Held]] = defaultdict(list)
    with psycopg.connect(database_url) as connection:
        for line, since, chain_pem in connection.execute(VERSIONS):
            leaf = x509.load_pem_x509_certificates(chain_pem.encode())[0]
            until = leaf.not_valid_after_utc
            versions[line].append(Held(since, until, until - leaf.not_valid_before_utc))
        failures = Counter[str](dict(connection.execute(FAILURES).fetchall()))
    return versions, failures
