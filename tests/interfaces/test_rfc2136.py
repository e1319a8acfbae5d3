"""RFC 2136 beyond what every provider is held to: its messages, its zones, and whom it believes."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import pytest
from _pytest.mark import ParameterSet

from application.errors import EgressRefused, Failure, ZoneRefused, ZoneUnreachable
from application.ports import TxtValue
from interfaces.dns import rfc2136 as rfc2136_module
from interfaces.dns.frames import read_frame, write_frame
from interfaces.dns.rfc2136 import Rfc2136Config, Rfc2136Credentials, Rfc2136Zone
from interfaces.egress import Egress
from tests.servers.authoritative import AuthoritativeServer
from tests.servers.bind import Bind
from tests.servers.knot import Knot
from tests.servers.process import LOOPBACK, free_port

NAME = "_acme-challenge.www.acme.example"
ONE, TWO = TxtValue(NAME, "one"), TxtValue(NAME, "two")
SECRET, OTHER_SECRET = "c2VjcmV0", "b3RoZXI="
KEY = dns.tsig.Key("acme-updates", SECRET)

Answer = Callable[[dns.message.Message], dns.message.Message | bytes]


def connect(port: int, allowed: str = "127.0.0.0/8") -> Rfc2136Zone:
    egress = Egress([ip_network(allowed)], resolve=lambda *_place: [LOOPBACK])
    return Rfc2136Zone(Rfc2136Config("ns1", port), Rfc2136Credentials("acme-updates", SECRET), [], 60, egress)


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[int, list[dns.message.Message]]]:
    """A server on TCP alone that knows the key; its port, and the questions it got."""
    got: list[dns.message.Message] = []

    class Stream(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query = dns.message.from_wire(read_frame(self.request, 5), keyring=KEY)
            got.append(query)
            said = answer(query)
            write_frame(self.request, said if isinstance(said, bytes) else said.to_wire(), 5)

    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Stream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_address[1], got
        finally:
            server.shutdown()
            thread.join()


def primary(query: dns.message.Message) -> dns.message.Message:
    """Serves acme.example and takes every update."""
    response = dns.message.make_response(query)
    if query.opcode() == dns.opcode.QUERY:
        response.flags |= dns.flags.AA
        response.authority = [dns.rrset.from_text("acme.example.", 60, "IN", "SOA", "ns1. . 1 3600 600 86400 1")]
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response


def updates_get(rcode: dns.rcode.Rcode) -> Answer:
    def answer(query: dns.message.Message) -> dns.message.Message:
        response = primary(query)
        if query.opcode() == dns.opcode.UPDATE:
            response.set_rcode(rcode)
        return response

    return answer


def unsigned(query: dns.message.Message) -> dns.message.Message:
    response = primary(query)
    response.tsig = None
    return response


def signed_by_another(query: dns.message.Message) -> dns.message.Message:
    response = primary(query)
    response.use_tsig(dns.tsig.Key("acme-updates", OTHER_SECRET))
    return response


def signed_with_another_name(query: dns.message.Message) -> dns.message.Message:
    response = primary(query)
    response.use_tsig(dns.tsig.Key("another", SECRET))
    return response


def telling_of_the_key(error: dns.rcode.Rcode) -> Answer:
    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, tsig_error=error)
        response.set_rcode(dns.rcode.NOTAUTH)
        return response

    return answer


def other_id(query: dns.message.Message) -> dns.message.Message:
    response = primary(query)
    response.id ^= 1
    return response


def failing(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response


def referring(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.authority = [dns.rrset.from_text("www.acme.example.", 60, "IN", "NS", "ns.elsewhere.example.")]
    return response


def refusing_all_above(query: dns.message.Message) -> dns.message.Message:
    response = unsigned(query)
    response.set_rcode(dns.rcode.REFUSED)
    return response


def test_all_values_of_a_zone_go_in_one_update() -> None:
    with serving(primary) as (port, got):
        connect(port).add([ONE, TWO, TxtValue("_acme-challenge.acme.example", "three")])
        connect(port).remove([ONE, TWO])
    updates = [query for query in got if query.opcode() == dns.opcode.UPDATE]
    assert [[rrset.to_text() for rrset in update.sections[2]] for update in updates] == [
        [f'{NAME}. 60 IN TXT "one"', f'{NAME}. 60 IN TXT "two"', '_acme-challenge.acme.example. 60 IN TXT "three"'],
        [f'{NAME}. 0 NONE TXT "one"', f'{NAME}. 0 NONE TXT "two"'],
    ]


def following_a_cname(query: dns.message.Message) -> dns.message.Message:
    """Out of sub.acme.example, where the name lies, into acme.example."""
    response = primary(query)
    name = query.question[0].name
    if name == dns.name.from_text("_acme-challenge.sub.acme.example"):
        response.answer = [dns.rrset.from_text(name, 60, "IN", "CNAME", "nothing.acme.example.")]
    elif query.opcode() == dns.opcode.QUERY:
        response.authority = [dns.rrset.from_text("sub.acme.example.", 60, "IN", "SOA", "ns1. . 1 3600 600 86400 1")]
    return response


def test_the_soa_of_the_zone_that_a_cname_leads_to_is_not_taken_for_the_names_own() -> None:
    with serving(following_a_cname) as (port, got):
        connect(port).add([TxtValue("_acme-challenge.sub.acme.example", "one")])
    assert got[-1].opcode() == dns.opcode.UPDATE
    assert got[-1].question[0].name == dns.name.from_text("sub.acme.example")


def test_every_message_is_signed() -> None:
    with serving(primary) as (port, got):
        connect(port).add([ONE])
    assert [query.had_tsig for query in got] == [True, True]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (updates_get(dns.rcode.REFUSED), "permission_missing"),
        (updates_get(dns.rcode.NOTIMP), "permission_missing"),
        (updates_get(dns.rcode.NOTAUTH), "zone_not_found"),
        (updates_get(dns.rcode.NOTZONE), "zone_not_found"),
        (updates_get(dns.rcode.SERVFAIL), ZoneUnreachable),
        (updates_get(dns.rcode.FORMERR), ZoneUnreachable),
        (unsigned, "credentials_rejected"),
        (signed_by_another, "credentials_rejected"),
        (signed_with_another_name, "credentials_rejected"),
        (telling_of_the_key(dns.rcode.BADSIG), "credentials_rejected"),
        (telling_of_the_key(dns.rcode.BADKEY), "credentials_rejected"),
        (telling_of_the_key(dns.rcode.BADTIME), "credentials_rejected"),
        (refusing_all_above, "zone_not_found"),
        (referring, "zone_not_found"),
        (failing, ZoneUnreachable),
        (other_id, ZoneUnreachable),
        (lambda _query: b"", ZoneUnreachable),
        (lambda _query: b"no dns at all", ZoneUnreachable),
    ],
)
def test_each_answer_has_its_meaning(answer: Answer, expected: str | type[Failure]) -> None:
    with serving(answer) as (port, _), pytest.raises((ZoneRefused, ZoneUnreachable)) as failed:
        connect(port).add([ONE])
    failure = failed.value
    assert expected == (failure.reason if isinstance(failure, ZoneRefused) else type(failure))


def test_a_server_that_hangs_up_or_hesitates_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfc2136_module, "TIMEOUT_SECONDS", 0.2)
    over = threading.Event()

    def hesitate(query: dns.message.Message) -> dns.message.Message:
        over.wait(10)
        return primary(query)

    with (
        socketserver.TCPServer((LOOPBACK, 0), socketserver.BaseRequestHandler) as silent,
        pytest.raises(ZoneUnreachable),
    ):
        connect(silent.server_address[1]).add([ONE])
    with serving(hesitate) as (port, _):
        with pytest.raises(ZoneUnreachable):
            connect(port).add([ONE])
        over.set()


def test_the_next_address_is_dialled_when_one_is_dead() -> None:
    with serving(primary) as (port, got):
        egress = Egress([ip_network("127.0.0.0/8"), ip_network("::1/128")], resolve=lambda *_place: ["::1", LOOPBACK])
        Rfc2136Zone(Rfc2136Config("ns1", port), Rfc2136Credentials("acme-updates", SECRET), [], 60, egress).add([ONE])
    assert len(got) == 2


def test_a_name_too_long_for_its_label_is_in_no_zone() -> None:
    value = TxtValue("_acme-challenge." + "x" * 60 + ("." + "x" * 60) * 3 + ".example", "one")
    zone = Rfc2136Zone(
        Rfc2136Config("ns1"), Rfc2136Credentials("acme-updates", SECRET), [value.record_name], 60, Egress([])
    )
    for call in (lambda: zone.add([value]), lambda: zone.remove([value]), zone.zones):
        with pytest.raises(ZoneRefused) as refused:
            call()
        assert refused.value.reason == "zone_not_found"


def test_a_server_that_must_not_be_dialled_is_not() -> None:
    with pytest.raises(EgressRefused):
        connect(free_port(), allowed="192.0.2.0/24").add([ONE])


def test_a_server_that_does_not_resolve_may_be_tried_again() -> None:
    zone = Rfc2136Zone(
        Rfc2136Config("ns1.nowhere.invalid"), Rfc2136Credentials("acme-updates", SECRET), [], 60, Egress([])
    )
    with pytest.raises(ZoneUnreachable):
        zone.add([ONE])


# --- against BIND and Knot ------------------------------------------------------------------------------------------


def peers(kind: type[AuthoritativeServer]) -> ParameterSet:
    return pytest.param(kind, marks=pytest.mark.peers, id=kind.__name__)


@pytest.fixture(scope="module", params=[peers(Bind), peers(Knot)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthoritativeServer]:
    with request.param(tmp_path_factory.mktemp("server"), ["acme.example", "sub.acme.example"]) as running:
        yield running


def reach(server: AuthoritativeServer, *managed_zones: str) -> Rfc2136Zone:
    credentials = Rfc2136Credentials(server.tsig_key_name, server.tsig_secret)
    config = Rfc2136Config(server.host, server.port)
    return Rfc2136Zone(config, credentials, managed_zones, 60, Egress([ip_network("127.0.0.0/8")]))


def in_zone(server: AuthoritativeServer, zone: str) -> set[str]:
    return {record.name for record in server.transfer(zone) if record.type == "TXT"}


def test_a_value_goes_to_the_longest_zone(server: AuthoritativeServer) -> None:
    name = "_acme-challenge.a.b.sub.acme.example"
    reach(server).add([TxtValue(name, "one")])
    assert name in in_zone(server, "sub.acme.example")
    assert name not in in_zone(server, "acme.example")


def test_the_zone_of_a_name_with_a_cname_is_found(server: AuthoritativeServer) -> None:
    name = "_acme-challenge.alias.sub.acme.example"
    server.add(name, "CNAME", "nothing.acme.example.")
    assert reach(server)._zone_of(dns.name.from_text(name)) == dns.name.from_text("sub.acme.example")


def test_a_name_that_is_delegated_to_others_is_in_no_zone_here(server: AuthoritativeServer) -> None:
    server.add("given.acme.example", "NS", "ns.elsewhere.example.")
    with pytest.raises(ZoneRefused) as refused:
        reach(server).add([TxtValue("_acme-challenge.given.acme.example", "one")])
    assert refused.value.reason == "zone_not_found"


def test_the_zones_are_those_that_hold_the_managed_ones(server: AuthoritativeServer) -> None:
    zone = reach(server, "*.www.acme.example", "acme.example", "*.sub.acme.example", "elsewhere.example")
    assert list(zone.zones()) == ["acme.example", "sub.acme.example"]
