"""Zones with what goes wrong in zones, one fault each, and what is ordered in them. Each lies below `example.`, which is signed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interfaces.dns.embedded_server import EmbeddedDns
from tests.fakes_dns import MemoryValues
from tests.servers.zones import KnotZones, Relay, ValidatingBind, ZoneKey, shared_port

GOLDEN = Path(__file__).parents[1] / "golden/preflight"
TOP = "example"
CA_IDENTITY = "ca.example"
ACCOUNT_URL = "https://ca.example/account/1"
FIRST, SECOND, UDP_ONLY, DEAD, NO_CAA, EMBEDDED = (f"127.0.0.{n}" for n in (1, 2, 3, 4, 5, 6))
HOSTS = [FIRST, SECOND, UDP_ONLY, DEAD, NO_CAA, EMBEDDED]
SERVERS = (
    f"ns1 A {FIRST}\nns2 A {SECOND}\nudp-only A {UDP_ONLY}\ndead A {DEAD}\nembedded A {EMBEDDED}\nprivate A 10.0.0.1\n"
)
"""Below `servers.example`; `nowhere` has no address."""

Signed = Literal["no", "good", "with_another_key", "long_ago", "only_above"]


@dataclass(frozen=True)
class Fixture:
    """`records` stand in the zone `<name>.example` beside its SOA and NS; `second` are those at the second server, where
    they differ; `below` are zones below it. `is_served` and `is_delegated` are mostly so. Where `no_caa` the resolver meets
    a server that fails at CAA. `embedded` is a name below, or the zone itself, that is delegated to the service's own name
    server."""

    name: str
    records: str = ""
    domains: tuple[str, ...] = ("@",)
    servers: tuple[str, ...] = ("ns1", "ns2")
    second: str | None = None
    second_serial: int = 1
    is_lame: bool = False
    signed: Signed = "no"
    below: tuple[tuple[str, str], ...] = ()
    is_managed: bool = True
    is_delegated: bool = True
    is_served: bool = True
    no_caa: bool = False
    embedded: str | None = None

    @property
    def zone(self) -> str:
        return f"{self.name}.{TOP}"

    @property
    def ordered(self) -> Sequence[str]:
        """`@` stands for the zone's own name."""
        return [self.zone if name == "@" else f"{name}.{self.zone}" for name in self.domains]

    @property
    def golden_path(self) -> Path:
        return GOLDEN / f"{self.name}.json"

    def golden(self) -> Any:
        return json.loads(self.golden_path.read_text())


def values(count: int) -> str:
    return "".join(f'_acme-challenge TXT "{number:03}{"x" * 40}"\n' for number in range(count))


def caa(tag: str, value: str, name: str = "@", flags: int = 0) -> str:
    return f'{name} CAA {flags} {tag} "{value}"\n'


CHAIN = "_acme-challenge CNAME c1\n" + "".join(f"c{n} CNAME c{n + 1}\n" for n in range(1, 10)) + 'c10 TXT "far"\n'

FIXTURES: Sequence[Fixture] = (
    Fixture("good", "www A 192.0.2.1\n", ("@", "*", "www")),
    # --- CAA ---
    Fixture("caa-allows", caa("issue", CA_IDENTITY) + caa("iodef", "mailto:x@caa-allows.example"), ("@", "*")),
    Fixture("caa-forbids", caa("issue", "other.example")),
    Fixture("caa-nobody", caa("issue", ";")),
    Fixture("caa-wildcard", caa("issue", CA_IDENTITY) + caa("issuewild", "other.example"), ("@", "*")),
    Fixture("caa-climbs", caa("issue", "other.example") + "www.deep A 192.0.2.1\n", ("www.deep",)),
    Fixture("caa-nearest", caa("issue", "other.example") + caa("issue", CA_IDENTITY, "www"), ("www",)),
    Fixture("caa-alias", "www CNAME caa-forbids.example.\n", ("www",)),
    Fixture("caa-account", caa("issue", f"{CA_IDENTITY}; accounturi=https://ca.example/account/2")),
    Fixture(
        "caa-account-good", caa("issue", f"{CA_IDENTITY}; accounturi={ACCOUNT_URL}; validationmethods=http-01,dns-01")
    ),
    Fixture("caa-method", caa("issue", f"{CA_IDENTITY}; validationmethods=http-01")),
    Fixture("caa-critical", caa("issue", CA_IDENTITY) + caa("tbs", "unknown", flags=128)),
    Fixture("caa-fails", no_caa=True),
    # --- DNSSEC ---
    Fixture("signed", "www A 192.0.2.1\n", ("@", "www"), signed="good"),
    Fixture("signed-other-key", signed="with_another_key"),
    Fixture("signed-long-ago", signed="long_ago"),
    Fixture("signed-only-above", signed="only_above"),
    # --- name servers ---
    Fixture("serials", second="", second_serial=2),
    Fixture("answers", '_acme-challenge TXT "one"\n', second='_acme-challenge TXT "two"\n'),
    Fixture("lame", is_lame=True),
    Fixture("dead", servers=("ns1", "dead")),
    Fixture("no-address", servers=("ns1", "nowhere")),
    Fixture("udp-only", servers=("ns1", "udp-only")),
    Fixture("private", servers=("ns1", "private")),
    Fixture("silent", servers=("dead",)),
    # --- aliases ---
    Fixture("cname-managed", "_acme-challenge CNAME here.good.example.\n"),
    Fixture("cname-unmanaged", "_acme-challenge CNAME hop\nhop CNAME there.unmanaged.example.\n"),
    Fixture("cname-loop", "_acme-challenge CNAME round\nround CNAME _acme-challenge\n"),
    Fixture("cname-long", CHAIN),
    Fixture("cname-dangling", "_acme-challenge CNAME gone.never-registered.example.\n"),
    Fixture("dname", "old DNAME new\nwww.new A 192.0.2.1\n", ("www.old",)),
    # --- wildcards ---
    Fixture("wildcard-shadowed", "* A 192.0.2.1\n", ("www",)),
    Fixture("wildcard-own-name", "* A 192.0.2.1\nwww A 192.0.2.2\n", ("www", "*")),
    Fixture("wildcard-cname", "* CNAME balancer.unmanaged.example.\n", ("www", "@")),
    Fixture("wildcard-txt", '* TXT "v=spf1 -all"\n', ("@",)),
    # --- values ---
    Fixture("txt-many", values(30)),
    Fixture("txt-too-many", values(80)),
    # --- zones ---
    Fixture("unmanaged", is_managed=False),
    Fixture("cut", below=(("sub", "www A 192.0.2.1\n"),), domains=("www.sub", "www")),
    Fixture(
        "alias-below-cut",
        "host A 192.0.2.1\n",
        below=(("sub", "www CNAME host.alias-below-cut.example.\n_acme-challenge.www CNAME x.unmanaged.example.\n"),),
        domains=("www.sub",),
    ),
    Fixture("challenge-cut", below=(("_acme-challenge", ""),)),
    Fixture("challenge-embedded", "_acme-challenge NS embedded.servers.example.\n", embedded="_acme-challenge"),
    Fixture("zone-embedded", servers=("embedded",), is_served=False, embedded="@"),
    Fixture("undelegated", is_delegated=False, is_served=False),
    Fixture("unserved", servers=("dead",), is_served=False),
)

MANAGED = [fixture.zone for fixture in FIXTURES if fixture.is_managed and not fixture.embedded]
PROVIDER: Mapping[str, Any] = {
    "name": "dns",
    "provider_type": "rfc2136",
    "managed_zones": MANAGED,
    "credentials": {"tsig_key_name": "key", "tsig_secret": "c2VjcmV0LXNlY3JldA=="},
    "config": {"server": "127.0.0.1", "port": 9},
}
"""The body of a provider that nobody could write through."""
OWN_PROVIDER: Mapping[str, Any] = {
    "name": "own",
    "provider_type": "embedded",
    "managed_zones": [fixture.zone for fixture in FIXTURES if fixture.embedded],
}


@dataclass(frozen=True)
class World:
    """`resolver` validates, `authority` is the first server, asked as if it were a resolver; all name servers listen at
    `port`."""

    resolver: str
    authority: str
    port: int


@contextmanager
def served(folder: Path) -> Iterator[World]:
    """All fixtures by real servers."""
    port = shared_port(HOSTS)
    keys = {fixture.name: ZoneKey.new() for fixture in FIXTURES if fixture.signed not in {"no", "only_above"}}
    top = ZoneKey.new()
    first = {TOP: top.signed(_top(keys), TOP), f"servers.{TOP}": _zone(("ns1",), SERVERS)}
    second: dict[str, str] = {}
    for fixture in FIXTURES:
        if not fixture.is_served:
            continue
        text = _zone(fixture.servers, fixture.records + _cuts(fixture))
        if fixture.name in keys:
            text = keys[fixture.name].signed(text, fixture.zone, ended=fixture.signed == "long_ago")
        first[fixture.zone] = text
        if not fixture.is_lame and fixture.second is None:
            second[fixture.zone] = text
        elif fixture.second is not None:
            second[fixture.zone] = _zone(fixture.servers, fixture.second, fixture.second_serial)
        for label, records in fixture.below:
            first[f"{label}.{fixture.zone}"] = second[f"{label}.{fixture.zone}"] = _zone(("ns1", "ns2"), records)
    others = {fixture.zone: (NO_CAA, port) for fixture in FIXTURES if fixture.no_caa}
    own = {f"{fixture.embedded}.{fixture.zone}".removeprefix("@.") for fixture in FIXTURES if fixture.embedded}
    others |= dict.fromkeys(own, (EMBEDDED, port))
    with ExitStack() as stack:
        stack.enter_context(KnotZones(folder / "first", first, FIRST, port))
        stack.enter_context(KnotZones(folder / "second", second, SECOND, port))
        stack.enter_context(EmbeddedDns(EMBEDDED, port, MemoryValues(), lambda: sorted(own)))
        stack.enter_context(Relay(UDP_ONLY, port, (FIRST, port)))
        stack.enter_context(Relay(NO_CAA, port, (FIRST, port), failing=["CAA"]))
        resolver = stack.enter_context(ValidatingBind(folder / "resolver", (FIRST, port), (TOP, top), others))
        yield World(resolver.address, f"{FIRST}:{port}", port)


def _zone(servers: Sequence[str], records: str, serial: int = 1) -> str:
    named = "".join(f"@ NS {server}.servers.{TOP}.\n" for server in servers)
    return f"$TTL 60\n@ SOA ns1.servers.{TOP}. hostmaster {serial} 3600 600 86400 1\n{named}{records}"


def _cuts(fixture: Fixture) -> str:
    return "".join(f"{label} NS ns{n}.servers.{TOP}.\n" for label, _ in fixture.below for n in (1, 2))


def _top(keys: Mapping[str, ZoneKey]) -> str:
    """The zone above: who serves each zone, and the digests of their keys."""
    cuts = [f"servers NS ns1.servers.{TOP}.\nns1.servers A {FIRST}\n"]
    for fixture in FIXTURES:
        if fixture.is_delegated:
            cuts += [f"{fixture.name} NS {server}.servers.{TOP}.\n" for server in fixture.servers]
        if fixture.signed != "no":
            is_own = fixture.signed in {"good", "long_ago"}
            key = keys[fixture.name] if is_own else ZoneKey.new()
            cuts.append(f"{fixture.name} DS {key.ds(fixture.zone).to_text()}\n")
    return _zone(("ns1",), "".join(cuts))
