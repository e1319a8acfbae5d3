"""Dynamic updates (RFC 2136) signed by TSIG (RFC 8945), over TCP.

Adding and deleting single values is what the protocol itself does: no reading, no lock, no record of others touched."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Annotated, Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
import msgspec
from dns.rdtypes.ANY.TXT import TXT

from application.errors import Failure, ResolverFailed, ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess, TxtValue
from domain.names import base_name
from interfaces.dns.egress import Egress
from interfaces.dns.frames import read_frame, write_frame
from interfaces.dns.provider_types import ProviderType, Surroundings
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.txt_strings import txt_strings
from interfaces.foreign_text import clean

TIMEOUT_SECONDS = 10.0
ANSWERED = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)  # the server has said something about the name

Algorithm = Literal["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"]
Base64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)\Z"
HostName = r"^[A-Za-z0-9:]([A-Za-z0-9.:_-]{0,252})\Z"
KeyName = r"^(?=.{1,253}\.?\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?\Z"


class Rfc2136Config(msgspec.Struct, frozen=True):
    """`server` is a name or an address: the primary, which takes the updates."""

    server: Annotated[str, msgspec.Meta(pattern=HostName)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 53


class Rfc2136Credentials(Credentials, frozen=True):
    """`tsig_secret` in base64, as `tsig-keygen` prints it."""

    tsig_key_name: Annotated[str, msgspec.Meta(pattern=KeyName)]
    tsig_secret: Annotated[str, msgspec.Meta(pattern=Base64)]
    tsig_algorithm: Algorithm = "hmac-sha256"


class Rfc2136Zone:
    """DnsZone over one server and one key."""

    def __init__(
        self,
        config: Rfc2136Config,
        credentials: Rfc2136Credentials,
        managed_zones: Sequence[str],
        ttl_seconds: int,
        egress: Egress,
    ) -> None:
        self._config = config
        self._key = dns.tsig.Key(credentials.tsig_key_name, credentials.tsig_secret, credentials.tsig_algorithm)
        self._managed_zones = tuple(managed_zones)
        self._ttl_seconds = ttl_seconds
        self._egress = egress

    def add(self, values: Sequence[TxtValue]) -> None:
        for update, here in self._updates(values):
            for value in here:
                update.add(_absolute(value.record_name), self._ttl_seconds, _txt(value.value))
            self._send(update)

    def remove(self, values: Sequence[TxtValue]) -> None:
        for update, here in self._updates(values):
            for value in here:
                update.delete(_absolute(value.record_name), _txt(value.value))
            self._send(update)

    def zones(self) -> Sequence[str]:
        """The zones of this server that hold a managed zone, as it says itself."""
        held = (self._zone_of(_absolute(base_name(zone))) for zone in self._managed_zones)
        return sorted({zone.to_text(omit_final_dot=True).lower() for zone in held if zone is not None})

    def _updates(self, values: Sequence[TxtValue]) -> Sequence[tuple[dns.update.UpdateMessage, Sequence[TxtValue]]]:
        """One empty message for each zone that is concerned, and what goes into it."""
        by_zone: dict[dns.name.Name, list[TxtValue]] = {}
        for record_name in dict.fromkeys(value.record_name for value in values):
            zone = self._zone_of(_absolute(record_name))
            if zone is None:
                raise ZoneRefused("zone_not_found", f"{self._config.server} serves no zone that holds {record_name}")
            by_zone.setdefault(zone, []).extend(value for value in values if value.record_name == record_name)
        return [(dns.update.UpdateMessage(zone, keyring=self._key), here) for zone, here in by_zone.items()]

    def _zone_of(self, name: dns.name.Name) -> dns.name.Name | None:
        """The apex of the zone that holds the name, by the SOA that the server answers with, or denies with."""
        asked = name
        while asked != dns.name.root:
            query = dns.message.make_query(asked, dns.rdatatype.SOA, flags=0)
            query.use_tsig(self._key)
            answer = self._ask(query)
            if answer.rcode() == dns.rcode.SERVFAIL:
                raise ZoneUnreachable(f"{self._config.server}: SERVFAIL for {asked.to_text(omit_final_dot=True)}")
            if answer.rcode() == dns.rcode.NOERROR and not answer.flags & dns.flags.AA and answer.authority:
                return None  # a referral: the name is delegated to somebody else
            apex = _apex_in(answer, asked)
            if apex is not None:
                return apex
            asked = asked.parent()
        return None

    def _send(self, update: dns.update.UpdateMessage) -> None:
        rcode = self._ask(update).rcode()
        if rcode != dns.rcode.NOERROR:
            raise _refusal(rcode, f"{self._config.server}: {dns.rcode.to_text(rcode)}")

    def _ask(self, message: dns.message.Message) -> dns.message.Message:
        """The answer of the first address that gives any."""
        server, port = self._config.server, self._config.port
        try:
            addresses = self._egress.addresses(server, port)
        except ResolverFailed as failure:
            raise ZoneUnreachable(failure.detail) from failure
        silence = "no address"
        for address in addresses:
            try:
                with socket.create_connection((address, port), TIMEOUT_SECONDS) as connection:
                    write_frame(connection, message.to_wire(), TIMEOUT_SECONDS)
                    wire = read_frame(connection, TIMEOUT_SECONDS)
                return self._verified(wire, message)
            except OSError as error:
                silence = str(error)
            except dns.exception.DNSException as error:
                raise _distrust(server, error) from error
        raise ZoneUnreachable(clean(f"{server}: {silence}"))

    def _verified(self, wire: bytes, message: dns.message.Message) -> dns.message.Message:
        """An unsigned error is taken at its word: Knot signs none about zones that it does not have."""
        answer = dns.message.from_wire(wire, keyring=False)
        if not message.is_response(answer):
            raise dns.query.BadResponse
        if not answer.had_tsig and answer.rcode() not in ANSWERED:
            return answer
        return dns.message.from_wire(wire, keyring=self._key, request_mac=message.mac)


def _absolute(name: str) -> dns.name.Name:
    """Raises ZoneRefused for what is no DNS name, as a long one is not any more with a label before it."""
    try:
        return dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise ZoneRefused("zone_not_found", clean(f"{name} is no DNS name: {error}")) from error


def _apex_in(answer: dns.message.Message, asked: dns.name.Name) -> dns.name.Name | None:
    """None also for a CNAME: the SOA beside it is about the zone that it leads to."""
    if answer.rcode() not in ANSWERED or not answer.flags & dns.flags.AA:
        return None
    if any(rrset.rdtype == dns.rdatatype.CNAME for rrset in answer.answer):
        return None
    soas = [rrset for rrset in (*answer.answer, *answer.authority) if rrset.rdtype == dns.rdatatype.SOA]
    return next((soa.name for soa in soas if asked.is_subdomain(soa.name)), None)


def _txt(value: str) -> TXT:
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, txt_strings(value))


def _refusal(rcode: dns.rcode.Rcode, detail: str) -> Failure:
    """RFC 2136 §2.2. What has to do with the key came as an error of the TSIG already."""
    match rcode:
        case dns.rcode.REFUSED | dns.rcode.NOTIMP:
            return ZoneRefused("permission_missing", detail)
        case dns.rcode.NOTAUTH | dns.rcode.NOTZONE:
            return ZoneRefused("zone_not_found", detail)
        case _:
            return ZoneUnreachable(detail)


def _distrust(server: str, error: dns.exception.DNSException) -> Failure:
    """An answer that is not signed as it must be, or is no DNS at all."""
    detail = clean(f"{server}: {error}")
    unsigned = isinstance(error, dns.exception.FormError) and "requires a TSIG" in str(error)
    mistrusted = dns.tsig.PeerError, dns.tsig.BadAlgorithm, dns.tsig.BadKey, dns.tsig.BadSignature, dns.tsig.BadTime
    if unsigned or isinstance(error, mistrusted):
        return ZoneRefused("credentials_rejected", detail)
    return ZoneUnreachable(detail)


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, Rfc2136Config, Rfc2136Credentials)
    return Rfc2136Zone(config, credentials, access.managed_zones, common.ttl_seconds, around.egress)


TYPE = ProviderType(
    name="rfc2136",
    title="Dynamic updates (RFC 2136): BIND, Knot, PowerDNS, Windows and others",
    config=Rfc2136Config,
    credentials=Rfc2136Credentials,
    connect=connect,
    least_privilege="A TSIG key of its own that may change TXT records below `_acme-challenge` names alone.",
    policy={"bind": "update-policy { grant KEY name _acme-challenge.ZONE. TXT; };"},
    verify_checks="The server is asked, with the key, for the zones that hold the managed ones.",
)
