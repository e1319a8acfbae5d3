"""Google Cloud DNS v1 with Google's token endpoint (https://cloud.google.com/dns/docs/reference/rest/v1), as far as zones and
record sets of TXT go."""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import dns.rdata
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dns.rdataclass import IN
from dns.rdatatype import TXT

from tests.dns_stand_ins.api import Answer, Request, StandIn

PROJECT = "acme-dns-1"
PLACE = re.compile(
    r"/dns/v1/projects/(?P<project>[^/]+)/managedZones(?:/(?P<zone>[^/]+)/(?P<kind>rrsets|changes)|(?P<zones>))"
)
NAME = re.compile(r"(?=.{1,254}\Z)(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)+")
STRINGS = re.compile(r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\[0-9]{3}|\\[^0-9])*"(?: "(?:[^"\\]|\\.)*")*')
WRITING = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
HOUR = 3600
MOST_RECORDS = 100


@dataclass
class Account:
    email: str
    key_id: str
    key: rsa.RSAPrivateKey
    token: str
    may_write: bool


@dataclass(frozen=True)
class Zone:
    name: str
    dns_name: str
    visibility: str


class Google(StandIn):
    """`owner` may do everything in the project, `reader` may look. Each list has `page` entries."""

    def __init__(self, zones: Sequence[str], *, page: int = 1) -> None:
        super().__init__()
        self.base_url = f"{self.url}/dns/v1"
        self.token_uri = f"{self.url}/token"
        self.expires_in = HOUR
        self.owner = account("owner", may_write=True)
        self.reader = account("reader", may_write=False)
        self._page_size = page
        self._tokens = (f"ya29.{number:0100d}" for number in itertools.count(1))
        self._changes = itertools.count(1)
        for each in (self.owner, self.reader):
            each.token = next(self._tokens)
        public = [Zone(f"zone-{number}", f"{zone}.", "public") for number, zone in enumerate(zones)]
        private = [Zone(f"private-{number}", f"{zone}.", "private") for number, zone in enumerate(zones)]
        self._zones = {zone.name: zone for zone in (*private, *public)}
        self._rrsets: dict[tuple[str, str], dict[str, Any]] = {}

    def key_file(self, of: Account, key: rsa.RSAPrivateKey | None = None) -> str:
        """With another key than the account's, one that is not known here."""
        pem = (key or of.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return json.dumps(
            {
                "type": "service_account",
                "project_id": PROJECT,
                "private_key_id": of.key_id,
                "private_key": pem.decode(),
                "client_email": of.email,
                "client_id": "100000000000000000001",
                "auth_uri": "https://accounts.google.com/o/oauth2/auth",
                "token_uri": self.token_uri,
                "universe_domain": "googleapis.com",
            }
        )

    def revoke(self) -> None:
        """The tokens that are out are good for nothing any more."""
        for each in (self.owner, self.reader):
            each.token = next(self._tokens)

    def txt(self, name: str) -> list[str]:
        rrsets = [rrset for (_, held), rrset in self._rrsets.items() if held == f"{name}."]
        return sorted(_text(rrdata) for rrset in rrsets for rrdata in rrset["rrdatas"])

    def write(self, name: str, value: str, spelt: str | None = None) -> None:
        """With a TTL that is not ours, and `spelt` as it is."""
        zones = [zone for zone in self._zones.values() if zone.visibility == "public"]
        zone = max((z for z in zones if f".{name}.".endswith(f".{z.dns_name}")), key=lambda z: len(z.dns_name))
        held = self._rrsets.get((zone.name, f"{name}."), {"rrdatas": []})["rrdatas"]
        self._rrsets[zone.name, f"{name}."] = _rrset(f"{name}.", 300, [*held, spelt or f'"{value}"'])

    def erase(self, name: str) -> None:
        self._rrsets = {place: rrset for place, rrset in self._rrsets.items() if place[1] != f"{name}."}

    def rrset(self, name: str) -> dict[str, Any]:
        (found,) = (rrset for (_, held), rrset in self._rrsets.items() if held == f"{name}.")
        return found

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            return self._token(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        asking = next((each for each in (self.owner, self.reader) if each.token == token), None)
        if scheme != "Bearer" or asking is None:
            return refused(
                401, "authError", "Request had invalid authentication credentials. Expected OAuth 2 access token."
            )
        place = PLACE.fullmatch(request.path)
        if place is None:
            return refused(404, "notFound", "Not Found")
        if place["project"] != PROJECT:
            return refused(403, "forbidden", "Forbidden")
        if request.method == "GET" and request.body is not None:
            return refused(400, "badRequest", "Bad Request")
        if place["zones"] is not None and request.method == "GET":
            shown = [
                {
                    "kind": "dns#managedZone",
                    "name": zone.name,
                    "dnsName": zone.dns_name,
                    "id": str(number),
                    "visibility": zone.visibility,
                }
                for number, zone in enumerate(self._zones.values())
            ]
            return self._page(request, "managedZones", shown)
        if place["zone"] not in self._zones:
            return refused(
                404, "notFound", f"The 'parameters.managedZone' resource named '{place['zone']}' does not exist."
            )
        match request.method, place["kind"]:
            case "GET", "rrsets":
                return self._list(request, place["zone"])
            case "POST", "changes" if not asking.may_write:
                return refused(403, "forbidden", "Forbidden")
            case "POST", "changes":
                return self._change(self._zones[place["zone"]], request)
            case _:
                return refused(404, "notFound", "Not Found")

    def _token(self, request: Request) -> Answer:
        if request.method != "POST" or request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return not_granted("invalid_request", "Bad Request")
        form = parse_qs(request.body, strict_parsing=True)
        if set(form) != {"grant_type", "assertion"} or form["grant_type"] != [
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        ]:
            return not_granted("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        header, claims, signature = form["assertion"][0].split(".")
        said, says = _decoded(header), _decoded(claims)
        account = next((each for each in (self.owner, self.reader) if each.email == says.get("iss")), None)
        if account is None:
            return not_granted("invalid_grant", "Invalid grant: account not found")
        if said != {"alg": "RS256", "typ": "JWT", "kid": account.key_id}:
            return not_granted("invalid_grant", "Invalid JWT Signature.")
        try:
            signed = f"{header}.{claims}".encode()
            account.key.public_key().verify(_octets(signature), signed, PKCS1v15(), SHA256())
        except InvalidSignature:
            return not_granted("invalid_grant", "Invalid JWT Signature.")
        if set(says) != {"iss", "scope", "aud", "iat", "exp"} or says["aud"] != self.token_uri:
            return not_granted("invalid_grant", "Invalid JWT: Failed audience check.")
        if not says["exp"] - HOUR <= says["iat"] <= time.time() + 10 < says["exp"] + 10:
            return not_granted("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if says["scope"] != WRITING:
            return not_granted("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        return Answer(200, {"access_token": account.token, "expires_in": self.expires_in, "token_type": "Bearer"})

    def _list(self, request: Request, zone: str) -> Answer:
        if not set(request.query) <= {"name", "type", "pageToken", "maxResults"}:
            return refused(400, "badRequest", "Unknown name")
        if "type" in request.query and "name" not in request.query:
            return refused(400, "invalid", "Invalid value for 'parameters.type': needs 'parameters.name'")
        name = request.query.get("name")
        if name is not None and not NAME.fullmatch(name):
            return refused(400, "invalid", f"Invalid value for 'parameters.name': '{name}'")
        others = [{**_rrset(f"other.{self._zones[zone].dns_name}", 60, ["192.0.2.1"]), "type": "A"}]
        held = [*others, *(rrset for (where, _), rrset in self._rrsets.items() if where == zone)]
        wanted = [
            rrset for rrset in held if all(rrset[key] == request.query.get(key, rrset[key]) for key in ("name", "type"))
        ]
        return self._page(request, "rrsets", wanted)

    def _change(self, zone: Zone, request: Request) -> Answer:
        body = request.body
        if not isinstance(body, Mapping) or not set(body) <= {"kind", "additions", "deletions"}:
            return refused(400, "badRequest", "Invalid JSON payload received.")
        additions, deletions = body.get("additions", []), body.get("deletions", [])
        if not additions and not deletions:
            return refused(400, "required", "The 'entity.change' parameter is required but was missing.")
        for place, rrset in enumerate(deletions):
            held = self._rrsets.get((zone.name, rrset["name"]))
            where = f"'entity.change.deletions[{place}]'"
            if held is None:
                return refused(404, "notFound", f"The {where} resource named '{rrset['name']} (TXT)' does not exist.")
            if any(rrset.get(key) != held[key] for key in ("name", "type", "ttl", "rrdatas")):
                return refused(412, "conditionNotMet", f"Precondition not met for {where}")
        going = {rrset["name"] for rrset in deletions}
        for place, rrset in enumerate(additions):
            where = f"entity.change.additions[{place}]"
            wrong = _wrong(rrset, zone)
            if wrong is not None:
                return refused(400, "invalid", f"Invalid value for '{where}.{wrong}'")
            if (zone.name, rrset["name"]) in self._rrsets and rrset["name"] not in going:
                return refused(
                    409, "alreadyExists", f"The resource '{where}' named '{rrset['name']} (TXT)' already exists"
                )
        for rrset in deletions:
            del self._rrsets[zone.name, rrset["name"]]
        for rrset in additions:
            self._rrsets[zone.name, rrset["name"]] = _rrset(rrset["name"], rrset["ttl"], rrset["rrdatas"])
        change = {"kind": "dns#change", "id": str(next(self._changes)), "status": "pending"}
        return Answer(200, {**change, "additions": additions, "deletions": deletions})

    def _page(self, request: Request, kind: str, everything: Sequence[Any]) -> Answer:
        said = request.query.get("pageToken", "after-0")
        if not re.fullmatch(r"after-\d+", said):
            return refused(400, "invalid", "Invalid value for 'parameters.pageToken'")
        begin = int(said.removeprefix("after-"))
        end = begin + self._page_size
        following = {"nextPageToken": f"after-{end}"} if end < len(everything) else {}
        return Answer(200, {"kind": f"dns#{kind}ListResponse", kind: everything[begin:end], **following})


def account(name: str, *, may_write: bool) -> Account:
    email = f"{name}@{PROJECT}.iam.gserviceaccount.com"
    return Account(email, f"{name}-key", rsa.generate_private_key(65537, 2048), "", may_write)


def refused(status: int, reason: str, message: str) -> Answer:
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return Answer(status, {"error": {"code": status, "message": message, "errors": errors}})


def not_granted(error: str, description: str) -> Answer:
    return Answer(400, {"error": error, "error_description": description})


def _wrong(rrset: Any, zone: Zone) -> str | None:
    """The field that the API would not take."""
    if set(rrset) - {"kind"} != {"name", "type", "ttl", "rrdatas"}:
        return "fields"
    if not NAME.fullmatch(rrset["name"]) or not f".{rrset['name']}".endswith(f".{zone.dns_name}"):
        return "name"
    if rrset["type"] != "TXT":
        return "type"
    if not isinstance(rrset["ttl"], int) or not 0 <= rrset["ttl"] < 2**31:
        return "ttl"
    rrdatas = rrset["rrdatas"]
    if not 1 <= len(rrdatas) <= MOST_RECORDS or len(set(rrdatas)) != len(rrdatas):
        return "rrdata"
    return next((f"rrdata[{place}]" for place, rrdata in enumerate(rrdatas) if not _is_txt(rrdata)), None)


def _is_txt(rrdata: str) -> bool:
    return bool(STRINGS.fullmatch(rrdata)) and rrdata.isascii() and all(len(each) <= 255 for each in _strings(rrdata))


def _rrset(name: str, ttl: int, rrdatas: Sequence[str]) -> dict[str, Any]:
    kind = {"kind": "dns#resourceRecordSet", "signatureRrdatas": []}
    return {**kind, "name": name, "type": "TXT", "ttl": ttl, "rrdatas": list(rrdatas)}


def _strings(rrdata: str) -> Sequence[bytes]:
    read: Any = dns.rdata.from_text(IN, TXT, rrdata)
    strings: Sequence[bytes] = read.strings
    return strings


def _text(rrdata: str) -> str:
    return b"".join(_strings(rrdata)).decode()


def _octets(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _decoded(part: str) -> Any:
    return json.loads(_octets(part))
