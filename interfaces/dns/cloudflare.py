"""Cloudflare's API v4 (https://developers.cloudflare.com/api/): a token, its zones, and single TXT records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from application.errors import Failure, ZoneConflict, ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess
from interfaces.dns.held_zones import HeldZone
from interfaces.dns.http_api import HttpApi, known_form
from interfaces.dns.provider_types import ProviderType, Surroundings, Token, Url
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.single_records import HeldRecord, SingleRecordsZone
from interfaces.dns.txt_strings import quoted, unquoted
from interfaces.foreign_text import clean

BASE_URL = "https://api.cloudflare.com/client/v4"
ZONES_A_PAGE, RECORDS_A_PAGE = 50, 100
MOST_PAGES = 200
SHORTEST_TTL_SECONDS = 60
IDENTICAL_RECORD = 81058
NO_SUCH_RECORD = 81044
NOT_BELIEVED = frozenset({6003, 6111, 9106, 9109, 9103, 1000, 1001})
"""Codes of a token that is malformed, unknown, disabled or expired; 10000 says so too, and that it may not."""
AUTHENTICATION_ERROR = 10000


class CloudflareConfig(msgspec.Struct, frozen=True):
    base_url: Url = BASE_URL


class CloudflareCredentials(Credentials, frozen=True):
    """An API token (not the global key)."""

    api_token: Token


class CloudflareApi:
    """RecordsApi."""

    def __init__(
        self, config: CloudflareConfig, credentials: CloudflareCredentials, ttl_seconds: int, around: Surroundings
    ) -> None:
        token = credentials.api_token
        self._ttl_seconds = max(ttl_seconds, SHORTEST_TTL_SECONDS)
        self._api = HttpApi(
            "Cloudflare",
            config.base_url,
            around.egress,
            lambda: {"Authorization": f"Bearer {token}"},
            (token,),
            lambda status, body: failure_of(status, body, token),
        )

    def zones(self) -> Sequence[HeldZone]:
        with known_form():
            listed = self._pages("/zones", {"per_page": ZONES_A_PAGE})
            return [HeldZone(zone["name"].lower(), zone["id"]) for zone in listed]

    def records(self, zone: HeldZone, record_name: str) -> Sequence[HeldRecord]:
        wanted: Mapping[str, str | int] = {"type": "TXT", "name": record_name, "per_page": RECORDS_A_PAGE}
        with known_form():
            return [
                HeldRecord(record["id"], unquoted(record["content"]))
                for record in self._pages(f"/zones/{zone.zone_id}/dns_records", wanted)
                if record["type"] == "TXT" and record["name"].lower() == record_name
            ]

    def create(self, zone: HeldZone, record_name: str, value: str) -> None:
        record = {"type": "TXT", "name": record_name, "content": quoted(value), "ttl": self._ttl_seconds}
        self._api.call("POST", f"/zones/{zone.zone_id}/dns_records", body=record)

    def delete(self, zone: HeldZone, record_id: str) -> None:
        try:
            self._api.call("DELETE", f"/zones/{zone.zone_id}/dns_records/{record_id}")
        except RecordGone:
            return

    def _pages(self, path: str, params: Mapping[str, str | int]) -> Iterator[Any]:
        for page in range(1, MOST_PAGES + 1):
            answer = self._api.call("GET", path, params={**params, "page": page})
            with known_form():
                found, pages = list(answer["result"]), int(answer["result_info"].get("total_pages", 1))
            yield from found
            if page >= pages:
                return
        raise ZoneUnreachable("Cloudflare: a list without an end")


class RecordGone(ZoneConflict):
    """Somebody else has removed it."""


def failure_of(status: int, body: Any, token: str) -> Failure | None:
    """By the codes in the body, which say more than the status does."""
    said = body.get("errors") if isinstance(body, dict) else None
    errors = [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
    codes = {error.get("code") for error in errors}
    detail = clean(f"Cloudflare: {status} " + "; ".join(str(error.get("message", "")) for error in errors), (token,))
    if IDENTICAL_RECORD in codes:
        return ZoneConflict(detail)
    if NO_SUCH_RECORD in codes:
        return RecordGone(detail)
    if codes & NOT_BELIEVED:
        return ZoneRefused("credentials_rejected", detail)
    if AUTHENTICATION_ERROR in codes:
        return ZoneRefused("credentials_rejected" if status in (400, 401) else "permission_missing", detail)
    return None


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, CloudflareConfig, CloudflareCredentials)
    return SingleRecordsZone(CloudflareApi(config, credentials, common.ttl_seconds, around))


TYPE = ProviderType(
    name="cloudflare",
    title="Cloudflare",
    config=CloudflareConfig,
    credentials=CloudflareCredentials,
    connect=connect,
    least_privilege="An API token with `Zone → Zone → Read` and `Zone → DNS → Edit`, for the managed zones alone.",
    policy={
        "permissions": ["Zone:Zone:Read", "Zone:DNS:Edit"],
        "zone_resources": {"include": "specific zones"},
    },
    verify_checks="The zones that the token may read are listed.",
)
