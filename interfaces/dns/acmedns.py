"""acme-dns (https://github.com/joohoi/acme-dns): one account is one subdomain, which shows the two newest values it was given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from application.errors import Failure, ZoneRefused
from application.ports import DnsZone, ProviderAccess, TxtValue
from domain.names import base_name, zone_covers
from interfaces.dns.http_api import HttpApi
from interfaces.dns.provider_types import ProviderType, Surroundings, Token, Url
from interfaces.dns.settings import Credentials, settings_of

VALUES_KEPT = 2
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
FORBIDDEN = 401
NOT_TAKEN = frozenset({"bad_subdomain", "bad_txt"})

Label = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")]


class AcmeDnsConfig(msgspec.Struct, frozen=True):
    """`base_url` is where `/update` is; there is no server for everybody."""

    base_url: Url


class AcmeDnsCredentials(Credentials, frozen=True):
    """As `/register` has given them out."""

    username: Token
    password: Token
    subdomain: Label


class AcmeDnsZone:
    """DnsZone. A value goes to the account's subdomain, whatever its record's name: that is a CNAME, or its end.

    The server lists nothing and removes nothing. Each write takes the place of the older of its two values, also one that
    is there already: who writes one of two again loses the other. So both go into one `add`, and a name that two orders
    may be busy with at once needs an account for each."""

    def __init__(
        self,
        config: AcmeDnsConfig,
        credentials: AcmeDnsCredentials,
        managed_zones: Sequence[str],
        around: Surroundings,
    ) -> None:
        said = {"X-Api-User": credentials.username, "X-Api-Key": credentials.password}
        secrets = (credentials.password, credentials.username)
        self._subdomain = credentials.subdomain
        self._managed_zones = tuple(managed_zones)
        self._api = HttpApi("acme-dns", config.base_url, around.egress, lambda: said, secrets, failure_of)

    def add(self, values: Sequence[TxtValue]) -> None:
        """At most two values, of one name. Raises ZoneRefused before anything is written: a third would push out the
        first."""
        names = self._held(values)
        challenges = sorted({value.value for value in values})
        if len(names) > 1:
            raise ZoneRefused("zone_not_found", f"an acme-dns account is one name, and these are {', '.join(names)}")
        if len(challenges) > VALUES_KEPT:
            raise ZoneRefused("permission_missing", f"acme-dns keeps {VALUES_KEPT} values, not {len(challenges)}")
        if not all(CHALLENGE.fullmatch(challenge) for challenge in challenges):
            raise ZoneRefused(
                "permission_missing", "acme-dns takes 43 characters of base64url as a value, nothing else"
            )
        for challenge in challenges:
            self._api.call("POST", "/update", body={"subdomain": self._subdomain, "txt": challenge})

    def remove(self, values: Sequence[TxtValue]) -> None:
        """Does nothing: the server has no way to. A value goes when two newer ones have come."""
        self._held(values)

    def zones(self) -> Sequence[str]:
        """Those it was told to manage: the server cannot be asked."""
        return sorted({base_name(zone).lower() for zone in self._managed_zones})

    def _held(self, values: Sequence[TxtValue]) -> Sequence[str]:
        """The names, in lower case and sorted. Raises ZoneRefused where one is none of ours."""
        names = sorted({value.record_name.lower() for value in values})
        for name in names:
            is_own = name.split(".")[0] == self._subdomain.lower()
            if not is_own and not any(zone_covers(zone, name) for zone in self._managed_zones):
                raise ZoneRefused("zone_not_found", f"{name} is neither the account's subdomain nor in a managed zone")
        return names


def failure_of(status: int, body: Any) -> Failure | None:
    """A refusal is one word, and `forbidden` is all that is said of four different faults."""
    error = body.get("error") if isinstance(body, dict) else None
    if status == FORBIDDEN:
        detail = "unknown user, wrong key, another account's subdomain, or not allowed from our address"
        return ZoneRefused("credentials_rejected", f"acme-dns: 401 forbidden: {detail}")
    if isinstance(error, str) and error in NOT_TAKEN:
        return ZoneRefused("permission_missing", f"acme-dns: {status} {error}")
    return None


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    _, config, credentials = settings_of(access, AcmeDnsConfig, AcmeDnsCredentials)
    return AcmeDnsZone(config, credentials, access.managed_zones, around)


TYPE = ProviderType(
    name="acmedns",
    title="acme-dns",
    config=AcmeDnsConfig,
    credentials=AcmeDnsCredentials,
    connect=connect,
    least_privilege="An account of its own for each name, registered with `allowfrom` set to the service's addresses.",
    policy={"allowfrom": ["the service's addresses, as CIDR"]},
    verify_checks="Nothing: the server lists nothing. A write test writes, and pushes the older of the two values out.",
)
