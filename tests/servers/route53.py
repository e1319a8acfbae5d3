"""Route 53 as moto plays it: the API in a child process, and its zones over DNS, which moto does not serve.

Milder than Route 53: every change is INSYNC at once; a batch that fails half-way leaves its first half; CREATE passes
where the name has other values; DELETE passes with values the name had once, and takes whatever it has now.
"""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import boto3
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_route53 import Route53Client

from tests.servers.authoritative import Record, ask_txt, record_of
from tests.servers.process import LOOPBACK, ServerProcess, free_port
from tests.servers.responder import DnsResponder

REGION = "us-east-1"
TIMEOUT_SECONDS = 5


class MotoRoute53(ServerProcess):
    """The API at ``endpoint_url``, with hosted zones for ``zones``; what it holds, over DNS at ``dns_address``.

    ``zone_ids`` has each zone's id by its name. All is in memory: after a restart the zones are new and empty, and while
    the API is stopped the DNS answers SERVFAIL.
    """

    def __init__(self, folder: Path, zones: Sequence[str]) -> None:
        super().__init__(folder)
        self.zones = tuple(zones)
        self.zone_ids: dict[str, str] = {}
        self._port = free_port()
        self.endpoint_url = f"http://{LOOPBACK}:{self._port}"
        self.access_key_id = "AKIAIOSFODNN7EXAMPLE"
        self.secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
        self._dns = DnsResponder(self._answer)
        self.dns_address = self._dns.address
        self.client = self._client()

    def txt(self, name: str) -> list[str]:
        """The TXT values at a name, sorted, asked over DNS."""
        return ask_txt(self._dns.host, self._dns.port, name)

    def records(self, zone: str) -> list[Record]:
        """All records of a zone, sorted, asked over the API."""
        return sorted(record_of(rrset.name, rdata) for rrset in self._rrsets(self.zone_ids[zone]) for rdata in rrset)

    def start(self) -> None:
        super().start()
        for zone in self.zones:
            created = self.client.create_hosted_zone(Name=zone, CallerReference=zone)
            self.zone_ids[zone] = created["HostedZone"]["Id"].removeprefix("/hostedzone/")

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._end)
            self._dns.start()
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self._port)]

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.endpoint_url}/moto-api/data.json", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _end(self) -> None:
        self._dns.stop()
        self.stop()
        self.client.close()

    def _client(self) -> Route53Client:
        return boto3.session.Session(
            aws_access_key_id=self.access_key_id, aws_secret_access_key=self.secret_access_key, region_name=REGION
        ).client(
            "route53",
            endpoint_url=self.endpoint_url,
            config=Config(
                proxies={},
                connect_timeout=TIMEOUT_SECONDS,
                read_timeout=TIMEOUT_SECONDS,
                retries={"max_attempts": 0},
                max_pool_connections=50,
            ),
        )

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        """The zones' answer, as of now; a wildcard in them stands for itself alone."""
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        (question,) = query.question
        try:
            self._look_up(question.name, question.rdtype, answer)
        except (BotoCoreError, ClientError):
            answer.set_rcode(dns.rcode.SERVFAIL)
        return answer

    def _look_up(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, answer: dns.message.Message) -> None:
        """Add what is at the name, and behind its CNAME as far as our zones reach (RFC 1034 §4.3.2)."""
        zone = self._zone_of(name)
        if zone is None:
            if not answer.answer:
                answer.set_rcode(dns.rcode.REFUSED)
            return
        held = self._rrsets(zone[1])
        found = [rrset for rrset in held if rrset.name == name and rrset.rdtype in (rdtype, dns.rdatatype.CNAME)]
        answer.answer += found
        if not found:
            answer.authority = [rrset for rrset in held if rrset.rdtype == dns.rdatatype.SOA]
            if not any(rrset.name.is_subdomain(name) for rrset in held):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        elif rdtype not in {rrset.rdtype for rrset in found}:
            target = dns.name.from_text(found[0][0].to_text())
            if target not in {rrset.name for rrset in answer.answer}:
                self._look_up(target, rdtype, answer)

    def _zone_of(self, name: dns.name.Name) -> tuple[dns.name.Name, str] | None:
        pages = self.client.get_paginator("list_hosted_zones").paginate()
        zones = [(dns.name.from_text(zone["Name"]), zone["Id"]) for page in pages for zone in page["HostedZones"]]
        return max((zone for zone in zones if name.is_subdomain(zone[0])), key=lambda zone: len(zone[0]), default=None)

    def _rrsets(self, zone_id: str) -> list[dns.rrset.RRset]:
        pages = self.client.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone_id)
        return [
            dns.rrset.from_text_list(
                dns.name.from_text(held["Name"]),
                held["TTL"],
                "IN",
                held["Type"],
                [_zone_file_form(record["Value"]) for record in held["ResourceRecords"]],
            )
            for page in pages
            for held in page["ResourceRecordSets"]
            if "ResourceRecords" in held
        ]


def _zone_file_form(value: str) -> str:
    """A record's value; moto gives the zone's own SOA as ``{'Value': '...'}``."""
    return value.removeprefix("{'Value': '").removesuffix("'}")
