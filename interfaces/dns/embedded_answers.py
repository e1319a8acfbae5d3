"""What the embedded responder says: an authoritative server (RFC 1034 §4.3.2) whose zones hold TXT values and little else.

Each `_acme-challenge` name may be delegated on its own (an NS record in the parent) or with the zone above it. So each is
answered for as a zone of its own: an SOA of the zone above would lie outside of what was delegated."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.ANY.TXT import TXT

from application.errors import Failure
from domain.challenge import CHALLENGE_LABEL
from interfaces.dns.embedded import EmbeddedValues
from interfaces.dns.txt_strings import txt_strings

HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512  # RFC 1035 §4.2.1, without EDNS
OUR_UDP_BYTES = 1232  # what reaches everybody unfragmented (DNS flag day 2020)
TCP_BYTES = 65535
NEGATIVE_TTL_SECONDS = 1  # who asked too early shall not remember it
SOA_TTL_SECONDS = 60
TXT_TTL_SECONDS = 1  # whatever a provider's `config.ttl` says: a value lives for minutes only
LABEL = CHALLENGE_LABEL.encode()


class EmbeddedAnswers:
    """`zones` are those delegated to us. `ns_names` are the names by which their parents know this responder."""

    def __init__(
        self,
        values: EmbeddedValues,
        zones: Callable[[], Sequence[str]],
        ns_names: Sequence[str] = (),
    ) -> None:
        self._values = values
        self._zones = zones
        self._ns_names = [dns.name.from_text(name) for name in ns_names]

    def answer(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        """The answer's octets; None for what deserves none: a fragment, or an answer of somebody else."""
        if len(wire) < HEADER_BYTES:
            return None
        flags = int.from_bytes(wire[2:4], "big")
        if flags & dns.flags.QR:
            return None
        if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
            return _bare(wire, dns.rcode.NOTIMP)
        try:
            query = dns.message.from_wire(wire, keyring=False)
        except (dns.exception.DNSException, ValueError):
            return _bare(wire, dns.rcode.FORMERR)
        if len(query.question) != 1:
            return _bare(wire, dns.rcode.FORMERR)
        response = dns.message.make_response(query, our_payload=OUR_UDP_BYTES, pad=0)
        try:
            self._fill(query, response)
        except Failure:
            response.set_rcode(dns.rcode.SERVFAIL)
        udp_bytes = min(max(query.payload, PLAIN_UDP_BYTES), OUR_UDP_BYTES) if query.edns >= 0 else PLAIN_UDP_BYTES
        return response.to_wire(max_size=TCP_BYTES if over_tcp else udp_bytes, prefer_truncation=True)

    def _fill(self, query: dns.message.Message, response: dns.message.Message) -> None:
        (question,) = query.question
        if query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
            return
        apex = self._apex(question.name)
        transfer = question.rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
        if apex is None or transfer or question.rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        found = self._records(question.name, question.rdtype, apex)
        if found is not None:
            response.answer = [found]
            return
        response.authority = [_rrset(apex, NEGATIVE_TTL_SECONDS, [self._soa(apex)])]
        if not self._may_exist(question.name, apex):
            response.set_rcode(dns.rcode.NXDOMAIN)

    def _records(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, apex: dns.name.Name
    ) -> dns.rrset.RRset | None:
        match rdtype:
            case dns.rdatatype.TXT:
                txts = [TXT(dns.rdataclass.IN, rdtype, txt_strings(value)) for value in self._values_at(name)]
                return _rrset(name, TXT_TTL_SECONDS, txts) if txts else None
            case dns.rdatatype.SOA if name == apex:
                return _rrset(name, SOA_TTL_SECONDS, [self._soa(apex)])
            case dns.rdatatype.NS if name == apex and self._ns_names:
                return _rrset(name, SOA_TTL_SECONDS, [_rdata(rdtype, server.to_text()) for server in self._ns_names])
            case dns.rdatatype.ANY:  # RFC 8482 §4.2: nobody learns more by asking for everything
                return _rrset(name, TXT_TTL_SECONDS, [_rdata(dns.rdatatype.HINFO, 'RFC8482 ""')])
            case _:
                return None

    def _may_exist(self, name: dns.name.Name, apex: dns.name.Name) -> bool:
        """Every name above a challenge name does, though empty (RFC 8020): a resolver that was told otherwise would not
        ask below it any more. So only names below a challenge name can be denied."""
        below_challenge = name != apex and apex.labels[0].lower() == LABEL
        return not below_challenge or bool(self._values_at(name))

    def _apex(self, name: dns.name.Name) -> dns.name.Name | None:
        """The deepest zone that we are to answer for, spelled as in the question."""
        zones = [dns.name.from_text(zone) for zone in self._zones()]
        zone_depth = max((len(zone) for zone in zones if name.is_subdomain(zone)), default=None)
        if zone_depth is None:
            return None
        challenges = (depth for depth in range(zone_depth, len(name) + 1) if name[-depth].lower() == LABEL)
        return name.split(next(challenges, zone_depth))[1]

    def _values_at(self, name: dns.name.Name) -> Sequence[str]:
        return self._values.values(name.to_text(omit_final_dot=True).lower())

    def _soa(self, apex: dns.name.Name) -> dns.rdata.Rdata:
        primary = self._ns_names[0] if self._ns_names else apex
        return _rdata(dns.rdatatype.SOA, f"{primary} . 1 3600 600 86400 {NEGATIVE_TTL_SECONDS}")


def _rdata(rdtype: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)


def _rrset(name: dns.name.Name, ttl_seconds: int, rdatas: Sequence[dns.rdata.Rdata]) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(name, ttl_seconds, rdatas)


def _bare(wire: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A header alone, with the id, the opcode and the RD bit of the question."""
    flags = int.from_bytes(wire[2:4], "big")
    kept = flags & (0x7800 | dns.flags.RD)
    return wire[:2] + struct.pack("!5H", dns.flags.QR | kept | rcode, 0, 0, 0, 0)
