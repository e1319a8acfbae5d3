"""The DNS providers that the contract suite is held against: the fake, our own responder, real servers, and stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.dns.locks import ThreadLocks
from interfaces.dns.providers import Providers
from interfaces.dns.txt_strings import quoted
from interfaces.egress import Egress
from tests.dns_stand_ins.api import StandIn
from tests.dns_stand_ins.cloudflare import Cloudflare
from tests.dns_stand_ins.powerdns import PowerDns
from tests.fakes_dns import AwsError, FakeZone, MemoryValues
from tests.servers.authoritative import AuthoritativeServer, ask_txt
from tests.servers.bind import Bind
from tests.servers.knot import Knot
from tests.servers.pdns import Pdns
from tests.servers.process import LOOPBACK, free_port
from tests.servers.route53 import MotoRoute53

ZONE = "acme.example"
OTHER_ZONE = "other.example"
LOCKS = ThreadLocks()


@dataclass
class World:
    """`zone` and `second` reach the same provider as two processes would. `txt` and `write` are somebody else's view and
    hand. `api` is the stand-in, whose faults a test may set. What a provider does not have is None."""

    zone: DnsZone
    second: DnsZone
    txt: Callable[[str], list[str]]
    write: Callable[[str, str], None]
    wrong_credentials: DnsZone | None = None
    throttled: DnsZone | None = None
    unreachable: DnsZone | None = None
    read_only: DnsZone | None = None
    api: StandIn | None = None
    secrets: tuple[str, ...] = ()
    zones: list[str] = field(default_factory=lambda: [ZONE, OTHER_ZONE])


def connect(provider_type: str, config: dict[str, Any], credentials: dict[str, str], values: MemoryValues) -> DnsZone:
    """In each call as a process of its own, but for the lock that all processes share."""
    secret = {name: SecretValue(value) for name, value in credentials.items()}
    access = ProviderAccess(provider_type, [ZONE, f"*.{OTHER_ZONE}"], config, secret)
    return Providers(values, Egress([ip_network("127.0.0.0/8")]), LOCKS).connect(access)


def fake_world() -> World:
    zone, wrong, throttled, unreachable = (FakeZone([ZONE, OTHER_ZONE]) for _ in range(4))
    wrong.reject_credentials()
    throttled.throttle(retry_after_seconds=7)
    unreachable.vanish()
    return World(
        zone,
        zone,
        zone.txt,
        lambda name, value: zone.add([TxtValue(name, value)]),
        wrong_credentials=wrong,
        throttled=throttled,
        unreachable=unreachable,
    )


def embedded_world(values: MemoryValues, responder: EmbeddedDns) -> World:
    zone, second = (connect("embedded", {}, {}, values) for _ in range(2))
    return World(
        zone,
        second,
        lambda name: ask_txt(LOOPBACK, responder.port, name),
        lambda name, value: values.add([TxtValue(name, value)]),
    )


def rfc2136_world(server: AuthoritativeServer) -> World:
    config = {"server": LOOPBACK, "port": server.port}
    credentials = {"tsig_key_name": server.tsig_key_name, "tsig_secret": server.tsig_secret}
    wrong = {**credentials, "tsig_secret": "d3Jvbmc="}
    return World(
        connect("rfc2136", config, credentials, MemoryValues()),
        connect("rfc2136", config, credentials, MemoryValues()),
        server.txt,
        lambda name, value: server.add(name, "TXT", f'"{value}"'),
        wrong_credentials=connect("rfc2136", config, wrong, MemoryValues()),
        unreachable=connect("rfc2136", {**config, "port": free_port()}, credentials, MemoryValues()),
    )


def route53_world(server: MotoRoute53, rejecting: AwsError, throttling: AwsError) -> World:
    credentials = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}

    def at(endpoint_url: str) -> DnsZone:
        return connect("route53", {"endpoint_url": endpoint_url}, credentials, MemoryValues())

    def write(name: str, value: str) -> None:
        """As others do it: one UPSERT of the whole set, for which the set is read first."""
        records = [{"Value": quoted(held)} for held in {*server.txt(name), value}]
        record_set = {"Name": name, "Type": "TXT", "TTL": 60, "ResourceRecords": records}
        changes: Any = [{"Action": "UPSERT", "ResourceRecordSet": record_set}]
        server.client.change_resource_record_sets(HostedZoneId=server.zone_ids[ZONE], ChangeBatch={"Changes": changes})

    return World(
        at(server.endpoint_url),
        at(server.endpoint_url),
        server.txt,
        write,
        wrong_credentials=at(rejecting.endpoint_url),
        throttled=at(throttling.endpoint_url),
        unreachable=at(f"http://{LOOPBACK}:{free_port()}"),
    )


def powerdns_world(
    base_url: str, key: str, txt: Callable[[str], list[str]], write: Callable[[str, str], None]
) -> World:
    def at(api_key: str = key, base_url: str = base_url) -> DnsZone:
        return connect("powerdns", {"base_url": base_url}, {"api_key": api_key}, MemoryValues())

    return World(
        at(),
        at(),
        txt,
        write,
        wrong_credentials=at("wrong"),
        unreachable=at(base_url=f"http://{LOOPBACK}:{free_port()}"),
        secrets=(key,),
    )


@contextmanager
def fake(_folder: Path) -> Iterator[World]:
    yield fake_world()


@contextmanager
def embedded(_folder: Path) -> Iterator[World]:
    values = MemoryValues()
    with EmbeddedDns(LOOPBACK, free_port(), values, lambda: [ZONE, OTHER_ZONE]) as responder:
        yield embedded_world(values, responder)


@contextmanager
def bind(folder: Path) -> Iterator[World]:
    with Bind(folder, [ZONE, OTHER_ZONE]) as server:
        yield rfc2136_world(server)


@contextmanager
def knot(folder: Path) -> Iterator[World]:
    with Knot(folder, [ZONE, OTHER_ZONE]) as server:
        yield rfc2136_world(server)


@contextmanager
def route53(folder: Path) -> Iterator[World]:
    with (
        MotoRoute53(folder, [ZONE, OTHER_ZONE]) as server,
        AwsError("InvalidClientTokenId", status=403) as rejecting,
        AwsError("Throttling") as throttling,
    ):
        yield route53_world(server, rejecting, throttling)


@contextmanager
def cloudflare(_folder: Path) -> Iterator[World]:
    with Cloudflare([ZONE, OTHER_ZONE], zones_a_page=1) as api:

        def at(token: str = api.token, base_url: str = api.base_url) -> DnsZone:
            return connect("cloudflare", {"base_url": base_url}, {"api_token": token}, MemoryValues())

        yield World(
            at(),
            at(),
            api.txt,
            api.write,
            wrong_credentials=at("w" * 40),
            unreachable=at(base_url=f"http://{LOOPBACK}:{free_port()}"),
            read_only=at(api.read_only),
            api=api,
            secrets=(api.token,),
        )


@contextmanager
def powerdns(_folder: Path) -> Iterator[World]:
    with PowerDns([ZONE, OTHER_ZONE]) as api:
        world = powerdns_world(api.url, api.key, api.txt, api.write)
        world.api = api
        yield world


@contextmanager
def pdns(folder: Path) -> Iterator[World]:
    with Pdns(folder, [ZONE, OTHER_ZONE]) as server:
        yield powerdns_world(server.api_url, server.api_key, server.txt, server.add)


WORLDS: Mapping[str, Callable[[Path], AbstractContextManager[World]]] = {
    "fake": fake,
    "embedded": embedded,
    "route53": route53,
    "bind": bind,
    "knot": knot,
    "cloudflare": cloudflare,
    "powerdns": powerdns,
    "pdns": pdns,
}
PEERS = frozenset({"bind", "knot", "pdns"})
"""Those that need servers from elsewhere."""
