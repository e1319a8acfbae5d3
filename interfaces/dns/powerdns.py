"""PowerDNS Authoritative's HTTP API v1 (https://doc.powerdns.com/authoritative/http-api/): a name's TXT records as one set.

A set is replaced as a whole, and the API refuses no write over what came in between. Other people's records go back as they
were read: in their spelling, disabled ones too, under the set's TTL and comments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from application.ports import DnsZone, ProviderAccess
from interfaces.dns.held_zones import HeldZone
from interfaces.dns.http_api import HttpApi, known_form
from interfaces.dns.locks import place_of
from interfaces.dns.provider_types import ProviderType, Surroundings, Token, Url
from interfaces.dns.record_sets import RecordSet, RecordSetsZone
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.txt_strings import DECIMAL, quoted, unquoted

ServerId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]+\Z", max_length=255)]
FIRST_TO_SHOW_ALL_OF_ONE_NAME = 5
"""The first major version that shows disabled records when it is asked for one name; before, the whole zone tells of them."""
MAJOR_VERSION = re.compile(r"\d+", re.ASCII)


class PowerDnsConfig(msgspec.Struct, frozen=True):
    """`base_url` is the web server's, such as `http://ns1.acme.example:8081`; `/api/v1` comes after it."""

    base_url: Url
    server_id: ServerId = "localhost"


class PowerDnsCredentials(Credentials, frozen=True):
    """The server's `api-key`."""

    api_key: Token


class Held(NamedTuple):
    """The set's records as the API shows them, and its TTL."""

    records: Sequence[Mapping[str, Any]]
    ttl_seconds: int


class PowerDnsApi:
    """RecordSetsApi."""

    def __init__(
        self, config: PowerDnsConfig, credentials: PowerDnsCredentials, ttl_seconds: int, around: Surroundings
    ) -> None:
        key = credentials.api_key
        self._server = f"/api/v1/servers/{config.server_id}"
        self._ttl_seconds = ttl_seconds
        self._api = HttpApi("PowerDNS", config.base_url, around.egress, lambda: {"X-API-Key": key}, (key,))

    def zones(self) -> Sequence[HeldZone]:
        listed = self._api.call("GET", f"{self._server}/zones", params={"dnssec": "false"})
        with known_form():
            named = ((zone["name"].removesuffix(".").lower(), zone["id"]) for zone in listed)
            return [HeldZone(name, zone_id) for name, zone_id in named if name]

    def read(self, zone: HeldZone, record_name: str) -> RecordSet:
        params: Mapping[str, str] = {}
        if self._shows_all_of_one_name():
            params = {"rrset_name": f"{record_name}.", "rrset_type": "TXT", "include_disabled": "true"}
        answer = self._api.call("GET", self._place(zone), params=params)
        with known_form():
            for rrset in answer["rrsets"]:
                if (rrset["name"].lower(), rrset["type"]) == (f"{record_name}.", "TXT"):
                    values = tuple(_value(record) for record in rrset["records"] if not record["disabled"])
                    return RecordSet(values, Held(rrset["records"], rrset["ttl"]))
        return RecordSet((), Held((), self._ttl_seconds))

    def write(self, zone: HeldZone, record_name: str, before: RecordSet, values: Sequence[str]) -> None:
        held: Held = before.state
        # One that is disabled gives way to the same value: the API takes no two records with the same content.
        kept = [record for record in held.records if record["disabled"] != (_value(record) in values)]
        new = [{"content": quoted(value, DECIMAL), "disabled": False} for value in values if value not in before.values]
        change: dict[str, Any] = {"name": f"{record_name}.", "type": "TXT", "changetype": "DELETE"}
        if kept or new:
            change |= {"changetype": "REPLACE", "ttl": held.ttl_seconds, "records": [*kept, *new]}
        self._api.call("PATCH", self._place(zone), body={"rrsets": [change]})

    def _place(self, zone: HeldZone) -> str:
        return f"{self._server}/zones/{zone.zone_id}"

    def _shows_all_of_one_name(self) -> bool:
        answer = self._api.call("GET", self._server)
        with known_form():
            version = MAJOR_VERSION.match(answer.get("version", ""))
        return version is not None and int(version[0]) >= FIRST_TO_SHOW_ALL_OF_ONE_NAME


def _value(record: Mapping[str, Any]) -> str:
    return unquoted(record["content"], DECIMAL)


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, PowerDnsConfig, PowerDnsCredentials)
    place = place_of("powerdns", config.base_url, config.server_id)
    return RecordSetsZone(place, PowerDnsApi(config, credentials, common.ttl_seconds, around), around.lock)


TYPE = ProviderType(
    name="powerdns",
    title="PowerDNS Authoritative",
    config=PowerDnsConfig,
    credentials=PowerDnsCredentials,
    connect=connect,
    least_privilege=(
        "PowerDNS has one key for its whole API: let its web server listen where only this service reaches it"
        " (`webserver-address`, `webserver-allow-from`)."
    ),
    policy={"settings": {"api": "yes", "webserver": "yes", "webserver-allow-from": "the addresses of this service"}},
    verify_checks="The zones of the server are listed.",
)
