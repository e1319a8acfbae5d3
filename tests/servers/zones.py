"""Zones as they are written, signed or not, served by Knot at any address; a resolver that validates them (BIND); and a relay
before a server that leaves out what a test wants."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.DS
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers.process import LOOPBACK, ServerProcess, free_port, peer_path

TIMEOUT_SECONDS = 5.0
SECURE_ENTRY = 257


class ZoneKey(NamedTuple):
    """One key that signs a whole zone (RFC 4034), and how the zone above and a trust anchor name it."""

    private: ec.EllipticCurvePrivateKey
    dnskey: dns.rdtypes.ANY.DNSKEY.DNSKEY

    @classmethod
    def new(cls) -> Self:
        private = ec.generate_private_key(ec.SECP256R1())
        return cls(private, dns.dnssec.make_dnskey(private.public_key(), dns.dnssec.ECDSAP256SHA256, SECURE_ENTRY))

    def ds(self, zone: str) -> dns.rdtypes.ANY.DS.DS:
        return dns.dnssec.make_ds(dns.name.from_text(zone), self.dnskey, "SHA256")

    def signed(self, text: str, zone: str, *, ended: bool = False) -> str:
        """The zone file with signatures and denials; `ended`: all of them ended yesterday."""
        held = dns.zone.from_text(text, zone, relativize=False)
        now = datetime.now(UTC)
        with held.writer() as writer:
            dns.dnssec.sign_zone(
                held,
                writer,
                keys=[(self.private, self.dnskey)],
                add_dnskey=True,
                dnskey_ttl=60,
                inception=now - timedelta(days=3),
                expiration=now - timedelta(days=1) if ended else now + timedelta(days=3),
            )
        return held.to_text()


class KnotZones(ServerProcess):
    """knotd at `host` and `port` with these zone files, by their apex."""

    def __init__(self, folder: Path, zones: Mapping[str, str], host: str, port: int) -> None:
        super().__init__(folder)
        self.host, self.port = host, port
        self._first = next(iter(zones))
        self._configuration = folder / "knot.conf"
        entries = []
        for number, (zone, text) in enumerate(zones.items()):
            (folder / f"{number}.zone").write_text(text)
            entries.append(f"  - domain: {zone}\n    file: {number}.zone\n")
        self._configuration.write_text(self._server() + "".join(entries))

    def command(self) -> list[str]:
        return [peer_path("knotd", "Debian's package knot"), "--config", str(self._configuration)]

    def is_ready(self) -> bool:
        question = dns.message.make_query(self._first, dns.rdatatype.SOA)
        try:
            return bool(dns.query.tcp(question, self.host, TIMEOUT_SECONDS, self.port).answer)
        except (OSError, EOFError, dns.exception.DNSException):
            return False

    def _server(self) -> str:
        return f"""\
server:
    rundir: "{self.folder}"
    listen: {self.host}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: /proc/self/cwd/knot.sock
log:
  - target: stderr
    any: info
database:
    storage: "{self.folder}"
    journal-db-max-size: 64M
template:
  - id: default
    storage: "{self.folder}"
    zonefile-sync: -1
    semantic-checks: off
zone:
"""


class ValidatingBind(ServerProcess):
    """named as a resolver that validates from a trust anchor on, and asks one server everything, but for zones for which it
    asks another."""

    def __init__(
        self,
        folder: Path,
        authority: tuple[str, int],
        anchor: tuple[str, ZoneKey],
        others: Mapping[str, tuple[str, int]],
    ) -> None:
        super().__init__(folder)
        self.host, self.port = LOOPBACK, free_port()
        self.address = f"{self.host}:{self.port}"
        self._anchor = anchor[0]
        self._configuration = folder / "named.conf"
        flags, protocol, algorithm, *key = anchor[1].dnskey.to_text().split()
        self._configuration.write_text(f"""\
controls {{ }};
trust-anchors {{ {anchor[0]} static-key {flags} {protocol} {algorithm} "{"".join(key)}"; }};
options {{
    directory "{folder}";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on port {self.port} {{ {self.host}; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    forward only;
    forwarders {{ {authority[0]} port {authority[1]}; }};
    dnssec-validation yes;
    qname-minimization off;
    empty-zones-enable no;
    resolver-query-timeout 4000;
    servfail-ttl 0;
    max-cache-ttl 1;
    max-ncache-ttl 1;
}};
""")
        with self._configuration.open("a") as file:
            for zone, (host, port) in others.items():
                file.write(f'zone "{zone}" {{ type forward; forward only; forwarders {{ {host} port {port}; }}; }};\n')

    def command(self) -> list[str]:
        return [peer_path("named", "Debian's package bind9"), "-g", "-n", "1", "-c", str(self._configuration)]

    def is_ready(self) -> bool:
        question = dns.message.make_query(self._anchor, dns.rdatatype.SOA)
        try:
            return bool(dns.query.udp(question, self.host, TIMEOUT_SECONDS, self.port).answer)
        except (OSError, dns.exception.DNSException):
            return False


class Relay:
    """Passes datagrams on to a server, inside a `with` block; there is no TCP. Questions for some types are SERVFAIL."""

    def __init__(self, host: str, port: int, behind: tuple[str, int], failing: Collection[str] = ()) -> None:
        self._place = (host, port)
        self._behind = behind
        self._failing = frozenset(dns.rdatatype.from_text(name) for name in failing)
        self._running: tuple[socketserver.BaseServer, threading.Thread] | None = None

    def __enter__(self) -> Self:
        behind, failing = self._behind, self._failing

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire, udp = self.request
                query = dns.message.from_wire(wire)
                if query.question[0].rdtype in failing:
                    answer = dns.message.make_response(query)
                    answer.set_rcode(dns.rcode.SERVFAIL)
                    udp.sendto(answer.to_wire(), self.client_address)
                    return
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as onwards:
                    onwards.settimeout(TIMEOUT_SECONDS)
                    onwards.sendto(wire, behind)
                    udp.sendto(onwards.recv(65535), self.client_address)

        server = socketserver.ThreadingUDPServer(self._place, Datagram)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name=f"relay {self._place}")
        thread.start()
        self._running = server, thread
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._running is not None:
            server, thread = self._running
            server.shutdown()
            server.server_close()
            thread.join()


def shared_port(hosts: Sequence[str]) -> int:
    """A port that is free at each of these addresses, for UDP and TCP."""
    while True:
        port = free_port()
        try:
            for host in hosts:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind((host, port))
        except OSError:
            continue
        return port
