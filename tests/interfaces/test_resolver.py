"""Whether every authoritative server serves a value, found out from the outside."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from itertools import pairwise

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.zone
import pytest

from application.errors import ResolverFailed
from application.ports import Alias, TxtValue, Unseen
from interfaces.dns import resolver as resolver_module
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.dns.resolver import AuthoritativeResolver
from interfaces.egress import Egress
from tests.fakes_dns import MemoryValues
from tests.servers.process import LOOPBACK, free_port
from tests.servers.responder import DnsResponder

ACME = "acme.example"
CORP = "corp.example"
SECOND = "127.0.0.2"
NAME = "_acme-challenge.www.acme.example"
VALUE = TxtValue(NAME, "value")
APEX = (
    "@ 60 IN SOA ns1.acme.example. . 1 3600 600 86400 1\n@ 60 IN NS ns1.acme.example.\n@ 60 IN NS ns2.acme.example.\n"
)
SERVERS = f"ns1 60 IN A {LOOPBACK}\nns2 60 IN A {SECOND}\n"

pytestmark = pytest.mark.allow_hosts([LOOPBACK, SECOND])

Answer = Callable[[dns.message.Message], dns.message.Message]


def authority(zones: dict[str, str]) -> Answer:
    """The answers of a server that has these zone files and no others; it follows no CNAME out of a name."""
    held = [dns.zone.from_text(text, origin, relativize=False, check_origin=False) for origin, text in zones.items()]

    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        (question,) = query.question
        fitting = [zone for zone in held if zone.origin is not None and question.name.is_subdomain(zone.origin)]
        if not fitting:
            response.set_rcode(dns.rcode.REFUSED)
            return response
        zone = max(fitting, key=lambda zone: len(zone.origin or ()))
        response.flags |= dns.flags.AA
        for rdtype in (question.rdtype, dns.rdatatype.CNAME):
            found = zone.get_rrset(question.name, rdtype)
            if found:
                response.answer = [found]
                return response
        response.authority = [zone.find_rrset(zone.origin or dns.name.root, dns.rdatatype.SOA)]
        if zone.get_node(question.name) is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response

    return answer


def edited(answer: Answer, edit: Callable[[dns.message.Message], object]) -> Answer:
    def other(query: dns.message.Message) -> dns.message.Message:
        response = answer(query)
        edit(response)
        return response

    return other


class Place(DnsResponder):
    """A responder at a place of its own."""

    def __init__(self, host: str, port: int, answer: Answer) -> None:
        super().__init__(answer)
        self.host, self.port, self.address = host, port, f"{host}:{port}"


class World:
    """A resolver that knows `zones`, and authoritative servers, all at one port."""

    def __init__(self, running: ExitStack) -> None:
        self._running = running
        self.port = free_port()
        self.recursive: list[str] = []

    def serve(self, host: str, answer: Answer) -> str:
        return self._running.enter_context(Place(host, self.port, answer)).address

    def resolve(self, answer: Answer) -> None:
        self.recursive.append(self._running.enter_context(DnsResponder(answer)).address)

    def unseen(
        self, *values: TxtValue, nameservers: tuple[str, ...] = (), timeout: float = 5.0, allowed: str = "127.0.0.0/8"
    ) -> list[Unseen]:
        egress = Egress([ip_network(allowed)])
        resolver = AuthoritativeResolver(egress, self.recursive, timeout_seconds=timeout, port=self.port)
        return list(resolver.unseen(values or [VALUE], nameservers))

    def alias(self, name: str = NAME, nameservers: tuple[str, ...] = ()) -> Alias | None:
        egress = Egress([ip_network("127.0.0.0/8")])
        resolver = AuthoritativeResolver(egress, self.recursive, timeout_seconds=5.0, port=self.port)
        return resolver.aliases([name], nameservers).get(name)

    def missing_at(self, *hosts: str, value: TxtValue = VALUE) -> list[Unseen]:
        return [Unseen(f"{host}:{self.port}", value.record_name, value.value) for host in hosts]


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as running:
        yield World(running)


def with_txt(*values: str, name: str = "_acme-challenge.www") -> Answer:
    return authority({ACME: APEX + SERVERS + "".join(f'{name} 60 IN TXT "{value}"\n' for value in values)})


def test_a_value_that_all_servers_serve_is_seen(world: World) -> None:
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("other", "value"))
    world.serve(SECOND, with_txt("value"))
    assert world.unseen() == []


def test_one_stale_server_of_two_holds_the_value_back(world: World) -> None:
    world.resolve(with_txt("value"))
    world.serve(LOOPBACK, with_txt("value"))
    world.serve(SECOND, with_txt("yesterday's"))
    assert world.unseen() == world.missing_at(SECOND)


def test_a_dead_server_has_not_seen_the_value(world: World) -> None:
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("value"))
    assert world.unseen(timeout=0.2) == world.missing_at(SECOND)


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN])
def test_an_answer_with_an_error_has_not_seen_the_value(world: World, rcode: dns.rcode.Rcode) -> None:
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("value"))
    world.serve(SECOND, edited(with_txt("value"), lambda response: response.set_rcode(rcode)))
    assert world.unseen() == world.missing_at(SECOND)


def without_authority(response: dns.message.Message) -> None:
    response.flags &= ~dns.flags.AA


def test_an_answer_without_authority_has_not_seen_the_value(world: World) -> None:
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("value"))
    world.serve(SECOND, edited(with_txt("value"), without_authority))
    assert world.unseen() == world.missing_at(SECOND)


def test_each_missing_value_is_named_with_each_server_that_lacks_it(world: World) -> None:
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("one", "two"))
    world.serve(SECOND, with_txt("one"))
    one, two, other = TxtValue(NAME, "one"), TxtValue(NAME, "two"), TxtValue("_acme-challenge.acme.example", "one")
    unseen = world.unseen(one, two, other)
    expected = [*world.missing_at(SECOND, value=two), *world.missing_at(LOOPBACK, SECOND, value=other)]
    assert {*unseen} == {*expected}


def test_nothing_to_look_for_is_seen_without_a_question() -> None:
    assert list(AuthoritativeResolver(Egress([]), [f"{LOOPBACK}:1"]).unseen([], [])) == []


def test_strings_are_joined_before_they_are_compared(world: World) -> None:
    split = authority({ACME: f'{APEX}{SERVERS}_acme-challenge.www 60 IN TXT "va" "lue"\n'})
    world.resolve(with_txt())
    for host in (LOOPBACK, SECOND):
        world.serve(host, split)
    assert world.unseen() == []


def test_an_answer_cut_by_udp_is_asked_for_over_tcp(world: World) -> None:
    values = MemoryValues()
    values.add([VALUE, *(TxtValue(NAME, f"{number:03}" + "x" * 200) for number in range(20))])
    world.resolve(with_txt())
    with (
        EmbeddedDns(LOOPBACK, world.port, values, lambda: [ACME]),
        EmbeddedDns(SECOND, world.port, values, lambda: [ACME]),
    ):
        assert world.unseen() == []


def test_all_servers_are_asked_at_the_same_time(world: World) -> None:
    met = threading.Barrier(2, timeout=10)
    world.resolve(with_txt())
    for host in (LOOPBACK, SECOND):
        world.serve(host, edited(with_txt("value"), lambda _response: met.wait()))
    assert world.unseen(timeout=10) == []


def test_a_cname_is_followed_to_the_servers_of_the_zone_it_ends_in(world: World) -> None:
    start = f"{APEX}{SERVERS}_acme-challenge.www 60 IN CNAME there.corp.example.\n"
    end = APEX.replace("@ 60 IN NS ns1.acme.example.\n", "")
    world.resolve(authority({ACME: start, CORP: end}))
    world.serve(SECOND, authority({CORP: f'{end}there 60 IN TXT "value"\n'}))
    assert world.unseen() == []


def chain(length: int) -> str:
    hops = [NAME, *(f"hop{number}.acme.example" for number in range(1, length + 1))]
    return "".join(f"{hop}. 60 IN CNAME {after}.\n" for hop, after in pairwise(hops))


def test_eight_cnames_are_followed_and_nine_are_not(world: World) -> None:
    world.resolve(authority({ACME: APEX + SERVERS + chain(8)}))
    for host in (LOOPBACK, SECOND):
        world.serve(host, authority({ACME: f'{APEX}{SERVERS}hop8 60 IN TXT "value"\n'}))
    assert world.unseen() == []
    world.recursive.clear()
    world.resolve(authority({ACME: APEX + SERVERS + chain(9)}))
    with pytest.raises(ResolverFailed, match="more than 8 CNAMEs"):
        world.unseen()


@pytest.mark.parametrize("back_to", [NAME, "hop1.acme.example"])
def test_cnames_in_a_circle_fail(world: World, back_to: str) -> None:
    world.resolve(authority({ACME: f"{APEX}{SERVERS}{chain(2)}hop2 60 IN CNAME {back_to}.\n"}))
    with pytest.raises(ResolverFailed, match="circle"):
        world.unseen()


# --- aliases ---


def test_a_name_without_a_cname_ends_in_itself(world: World) -> None:
    world.resolve(with_txt())
    assert world.alias() == Alias(NAME)


@pytest.mark.parametrize("with_given", [True, False])
def test_an_alias_ends_after_its_last_cname(world: World, *, with_given: bool) -> None:
    start = f"{APEX}{SERVERS}_acme-challenge.www 60 IN CNAME Hop.Acme.Example.\nhop 60 IN CNAME there.corp.example.\n"
    recursive = {CORP: APEX} if with_given else {ACME: start, CORP: APEX}
    world.resolve(authority(recursive))
    given = (world.serve(SECOND, authority({ACME: start})),) if with_given else ()
    assert world.alias(nameservers=given) == Alias("there.corp.example")


@pytest.mark.parametrize(
    ("hops", "obstacle"),
    [
        (chain(9), "more than 8 CNAMEs"),
        (f"{chain(2)}hop2 60 IN CNAME {NAME}.\n", "circle"),
        (f"{chain(2)}hop2 60 IN CNAME hop1.acme.example.\n", "circle"),
    ],
)
def test_an_alias_that_leads_nowhere_says_why(world: World, hops: str, obstacle: str) -> None:
    world.resolve(authority({ACME: APEX + SERVERS + hops}))
    alias = world.alias()
    assert alias is not None
    assert alias.end is None
    assert obstacle in alias.obstacle


def test_a_cname_that_a_wildcard_makes_is_not_followed(world: World) -> None:
    def caught(query: dns.message.Message) -> dns.message.Message:
        """As `*.www.acme.example CNAME balancer.acme.example` has it."""
        response = with_txt()(query)
        name = query.question[0].name
        if name.is_subdomain(dns.name.from_text("www.acme.example")):
            response.set_rcode(dns.rcode.NOERROR)
            response.answer = [dns.rrset.from_text(name, 60, "IN", "CNAME", "balancer.acme.example.")]
        return response

    world.resolve(caught)
    assert world.alias() == Alias(NAME)
    own = f"{APEX}{SERVERS}_acme-challenge.www 60 IN CNAME there\n*.www 60 IN CNAME balancer\n"
    world.recursive.clear()
    world.resolve(authority({ACME: own}))
    assert world.alias() == Alias("there.acme.example")


def test_what_nobody_can_look_up_is_left_out(world: World) -> None:
    world.resolve(authority({}))
    assert world.alias() is None
    assert world.alias(nameservers=(world.serve(SECOND, authority({})),)) is None
    assert world.alias(nameservers=("nowhere.invalid:53",)) is None


# --- whom to ask ---


def test_given_nameservers_are_asked_and_nobody_else(world: World) -> None:
    asked: list[dns.message.Message] = []
    world.resolve(edited(with_txt(), asked.append))
    address = world.serve(SECOND, with_txt("value"))
    with Place(LOOPBACK, free_port(), with_txt()) as stale:
        assert world.unseen(nameservers=(address,)) == []
        assert world.unseen(nameservers=(address, stale.address)) == [Unseen(stale.address, NAME, "value")]
    assert asked == []


def test_a_given_nameserver_may_be_a_name(world: World) -> None:
    world.serve(LOOPBACK, with_txt("value"))
    egress = Egress([ip_network("127.0.0.0/8")], resolve=lambda *_place: [LOOPBACK])
    nameserver = f"primary.example:{world.port}"
    assert list(AuthoritativeResolver(egress).unseen([VALUE], [nameserver])) == []
    other = TxtValue(NAME, "other")
    assert list(AuthoritativeResolver(egress).unseen([other], [nameserver])) == [Unseen(nameserver, NAME, "other")]


def test_a_given_nameserver_that_follows_a_cname_itself_has_seen_the_value(world: World) -> None:
    def follow(response: dns.message.Message) -> None:
        response.answer += with_txt("value", name="there")(dns.message.make_query("there.acme.example", "TXT")).answer

    hop = authority({ACME: f"{APEX}{SERVERS}_acme-challenge.www 60 IN CNAME there\n"})
    assert world.unseen(nameservers=(world.serve(LOOPBACK, edited(hop, follow)),)) == []


def test_a_given_nameserver_that_must_not_be_dialled_fails(world: World) -> None:
    with pytest.raises(ResolverFailed, match="must not be dialled"):
        world.unseen(nameservers=(f"{LOOPBACK}:53",), allowed="192.0.2.0/24")


def test_a_server_that_must_not_be_dialled_has_not_seen_the_value(world: World) -> None:
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("value"))
    world.serve(SECOND, with_txt("value"))
    assert world.unseen(allowed=f"{LOOPBACK}/32") == world.missing_at(SECOND)


def test_a_server_without_a_way_to_it_does_not_hold_back_where_another_can_be_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "has_route", lambda address: address == LOOPBACK)
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("value"))
    assert world.unseen() == []
    monkeypatch.setattr(resolver_module, "has_route", lambda _address: False)
    assert world.unseen(timeout=0.2) == world.missing_at(SECOND)


def test_a_machine_without_ipv6_has_no_route_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(family: int, _kind: int) -> socket.socket:
        raise OSError(f"address family {family} is not supported")

    monkeypatch.setattr("socket.socket", unsupported)
    assert not resolver_module.has_route("2001:db8::1")


@pytest.mark.parametrize("name", ["_acme-challenge." + "x." * 120 + "example", "a..b", "x" * 64])
def test_a_name_that_is_none_is_a_failure(name: str) -> None:
    with pytest.raises(ResolverFailed, match="no DNS name"):
        AuthoritativeResolver(Egress([]), [f"{LOOPBACK}:1"]).unseen([TxtValue(name, "value")], [])


def test_a_zone_with_very_many_servers_is_asked_at_some_of_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "has_route", lambda _address: True)
    servers = "".join(f"@ 60 IN NS many{n}\n" for n in range(40))
    addresses = "".join(f"many{n} 60 IN A 192.0.2.{n}\nmany{n} 60 IN A 198.51.100.{n}\n" for n in range(40))
    more = "".join(f"many{n} 60 IN A 203.0.113.{n}\n" for n in range(40))
    asked: list[dns.message.Message] = []
    soa = APEX.splitlines()[0] + "\n"
    world.resolve(edited(authority({ACME: soa + servers + addresses + more}), asked.append))
    assert len({unseen.server for unseen in world.unseen()}) == 32
    assert (
        len({response.question[0].name for response in asked if response.question[0].rdtype == dns.rdatatype.A}) == 16
    )


def test_the_next_resolver_is_asked_when_one_fails(world: World) -> None:
    world.recursive.append(f"{LOOPBACK}:{free_port()}")
    world.resolve(edited(with_txt(), lambda response: response.set_rcode(dns.rcode.SERVFAIL)))
    world.resolve(with_txt())
    world.serve(LOOPBACK, with_txt("value"))
    world.serve(SECOND, with_txt("value"))
    assert world.unseen(timeout=0.5) == []


@pytest.mark.parametrize("recursive", ["resolver.example:53", "127.0.0.1", "127.0.0.1:0"])
def test_a_resolver_is_given_by_address_and_port(recursive: str) -> None:
    with pytest.raises(ValueError, match=r"IPv4|host:port"):
        AuthoritativeResolver(Egress([]), [recursive])


def test_a_resolver_that_fails_is_a_failure(world: World) -> None:
    world.resolve(edited(with_txt(), lambda response: response.set_rcode(dns.rcode.SERVFAIL)))
    with pytest.raises(ResolverFailed, match="no resolver answers"):
        world.unseen()


def test_name_servers_without_addresses_are_a_failure(world: World) -> None:
    world.resolve(authority({ACME: APEX}))
    with pytest.raises(ResolverFailed, match="have no address"):
        world.unseen()


def test_the_zone_is_found_where_the_resolver_gives_no_soa_beside_a_denial(world: World) -> None:
    world.resolve(edited(with_txt(), lambda response: response.authority.clear()))
    world.serve(LOOPBACK, with_txt("value"))
    world.serve(SECOND, with_txt("value"))
    assert world.unseen() == []


def emptied(response: dns.message.Message) -> None:
    response.answer, response.authority = [], []
    response.set_rcode(dns.rcode.NOERROR)


def test_a_name_in_no_zone_is_a_failure(world: World) -> None:
    world.resolve(edited(with_txt(), emptied))
    with pytest.raises(ResolverFailed, match="no zone holds"):
        world.unseen()


def as_referral(response: dns.message.Message) -> None:
    response.authority, response.answer = response.answer, []
    response.flags &= ~dns.flags.AA


def test_a_zone_without_ns_of_its_own_is_asked_where_its_parent_delegates_it(world: World) -> None:
    """Our own responder, which was not told by what name it is known."""
    values = MemoryValues()
    values.add([VALUE])
    parent = f"{APEX}{SERVERS}_acme-challenge.www 60 IN NS vault\nvault 60 IN A {SECOND}\n"
    child = f"{APEX.splitlines()[0]}\n"
    world.resolve(authority({ACME: parent, NAME: child}))
    world.serve(LOOPBACK, edited(authority({ACME: parent}), as_referral))
    with EmbeddedDns(SECOND, world.port, values, lambda: ["www.acme.example"]):
        assert world.unseen() == []
        other = TxtValue(NAME, "other")
        assert world.unseen(other) == world.missing_at(SECOND, value=other)


def test_a_challenge_name_below_a_delegated_zone_is_asked_at_the_zones_servers(world: World) -> None:
    values = MemoryValues()
    values.add([VALUE])
    child = f"{APEX.splitlines()[0]}\n"
    zone = f"{APEX.splitlines()[0]}\n@ 60 IN NS vault.acme.example.\n"
    world.resolve(authority({ACME: f"{APEX}{SERVERS}vault 60 IN A {SECOND}\n", f"www.{ACME}": zone, NAME: child}))
    with EmbeddedDns(SECOND, world.port, values, lambda: [f"www.{ACME}"]):
        assert world.unseen() == []
        other = TxtValue(NAME, "other")
        assert world.unseen(other) == world.missing_at(SECOND, value=other)
