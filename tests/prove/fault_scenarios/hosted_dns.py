"""A zone at a DNS provider with an HTTP API that fails, and three name servers of it, each of which may lag behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from interfaces.dns.txt_strings import quoted
from tests.dns_stand_ins.cloudflare import Cloudflare
from tests.servers.responder import DnsResponder

TTL_SECONDS = 1


class NameServer:
    """Serves what the provider holds. One that is `frozen` serves what it did then; one that is `ill` says SERVFAIL."""

    def __init__(self, api: Cloudflare) -> None:
        self.ill = False
        self._api = api
        self._frozen: dict[str, list[str]] | None = None

    def freeze(self) -> None:
        self._frozen = {}

    def thaw(self) -> None:
        self._frozen = None

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        (question,) = query.question
        response.flags |= dns.flags.AA
        if self.ill:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        name = question.name.to_text(omit_final_dot=True).lower()
        values = self._api.txt(name) if self._frozen is None else self._frozen.get(name, [])
        if values and question.rdtype == dns.rdatatype.TXT:
            records = map(quoted, values)
            response.answer = [dns.rrset.from_text(question.name, TTL_SECONDS, "IN", "TXT", *records)]
        return response


class HostedDns:
    """`provider` is the body that connects it. `address` is the first name server's."""

    def __init__(self, zone: str, api: Cloudflare, servers: list[tuple[NameServer, str]]) -> None:
        self.api = api
        self.servers = [server for server, _ in servers]
        self.address = servers[0][1]
        self.provider: Mapping[str, Any] = {
            "name": "hosted",
            "provider_type": "cloudflare",
            "managed_zones": [zone],
            "credentials": {"api_token": api.token},
            "config": {"base_url": api.base_url, "nameservers": [address for _, address in servers]},
        }


@contextmanager
def hosted_dns(zone: str) -> Iterator[HostedDns]:
    with ExitStack() as stack:
        api = stack.enter_context(Cloudflare([zone]))
        servers = [NameServer(api) for _ in range(3)]
        addresses = [stack.enter_context(DnsResponder(server.answer)).address for server in servers]
        yield HostedDns(zone, api, list(zip(servers, addresses, strict=True)))
