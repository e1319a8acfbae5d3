"""Whether the authoritative servers serve a value: each of them is asked itself, whatever caches may say."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from application.errors import EgressRefused, ResolverFailed
from application.ports import Alias, TxtValue, Unseen
from application.provider_config import host_and_port
from interfaces.dns.egress import Egress
from interfaces.dns.questions import ask_authority
from interfaces.dns.recursion import DNS_PORT, AliasBroken, Recursion, end_of_cnames
from interfaces.dns.txt_strings import txt_value

MOST_THREADS = 32
SERVERS_LIVE_SECONDS = 30.0
MOST_KEPT = 1024
SAID = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


class Server(NamedTuple):
    """`name` is how it is called to the outside, `host:port`."""

    name: str
    address: str
    port: int


class Question(NamedTuple):
    server: Server
    name: dns.name.Name


class AuthoritativeResolver:
    """Resolver. `recursive` (`host:port`) find the servers, which listen at `port`; none: the host's own resolvers.

    Nobody is dialled whom `egress` refuses: such a server has not seen the value."""

    def __init__(
        self, egress: Egress, recursive: Sequence[str] = (), timeout_seconds: float = 3.0, port: int = DNS_PORT
    ) -> None:
        self._egress = egress
        self._recursion = Recursion(egress, recursive, timeout_seconds, port)
        self._timeout_seconds = timeout_seconds
        self._port = port
        self._kept: dict[dns.name.Name, tuple[Sequence[Server], float]] = {}
        self._keeping = Lock()

    def aliases(self, record_names: Sequence[str], nameservers: Sequence[str]) -> Mapping[str, Alias]:
        try:
            given = [server for nameserver in nameservers for server in self._given(nameserver)]
        except ResolverFailed:
            return {}
        with ThreadPoolExecutor(MOST_THREADS) as pool:
            found = pool.map(lambda name: self._alias(name, given), record_names)
            return {name: alias for name, alias in zip(record_names, found, strict=True) if alias is not None}

    def unseen(self, values: Sequence[TxtValue], nameservers: Sequence[str]) -> Sequence[Unseen]:
        names = list(dict.fromkeys(value.record_name for value in values))
        given = [server for nameserver in nameservers for server in self._given(nameserver)]
        with ThreadPoolExecutor(MOST_THREADS) as pool:
            found = pool.map(lambda name: self._questions(name, given), names)
            asked = dict(zip(names, found, strict=True))
            questions = list({question for some in asked.values() for question in some})
            served = dict(zip(questions, pool.map(self._served, questions), strict=True))
        return [
            Unseen(question.server.name, value.record_name, value.value)
            for value in values
            for question in asked[value.record_name]
            if value.value not in served[question]
        ]

    def _alias(self, record_name: str, given: Sequence[Server]) -> Alias | None:
        def cname(name: dns.name.Name) -> dns.name.Name | None:
            answer = self._said_of_cname(name, given)
            return self._recursion.cname(name) if answer is None else cname_in(answer, name)

        try:
            end = end_of_cnames(dns.name.from_text(record_name), cname)
        except AliasBroken as broken:
            return Alias(None, broken.detail)
        except (ResolverFailed, dns.exception.DNSException):
            return None
        return Alias(end.to_text(omit_final_dot=True).lower())

    def _said_of_cname(self, name: dns.name.Name, given: Sequence[Server]) -> dns.message.QueryMessage | None:
        """The answer of the first of those servers that speaks for the name."""
        for _, address, port in given:
            answer = ask_authority(self._egress, address, port, name, dns.rdatatype.CNAME, self._timeout_seconds)
            if answer is not None and answer.flags & dns.flags.AA and answer.rcode() in SAID:
                return answer
        return None

    def _questions(self, record_name: str, given: Sequence[Server]) -> Sequence[Question]:
        try:
            name = dns.name.from_text(record_name)
        except dns.exception.DNSException as error:
            raise ResolverFailed(f"{record_name} is no DNS name: {error}") from error
        if given:
            return [Question(server, name) for server in given]
        end = self._recursion.end_of_cnames(name)
        return [Question(server, end) for server in self._servers(end)]

    def _served(self, question: Question) -> frozenset[str]:
        """The values; none from a server that must not be dialled, does not answer, or does not speak for the zone."""
        (_, address, port), name = question
        answer = ask_authority(self._egress, address, port, name, dns.rdatatype.TXT, self._timeout_seconds)
        if answer is None or answer.rcode() != dns.rcode.NOERROR or not answer.flags & dns.flags.AA:
            return frozenset()
        try:
            texts = answer.resolve_chaining().answer
        except dns.exception.DNSException:
            return frozenset()
        return frozenset(txt_value(rdata.strings) for rdata in texts or ())

    def _servers(self, end: dns.name.Name) -> Sequence[Server]:
        """Looked up anew after half a minute."""
        now = time.monotonic()
        with self._keeping:
            servers, until = self._kept.get(end, ((), now))
        if until > now:
            return servers
        addresses = self._recursion.server_addresses(end)
        # This machine may have no IPv6 at all: no fault of a server. If it has no way to any, none has seen anything.
        within_reach = [address for address in addresses if has_route(address)] or addresses
        servers = [Server(_host_port(address, self._port), address, self._port) for address in within_reach]
        with self._keeping:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[end] = (servers, now + SERVERS_LIVE_SECONDS)
        return servers

    def _given(self, nameserver: str) -> Sequence[Server]:
        host, port = host_and_port(nameserver)
        try:
            addresses = self._egress.addresses(host, port)
        except EgressRefused as refusal:
            raise ResolverFailed(f"{nameserver}: {refusal.detail}") from refusal
        return [Server(nameserver, address, port) for address in addresses]


def cname_in(answer: dns.message.QueryMessage, name: dns.name.Name) -> dns.name.Name | None:
    """Where the CNAME at the name points to."""
    held = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.CNAME and rrset.name == name]
    return held[0][0].target if held else None


def has_route(address: str) -> bool:
    """Whether this machine has a way there. Connecting a datagram socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, DNS_PORT))
    except OSError:  # from the first line where the kernel has no IPv6 at all
        return False
    return True


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
