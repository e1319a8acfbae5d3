"""Azure DNS 2018-05-01 with Microsoft Entra ID's token endpoint (https://learn.microsoft.com/rest/api/dns/), as far as zones
and TXT record sets go."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.dns_stand_ins.api import Answer, Request, StandIn

TENANT = "11111111-2222-3333-4444-555555555555"
SUBSCRIPTION = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
GROUP = "dns-(prod)_1"
PLACE = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)/providers/Microsoft\.Network/dnsZones"
    r"(?:/(?P<zone>[^/]+)/TXT/(?P<name>[^/]+))?",
    re.IGNORECASE,
)
TOKEN = re.compile(r"/(?P<tenant>[^/]+)/oauth2/v2\.0/token")
RELATIVE = re.compile(r"@|(?=.{1,253}\Z)(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
SCOPE = "https://management.azure.com/.default"
MOST_RECORDS, LONGEST_STRING, LONGEST_SET = 20, 255, 4096
HOUR = 3600


@dataclass
class Client:
    client_id: str
    secret: str
    token: str
    may_write: bool


@dataclass
class TxtSet:
    etag: str
    ttl: int
    values: list[list[str]]
    metadata: dict[str, str] = field(default_factory=dict)


class Azure(StandIn):
    """`owner` may do everything in the group, `reader` may look. Each list has `page` entries."""

    def __init__(self, zones: Sequence[str], *, page: int = 1) -> None:
        super().__init__()
        self.owner = Client("00000000-0000-0000-0000-000000000001", "o~8Q.+/=%_secret", "", may_write=True)
        self.reader = Client("00000000-0000-0000-0000-000000000002", "r~8Q.secret", "", may_write=False)
        self.next_link_origin = self.url
        self._page_size = page
        self._numbers = itertools.count(1)
        self.revoke()
        self._zones = {"internal.example": "Private", **{zone.capitalize(): "Public" for zone in zones}}
        self._sets: dict[tuple[str, str], TxtSet] = {}

    def revoke(self) -> None:
        """The tokens that are out are good for nothing any more."""
        for each in (self.owner, self.reader):
            each.token = f"eyJ0eXAi.{next(self._numbers):0100d}.signature"

    def set_of(self, name: str) -> TxtSet:
        return self._sets[self._where(name)]

    def txt(self, name: str) -> list[str]:
        held = self._sets.get(self._where(name))
        return sorted("".join(value) for value in held.values) if held else []

    def write(self, name: str, value: str, *strings: str) -> None:
        """With a TTL and metadata that are not ours, and cut as it is."""
        held = self._sets.get(self._where(name))
        values = [*(held.values if held else []), [value, *strings]]
        self._sets[self._where(name)] = TxtSet(self._etag(), 300, values, {"owner": "somebody"})

    def empty(self, name: str) -> None:
        """A set may be there without a value."""
        self._sets[self._where(name)] = TxtSet(self._etag(), 300, [])

    def erase(self, name: str) -> None:
        del self._sets[self._where(name)]

    def answer(self, request: Request) -> Answer:
        if signing_in := TOKEN.fullmatch(request.path):
            return self._token(signing_in["tenant"], request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            return refused(401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
        asking = next((each for each in (self.owner, self.reader) if each.token == token), None)
        if asking is None:
            return refused(401, "InvalidAuthenticationToken", "The access token is invalid.")
        place = PLACE.fullmatch(unquote(request.path))
        if place is None:
            return refused(404, "InvalidResourceType", "The resource type could not be found.")
        if "api-version" not in request.query:
            return refused(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required"
            )
        if request.query["api-version"] != "2018-05-01":
            return refused(400, "NoRegisteredProviderFound", "No registered resource provider found for API version")
        if place["subscription"].lower() != SUBSCRIPTION:
            return refused(
                404, "SubscriptionNotFound", f"The subscription '{place['subscription']}' could not be found."
            )
        if request.method != "GET" and not asking.may_write:
            return refused(
                403,
                "AuthorizationFailed",
                f"The client '{asking.client_id}' does not have authorization to perform action "
                "'Microsoft.Network/dnsZones/TXT/write' or the scope is invalid.",
            )
        if place["group"].lower() != GROUP.lower():
            return refused(404, "ResourceGroupNotFound", f"Resource group '{place['group']}' could not be found.")
        if place["zone"] is None:
            return self._list(request)
        if place["zone"].lower() not in map(str.lower, self._zones):
            return refused(
                404,
                "ParentResourceNotFound",
                f"Can not perform requested operation on nested resource. Parent resource '{place['zone']}' not found.",
            )
        where = (place["zone"].lower(), place["name"])
        match request.method:
            case "GET" if where in self._sets:
                return Answer(200, self._shown(where))
            case "GET":
                words = f"The resource record '{where[1]}' does not exist in resource group '{GROUP}'."
                return Answer(404, {"code": "NotFound", "message": words})
            case "PUT":
                return self._put(where, request)
            case "DELETE":
                return self._unless(where, request) or Answer(200 if self._sets.pop(where, None) else 204)
            case _:
                return refused(405, "HttpMethodNotAllowed", "The requested resource does not support http method.")

    def _token(self, tenant: str, request: Request) -> Answer:
        if request.method != "POST" or request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return not_granted(400, "invalid_request", 900144, "The request body must contain: 'grant_type'.")
        form = {name: said[0] for name, said in parse_qs(request.body, strict_parsing=True).items()}
        if set(form) != {"grant_type", "client_id", "client_secret", "scope"}:
            return not_granted(400, "invalid_request", 900144, "The request body must contain another parameter.")
        if form["grant_type"] != "client_credentials":
            return not_granted(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
        if tenant != TENANT:
            return not_granted(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        client = next((each for each in (self.owner, self.reader) if each.client_id == form["client_id"]), None)
        if client is None:
            return not_granted(400, "unauthorized_client", 700016, "Application was not found in the directory.")
        if form["client_secret"] != client.secret:
            return not_granted(401, "invalid_client", 7000215, "Invalid client secret provided.")
        if form["scope"] != SCOPE:
            return not_granted(400, "invalid_scope", 70011, "The provided value for scope is not valid.")
        granted = {"token_type": "Bearer", "expires_in": HOUR, "ext_expires_in": HOUR, "access_token": client.token}
        return Answer(200, granted)

    def _list(self, request: Request) -> Answer:
        if request.method != "GET":
            return refused(405, "HttpMethodNotAllowed", "The requested resource does not support http method.")
        begin = int(request.query.get("$skiptoken", "0"))
        shown = [
            {
                "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Network/dnszones/{name}",
                "name": name,
                "type": "Microsoft.Network/dnszones",
                "location": "global",
                "properties": {"zoneType": kind, "maxNumberOfRecordsPerRecordSet": None},
            }
            for name, kind in self._zones.items()
        ]
        end = begin + self._page_size
        link = f"{self.next_link_origin}{request.path}?api-version=2018-05-01&$skiptoken={end}"
        following = {"nextLink": link} if end < len(shown) else {}
        return Answer(200, {"value": shown[begin:end], **following})

    def _put(self, where: tuple[str, str], request: Request) -> Answer:
        if request.headers.get("content-type") != "application/json" or not isinstance(request.body, Mapping):
            return refused(415, "UnsupportedMediaType", "The content media type is not supported.")
        wrong = _wrong(where[1], request.body)
        if wrong is not None:
            return Answer(400, {"code": "BadRequest", "message": wrong})
        conflict = self._unless(where, request)
        if conflict is not None:
            return conflict
        said = request.body["properties"]
        values = [record["value"] for record in said.get("TXTRecords", [])]
        created = where not in self._sets
        self._sets[where] = TxtSet(self._etag(), said["TTL"], values, said.get("metadata", {}))
        return Answer(201 if created else 200, self._shown(where))

    def _unless(self, where: tuple[str, str], request: Request) -> Answer | None:
        held = self._sets.get(where)
        wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
        if unwanted == "*" and held is not None:
            return unmet("The condition '*' in the If-None-Match header was not satisfied.")
        if wanted is not None and (held is None or held.etag != wanted):
            return unmet(f"The condition '{wanted}' in the If-Match header was not satisfied.")
        if wanted is None and unwanted is None:
            return Answer(400, {"code": "BadRequest", "message": "here nobody writes over what he has not read"})
        return None

    def _shown(self, where: tuple[str, str]) -> Any:
        held = self._sets[where]
        properties: dict[str, Any] = {
            "TTL": held.ttl,
            "fqdn": f"{where[1]}.{where[0]}.",
            "TXTRecords": [{"value": value} for value in held.values],
            "targetResource": {},
            "provisioningState": "Succeeded",
        }
        if held.metadata:
            properties["metadata"] = held.metadata
        return {"name": where[1], "type": "Microsoft.Network/dnszones/TXT", "etag": held.etag, "properties": properties}

    def _where(self, name: str) -> tuple[str, str]:
        zone = max((zone.lower() for zone in self._zones if f".{name}".endswith(f".{zone.lower()}")), key=len)
        return zone, name.removesuffix(zone).rstrip(".") or "@"

    def _etag(self) -> str:
        return f"{next(self._numbers):08x}-0000-4000-8000-000000000000"


def refused(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}})


def unmet(message: str) -> Answer:
    return Answer(412, {"code": "PreconditionFailed", "message": message})


def not_granted(status: int, error: str, number: int, words: str) -> Answer:
    return Answer(
        status,
        {
            "error": error,
            "error_description": f"AADSTS{number}: {words} Trace ID: 0 Correlation ID: 0",
            "error_codes": [number],
            "error_uri": f"https://login.microsoftonline.com/error?code={number}",
        },
    )


def _wrong(name: str, body: Mapping[str, Any]) -> str | None:
    """What the API would not take."""
    said = body.get("properties")
    if set(body) - {"properties", "etag"} or not isinstance(said, Mapping):
        return "The request content was invalid."
    if not RELATIVE.fullmatch(name):
        return f"The relative domain name '{name}' is invalid."
    if set(said) - {"TTL", "TXTRecords", "metadata"}:
        return "The record set has properties that are not its own."
    if not isinstance(said.get("TTL"), int) or not 1 <= said["TTL"] < 2**31:
        return "The TTL is out of range."
    records = [tuple(record["value"]) for record in said.get("TXTRecords", [])]
    if len(records) > MOST_RECORDS or len(set(records)) != len(records):
        return "The record set has too many records, or one of them twice."
    strings = [string for record in records for string in record]
    if not all(isinstance(string, str) and len(string.encode()) <= LONGEST_STRING for string in strings):
        return "A TXT string is longer than 255 characters."
    return "The TXT set is too long." if sum(map(len, strings)) > LONGEST_SET else None
