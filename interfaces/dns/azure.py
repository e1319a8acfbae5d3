"""Azure DNS 2018-05-01 (https://learn.microsoft.com/rest/api/dns/): an application of Microsoft Entra ID, and TXT record sets
that change only from the ETag that was read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from application.errors import Failure, ZoneConflict, ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess
from interfaces.dns.access_tokens import AccessTokens, AuthorizedApi
from interfaces.dns.held_zones import HeldZone
from interfaces.dns.http_api import HttpApi, shaped
from interfaces.dns.locks import place_of
from interfaces.dns.provider_types import ProviderType, Surroundings, Token, Url
from interfaces.dns.record_sets import RecordSet, RecordSetsZone
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.txt_strings import LONGEST_STRING
from interfaces.foreign_text import clean

LOGIN_URL, MANAGEMENT_URL = "https://login.microsoftonline.com", "https://management.azure.com"
SCOPE = "https://management.azure.com/.default"
VERSION: Mapping[str, str] = {"api-version": "2018-05-01"}
MOST_PAGES = 200
MOST_OCTETS = 4  # of a character in UTF-8
ORIGIN_AND_REST = re.compile(r"(https?://[^/?#\\]+)(.*)", re.DOTALL)
NO_SUCH_SET = "NotFound"
DENIED = frozenset({"ScopeLocked", "ReadOnlyDisabledSubscription", "RequestDisallowedByPolicy"})
"""Codes of what an administrator has forbidden, whatever their status."""

Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")]
TenantId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")]
ResourceGroup = Annotated[str, msgspec.Meta(pattern=r"^[\w().-]{0,89}[\w()-]\Z")]


class AzureConfig(msgspec.Struct, frozen=True):
    """`resource_group` is the one that holds the zones. At `base_url` both tokens and zones are asked for."""

    subscription_id: Uuid
    resource_group: ResourceGroup
    base_url: Url | None = None


class AzureCredentials(Credentials, frozen=True):
    """`tenant_id` is the directory's id or one of its domains, `client_secret` the secret's value (not its id)."""

    tenant_id: TenantId
    client_id: Uuid
    client_secret: Token


class ZoneProperties(msgspec.Struct, frozen=True, rename="camel"):
    zone_type: str = "Public"


class ZoneOfAzure(msgspec.Struct, frozen=True):
    name: str
    properties: ZoneProperties = ZoneProperties()


class ZonesPage(msgspec.Struct, frozen=True, rename="camel"):
    value: list[ZoneOfAzure]
    next_link: str | None = None


class TxtRecord(msgspec.Struct, frozen=True):
    """The strings of one value."""

    value: list[str]


class TxtProperties(msgspec.Struct, frozen=True, omit_defaults=True, rename={"ttl": "TTL", "records": "TXTRecords"}):
    ttl: int
    records: list[TxtRecord] = []
    metadata: dict[str, str] | None = None


class TxtSet(msgspec.Struct, frozen=True):
    etag: Annotated[str, msgspec.Meta(pattern=r"^[ -~]+\Z")]
    properties: TxtProperties


class AzureApi:
    """RecordSetsApi. The state of a set is its TxtSet, which may be one without values."""

    def __init__(
        self, config: AzureConfig, credentials: AzureCredentials, ttl_seconds: int, around: Surroundings
    ) -> None:
        self._ttl_seconds = ttl_seconds
        tokens = AccessTokens(
            "Microsoft Entra ID",
            f"{(config.base_url or LOGIN_URL).rstrip('/')}/{credentials.tenant_id}/oauth2/v2.0/token",
            around.egress,
            lambda: {
                "grant_type": "client_credentials",
                "client_id": credentials.client_id,
                "client_secret": credentials.client_secret,
                "scope": SCOPE,
            },
            "client_secret",
        )
        self._origin, path = _origin_and_rest(config.base_url or MANAGEMENT_URL)
        group = f"subscriptions/{config.subscription_id}/resourceGroups/{quote(config.resource_group, safe='')}"
        self._zones = f"{path.rstrip('/')}/{group}/providers/Microsoft.Network/dnsZones"
        api = HttpApi(
            "Azure DNS",
            self._origin,
            around.egress,
            dict,
            tokens.secrets,
            lambda status, body: failure_of(status, body, tuple(tokens.secrets)),
        )
        self._api = AuthorizedApi(api, tokens)

    def zones(self) -> Sequence[HeldZone]:
        """Without the private ones, which the public DNS does not see."""
        return [
            HeldZone(zone.name.lower(), zone.name)
            for page in self._pages()
            for zone in page.value
            if zone.properties.zone_type == "Public"
        ]

    def read(self, zone: HeldZone, record_name: str) -> RecordSet:
        try:
            held = shaped(self._api.call("GET", self._place(zone, record_name), params=VERSION), TxtSet)
        except NoSuchSet:
            return RecordSet(())
        return RecordSet(tuple("".join(record.value) for record in held.properties.records), held)

    def write(self, zone: HeldZone, record_name: str, before: RecordSet, values: Sequence[str]) -> None:
        """What stays is cut into strings as it was."""
        held: TxtSet | None = before.state
        place, unless = self._place(zone, record_name), {"If-None-Match": "*"}
        properties = TxtProperties(self._ttl_seconds)
        if held is not None:
            unless, properties = {"If-Match": held.etag}, held.properties
        staying = [record for record, value in zip(properties.records, before.values, strict=True) if value in values]
        records = [*staying, *(TxtRecord(_strings(value)) for value in values if value not in before.values)]
        if records:
            body = {"properties": msgspec.structs.replace(properties, records=records)}
            self._api.call("PUT", place, params=VERSION, body=body, headers=unless)
        else:
            self._api.call("DELETE", place, params=VERSION, headers=unless)

    def _place(self, zone: HeldZone, record_name: str) -> str:
        relative = "@" if record_name == zone.dns_name else record_name.removesuffix(f".{zone.dns_name}")
        return f"{self._zones}/{quote(zone.zone_id, safe='')}/TXT/{quote(relative, safe='@*')}"

    def _pages(self) -> Iterator[ZonesPage]:
        page = shaped(self._api.call("GET", self._zones, params=VERSION), ZonesPage)
        for _ in range(MOST_PAGES):
            yield page
            if not page.next_link:
                return
            origin, rest = _origin_and_rest(page.next_link)
            if origin != self._origin:
                raise ZoneUnreachable("Azure DNS: a list that goes on elsewhere")
            page = shaped(self._api.call("GET", rest), ZonesPage)
        raise ZoneUnreachable("Azure DNS: a list without an end")


class NoSuchSet(ZoneConflict):
    """The zone is there, and has no set of that name."""


def failure_of(status: int, body: Any, secrets: tuple[str, ...]) -> Failure | None:
    """By the code, in either of the two forms: `{"error": {"code", "message"}}`, or these two alone."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None
    code = error.get("code")
    detail = clean(f"Azure DNS: {status} {code}: {error.get('message', '')}", secrets)
    if code == NO_SUCH_SET:
        return NoSuchSet(detail)
    if code in DENIED:
        return ZoneRefused("permission_missing", detail)
    return None


def _origin_and_rest(url: str) -> tuple[str, str]:
    """`https://host[:port]` in lower case without a port that goes without saying, and what follows it."""
    parts = ORIGIN_AND_REST.fullmatch(url)
    if parts is None:
        return "", ""
    origin = parts[1].lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80"), parts[2]


def _strings(value: str) -> list[str]:
    """Of at most 255 octets each."""
    length = LONGEST_STRING if value.isascii() else LONGEST_STRING // MOST_OCTETS
    return [value[at : at + length] for at in range(0, max(len(value), 1), length)]


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, AzureConfig, AzureCredentials)
    return RecordSetsZone(
        place_of("azure", config.base_url or "", config.subscription_id, config.resource_group),
        AzureApi(config, credentials, common.ttl_seconds, around),
        around.lock,
    )


TYPE = ProviderType(
    name="azure",
    title="Azure DNS",
    config=AzureConfig,
    credentials=AzureCredentials,
    connect=connect,
    least_privilege="An application with a custom role of these actions at the zones' resource group (`DNS Zone Contributor` "
    "has more); `Microsoft.Network/dnsZones/TXT/*` may be given at the managed zones alone.",
    policy={
        "Name": "ScaiVault DNS",
        "IsCustom": True,
        "Actions": [
            "Microsoft.Network/dnsZones/read",
            "Microsoft.Network/dnsZones/TXT/read",
            "Microsoft.Network/dnsZones/TXT/write",
            "Microsoft.Network/dnsZones/TXT/delete",
        ],
        "NotActions": [],
        "AssignableScopes": ["/subscriptions/<subscription_id>/resourceGroups/<resource_group>"],
    },
    verify_checks="A token is asked for with the secret, and the resource group's public zones are listed.",
)
