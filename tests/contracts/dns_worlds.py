"""The DNS providers that the contract suite is held against: the fake, our own responder, real servers, and stand-ins."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.dns.locks import ThreadLocks
from interfaces.dns.provider_types import Surroundings
from interfaces.dns.providers import BY_NAME
from interfaces.dns.txt_strings import quoted
from interfaces.egress import Egress
from tests.dns_stand_ins.acmedns import AcmeDns
from tests.dns_stand_ins.api import StandIn
from tests.dns_stand_ins.azure import GROUP, SUBSCRIPTION, TENANT, Azure, Client
from tests.dns_stand_ins.cloudflare import Cloudflare
from tests.dns_stand_ins.digitalocean import DigitalOcean, holds
from tests.dns_stand_ins.google import PROJECT, Google, account
from tests.dns_stand_ins.lexicon import PowerDns as PowerDnsOfLexicon
from tests.dns_stand_ins.powerdns import PowerDns
from tests.fakes_dns import AwsError, FakeZone, MemoryValues
from tests.servers.authoritative import AuthoritativeServer, ask_txt
from tests.servers.bind import Bind
from tests.servers.knot import Knot
from tests.servers.pdns import Pdns
from tests.servers.process import LOOPBACK, free_port
from tests.servers.route53 import MotoRoute53

ZONE = "acme.example"
OTHER_ZONE = "other.example"
LOCKS = ThreadLocks()


@dataclass
class World:
    """`zone` and `second` reach the same provider as two processes would. `txt` and `write` are somebody else's view and
    hand. `api` is the stand-in, whose faults a test may set. `holds` tells which values the provider has room for; those
    of challenges it always has. What a provider does not have is None.

    `afresh` comes before each test. `cannot` says of tests why they do not hold by the provider's nature, and `asks_nobody`
    names the calls of `zone` that reach no server."""

    zone: DnsZone
    second: DnsZone
    txt: Callable[[str], list[str]]
    write: Callable[[str, str], None]
    wrong_credentials: DnsZone | None = None
    throttled: DnsZone | None = None
    unreachable: DnsZone | None = None
    read_only: DnsZone | None = None
    api: StandIn | None = None
    secrets: tuple[str, ...] = ()
    holds: Callable[[str], bool] = lambda _value: True
    zones: list[str] = field(default_factory=lambda: [ZONE, OTHER_ZONE])
    afresh: Callable[[], None] = lambda: None
    cannot: Mapping[str, str] = field(default_factory=dict)
    asks_nobody: frozenset[str] = frozenset()


def connect(provider_type: str, config: dict[str, Any], credentials: dict[str, str], values: MemoryValues) -> DnsZone:
    """In each call as a process of its own, but for the lock that all processes share."""
    secret = {name: SecretValue(value) for name, value in credentials.items()}
    access = ProviderAccess(provider_type, [ZONE, f"*.{OTHER_ZONE}"], config, secret)
    return BY_NAME[provider_type].connect(access, Surroundings(Egress([ip_network("127.0.0.0/8")]), LOCKS, values))


def fake_world() -> World:
    zone, wrong, throttled, unreachable = (FakeZone([ZONE, OTHER_ZONE]) for _ in range(4))
    wrong.reject_credentials()
    throttled.throttle(retry_after_seconds=7)
    unreachable.vanish()
    return World(
        zone,
        zone,
        zone.txt,
        lambda name, value: zone.add([TxtValue(name, value)]),
        wrong_credentials=wrong,
        throttled=throttled,
        unreachable=unreachable,
    )


def embedded_world(values: MemoryValues, responder: EmbeddedDns) -> World:
    zone, second = (connect("embedded", {}, {}, values) for _ in range(2))
    return World(
        zone,
        second,
        lambda name: ask_txt(LOOPBACK, responder.port, name),
        lambda name, value: values.add([TxtValue(name, value)]),
    )


def rfc2136_world(server: AuthoritativeServer) -> World:
    config = {"server": LOOPBACK, "port": server.port}
    credentials = {"tsig_key_name": server.tsig_key_name, "tsig_secret": server.tsig_secret}
    wrong = {**credentials, "tsig_secret": "d3Jvbmc="}
    return World(
        connect("rfc2136", config, credentials, MemoryValues()),
        connect("rfc2136", config, credentials, MemoryValues()),
        server.txt,
        lambda name, value: server.add(name, "TXT", f'"{value}"'),
        wrong_credentials=connect("rfc2136", config, wrong, MemoryValues()),
        unreachable=connect("rfc2136", {**config, "port": free_port()}, credentials, MemoryValues()),
    )


def route53_world(server: MotoRoute53, rejecting: AwsError, throttling: AwsError) -> World:
    credentials = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}

    def at(endpoint_url: str) -> DnsZone:
        return connect("route53", {"endpoint_url": endpoint_url}, credentials, MemoryValues())

    def write(name: str, value: str) -> None:
        """As others do it: one UPSERT of the whole set, for which the set is read first."""
        records = [{"Value": quoted(held)} for held in {*server.txt(name), value}]
        record_set = {"Name": name, "Type": "TXT", "TTL": 60, "ResourceRecords": records}
        changes: Any = [{"Action": "UPSERT", "ResourceRecordSet": record_set}]
        server.client.change_resource_record_sets(HostedZoneId=server.zone_ids[ZONE], ChangeBatch={"Changes": changes})

    return World(
        at(server.endpoint_url),
        at(server.endpoint_url),
        server.txt,
        write,
        wrong_credentials=at(rejecting.endpoint_url),
        throttled=at(throttling.endpoint_url),
        unreachable=at(f"http://{LOOPBACK}:{free_port()}"),
    )


def powerdns_world(
    base_url: str, key: str, txt: Callable[[str], list[str]], write: Callable[[str, str], None]
) -> World:
    def at(api_key: str = key, base_url: str = base_url) -> DnsZone:
        return connect("powerdns", {"base_url": base_url}, {"api_key": api_key}, MemoryValues())

    return World(
        at(),
        at(),
        txt,
        write,
        wrong_credentials=at("wrong"),
        unreachable=at(base_url=f"http://{LOOPBACK}:{free_port()}"),
        secrets=(key,),
    )


@contextmanager
def fake(_folder: Path) -> Iterator[World]:
    yield fake_world()


@contextmanager
def embedded(_folder: Path) -> Iterator[World]:
    values = MemoryValues()
    with EmbeddedDns(LOOPBACK, free_port(), values, lambda: [ZONE, OTHER_ZONE]) as responder:
        yield embedded_world(values, responder)


@contextmanager
def bind(folder: Path) -> Iterator[World]:
    with Bind(folder, [ZONE, OTHER_ZONE]) as server:
        yield rfc2136_world(server)


@contextmanager
def knot(folder: Path) -> Iterator[World]:
    with Knot(folder, [ZONE, OTHER_ZONE]) as server:
        yield rfc2136_world(server)


@contextmanager
def route53(folder: Path) -> Iterator[World]:
    with (
        MotoRoute53(folder, [ZONE, OTHER_ZONE]) as server,
        AwsError("InvalidClientTokenId", status=403) as rejecting,
        AwsError("Throttling") as throttling,
    ):
        yield route53_world(server, rejecting, throttling)


@contextmanager
def cloudflare(_folder: Path) -> Iterator[World]:
    with Cloudflare([ZONE, OTHER_ZONE], zones_a_page=1) as api:

        def at(token: str = api.token, base_url: str = api.base_url) -> DnsZone:
            return connect("cloudflare", {"base_url": base_url}, {"api_token": token}, MemoryValues())

        yield World(
            at(),
            at(),
            api.txt,
            api.write,
            wrong_credentials=at("w" * 40),
            unreachable=at(base_url=f"http://{LOOPBACK}:{free_port()}"),
            read_only=at(api.read_only),
            api=api,
            secrets=(api.token,),
        )


@contextmanager
def digitalocean(_folder: Path) -> Iterator[World]:
    with DigitalOcean([ZONE, OTHER_ZONE], domains_a_page=1) as api:

        def at(token: str = api.token, base_url: str = api.base_url) -> DnsZone:
            return connect("digitalocean", {"base_url": base_url}, {"api_token": token}, MemoryValues())

        yield World(
            at(),
            at(),
            api.txt,
            api.write,
            wrong_credentials=at(f"dop_v1_{'c' * 64}"),
            unreachable=at(base_url=f"http://{LOOPBACK}:{free_port()}"),
            read_only=at(api.read_only),
            api=api,
            secrets=(api.token,),
            holds=holds,
        )


@contextmanager
def powerdns(_folder: Path) -> Iterator[World]:
    with PowerDns([ZONE, OTHER_ZONE]) as api:
        world = powerdns_world(api.url, api.key, api.txt, api.write)
        world.api = api
        yield world


@contextmanager
def pdns(folder: Path) -> Iterator[World]:
    with Pdns(folder, [ZONE, OTHER_ZONE]) as server:
        yield powerdns_world(server.api_url, server.api_key, server.txt, server.add)


FORGETS_BY_ITSELF = "a value is not removed: it goes when two newer ones have come"
ONE_NAME = "an account is one name"
KEEPS_TWO = "no more than two values are kept"
CHALLENGES_ALONE = "values have the form of a challenge"
ACME_DNS_CANNOT = {
    "test_values_at_names_of_different_zones_are_added_in_one_call": ONE_NAME,
    "test_a_value_that_somebody_else_wrote_survives_adding_and_removing": FORGETS_BY_ITSELF,
    "test_a_value_that_came_between_adding_and_removing_survives": FORGETS_BY_ITSELF,
    "test_of_many_that_add_to_one_name_at_once_all_values_live": KEEPS_TWO,
    "test_of_many_that_remove_from_one_name_at_once_each_removes_its_own": KEEPS_TWO,
    "test_the_last_value_can_be_removed_and_removed_again": FORGETS_BY_ITSELF,
    "test_a_value_can_come_back_after_its_removal": FORGETS_BY_ITSELF,
    "test_a_long_value_stays_whole": CHALLENGES_ALONE,
    "test_a_value_with_special_characters_stays_as_it_is": CHALLENGES_ALONE,
    "test_a_name_may_be_as_long_as_names_are": FORGETS_BY_ITSELF,
    "test_names_of_underscores_and_of_other_alphabets_are_names": FORGETS_BY_ITSELF,
    "test_a_value_that_somebody_else_removed_is_removed_without_harm": FORGETS_BY_ITSELF,
    "test_a_change_whose_answer_was_lost_is_made_again_without_harm": FORGETS_BY_ITSELF,
}


def challenge(word: str) -> str:
    """43 characters of base64url, as a challenge has them, for a word of a test."""
    return base64.urlsafe_b64encode(hashlib.sha256(word.encode()).digest()).rstrip(b"=").decode()


class ChallengesAlone:
    """DnsZone at a provider that takes nothing else: each word of a test is written as a challenge made of it."""

    def __init__(self, zone: DnsZone, words: dict[str, str]) -> None:
        self._zone = zone
        self._words = words
        self.zones = zone.zones

    def add(self, values: Sequence[TxtValue]) -> None:
        self._zone.add(self._spelt(values))

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._zone.remove(self._spelt(values))

    def _spelt(self, values: Sequence[TxtValue]) -> Sequence[TxtValue]:
        self._words.update({challenge(value.value): value.value for value in values})
        return [TxtValue(value.record_name, challenge(value.value)) for value in values]


@contextmanager
def acmedns(_folder: Path) -> Iterator[World]:
    words: dict[str, str] = {}
    with AcmeDns() as api:

        def at(password: str = api.password, base_url: str = api.base_url) -> DnsZone:
            credentials = {"username": api.username, "password": password, "subdomain": api.subdomain}
            return ChallengesAlone(connect("acmedns", {"base_url": base_url}, credentials, MemoryValues()), words)

        yield World(
            at(),
            at(),
            lambda _name: sorted(words.get(value, value) for value in api.txt()),
            lambda _name, value: api.write(value),
            wrong_credentials=at("w" * 40),
            unreachable=at(base_url=f"http://{LOOPBACK}:{free_port()}"),
            api=api,
            secrets=(api.password, api.username),
            afresh=api.empty,
            cannot=ACME_DNS_CANNOT,
            asks_nobody=frozenset({"remove", "zones"}),
        )


AS_LEXICON_SPELLS_THEM = "what is no challenge goes out as lexicon's modules spell it"
LEXICON_CANNOT = {
    "test_a_long_value_stays_whole": AS_LEXICON_SPELLS_THEM,
    "test_a_value_with_special_characters_stays_as_it_is": AS_LEXICON_SPELLS_THEM,
}


@contextmanager
def lexicon(_folder: Path) -> Iterator[World]:
    """By lexicon's own module for PowerDNS."""
    with PowerDnsOfLexicon([ZONE, OTHER_ZONE]) as api:

        def at(token: str = api.key, server: str = api.url) -> DnsZone:
            config = {"provider_name": "powerdns", "pdns_server": server}
            return connect("lexicon", config, {"auth_token": token}, MemoryValues())

        yield World(
            at(),
            at(),
            api.txt,
            api.write,
            wrong_credentials=at("w" * 24),
            unreachable=at(server=f"http://{LOOPBACK}:{free_port()}"),
            api=api,
            secrets=(api.key,),
            cannot=LEXICON_CANNOT,
        )


@contextmanager
def google(_folder: Path) -> Iterator[World]:
    with Google([ZONE, OTHER_ZONE]) as api:

        def at(key_file: str, base_url: str = api.base_url) -> DnsZone:
            config = {"project": PROJECT, "base_url": base_url}
            return connect("google", config, {"service_account_json": key_file}, MemoryValues())

        owner = api.key_file(api.owner)
        yield World(
            at(owner),
            at(owner),
            api.txt,
            api.write,
            wrong_credentials=at(api.key_file(api.owner, account("another", may_write=True).key)),
            unreachable=at(owner, f"http://{LOOPBACK}:{free_port()}"),
            read_only=at(api.key_file(api.reader)),
            api=api,
            secrets=(api.owner.token, *json.loads(owner)["private_key"].splitlines()[1:3]),
        )


@contextmanager
def azure(_folder: Path) -> Iterator[World]:
    with Azure([ZONE, OTHER_ZONE]) as api:

        def at(client: Client, secret: str = "", base_url: str = api.url) -> DnsZone:
            config = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "base_url": base_url}
            credentials = {
                "tenant_id": TENANT,
                "client_id": client.client_id,
                "client_secret": secret or client.secret,
            }
            return connect("azure", config, credentials, MemoryValues())

        yield World(
            at(api.owner),
            at(api.owner),
            api.txt,
            api.write,
            wrong_credentials=at(api.owner, secret="wrong"),
            unreachable=at(api.owner, base_url=f"http://{LOOPBACK}:{free_port()}"),
            read_only=at(api.reader),
            api=api,
            secrets=(api.owner.secret, quote_plus(api.owner.secret), api.owner.token),
        )


WORLDS: Mapping[str, Callable[[Path], AbstractContextManager[World]]] = {
    "fake": fake,
    "embedded": embedded,
    "route53": route53,
    "bind": bind,
    "knot": knot,
    "cloudflare": cloudflare,
    "digitalocean": digitalocean,
    "powerdns": powerdns,
    "pdns": pdns,
    "acmedns": acmedns,
    "lexicon": lexicon,
    "google": google,
    "azure": azure,
}
PEERS = frozenset({"bind", "knot", "pdns"})
"""Those that need servers from elsewhere."""
