"""Google Cloud DNS v1 (https://cloud.google.com/dns/docs/reference/rest/v1): a service account, and record sets that change
only from exactly what was read."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from application.errors import Failure, ZoneConflict, ZoneThrottled, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess
from domain.errors import FieldProblem, InvalidFields
from interfaces.dns.access_tokens import AccessTokens, AuthorizedApi
from interfaces.dns.held_zones import HeldZone
from interfaces.dns.http_api import HttpApi, shaped
from interfaces.dns.locks import place_of
from interfaces.dns.provider_types import ProviderType, Surroundings, Url
from interfaces.dns.record_sets import RecordSet, RecordSetsZone
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.txt_strings import DECIMAL, quoted, unquoted
from interfaces.foreign_text import clean

BASE_URL = "https://dns.googleapis.com/dns/v1"
SCOPE = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS = 3600
MOST_PAGES = 200
GOOGLES_TOKEN_URI = re.compile(r"https://(?:[a-z0-9-]+\.)*googleapis\.com/[A-Za-z0-9/._-]*")
PATIENCE = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded"})
"""Reasons that come with 403, and pass."""
NOT_FOUND, FORBIDDEN = 404, 403


class GoogleConfig(msgspec.Struct, frozen=True):
    """`project` is the one that holds the zones, which need not be the service account's."""

    project: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9.:-]{0,98}[a-z0-9])?\Z")]
    base_url: Url = BASE_URL


class GoogleCredentials(Credentials, frozen=True):
    """A key of a service account, the whole JSON file as text."""

    service_account_json: Annotated[str, msgspec.Meta(max_length=16384)]


class KeyFile(Credentials, frozen=True):
    """What is used of the file."""

    type: Literal["service_account"]
    client_email: str
    private_key: str
    token_uri: Url
    private_key_id: str = ""


class ServiceAccount(NamedTuple):
    client_email: str
    key_id: str
    key: RSAPrivateKey
    token_uri: str

    def assertion(self, now: float) -> str:
        """A JWT (RFC 7523 §3, RS256) for an access token; `now` in seconds since 1970."""
        header = {"alg": "RS256", "typ": "JWT", "kid": self.key_id}
        claims = {
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": int(now),
            "exp": int(now) + ASSERTION_SECONDS,
        }
        signed = b".".join(map(_base64url, map(msgspec.json.encode, (header, claims))))
        return b".".join((signed, _base64url(self.key.sign(signed, PKCS1v15(), SHA256())))).decode()


class ManagedZone(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    dns_name: str
    visibility: str = "public"


class RecordsOfName(msgspec.Struct, frozen=True):
    """Google's ResourceRecordSet: `rrdatas` in presentation form (RFC 1035 §5.1)."""

    name: str
    type: str
    ttl: int = 0
    rrdatas: list[str] = []


class Page(msgspec.Struct, frozen=True, rename="camel"):
    managed_zones: list[ManagedZone] = []
    rrsets: list[RecordsOfName] = []
    next_page_token: str = ""


class GoogleApi:
    """RecordSetsApi. The state of a set is its RecordsOfName."""

    def __init__(self, config: GoogleConfig, account: ServiceAccount, ttl_seconds: int, around: Surroundings) -> None:
        self._ttl_seconds = ttl_seconds
        tokens = AccessTokens(
            "Google",
            account.token_uri,
            around.egress,
            lambda: {"grant_type": JWT_BEARER, "assertion": account.assertion(time.time())},
            "assertion",
        )
        base_url = f"{config.base_url.rstrip('/')}/projects/{config.project}/managedZones"
        api = HttpApi(
            "Google Cloud DNS",
            base_url,
            around.egress,
            dict,
            tokens.secrets,
            lambda status, body: failure_of(status, body, tuple(tokens.secrets)),
        )
        self._api = AuthorizedApi(api, tokens)

    def zones(self) -> Sequence[HeldZone]:
        """Without the private ones, which the public DNS does not see."""
        return [
            HeldZone(zone.dns_name.rstrip(".").lower(), zone.name)
            for page in self._pages("", {})
            for zone in page.managed_zones
            if zone.visibility == "public"
        ]

    def read(self, zone: HeldZone, record_name: str) -> RecordSet:
        wanted = {"name": f"{record_name}.", "type": "TXT"}
        for page in self._pages(f"/{quote(zone.zone_id, safe='')}/rrsets", wanted):
            for held in page.rrsets:
                if held.type == "TXT" and held.name.lower() == f"{record_name}.":
                    return RecordSet(tuple(unquoted(rrdata, DECIMAL) for rrdata in held.rrdatas), held)
        return RecordSet(())

    def write(self, zone: HeldZone, record_name: str, before: RecordSet, values: Sequence[str]) -> None:
        """What stays is spelt as it was."""
        held: RecordsOfName = before.state or RecordsOfName(f"{record_name}.", "TXT", self._ttl_seconds)
        staying = [rrdata for rrdata, value in zip(held.rrdatas, before.values, strict=True) if value in values]
        rrdatas = [*staying, *(quoted(value, DECIMAL) for value in values if value not in before.values)]
        change = {
            "deletions": [held] if before.state is not None else [],
            "additions": [msgspec.structs.replace(held, rrdatas=rrdatas)] if rrdatas else [],
        }
        self._api.call("POST", f"/{quote(zone.zone_id, safe='')}/changes", body=change)

    def _pages(self, path: str, params: Mapping[str, str]) -> Iterator[Page]:
        token: Mapping[str, str] = {}
        for _ in range(MOST_PAGES):
            page = shaped(self._api.call("GET", path, params={**params, **token}), Page)
            yield page
            if not page.next_page_token:
                return
            token = {"pageToken": page.next_page_token}
        raise ZoneUnreachable("Google Cloud DNS: a list without an end")


def failure_of(status: int, body: Any, secrets: tuple[str, ...]) -> Failure | None:
    """By what the body says beyond the status."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None
    message = str(error.get("message", ""))
    detail = clean(f"Google Cloud DNS: {status} {message}", secrets)
    if status == NOT_FOUND and "entity.change" in message:  # the set that was to go, not the zone
        return ZoneConflict(detail)
    reasons = {each.get("reason") for each in error.get("errors") or [] if isinstance(each, dict)}
    if status == FORBIDDEN and reasons & PATIENCE:
        return ZoneThrottled(detail)
    return None


def service_account(key_file_json: str, *, at_google: bool) -> ServiceAccount:
    """With `at_google` its tokens must come from there, so that nobody else is sent a signature of the key. Raises
    InvalidFields."""
    try:
        file = msgspec.json.decode(key_file_json, type=KeyFile)
    except (msgspec.DecodeError, RecursionError):
        raise _refused("is no service account's key file (JSON)") from None
    try:
        key = load_pem_private_key(file.private_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise _refused("has a `private_key` that is no RSA key in PEM")
    if at_google and not GOOGLES_TOKEN_URI.fullmatch(file.token_uri):
        raise _refused("has a `token_uri` that is not https on googleapis.com")
    return ServiceAccount(file.client_email, file.private_key_id, key, file.token_uri)


def _refused(words: str) -> InvalidFields:
    return InvalidFields(FieldProblem("credentials.service_account_json", "invalid", words))


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, GoogleConfig, GoogleCredentials)
    account = service_account(credentials.service_account_json, at_google=config.base_url == BASE_URL)
    return RecordSetsZone(
        place_of("google", config.base_url, config.project),
        GoogleApi(config, account, common.ttl_seconds, around),
        around.lock,
    )


TYPE = ProviderType(
    name="google",
    title="Google Cloud DNS",
    config=GoogleConfig,
    credentials=GoogleCredentials,
    connect=connect,
    least_privilege="A service account with a custom role of these permissions in the zones' project (`roles/dns.admin` has "
    "more). The DNS API must be enabled there.",
    policy={
        "title": "ScaiVault DNS",
        "stage": "GA",
        "includedPermissions": [
            "dns.managedZones.list",
            "dns.resourceRecordSets.list",
            "dns.resourceRecordSets.create",
            "dns.resourceRecordSets.update",
            "dns.resourceRecordSets.delete",
            "dns.changes.create",
        ],
    },
    verify_checks="A token is asked for with the key, and the project's public zones are listed; private ones are left out.",
)
