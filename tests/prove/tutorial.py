"""Claim: the tutorial passes against three pairs of a real CA and a real way to DNS.

Caddy's CA with the embedded DNS; Pebble with BIND by RFC 2136; Pebble with Route 53's API (moto), served as DNS."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from application.provider_config import host_and_port
from tests.servers.authoritative import ask_txt
from tests.servers.bind import Bind
from tests.servers.caddy import CaddyCa
from tests.servers.pebble import Pebble
from tests.servers.process import LOOPBACK, free_port, wait_until
from tests.servers.route53 import MotoRoute53
from tests.servers.webhooks import WebhookReceiver
from tests.system.service import open_folder, run_tutorial, running_service

ZONE = "acme.example"


@dataclass(frozen=True)
class Surroundings:
    """A CA and a way to DNS: the bodies with which a client connects them. `txt` tells what is left in DNS."""

    provider: Mapping[str, Any]
    account: Mapping[str, Any]
    txt: Callable[[str], list[str]]
    dns_address: str | None = None


def account_at(directory_url: str, ca_bundle_pem: str) -> Mapping[str, Any]:
    """The body of a registration."""
    return {
        "name": "local",
        "provider": "custom",
        "environment": "staging",
        "email": "ops@acme.example",
        "directory_url": directory_url,
        "ca_bundle_pem": ca_bundle_pem,
    }


def by_rfc2136(dns: Bind) -> Mapping[str, Any]:
    """The body of a provider for all zones of the server."""
    return {
        "name": "bind",
        "provider_type": "rfc2136",
        "managed_zones": dns.zones,
        "credentials": {"tsig_key_name": dns.tsig_key_name, "tsig_secret": dns.tsig_secret},
        "config": {"server": dns.host, "port": dns.port, "nameservers": [dns.address]},
        "verify": True,
    }


@contextmanager
def caddy_and_embedded(folder: Path) -> Iterator[Surroundings]:
    address = f"{LOOPBACK}:{free_port()}"
    provider = {
        "name": "own",
        "provider_type": "embedded",
        "managed_zones": [ZONE],
        "config": {"nameservers": [address]},
    }
    with CaddyCa(folder / "ca", resolver=address) as ca:
        txt = partial(ask_txt, *host_and_port(address))
        yield Surroundings(provider, account_at(ca.directory_url, ca.ca_bundle_pem), txt, address)


@contextmanager
def pebble_and_bind(folder: Path) -> Iterator[Surroundings]:
    with Bind(folder / "dns", [ZONE]) as dns, Pebble(folder / "ca", dns.address) as ca:
        yield Surroundings(by_rfc2136(dns), account_at(ca.directory_url, ca.ca_bundle_pem), dns.txt)


@contextmanager
def pebble_and_route53(folder: Path) -> Iterator[Surroundings]:
    with MotoRoute53(folder / "dns", [ZONE]) as dns, Pebble(folder / "ca", dns.dns_address) as ca:
        provider = {
            "name": "aws",
            "provider_type": "route53",
            "managed_zones": [ZONE],
            "credentials": {"access_key_id": dns.access_key_id, "secret_access_key": dns.secret_access_key},
            "config": {"endpoint_url": dns.endpoint_url, "nameservers": [dns.dns_address]},
            "verify": True,
        }
        yield Surroundings(provider, account_at(ca.directory_url, ca.ca_bundle_pem), dns.txt)


PAIRS = {
    "caddy+embedded": caddy_and_embedded,
    "pebble+bind": pebble_and_bind,
    "pebble+route53": pebble_and_route53,
}


def passes(name: str, *, quiet: bool = False) -> bool:
    """Whether the tutorial passes with this pair and leaves no value behind in DNS."""
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        around = stack.enter_context(PAIRS[name](folder))
        hook = stack.enter_context(WebhookReceiver(folder / "hook"))
        service = stack.enter_context(running_service(folder / "service", dns_address=around.dns_address))
        code = run_tutorial(
            service,
            {
                "PROVIDER": json.dumps(around.provider),
                "ACCOUNT": json.dumps(around.account),
                "DOMAIN": ZONE,
                "HOOK_URL": hook.url,
                "HOOK_LOG": str(hook.log_path),
            },
            folder / "out",
            quiet=quiet,
        )
        record_name = f"_acme-challenge.{ZONE}"
        wait_until(lambda: not around.txt(record_name), what="no TXT value is left", deadline_seconds=30)
        return code == 0


def main() -> int:
    results = {}
    for name in PAIRS:
        print(f"--- {name}")
        started = time.monotonic()
        results[name] = passes(name)
        print(f"{name}: {'passed' if results[name] else 'FAILED'} in {time.monotonic() - started:.1f} s")
    good = sum(results.values())
    print(f"tutorial: {good} of {len(results)} pairs passed, no TXT value left")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
