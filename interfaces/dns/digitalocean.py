"""DigitalOcean's API v2 (https://docs.digitalocean.com/reference/api/): a token, its domains, and single TXT records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from application.errors import Failure, ZoneConflict, ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess
from interfaces.dns.held_zones import HeldZone
from interfaces.dns.http_api import HttpApi, known_form
from interfaces.dns.provider_types import ProviderType, Surroundings, Token, Url
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.single_records import HeldRecord, SingleRecordsZone
from interfaces.foreign_text import clean
from interfaces.retry_after import LONGEST_SECONDS, retry_after_seconds, seconds_since_1970

BASE_URL = "https://api.digitalocean.com/v2"
A_PAGE = 200
MOST_PAGES = 200
SHORTEST_TTL_SECONDS = 30
APEX = "@"
UNPROCESSABLE = 422
ATTEMPTS = 5
SECONDS_BETWEEN_ATTEMPTS = 0.2


class DigitalOceanConfig(msgspec.Struct, frozen=True):
    base_url: Url = BASE_URL


class DigitalOceanCredentials(Credentials, frozen=True):
    """A personal access token."""

    api_token: Token


class DigitalOceanApi:
    """RecordsApi. Data are taken and given as plain text, without quotes or escapes."""

    def __init__(
        self,
        config: DigitalOceanConfig,
        credentials: DigitalOceanCredentials,
        ttl_seconds: int,
        around: Surroundings,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        token = credentials.api_token
        self._ttl_seconds = max(ttl_seconds, SHORTEST_TTL_SECONDS)
        self._pause = pause
        self._api = HttpApi(
            "DigitalOcean",
            config.base_url,
            around.egress,
            lambda: {"Authorization": f"Bearer {token}"},
            (token,),
            lambda status, body: failure_of(status, body, token),
            wait_seconds,
        )

    def zones(self) -> Sequence[HeldZone]:
        with known_form():
            return [HeldZone(domain["name"].lower(), domain["name"]) for domain in self._pages("/domains", "domains")]

    def records(self, zone: HeldZone, record_name: str) -> Sequence[HeldRecord]:
        # The filter wants the whole name, the records show it without the zone's.
        wanted = {"type": "TXT", "name": record_name}
        with known_form():
            return [
                HeldRecord(str(record["id"]), record["data"])
                for record in self._pages(_records(zone), "domain_records", wanted)
                if record["type"] == "TXT" and record["name"].lower() == _relative(zone, record_name)
            ]

    def create(self, zone: HeldZone, record_name: str, value: str) -> None:
        name = _relative(zone, record_name)
        self._write("POST", _records(zone), {"type": "TXT", "name": name, "data": value, "ttl": self._ttl_seconds})

    def delete(self, zone: HeldZone, record_id: str) -> None:
        try:
            self._write("DELETE", f"{_records(zone)}/{record_id}")
        except ZoneRefused as refused:
            if refused.reason != "zone_not_found":
                raise

    def _write(self, method: str, path: str, body: Any = msgspec.UNSET) -> None:
        """Two writes to one domain at a time can be a deadlock in DigitalOcean's database, which undoes one of them."""
        for attempt in range(1, ATTEMPTS):
            try:
                self._api.call(method, path, body=body)
            except Deadlock:
                self._pause(SECONDS_BETWEEN_ATTEMPTS * attempt)
            else:
                return
        self._api.call(method, path, body=body)

    def _pages(self, path: str, collection: str, params: Mapping[str, str] | None = None) -> Iterator[Any]:
        for page in range(1, MOST_PAGES + 1):
            answer = self._api.call("GET", path, params={**(params or {}), "per_page": A_PAGE, "page": page})
            with known_form():
                found = list(answer[collection])
                more = "next" in ((answer.get("links") or {}).get("pages") or {})
            yield from found
            if not more:
                return
        raise ZoneUnreachable("DigitalOcean: a list without an end")


class Deadlock(ZoneConflict):
    """Nothing was written."""


def _records(zone: HeldZone) -> str:
    return f"/domains/{zone.zone_id}/records"


def _relative(zone: HeldZone, record_name: str) -> str:
    return record_name.removesuffix(zone.dns_name).removesuffix(".") or APEX


def failure_of(status: int, body: Any, token: str) -> Failure | None:
    message = str(body.get("message", "")) if isinstance(body, dict) else ""
    if status == UNPROCESSABLE and "deadlock" in message.lower():
        return Deadlock(clean(f"DigitalOcean: {status} {message}", (token,)))
    return None


def wait_seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` where the requests of a minute are too many; where those of an hour are, `RateLimit-Reset` (Unix time)
    tells when the oldest counts no longer."""
    said, reset = retry_after_seconds(headers), headers.get("RateLimit-Reset", "")
    if said is not None or not (reset.isascii() and reset.isdecimal()):
        return said
    answered = seconds_since_1970(headers.get("Date", ""))
    return min(max(float(reset) - (time.time() if answered is None else answered), 0.0), LONGEST_SECONDS)


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, DigitalOceanConfig, DigitalOceanCredentials)
    return SingleRecordsZone(DigitalOceanApi(config, credentials, common.ttl_seconds, around))


TYPE = ProviderType(
    name="digitalocean",
    title="DigitalOcean",
    config=DigitalOceanConfig,
    credentials=DigitalOceanCredentials,
    connect=connect,
    least_privilege=(
        "A personal access token with the custom scopes `domain:read`, `domain:create` and `domain:delete`."
        " A scope holds for all domains of the team."
    ),
    policy={"scopes": ["domain:read", "domain:create", "domain:delete"]},
    verify_checks="The domains that the token may read are listed.",
)
