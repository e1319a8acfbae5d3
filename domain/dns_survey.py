"""What was seen in DNS about the names of a certificate, before anything is ordered. Only what was seen: what to make of it
is in `preflight.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from domain.caa import CaaRecord

Status = Literal["found", "empty", "absent", "failed", "refused", "unanswered", "not_asked"]
"""`empty`: the name is there, but nothing of that type; `absent`: NXDOMAIN; `failed`: SERVFAIL; `refused`: another error;
`not_asked`: there was no time left."""

ChainEnd = Literal["end", "loop", "too_long", "unknown"]
ServerStatus = Literal["authoritative", "lame", "unanswered", "no_address", "no_route", "forbidden", "not_asked"]

STATUS_TEXTS: dict[Status, str] = {
    "found": "an answer",
    "empty": "no such record",
    "absent": "NXDOMAIN",
    "failed": "SERVFAIL",
    "refused": "an error",
    "unanswered": "no answer",
    "not_asked": "not asked, for want of time",
}


@dataclass(frozen=True)
class LookUp:
    """A question to the recursive resolvers, such as `SOA acme.example`, and what came. `unchecked` is what came to the
    same with checking disabled (RFC 4035 §3.2.2), after a SERVFAIL; `authenticated` what they say of themselves (AD)."""

    question: str
    status: Status
    values: tuple[str, ...] = ()
    authenticated: bool = False
    unchecked: Status | None = None

    @property
    def is_bogus(self) -> bool:
        """Answered only where nobody checks."""
        return self.status == "failed" and self.unchecked in {"found", "empty", "absent"}

    @property
    def text(self) -> str:
        said = ", ".join(self.values) if self.values and self.status == "found" else STATUS_TEXTS[self.status]
        return f"{said}, with checking disabled {STATUS_TEXTS[self.unchecked]}" if self.unchecked else said


@dataclass(frozen=True)
class CaaLookUp:
    dns_name: str
    look_up: LookUp
    records: tuple[CaaRecord, ...] = ()


@dataclass(frozen=True)
class Hop:
    """One step of a chain of aliases. `dname` is the owner of the DNAME that made it (RFC 6672)."""

    owner: str
    target: str
    dname: str | None = None


@dataclass(frozen=True)
class Wildcard:
    """The wildcard, such as `*.acme.example`, that answers for a name nobody wrote below the one asked about. `types` are
    those of its records that were found."""

    owner: str
    types: tuple[str, ...]
    cname_target: str | None = None
    txt: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServerSeen:
    """One address of an authoritative server, asked for its zone's SOA over UDP and over TCP. `server` is a name with its
    address, `said` what came in words."""

    server: str
    status: ServerStatus
    said: str
    serial: int | None = None
    over_tcp: bool | None = None
    has_dnskey: bool | None = None


@dataclass(frozen=True)
class ZoneSeen:
    """`ds` is what the zone above says of this one's keys. `keys_match` is whether a DNSKEY of the servers is one of those,
    None where there is nothing to compare."""

    apex: str
    servers: tuple[ServerSeen, ...]
    soa: LookUp
    ds: LookUp
    keys_match: bool | None = None


@dataclass(frozen=True)
class TxtSeen:
    """The values that one server has where the challenge's record ends. `octets` is the size of its whole answer."""

    server: str
    status: Status
    values: tuple[str, ...] = ()
    octets: int = 0


@dataclass(frozen=True)
class NameSeen:
    """One name without a wildcard's `*.`. `caa` climbs, and ends with the first records or failure; `zone` is the apex of
    the zone in which the challenge's record itself would stand; `end`, `zone_seen` and `txt` are about where its aliases
    lead, unless they are a wildcard's, which gives way to what is written."""

    dns_name: str
    record_name: str
    caa: tuple[CaaLookUp, ...]
    zone: str | None
    look_ups: tuple[LookUp, ...]
    hops: tuple[Hop, ...]
    chain_end: ChainEnd
    end: str
    wildcard: Wildcard | None
    zone_seen: ZoneSeen | None
    txt: tuple[TxtSeen, ...]
