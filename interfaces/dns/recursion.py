"""What is asked through a recursive resolver: where a name ends after its CNAMEs, and who serves the zone it ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from application.errors import ResolverFailed
from application.provider_config import host_and_port
from interfaces.dns.egress import Egress
from interfaces.dns.questions import ask, ask_authority

MOST_CNAMES = 8
MOST_SERVERS = 16  # of one zone; the root and the largest top-level domains have thirteen
MOST_ADDRESSES = 32
MOST_THREADS = 16
DNS_PORT = 53
PROBE_LABEL = "_acme-preflight"  # nobody writes there: what answers for it is a wildcard


class Recursion:
    """`resolvers` are `address:port`, else ValueError; none of them: those of the host's `/etc/resolv.conf`, read anew each
    time. Who answered last is asked first, then the others in their order. `port` is the authoritative servers'."""

    def __init__(self, egress: Egress, resolvers: Sequence[str], timeout_seconds: float, port: int) -> None:
        self._egress = egress
        self._resolvers = [(str(ip_address(host)), port) for host, port in map(host_and_port, resolvers)]
        self._timeout_seconds = timeout_seconds
        self._port = port
        self._answered_last: tuple[str, int] | None = None

    def end_of_cnames(self, name: dns.name.Name) -> dns.name.Name:
        """The name itself where it has no CNAME. Raises ResolverFailed, and AliasBroken."""
        return end_of_cnames(name, self.cname)

    def cname(self, name: dns.name.Name) -> dns.name.Name | None:
        """Where the CNAME at the name points to. Raises ResolverFailed."""
        targets = self._targets(name, dns.rdatatype.CNAME)
        return targets[0] if targets else None

    def server_addresses(self, name: dns.name.Name) -> Sequence[str]:
        """Of the authoritative servers of the zone that holds the name, IPv4 and IPv6: all of them, but of at most sixteen
        servers and 32 addresses. Raises ResolverFailed."""
        apex = self._apex(name)
        servers = self._targets(apex, dns.rdatatype.NS)
        if servers:
            return self._addresses_of(servers)
        # The zone does not name its own servers, as our embedded responder may not: those above it know.
        if apex == dns.name.root:
            raise ResolverFailed("nobody names the servers of the root")
        above = self.server_addresses(apex.parent())
        referred = self._referred(apex, above)
        return self._addresses_of(referred) if referred else above

    def _apex(self, name: dns.name.Name) -> dns.name.Name:
        """The owner of the SOA that is given for the name, or with the denial (RFC 2308 §3)."""
        for asked in _upwards(name):
            answer = self._answer(asked, dns.rdatatype.SOA)
            for rrset in (*answer.answer, *answer.authority):
                if rrset.rdtype == dns.rdatatype.SOA and asked.is_subdomain(rrset.name):
                    return rrset.name
        raise ResolverFailed(f"no zone holds {_text(name)}")

    def _referred(self, apex: dns.name.Name, above: Sequence[str]) -> Sequence[dns.name.Name]:
        """The servers that the zone above delegates to; none where it is served by the same ones."""
        for address in above:
            answer = ask_authority(self._egress, address, self._port, apex, dns.rdatatype.NS, self._timeout_seconds)
            if answer is not None and answer.rcode() == dns.rcode.NOERROR:
                held = [rrset for rrset in (*answer.answer, *answer.authority) if rrset.rdtype == dns.rdatatype.NS]
                return [rdata.target for rrset in held if rrset.name == apex for rdata in rrset]
        raise ResolverFailed(f"nobody names the servers of {_text(apex)}")

    def _addresses_of(self, servers: Sequence[dns.name.Name]) -> Sequence[str]:
        asked = servers[:MOST_SERVERS]
        questions = [(server, rdtype) for server in asked for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)]
        with ThreadPoolExecutor(MOST_THREADS) as pool:
            found = list(pool.map(self._addresses, questions))
        addresses = sorted({address for some in found for address in some})
        if not addresses:
            raise ResolverFailed(f"the name servers {', '.join(map(_text, asked))} have no address")
        return addresses[:MOST_ADDRESSES]

    def _addresses(self, question: tuple[dns.name.Name, dns.rdatatype.RdataType]) -> Sequence[str]:
        """Empty where the look-up fails: another server of the zone, or the other family, may do."""
        try:
            answer = self._answer(*question)
        except ResolverFailed:
            return ()
        return [rdata.address for rrset in answer.answer if rrset.rdtype == question[1] for rdata in rrset]

    def _targets(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Sequence[dns.name.Name]:
        """Whom the CNAME or the NS records at a name point to."""
        held = [rrset for rrset in self._answer(name, rdtype).answer if rrset.rdtype == rdtype]
        return [rdata.target for rrset in held if rrset.name == name for rdata in rrset]

    def _answer(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        """The first answer that says what there is, or that there is nothing."""
        resolvers = self._resolvers or hosts_own()
        for resolver in sorted(resolvers, key=lambda resolver: resolver != self._answered_last):
            answer = ask(*resolver, name, rdtype, recursion=True, timeout_seconds=self._timeout_seconds)
            if answer is not None and answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                self._answered_last = resolver
                return answer
        raise ResolverFailed(f"no resolver answers {dns.rdatatype.to_text(rdtype)} {_text(name)}")


class AliasBroken(ResolverFailed):
    """CNAMEs that lead nowhere: in a circle, or on and on."""


def end_of_cnames(name: dns.name.Name, cname: Callable[[dns.name.Name], dns.name.Name | None]) -> dns.name.Name:
    """`cname` says where the one at a name points to. One that a wildcard makes is not followed: it gives way to a value that
    is written at the name itself (RFC 4592 §2.2.1). Raises AliasBroken, and what `cname` raises."""
    passed = [name]
    while len(passed) <= MOST_CNAMES + 1:
        here = passed[-1]
        target = cname(here)
        if target is None or cname(dns.name.from_text(PROBE_LABEL, here.parent())) == target:
            return here
        if target in passed:
            raise AliasBroken(f"the CNAMEs of {_text(name)} run in a circle")
        passed.append(target)
    raise AliasBroken(f"{_text(name)} has more than {MOST_CNAMES} CNAMEs")


def hosts_own() -> Sequence[tuple[str, int]]:
    """The resolvers of this machine: addresses and ports."""
    try:
        return [(str(address), DNS_PORT) for address in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration:
        return []


def _upwards(name: dns.name.Name) -> Iterator[dns.name.Name]:
    """The name and all above it, without the root."""
    while name != dns.name.root:
        yield name
        name = name.parent()


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
