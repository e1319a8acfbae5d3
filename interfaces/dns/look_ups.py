"""Questions to the recursive resolvers whose failures are of interest too: each once in a survey, and all in its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from ipaddress import ip_address
from threading import Lock

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from application.provider_config import host_and_port
from domain.dns_survey import LookUp, Status
from interfaces.dns.questions import TRIES, ask
from interfaces.dns.recursion import hosts_own
from interfaces.foreign_text import clean

SHORTEST_SECONDS = 0.2  # with less time left nobody is asked any more
SAID = frozenset({"found", "empty", "absent"})


class Time:
    """What is left of a survey's time. No question takes longer."""

    def __init__(self, seconds: float, timeout_seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self._timeout_seconds = timeout_seconds

    @property
    def is_over(self) -> bool:
        return self._ends_at - time.monotonic() < SHORTEST_SECONDS

    @property
    def for_a_try(self) -> float:
        left = max(SHORTEST_SECONDS, self._ends_at - time.monotonic())
        return min(self._timeout_seconds, left / TRIES)


class Resolved:
    """A question's answer: in words, and as it came. `answer` is what came with checking disabled where nothing else did."""

    def __init__(self, look_up: LookUp, answer: dns.message.QueryMessage | None) -> None:
        self.look_up = look_up
        self._answer = answer

    def rrsets(self, rdtype: dns.rdatatype.RdataType, *, authority: bool = False) -> Sequence[dns.rrset.RRset]:
        """Those of a type in the answer, and in the authority section with it where wished."""
        if self._answer is None:
            return ()
        sections = (*self._answer.answer, *(self._answer.authority if authority else ()))
        return [rrset for rrset in sections if rrset.rdtype == rdtype]


class LookUps:
    """`resolvers` are `address:port`; none of them: the host's own."""

    def __init__(self, resolvers: Sequence[str], time_left: Time) -> None:
        self._resolvers = [(str(ip_address(host)), port) for host, port in map(host_and_port, resolvers)]
        self._time = time_left
        self._known: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], Resolved] = {}
        self._lock = Lock()

    def look_up(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Resolved:
        """Asked once; two threads at the same moment may both ask."""
        with self._lock:
            known = self._known.get((name, rdtype))
        if known is None:
            known = self._look_up(name, rdtype)
            with self._lock:
                self._known[name, rdtype] = known
        return known

    def _look_up(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Resolved:
        """What the first resolver says that says anything but an error; else what the last one said that said something."""
        question = f"{dns.rdatatype.to_text(rdtype)} {text_of(name)}"
        best = Resolved(LookUp(question, "unanswered"), None)
        for resolver in self._resolvers or hosts_own():
            if self._time.is_over:
                return best if best.look_up.status != "unanswered" else Resolved(LookUp(question, "not_asked"), None)
            found = self._ask(question, resolver, name, rdtype)
            if found.look_up.status in SAID or found.look_up.is_bogus:
                return found
            if found.look_up.status != "unanswered":
                best = found
        return best

    def _ask(
        self, question: str, resolver: tuple[str, int], name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> Resolved:
        seconds = self._time.for_a_try
        answer = ask(*resolver, name, rdtype, recursion=True, timeout_seconds=seconds, flags=dns.flags.AD)
        status = status_of(answer, rdtype)
        if status != "failed" or self._time.is_over:
            authenticated = answer is not None and bool(answer.flags & dns.flags.AD)
            return Resolved(LookUp(question, status, _values(answer, rdtype), authenticated), answer)
        seconds = self._time.for_a_try
        unchecked = ask(*resolver, name, rdtype, recursion=True, timeout_seconds=seconds, flags=dns.flags.CD)
        look_up = LookUp(question, status, unchecked=status_of(unchecked, rdtype))
        return Resolved(look_up, unchecked if look_up.is_bogus else answer)


def status_of(answer: dns.message.QueryMessage | None, rdtype: dns.rdatatype.RdataType) -> Status:
    if answer is None:
        return "unanswered"
    match answer.rcode():
        case dns.rcode.NOERROR:
            return "found" if any(rrset.rdtype == rdtype for rrset in answer.answer) else "empty"
        case dns.rcode.NXDOMAIN:
            return "absent"
        case dns.rcode.SERVFAIL:
            return "failed"
        case _:
            return "refused"


def _values(answer: dns.message.QueryMessage | None, rdtype: dns.rdatatype.RdataType) -> tuple[str, ...]:
    """In the form of zone files, sorted."""
    held = [rrset for rrset in (answer.answer if answer is not None else ()) if rrset.rdtype == rdtype]
    return tuple(sorted(clean(rdata.to_text()) for rrset in held for rdata in rrset))


def text_of(name: dns.name.Name) -> str:
    """Lower case, without the final dot; "" is the root."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()
