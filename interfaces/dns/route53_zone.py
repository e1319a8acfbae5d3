"""Single TXT values in Route 53, whose API knows whole record sets only.

A change reads the set, and one batch deletes exactly what was read and creates the set with the values in or out. Route 53
refuses the batch when anybody wrote in between, whoever it was; the lock makes that rare among ourselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from application.errors import Failure, ZoneConflict, ZoneRefused
from application.ports import DnsZone, ProviderAccess, TxtValue
from domain.errors import FieldProblem, InvalidFields
from interfaces.dns.locks import ZoneLock
from interfaces.dns.provider_types import ProviderType, Surroundings
from interfaces.dns.route53 import HostedZone, Route53Account, Route53Config, Route53Credentials
from interfaces.dns.route53_errors import EarlierChangeUnfinished
from interfaces.dns.settings import settings_of
from interfaces.dns.txt_strings import quoted, unquoted

if TYPE_CHECKING:
    from mypy_boto3_route53.type_defs import (
        ChangeTypeDef,
        ResourceRecordSetOutputTypeDef,
        ResourceRecordSetTypeDef,
        ResourceRecordTypeDef,
    )

ATTEMPTS = 5
SECONDS_BETWEEN_ATTEMPTS = 0.5
SYNC_POLLS = 30
SECONDS_BETWEEN_POLLS = 2.0
ZONES_LIVE_SECONDS = 60.0

Merge = Callable[[Sequence[str], Sequence[str]], Sequence[str]]
"""From the records that are there, as Route 53 spells them, and the values to those that shall be there."""


class Route53Zone:
    """DnsZone over one Route 53 account. `lock` lets one process at a time write to a hosted zone: Route 53 itself takes
    no two changes of a zone at once, and a lock for each of many names could wait for itself."""

    def __init__(
        self, account: Route53Account, ttl_seconds: int, lock: ZoneLock, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._account = account
        self._ttl_seconds = ttl_seconds
        self._lock = lock
        self._pause = pause
        self._known: tuple[Sequence[HostedZone], float] = ((), 0.0)

    def add(self, values: Sequence[TxtValue]) -> None:
        for change_id in self._change(values, _with):
            self._wait_until_in_sync(change_id)

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._change(values, _without)

    def zones(self) -> Sequence[str]:
        return sorted({zone.dns_name for zone in self._hosted_zones(0.0)})

    def _change(self, values: Sequence[TxtValue], merge: Merge) -> Sequence[str]:
        """The ids of the changes that were needed, one per hosted zone."""
        change_ids = []
        for zone_id, by_name in self._by_zone(values).items():
            with self._lock(f"route53/{zone_id}"):
                change_id = self._swap(zone_id, by_name, merge)
            if change_id is not None:
                change_ids.append(change_id)
        return change_ids

    def _swap(self, zone_id: str, by_name: Mapping[str, Sequence[str]], merge: Merge) -> str | None:
        """The change's id, or None where all is as wanted already."""
        refused_at: Mapping[str, ResourceRecordSetOutputTypeDef | None] | None = None
        refusal: Failure | None = None
        for attempt in range(ATTEMPTS):
            if isinstance(refusal, EarlierChangeUnfinished):
                self._pause(SECONDS_BETWEEN_ATTEMPTS * attempt)
            held = {name: self._account.txt_record_set(zone_id, name) for name in by_name}
            # Refused although nobody changed anything: moto takes no CREATE of a set that it ever held before.
            overwrite = held == refused_at
            changes = [
                change
                for name, values in by_name.items()
                for change in self._changes(name, held[name], merge, values, overwrite=overwrite)
            ]
            if not changes:
                return None
            try:
                return self._account.change(zone_id, changes)
            except ZoneConflict as conflict:
                refusal, refused_at = conflict, held
            except EarlierChangeUnfinished as unfinished:
                refusal = unfinished
        raise refusal or ZoneConflict(f"the records in {zone_id} keep changing")

    def _changes(
        self,
        record_name: str,
        held: ResourceRecordSetOutputTypeDef | None,
        merge: Merge,
        values: Sequence[str],
        *,
        overwrite: bool,
    ) -> Sequence[ChangeTypeDef]:
        """From what is there to what shall be; the TTL of what is there stays."""
        before = [record["Value"] for record in held.get("ResourceRecords", [])] if held else []
        after = merge(before, values)
        if after == before:
            return []
        changes: list[ChangeTypeDef] = []
        if held and not (overwrite and after):
            changes.append({"Action": "DELETE", "ResourceRecordSet": held})
        if after:
            records: list[ResourceRecordTypeDef] = [{"Value": record} for record in after]
            name, ttl_seconds = f"{record_name}.", self._ttl_seconds
            wanted: ResourceRecordSetTypeDef = (
                {**held, "ResourceRecords": records}
                if held
                else {"Name": name, "Type": "TXT", "TTL": ttl_seconds, "ResourceRecords": records}
            )
            changes.append({"Action": "UPSERT" if overwrite else "CREATE", "ResourceRecordSet": wanted})
        return changes

    def _wait_until_in_sync(self, change_id: str) -> None:
        """At most a minute, and never in vain: the value is written, and the name servers are asked for it anyway."""
        for _ in range(SYNC_POLLS):
            try:
                if self._account.is_in_sync(change_id):
                    return
            except Failure:
                return
            self._pause(SECONDS_BETWEEN_POLLS)

    def _by_zone(self, values: Sequence[TxtValue]) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Zone id, then record name, then values."""
        by_zone: dict[str, dict[str, list[str]]] = {}
        for record_name, value in sorted({(value.record_name.lower(), value.value) for value in values}):
            zone = self._covering(record_name, ZONES_LIVE_SECONDS) or self._covering(record_name, 0.0)
            if zone is None:
                raise ZoneRefused("zone_not_found", f"Route 53: no public hosted zone holds {record_name}")
            by_zone.setdefault(zone.zone_id, {}).setdefault(record_name, []).append(value)
        return by_zone

    def _covering(self, record_name: str, oldest_seconds: float) -> HostedZone | None:
        """The longest zone wins; of two with the same name the first that Route 53 lists."""
        zones = self._hosted_zones(oldest_seconds)
        fitting = [zone for zone in zones if f".{record_name}".endswith(f".{zone.dns_name}")]
        return max(fitting, key=lambda zone: len(zone.dns_name), default=None)

    def _hosted_zones(self, oldest_seconds: float) -> Sequence[HostedZone]:
        """Listed anew when the list is older than that: an account may make five requests a second."""
        zones, listed_at = self._known
        if not zones or time.monotonic() - listed_at >= oldest_seconds:
            zones = self._account.hosted_zones()
            self._known = (zones, time.monotonic())
        return zones


def _with(records: Sequence[str], values: Sequence[str]) -> Sequence[str]:
    there = {unquoted(record) for record in records}
    return [*records, *(quoted(value) for value in values if value not in there)]


def _without(records: Sequence[str], values: Sequence[str]) -> Sequence[str]:
    return [record for record in records if unquoted(record) not in values]


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    common, config, credentials = settings_of(access, Route53Config, Route53Credentials)
    any_given = any(getattr(credentials, name) is not None for name in credentials.__struct_fields__)
    missing = [name for name in ("access_key_id", "secret_access_key") if getattr(credentials, name) is None]
    if any_given and missing:
        raise InvalidFields(
            *(FieldProblem(f"credentials.{name}", "required", "is required beside the others") for name in missing)
        )
    return Route53Zone(Route53Account(config, credentials, around.egress), common.ttl_seconds, around.lock)


TYPE = ProviderType(
    name="route53",
    title="Amazon Route 53",
    config=Route53Config,
    credentials=Route53Credentials,
    connect=connect,
    least_privilege="A policy that lists hosted zones, and changes nothing but TXT records of the managed ones. Without keys the"
    " host's own role is used; `role_arn` is assumed with either.",
    policy={
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["route53:ListHostedZones", "route53:GetChange"],
                "Resource": "*",
            },
            {
                "Effect": "Allow",
                "Action": ["route53:GetHostedZone", "route53:ListResourceRecordSets"],
                "Resource": "arn:aws:route53:::hostedzone/ZONE_ID",
            },
            {
                "Effect": "Allow",
                "Action": "route53:ChangeResourceRecordSets",
                "Resource": "arn:aws:route53:::hostedzone/ZONE_ID",
                "Condition": {"ForAllValues:StringEquals": {"route53:ChangeResourceRecordSetsRecordTypes": ["TXT"]}},
            },
        ],
    },
    verify_checks="The hosted zones that the keys may list are listed; private ones are left out.",
)
