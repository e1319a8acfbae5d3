"""The embedded responder: what it answers, and what it lets be."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.errors import StoreUnavailable
from application.ports import TxtValue
from interfaces.dns import embedded_server
from interfaces.dns.embedded_answers import OUR_UDP_BYTES, EmbeddedAnswers
from interfaces.dns.embedded_server import EmbeddedDns
from tests.fakes_dns import MemoryValues
from tests.servers.process import LOOPBACK, free_port, wait_until

ZONES = ("acme.example", "challenges.corp.example")
NAME = "_acme-challenge.www.acme.example"
TIMEOUT = 5.0


@pytest.fixture
def values() -> MemoryValues:
    return MemoryValues()


@pytest.fixture
def responder(values: MemoryValues) -> Iterator[EmbeddedDns]:
    with EmbeddedDns(LOOPBACK, free_port(), values, lambda: ZONES, ["ns.vault.example"]) as running:
        yield running


def answers(values: MemoryValues, *ns_names: str) -> EmbeddedAnswers:
    return EmbeddedAnswers(values, lambda: ZONES, ns_names)


def asked(
    values: MemoryValues, name: str, rdtype: str = "TXT", rdclass: str = "IN", ns_names: tuple[str, ...] = ()
) -> dns.message.Message:
    wire = answers(values, *ns_names).answer(dns.message.make_query(name, rdtype, rdclass).to_wire(), over_tcp=True)
    assert wire is not None
    return dns.message.from_wire(wire)


def texts(message: dns.message.Message) -> list[str]:
    return sorted(rdata.to_text() for rrset in message.answer for rdata in rrset)


def authority(message: dns.message.Message) -> list[str]:
    return [f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)}" for rrset in message.authority]


def test_all_values_of_a_name_are_served_with_authority(responder: EmbeddedDns, values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "apex"), TxtValue(NAME, "wildcard")])
    for ask in (dns.query.udp, dns.query.tcp):
        answer = ask(dns.message.make_query(NAME, "TXT"), LOOPBACK, TIMEOUT, responder.port)
        assert texts(answer) == ['"apex"', '"wildcard"']
        assert answer.flags & dns.flags.AA
        assert not answer.flags & dns.flags.RA
        assert answer.answer[0].ttl == 1


def test_values_at_names_that_cnames_lead_to_are_served(values: MemoryValues) -> None:
    values.add([TxtValue("0b5f.challenges.corp.example", "value")])
    assert texts(asked(values, "0b5f.challenges.corp.example")) == ['"value"']


def test_a_value_of_more_than_255_octets_is_served_whole(values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "x" * 300)])
    assert texts(asked(values, NAME)) == [f'"{"x" * 255}" "{"x" * 45}"']


def test_the_case_of_the_question_is_kept(values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "value")])
    mixed = "_aCmE-chAllenGe.WwW.AcmE.eXample."
    answer = asked(values, mixed)
    assert texts(answer) == ['"value"']
    assert [section[0].name.to_text() for section in (answer.question, answer.answer)] == [mixed, mixed]


@pytest.mark.parametrize(
    "name", ["elsewhere.example", "example", "xacme.example", ".", "_acme-challenge.elsewhere.example"]
)
def test_a_name_outside_of_the_zones_is_refused(values: MemoryValues, name: str) -> None:
    answer = asked(values, name)
    assert (answer.rcode(), answer.flags & dns.flags.AA, authority(answer)) == (dns.rcode.REFUSED, 0, [])


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "CNAME", "CAA", "MX", "DS", "DNSKEY", "TYPE65534"])
def test_another_type_at_a_name_with_values_is_empty_and_not_denied(values: MemoryValues, rdtype: str) -> None:
    values.add([TxtValue(NAME, "value")])
    answer = asked(values, NAME, rdtype)
    assert (answer.rcode(), answer.answer, authority(answer)) == (dns.rcode.NOERROR, [], [f"{NAME}. SOA"])


def test_a_challenge_name_without_values_is_empty_and_not_denied(values: MemoryValues) -> None:
    answer = asked(values, NAME)
    assert (answer.rcode(), answer.answer, authority(answer)) == (dns.rcode.NOERROR, [], [f"{NAME}. SOA"])


def test_a_denial_is_forgotten_after_a_second(values: MemoryValues) -> None:
    (soa,) = asked(values, NAME).authority
    assert (soa.ttl, soa[0].minimum) == (1, 1)


def test_a_name_above_a_challenge_name_is_empty_and_not_denied(values: MemoryValues) -> None:
    answer = asked(values, "www.acme.example", "A")
    assert (answer.rcode(), answer.answer, authority(answer)) == (dns.rcode.NOERROR, [], ["acme.example. SOA"])


@pytest.mark.parametrize("rdtype", ["TXT", "A"])
def test_a_name_below_a_challenge_name_does_not_exist(values: MemoryValues, rdtype: str) -> None:
    answer = asked(values, f"below.{NAME}", rdtype)
    assert (answer.rcode(), authority(answer)) == (dns.rcode.NXDOMAIN, [f"{NAME}. SOA"])


def test_a_name_below_a_challenge_name_exists_when_it_has_values(values: MemoryValues) -> None:
    values.add([TxtValue(f"below.{NAME}", "value")])
    assert asked(values, f"below.{NAME}", "A").rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize("name", ["acme.example", NAME])
def test_a_zone_and_a_challenge_name_have_soa_and_ns_of_their_own(values: MemoryValues, name: str) -> None:
    soa = asked(values, name, "SOA", ns_names=("ns.vault.example",))
    assert texts(soa) == ["ns.vault.example. . 1 3600 600 86400 1"]
    ns = asked(values, name, "NS", ns_names=("ns.vault.example", "ns2.vault.example"))
    assert texts(ns) == ["ns.vault.example.", "ns2.vault.example."]


def test_without_names_for_itself_it_gives_no_ns(values: MemoryValues) -> None:
    answer = asked(values, "acme.example", "NS")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_a_name_between_zone_and_challenge_has_neither_soa_nor_ns(values: MemoryValues) -> None:
    for rdtype in ("SOA", "NS"):
        assert asked(values, "www.acme.example", rdtype, ns_names=("ns.vault.example",)).answer == []


def test_any_gives_one_small_record(values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "value")])
    assert texts(asked(values, NAME, "ANY")) == ['"RFC8482" ""']


@pytest.mark.parametrize(("rdtype", "rdclass"), [("AXFR", "IN"), ("IXFR", "IN"), ("TXT", "CH")])
def test_transfers_and_other_classes_are_refused(values: MemoryValues, rdtype: str, rdclass: str) -> None:
    assert asked(values, "acme.example", rdtype, rdclass).rcode() == dns.rcode.REFUSED


def test_other_operations_are_not_implemented(values: MemoryValues) -> None:
    update = dns.update.UpdateMessage("acme.example")
    update.add(NAME, 60, "TXT", "mine")
    wire = answers(values).answer(update.to_wire(), over_tcp=True)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert (answer.id, answer.opcode(), answer.rcode()) == (update.id, dns.opcode.UPDATE, dns.rcode.NOTIMP)
    assert values.values(NAME) == []


def test_a_response_is_never_answered(values: MemoryValues) -> None:
    query = dns.message.make_query(NAME, "TXT")
    query.flags |= dns.flags.QR
    assert answers(values).answer(query.to_wire(), over_tcp=False) is None


def test_what_is_no_question_gets_a_format_error_no_longer_than_itself(values: MemoryValues) -> None:
    wire = dns.message.make_query(NAME, "TXT").to_wire()
    for garbage in (wire + b"junk", wire[:-3], wire[:12], wire[:4] + b"\0\2" + wire[6:] + wire[12:]):
        answer = answers(values).answer(garbage, over_tcp=False)
        assert answer is not None
        assert (answer[:2], answer[3] & 15, len(answer)) == (wire[:2], dns.rcode.FORMERR, 12)


def test_less_than_a_header_is_dropped(values: MemoryValues) -> None:
    assert [answers(values).answer(b"\0" * length, over_tcp=False) for length in range(12)] == [None] * 12


def header(flags: int, counts: tuple[int, int, int, int]) -> bytes:
    return struct.pack("!6H", 7, flags, *counts)


octets = st.binary(max_size=80)
counts = st.tuples(*[st.integers(0, 3)] * 4)
question = st.just(dns.name.from_text(NAME).to_digestable() + b"\0\x10\0\1")


@given(octets | st.builds(lambda some, then, tail: header(0, some) + then + tail, counts, question | octets, octets))
def test_garbage_is_answered_with_an_error_or_not_at_all(wire: bytes) -> None:
    answer = answers(MemoryValues()).answer(wire, over_tcp=False)
    if answer is not None:
        assert answer[:2] == wire[:2]
        assert len(answer) <= OUR_UDP_BYTES


def test_a_store_that_fails_is_a_server_failure(values: MemoryValues) -> None:
    values.failure = StoreUnavailable("gone")
    assert asked(values, NAME).rcode() == dns.rcode.SERVFAIL


def test_an_unsigned_answer_is_given_to_a_signed_question(values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "value")])
    query = dns.message.make_query(NAME, "TXT")
    query.use_tsig(dns.tsig.Key("somebodys", "d3Jvbmc="))
    wire = answers(values).answer(query.to_wire(), over_tcp=True)
    assert wire is not None
    assert texts(dns.message.from_wire(wire)) == ['"value"']


def test_an_edns_version_to_come_is_told_so(values: MemoryValues) -> None:
    query = dns.message.make_query(NAME, "TXT", use_edns=1)
    wire = answers(values).answer(query.to_wire(), over_tcp=False)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert (answer.rcode(), answer.edns, answer.answer) == (dns.rcode.BADVERS, 0, [])


@pytest.mark.parametrize(
    ("payload", "most"), [(None, 512), (512, 512), (100, 512), (1000, 1000), (4096, OUR_UDP_BYTES)]
)
def test_an_answer_over_udp_is_cut_at_what_the_asker_takes(
    values: MemoryValues, payload: int | None, most: int
) -> None:
    values.add([TxtValue(NAME, f"{number:03}" + "x" * 100) for number in range(30)])
    query = dns.message.make_query(NAME, "TXT", payload=payload)
    wire = answers(values).answer(query.to_wire(), over_tcp=False)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert answer.flags & dns.flags.TC
    assert len(wire) <= most
    assert answer.edns == (-1 if payload is None else 0)


def test_a_cut_answer_comes_whole_over_tcp(responder: EmbeddedDns, values: MemoryValues) -> None:
    values.add([TxtValue(NAME, f"{number:03}" + "x" * 100) for number in range(30)])
    query = dns.message.make_query(NAME, "TXT")
    answer, used_tcp = dns.query.udp_with_fallback(query, LOOPBACK, TIMEOUT, responder.port)
    assert used_tcp
    assert len(texts(answer)) == 30


def test_a_connection_carries_many_questions(responder: EmbeddedDns, values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "value")])
    with socket.create_connection((LOOPBACK, responder.port), TIMEOUT) as connection:
        connection.setblocking(False)
        for _ in range(3):
            answer = dns.query.tcp(dns.message.make_query(NAME, "TXT"), LOOPBACK, TIMEOUT, sock=connection)
            assert texts(answer) == ['"value"']


def test_it_survives_garbage_on_its_sockets(responder: EmbeddedDns, values: MemoryValues) -> None:
    values.add([TxtValue(NAME, "value")])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for garbage in (b"", b"\0", b"\xff" * 4000, b"\0" * 12, header(0, (1, 0, 0, 1)) + b"\xc0\x0c" * 9):
            udp.sendto(garbage, (LOOPBACK, responder.port))
    for garbage in (b"\0", b"\xff\xff", b"\0\0", b"\0\x05hello", b"\xff\xffshort"):
        with socket.create_connection((LOOPBACK, responder.port), TIMEOUT) as tcp:
            tcp.sendall(garbage)
    for ask in (dns.query.udp, dns.query.tcp):
        assert texts(ask(dns.message.make_query(NAME, "TXT"), LOOPBACK, TIMEOUT, responder.port)) == ['"value"']


class DefectiveValues(MemoryValues):
    """Breaks at the first few looks, in a way that nobody foresaw."""

    defects = 2 * embedded_server.UDP_THREADS

    def values(self, record_name: str) -> Sequence[str]:
        if self.defects:
            self.defects -= 1
            raise ZeroDivisionError
        return super().values(record_name)


def test_it_survives_a_defect_of_the_store() -> None:
    values = DefectiveValues()
    values.add([TxtValue(NAME, "value")])
    query = dns.message.make_query(NAME, "TXT")
    with (
        EmbeddedDns(LOOPBACK, free_port(), values, lambda: ZONES) as responder,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        while values.defects:
            before = values.defects
            udp.sendto(query.to_wire(), (LOOPBACK, responder.port))
            wait_until(lambda before=before: values.defects < before, what="the store is asked")  # type: ignore[misc]
        assert texts(dns.query.udp(query, LOOPBACK, TIMEOUT, responder.port)) == ['"value"']


def test_a_connection_too_many_is_closed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, responder: EmbeddedDns
) -> None:
    monkeypatch.setattr(embedded_server, "MOST_CONNECTIONS", 2)
    place = (LOOPBACK, responder.port)
    with socket.create_connection(place, TIMEOUT) as first, socket.create_connection(place, TIMEOUT):
        wait_until(lambda: len(responder._connections) == 2, what="both are served")
        with socket.create_connection(place, TIMEOUT) as third:
            assert third.recv(1) == b""
        first.setblocking(False)
        dns.query.tcp(dns.message.make_query(NAME, "TXT"), LOOPBACK, TIMEOUT, sock=first)


def test_a_slow_asker_is_cut_off(monkeypatch: pytest.MonkeyPatch, responder: EmbeddedDns) -> None:
    monkeypatch.setattr(embedded_server, "MESSAGE_SECONDS", 0.05)
    with socket.create_connection((LOOPBACK, responder.port), TIMEOUT) as connection:
        connection.sendall(b"\0")
        assert connection.recv(1) == b""


def test_stopping_closes_open_connections_and_frees_the_address(values: MemoryValues) -> None:
    port = free_port()
    for _ in range(2):
        with EmbeddedDns(LOOPBACK, port, values, lambda: ZONES) as responder:
            connection = socket.create_connection((LOOPBACK, port), TIMEOUT)
            wait_until(lambda running=responder: len(running._connections) == 1, what="it is served")  # type: ignore[misc]
        assert responder._connections == {}
        with connection:
            assert connection.recv(1) == b""
        responder.stop()


def test_an_address_in_use_stops_the_start(responder: EmbeddedDns, values: MemoryValues) -> None:
    with pytest.raises(OSError, match="in use"):
        EmbeddedDns(LOOPBACK, responder.port, values, lambda: ZONES).start()
