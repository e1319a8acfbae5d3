"""One DNS question to one server: UDP first, TCP when the answer was cut (RFC 1035 §4.2, RFC 6891)."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdatatype

from application.errors import EgressRefused, ResolverFailed
from interfaces.dns.egress import Egress

EDNS_BYTES = 1232  # what reaches everybody unfragmented
TRIES = 2  # a datagram may get lost


def ask(
    address: str,
    port: int,
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    *,
    recursion: bool,
    timeout_seconds: float,
    flags: int = 0,
) -> dns.message.QueryMessage | None:
    """The answer, whatever it says; None when there was none in time. `flags` are set beside RD."""
    flags |= dns.flags.RD if recursion else 0
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=EDNS_BYTES, flags=flags)
    for _ in range(TRIES):
        try:
            answer, _ = dns.query.udp_with_fallback(
                query, address, timeout_seconds, port, ignore_unexpected=True, ignore_errors=True
            )
        except (OSError, EOFError, dns.exception.DNSException):
            continue
        return answer if isinstance(answer, dns.message.QueryMessage) else None
    return None


def ask_authority(
    egress: Egress,
    address: str,
    port: int,
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    timeout_seconds: float,
) -> dns.message.QueryMessage | None:
    """As `ask`, of a server that others named to us: None also where it must not be dialled."""
    try:
        egress.addresses(address, port)
    except (EgressRefused, ResolverFailed):
        return None
    return ask(address, port, name, rdtype, recursion=False, timeout_seconds=timeout_seconds)


def answers_over_tcp(
    address: str, port: int, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, timeout_seconds: float
) -> bool:
    """Whether a server that answers over UDP does so over TCP too (RFC 7766 §5). Who asks has judged the address."""
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=EDNS_BYTES, flags=0)
    try:
        dns.query.tcp(query, address, timeout_seconds, port)
    except (OSError, EOFError, dns.exception.DNSException):
        return False
    return True
