"""What the authoritative servers of the tests have in common: questions over DNS, TSIG, transfers and updates (RFC 2136)."""

import base64
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.tsig
import dns.update
import dns.xfr
import dns.zone

from tests.servers.process import LOOPBACK, ServerProcess, free_port

TIMEOUT_SECONDS = 5.0
ZONE = """\
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 1
@ IN NS ns
ns IN A 127.0.0.1
"""


class Record(NamedTuple):
    """One value at a name (without the final dot). A TXT's value is its text, unquoted and joined."""

    name: str
    type: str
    value: str


class DnsRefused(RuntimeError):
    """A server answered a question or an update with an error."""

    def __init__(self, asked: str, rcode: dns.rcode.Rcode) -> None:
        super().__init__(f"{asked}: {dns.rcode.to_text(rcode)}")
        self.rcode = rcode


def record_of(name: dns.name.Name, rdata: dns.rdata.Rdata) -> Record:
    value = rdata.to_text()
    if rdata.rdtype == dns.rdatatype.TXT:
        value = b"".join(cast("dns.rdtypes.ANY.TXT.TXT", rdata).strings).decode()
    return Record(name.to_text(omit_final_dot=True), dns.rdatatype.to_text(rdata.rdtype), value)


def ask_txt(host: str, port: int, name: str) -> list[str]:
    """The TXT values at a name, sorted, with those behind a CNAME that the answer holds; none where there is no name.

    Raises DnsRefused for any other error.
    """
    question = dns.message.make_query(name, dns.rdatatype.TXT)
    answer, _ = dns.query.udp_with_fallback(question, host, timeout=TIMEOUT_SECONDS, port=port)
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise DnsRefused(f"TXT {name}", answer.rcode())
    texts = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.TXT]
    return sorted(record_of(rrset.name, rdata).value for rrset in texts for rdata in rrset)


class AuthoritativeServer(ServerProcess):
    """A server of zones that takes updates and gives transfers to who holds its TSIG key, and answers everybody.

    Zones and their updates outlast a restart in the same folder. A CNAME into another zone is not followed, even when
    that zone is served here: who asks must do so, and a CA's stub resolver does not.
    """

    def __init__(self, folder: Path, zones: Sequence[str]) -> None:
        super().__init__(folder)
        self.zones = tuple(zones)
        self.host = LOOPBACK
        self.port = free_port()
        self.address = f"{self.host}:{self.port}"
        self.tsig_key_name = "acme-updates"
        self.tsig_algorithm = "hmac-sha256"
        self.tsig_secret = base64.b64encode(secrets.token_bytes(32)).decode()
        for zone in self.zones:
            (folder / f"{zone}.zone").write_text(ZONE)

    def txt(self, name: str) -> list[str]:
        """The TXT values at a name, sorted, asked over DNS."""
        return ask_txt(self.host, self.port, name)

    def transfer(self, zone: str) -> list[Record]:
        """All records of a zone, sorted, by AXFR."""
        held = dns.zone.Zone(zone, relativize=False)
        question, _ = dns.xfr.make_query(held, keyring=self.tsig_key())
        dns.query.inbound_xfr(self.host, held, question, port=self.port, lifetime=TIMEOUT_SECONDS)
        return sorted(record_of(name, rdata) for name, _, rdata in held.iterate_rdatas())

    def add(self, name: str, type_: str, value: str, *, ttl_seconds: int = 60) -> None:
        """Write one more value as another tenant of the zone would. ``value`` is in zone-file form. Raises DnsRefused."""
        update = dns.update.UpdateMessage(self._zone_of(name), keyring=self.tsig_key())
        update.add(dns.name.from_text(name), ttl_seconds, type_, value)
        answer = dns.query.tcp(update, self.host, timeout=TIMEOUT_SECONDS, port=self.port)
        if answer.rcode() != dns.rcode.NOERROR:
            raise DnsRefused(f"add {type_} {name}", answer.rcode())

    def tsig_key(self) -> dns.tsig.Key:
        return dns.tsig.Key(self.tsig_key_name, self.tsig_secret, self.tsig_algorithm)

    def is_ready(self) -> bool:
        try:
            return all(self._serves_zone(zone) for zone in self.zones)
        except (OSError, dns.exception.Timeout):
            return False

    def _serves_zone(self, zone: str) -> bool:
        question = dns.message.make_query(zone, dns.rdatatype.SOA)
        return bool(dns.query.tcp(question, self.host, timeout=TIMEOUT_SECONDS, port=self.port).answer)

    def _zone_of(self, name: str) -> str:
        return max((zone for zone in self.zones if f".{name}".endswith(f".{zone}")), key=len)
