"""Looks in DNS at what an order would meet: at the resolvers, and at each authoritative server itself. It writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.CAA
import dns.rdtypes.ANY.DNSKEY
import dns.rdtypes.ANY.DS
import dns.rdtypes.ANY.TXT
import dns.rrset

from application.errors import EgressRefused, ResolverFailed
from application.provider_config import host_and_port
from domain.caa import CaaRecord
from domain.challenge import dns01_record_name
from domain.dns_survey import (
    CaaLookUp,
    ChainEnd,
    Hop,
    LookUp,
    NameSeen,
    ServerSeen,
    ServerStatus,
    TxtSeen,
    Wildcard,
    ZoneSeen,
)
from interfaces.dns.egress import Egress
from interfaces.dns.look_ups import LookUps, Resolved, Time, status_of, text_of
from interfaces.dns.questions import answers_over_tcp, ask
from interfaces.dns.recursion import DNS_PORT, MOST_ADDRESSES, MOST_CNAMES, MOST_SERVERS, PROBE_LABEL
from interfaces.dns.resolver import has_route
from interfaces.dns.txt_strings import txt_value
from interfaces.foreign_text import clean

MOST_THREADS = 16
SURVEY_SECONDS = 16.0
TIMEOUT_SECONDS = 2.0
WILDCARD_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.TXT, dns.rdatatype.MX)


class Server(NamedTuple):
    """An address to ask, and how it is called; no address where the name has none, or it must not be dialled."""

    name: str
    address: str | None
    port: int
    status: ServerStatus = "not_asked"


class Path(NamedTuple):
    """Where the aliases of a challenge's record lead."""

    hops: tuple[Hop, ...]
    chain_end: ChainEnd
    end: dns.name.Name
    failed: tuple[LookUp, ...]


class Place(NamedTuple):
    """A name so far: all that the resolvers know of it. `apex` is that of the zone where its aliases end."""

    dns_name: str
    record: dns.name.Name
    caa: tuple[CaaLookUp, ...]
    zone: dns.name.Name | None
    path: Path
    apex: dns.name.Name | None
    wildcard: Wildcard | None
    failed: tuple[LookUp, ...]


class Surroundings(NamedTuple):
    """A zone's apex, and the servers that were given for it instead of its own."""

    apex: dns.name.Name
    nameservers: tuple[str, ...]


class ResolvingSurvey:
    """DnsSurvey. `resolvers` (`address:port`) are the recursive ones, none: the host's own; authoritative servers listen at
    `port`, and nobody is asked among them whom `egress` refuses."""

    def __init__(
        self,
        egress: Egress,
        resolvers: Sequence[str] = (),
        *,
        seconds: float = SURVEY_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        port: int = DNS_PORT,
    ) -> None:
        self._egress = egress
        self._resolvers = tuple(resolvers)
        self._seconds = seconds
        self._timeout_seconds = timeout_seconds
        self._port = port

    def look(self, dns_names: Sequence[str], nameservers: Mapping[str, Sequence[str]]) -> Sequence[NameSeen]:
        time_left = Time(self._seconds, self._timeout_seconds)
        survey = _Survey(self._egress, LookUps(self._resolvers, time_left), time_left, self._port)
        with ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="survey") as pool:
            places = list(pool.map(survey.place, dns_names))
            around = [_surroundings(place, nameservers) for place in places]
            zones = list(dict.fromkeys(each for each in around if each is not None))
            servers = dict(zip(zones, pool.map(survey.servers, zones), strict=True))
            asked = [(zone, server) for zone in zones for server in servers[zone]]
            seen = dict(
                zip(asked, pool.map(lambda each: survey.server_seen(each[0].apex, each[1]), asked), strict=True)
            )
            zones_seen = dict(
                zip(
                    zones,
                    pool.map(lambda zone: survey.zone_seen(zone, [seen[zone, one] for one in servers[zone]]), zones),
                    strict=True,
                )
            )
            questions = [
                (place.path.end, server)
                for place, zone in zip(places, around, strict=True)
                if zone is not None
                for server in servers[zone]
                if seen[zone, server].status == "authoritative"
            ]
            distinct = list(dict.fromkeys(questions))
            txt = dict(zip(distinct, pool.map(lambda each: survey.txt_seen(*each), distinct), strict=True))
        return [
            NameSeen(
                dns_name=place.dns_name,
                record_name=text_of(place.record),
                caa=place.caa,
                zone=text_of(place.zone) if place.zone is not None else None,
                look_ups=(*place.failed, *place.path.failed),
                hops=place.path.hops,
                chain_end=place.path.chain_end,
                end=text_of(place.path.end),
                wildcard=place.wildcard,
                zone_seen=zones_seen[zone] if zone is not None else None,
                txt=tuple(
                    txt[place.path.end, server]
                    for server in (servers[zone] if zone is not None else ())
                    if (place.path.end, server) in txt
                ),
            )
            for place, zone in zip(places, around, strict=True)
        ]


def _surroundings(place: Place, nameservers: Mapping[str, Sequence[str]]) -> Surroundings | None:
    """Those that are given serve the name itself, not what its aliases lead to."""
    if place.apex is None:
        return None
    is_led_away = place.path.end != place.record
    return Surroundings(place.apex, () if is_led_away else tuple(nameservers.get(place.dns_name, ())))


class _Survey:
    """One survey, in many threads at once."""

    def __init__(self, egress: Egress, look_ups: LookUps, time_left: Time, port: int) -> None:
        self._egress = egress
        self._look_ups = look_ups
        self._time = time_left
        self._port = port

    # --- what the resolvers say ---

    def place(self, dns_name: str) -> Place:
        base = dns.name.from_text(dns_name)
        record = dns.name.from_text(dns01_record_name(dns_name))
        caa = tuple(self._caa(base))
        path = self._path(record)
        zone, failed = self._apex(record.parent() if path.hops else record)  # no zone has its apex at an alias
        wildcard = self._wildcard(base, zone) if zone is not None else None
        if not path.hops:
            return Place(dns_name, record, caa, zone, path, zone, wildcard, failed)
        if wildcard is not None and path.hops[0].target == wildcard.cname_target:
            # A value that is written at the name will be served by its own zone: the wildcard gives way to it.
            return Place(dns_name, record, caa, zone, Path(path.hops, "end", record, ()), zone, wildcard, failed)
        apex, more = self._apex(path.end) if path.chain_end == "end" else (None, ())
        return Place(dns_name, record, caa, zone, path, apex, wildcard, (*failed, *more))

    def _caa(self, base: dns.name.Name) -> Iterator[CaaLookUp]:
        """Upwards to the first records or failure, the top-level domain included (RFC 8659 §3)."""
        for name in _upwards(base):
            found = self._look_ups.look_up(name, dns.rdatatype.CAA)
            records = tuple(
                CaaRecord(rdata.flags, rdata.tag.decode(errors="replace"), clean(rdata.value.decode(errors="replace")))
                for rrset in found.rrsets(dns.rdatatype.CAA)
                for rdata in rrset
                if isinstance(rdata, dns.rdtypes.ANY.CAA.CAA)
            )
            yield CaaLookUp(text_of(name), found.look_up, records)
            if records or found.look_up.status not in {"empty", "absent", "found"}:
                return

    def _apex(self, name: dns.name.Name) -> tuple[dns.name.Name | None, tuple[LookUp, ...]]:
        """The owner of the SOA that is given for the name or with the denial (RFC 2308 §3), and the look-ups that failed
        on the way: none of them matters once a zone is found that was asked for the name itself."""
        failed: list[LookUp] = []
        for asked in _upwards(name, with_root=True):
            found = self._look_ups.look_up(asked, dns.rdatatype.SOA)
            if found.look_up.status not in {"found", "empty", "absent"}:
                failed.append(found.look_up)
                if not found.look_up.is_bogus:
                    return None, tuple(failed)
            if any(rrset.name == asked for rrset in found.rrsets(dns.rdatatype.CNAME)):
                continue  # the SOA beside it is about the zone that it leads to
            for rrset in found.rrsets(dns.rdatatype.SOA, authority=True):
                if asked.is_subdomain(rrset.name):
                    return rrset.name, tuple(failed)
        return None, tuple(failed)

    def _path(self, record: dns.name.Name) -> Path:
        hops: list[Hop] = []
        passed = [record]
        while True:
            here = passed[-1]
            found = self._look_ups.look_up(here, dns.rdatatype.CNAME)
            targets = [
                rdata.target for rrset in found.rrsets(dns.rdatatype.CNAME) if rrset.name == here for rdata in rrset
            ]
            if found.look_up.status not in {"found", "empty", "absent"} and not targets:
                # A DNAME or CNAME that runs in a circle is answered by some resolvers with a failure.
                return Path(tuple(hops), "unknown", here, (found.look_up,))
            if not targets:
                return Path(tuple(hops), "end", here, ())
            hops.append(Hop(text_of(here), text_of(targets[0]), _dname(found, here)))
            if targets[0] in passed:
                return Path(tuple(hops), "loop", targets[0], ())
            if len(hops) > MOST_CNAMES:
                return Path(tuple(hops), "too_long", targets[0], ())
            passed.append(targets[0])

    def _wildcard(self, base: dns.name.Name, zone: dns.name.Name) -> Wildcard | None:
        """The one that answers for names below the base that nobody wrote. It is looked for by its own name, from the apex
        down: what a lower one would say like the one above it comes from that, for there is no lower one."""
        probe = dns.name.from_text(PROBE_LABEL, base)
        if not self._is_there(probe, dns.rdatatype.TXT):
            return None
        nearest: tuple[dns.name.Name, Mapping[str, tuple[str, ...]]] | None = None
        for above in reversed([name for name in _upwards(base) if name.is_subdomain(zone)]):
            owner = dns.name.from_text("*", above)
            held = self._held(owner, WILDCARD_TYPES)
            if nearest is None or held != nearest[1]:
                nearest = (owner, held) if held else None
            else:
                break
        if nearest is None:
            return None
        owner, held = nearest
        first, values = next(iter(held.items()))
        # Some servers deny nothing and say that every name is there (RFC 9824): the wildcard's own records have to come.
        if self._held(probe, [dns.rdatatype.from_text(first)]) != {first: values}:
            return None
        alias = held.get("CNAME")
        return Wildcard(text_of(owner), tuple(held), alias[0] if alias else None, held.get("TXT", ()))

    def _is_there(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> bool:
        found = self._look_ups.look_up(name, rdtype)
        return found.look_up.status in {"found", "empty"} or bool(found.rrsets(dns.rdatatype.CNAME))

    def _held(self, name: dns.name.Name, rdtypes: Sequence[dns.rdatatype.RdataType]) -> Mapping[str, tuple[str, ...]]:
        """By type what stands at a name, or its CNAME alone."""
        held = {}
        for rdtype in rdtypes:
            found = self._look_ups.look_up(name, rdtype)
            alias = [
                rdata.target for rrset in found.rrsets(dns.rdatatype.CNAME) if rrset.name == name for rdata in rrset
            ]
            if alias:
                return {"CNAME": (text_of(alias[0]),)}
            texts = [rdata for rrset in found.rrsets(rdtype) if rrset.name == name for rdata in rrset]
            if texts:
                held[dns.rdatatype.to_text(rdtype)] = tuple(sorted(_text(rdata) for rdata in texts))
        return held

    # --- what the authoritative servers say ---

    def servers(self, zone: Surroundings) -> Sequence[Server]:
        """Each address of the zone's own servers, or of those given: at most sixteen servers and 32 addresses."""
        if zone.nameservers:
            return [server for given in zone.nameservers for server in self._given(given)][:MOST_ADDRESSES]
        return self._own_servers(zone.apex)[:MOST_ADDRESSES]

    def _own_servers(self, apex: dns.name.Name) -> Sequence[Server]:
        found = self._look_ups.look_up(apex, dns.rdatatype.NS)
        named: Sequence[dns.name.Name] = sorted(
            {rdata.target for rrset in found.rrsets(dns.rdatatype.NS) for rdata in rrset if rrset.name == apex}
        )
        if not named and apex != dns.name.root and not self._time.is_over:
            # The zone does not name its own servers, as our embedded responder may not: those above it know.
            zone_above, _ = self._apex(apex.parent())
            above = self._own_servers(zone_above) if zone_above is not None else ()
            named = self._referred(apex, above)
            if not named:
                return above
        return [server for name in named[:MOST_SERVERS] for server in self._of_name(name)]

    def _referred(self, apex: dns.name.Name, above: Sequence[Server]) -> Sequence[dns.name.Name]:
        """The servers that the zone above delegates to; none where it is served by the same ones."""
        for server in above:
            answer = self._ask(server, apex, dns.rdatatype.NS)
            if answer is not None and answer.rcode() == dns.rcode.NOERROR:
                held = [rrset for rrset in (*answer.answer, *answer.authority) if rrset.rdtype == dns.rdatatype.NS]
                return sorted({rdata.target for rrset in held if rrset.name == apex for rdata in rrset})
        return ()

    def _given(self, nameserver: str) -> Sequence[Server]:
        host, port = host_and_port(nameserver)
        if self._time.is_over:
            return [Server(nameserver, None, port)]
        try:
            return [Server(nameserver, address, port) for address in self._egress.addresses(host, port)]
        except EgressRefused:
            return [Server(nameserver, None, port, "forbidden")]
        except ResolverFailed:
            return [Server(nameserver, None, port, "no_address")]

    def _of_name(self, name: dns.name.Name) -> Sequence[Server]:
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        found = [self._look_ups.look_up(name, rdtype) for rdtype in kinds]
        addresses = sorted(
            {
                rdata.address
                for answer, rdtype in zip(found, kinds, strict=True)
                for rrset in answer.rrsets(rdtype)
                for rdata in rrset
            }
        )
        if not addresses:
            late = any(answer.look_up.status == "not_asked" for answer in found)
            return [Server(text_of(name), None, self._port, "not_asked" if late else "no_address")]
        return [self._judged(f"{text_of(name)} ({address})", address) for address in addresses]

    def _judged(self, name: str, address: str) -> Server:
        try:
            self._egress.addresses(address, self._port)
        except (EgressRefused, ResolverFailed):
            return Server(name, None, self._port, "forbidden")
        if not has_route(address):
            return Server(name, None, self._port, "no_route")
        return Server(name, address, self._port)

    def server_seen(self, apex: dns.name.Name, server: Server) -> ServerSeen:
        if server.address is None:
            return ServerSeen(server.name, server.status, UNASKED[server.status])
        answer = self._ask(server, apex, dns.rdatatype.SOA)
        if answer is None:
            over = self._time.is_over
            return ServerSeen(server.name, "not_asked" if over else "unanswered", "no answer")
        soa = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.SOA and rrset.name == apex]
        if answer.rcode() != dns.rcode.NOERROR or not answer.flags & dns.flags.AA or not soa:
            return ServerSeen(server.name, "lame", _lame_text(answer))
        serial = int(soa[0][0].serial)
        over_tcp = None
        if not self._time.is_over:
            over_tcp = answers_over_tcp(server.address, server.port, apex, dns.rdatatype.SOA, self._time.for_a_try)
        return ServerSeen(server.name, "authoritative", f"serial {serial}", serial, over_tcp)

    def zone_seen(self, zone: Surroundings, servers: Sequence[ServerSeen]) -> ZoneSeen:
        soa = self._look_ups.look_up(zone.apex, dns.rdatatype.SOA).look_up
        ds = self._look_ups.look_up(zone.apex, dns.rdatatype.DS)
        if ds.look_up.status != "found":
            return ZoneSeen(text_of(zone.apex), tuple(servers), soa, ds.look_up)
        by_name = {server.name: server for server in self.servers(zone)}
        with_keys, keys = [], []
        for seen in servers:
            if seen.status != "authoritative":
                with_keys.append(seen)
                continue
            answer = self._ask(by_name[seen.server], zone.apex, dns.rdatatype.DNSKEY)
            found = _rdata(answer, dns.rdatatype.DNSKEY)
            known = answer is not None and answer.rcode() == dns.rcode.NOERROR
            with_keys.append(
                ServerSeen(
                    seen.server, seen.status, seen.said, seen.serial, seen.over_tcp, bool(found) if known else None
                )
            )
            keys += found
        match = _keys_match(zone.apex, ds, keys) if keys else None
        return ZoneSeen(text_of(zone.apex), tuple(with_keys), soa, ds.look_up, match)

    def txt_seen(self, name: dns.name.Name, server: Server) -> TxtSeen:
        answer = self._ask(server, name, dns.rdatatype.TXT)
        status = "not_asked" if answer is None and self._time.is_over else status_of(answer, dns.rdatatype.TXT)
        if answer is None:
            return TxtSeen(server.name, status)
        values = tuple(sorted(_text(rdata) for rdata in _rdata(answer, dns.rdatatype.TXT)))
        return TxtSeen(server.name, status, values, len(answer.wire or b"") if values else 0)

    def _ask(
        self, server: Server, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> dns.message.QueryMessage | None:
        """Of one whose address was judged."""
        if server.address is None or self._time.is_over:
            return None
        seconds = self._time.for_a_try
        return ask(server.address, server.port, name, rdtype, recursion=False, timeout_seconds=seconds)


UNASKED: Mapping[ServerStatus, str] = {
    "no_address": "its name has no address",
    "no_route": "not asked: there is no route to it from here",
    "forbidden": "not asked: its address must not be dialled",
    "not_asked": "not asked, for want of time",
}


def _lame_text(answer: dns.message.QueryMessage) -> str:
    if answer.rcode() != dns.rcode.NOERROR:
        return dns.rcode.to_text(answer.rcode())
    return "no SOA" if answer.flags & dns.flags.AA else "an answer that is not authoritative"


def _rdata(answer: dns.message.QueryMessage | None, rdtype: dns.rdatatype.RdataType) -> list[dns.rdata.Rdata]:
    return [rdata for rrset in (answer.answer if answer else ()) if rrset.rdtype == rdtype for rdata in rrset]


def _keys_match(apex: dns.name.Name, ds: Resolved, keys: Sequence[dns.rdata.Rdata]) -> bool | None:
    """Whether one of the keys is one that the zone above knows; None where it knows them by digests that we do not."""
    held = [rdata for rrset in ds.rrsets(dns.rdatatype.DS) for rdata in rrset]
    known = False
    for digest in held:
        for key in keys:
            if not isinstance(digest, dns.rdtypes.ANY.DS.DS) or not isinstance(key, dns.rdtypes.ANY.DNSKEY.DNSKEY):
                continue
            try:
                made = dns.dnssec.make_ds(apex, key, digest.digest_type, validating=True)
            except dns.exception.DNSException:
                continue
            known = True
            if made == digest:
                return True
    return False if known else None


def _text(rdata: dns.rdata.Rdata) -> str:
    return clean(txt_value(rdata.strings) if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT) else rdata.to_text())


def _dname(found: Resolved, name: dns.name.Name) -> str | None:
    return next(
        (text_of(rrset.name) for rrset in found.rrsets(dns.rdatatype.DNAME) if name.is_subdomain(rrset.name)), None
    )


def _upwards(name: dns.name.Name, *, with_root: bool = False) -> Iterator[dns.name.Name]:
    while name != dns.name.root:
        yield name
        name = name.parent()
    if with_root:
        yield name
