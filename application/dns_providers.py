"""Connecting DNS providers, verifying them, and reaching their zones."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from application.caller import Caller
from application.errors import EgressRefused, Failure, ZoneRefused, ZoneThrottled
from application.event_store import EventStore, Taken
from application.ports import Clock, DnsZone, DnsZones, Ids, KeyStore, ProviderAccess, TxtValue
from application.provider_config import COMMON_FIELDS, CommonConfig, common_config
from application.secret_value import SecretValue
from application.secrets import Secrets
from domain.dns_provider import DnsProvider, missing_zones
from domain.errors import (
    DnsProviderInUse,
    FieldProblem,
    InvalidFields,
    NameInUse,
    NotFound,
    ProviderVerificationFailed,
    VersionConflict,
)
from domain.names import base_name, normalise_dns_name, zone_covers
from domain.provenance import DEFAULT_TENANT, Provenance
from domain.secret import is_secret_path

SEALED_KIND = "dns-credentials"
CANARY_LABEL = "_acme-canary"
MOST_ZONES = 100


class Check(msgspec.Struct, frozen=True):
    name: str
    ok: bool
    detail: str


class Verification(msgspec.Struct, frozen=True):
    """`missing_zones` are managed zones that lie in none of `zones`."""

    verified: bool
    zones: Sequence[str]
    missing_zones: Sequence[str]
    checks: Sequence[Check]


class Changes(msgspec.Struct, frozen=True):
    """What is to be different from now on."""

    name: str | UnsetType = UNSET
    credentials: Mapping[str, str] | UnsetType = UNSET
    credentials_path: str | UnsetType = UNSET
    config: Mapping[str, Any] | UnsetType = UNSET
    managed_zones: Sequence[str] | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET

    def __repr__(self) -> str:
        return "Changes(…)"


class Elsewhere(Protocol):
    """What the read models know beyond the one provider."""

    def embedded_zones_of_others(self, tenant_id: str) -> Sequence[str]:
        """The zones of all other tenants' embedded providers."""

    def order_at_provider(self, dns_provider_id: str) -> str | None:
        """An order in progress that writes to its zones, or one that has values there to remove."""


class DnsProviders:
    def __init__(
        self,
        store: EventStore,
        keys: KeyStore,
        zones: DnsZones,
        others: Elsewhere,
        secrets: Secrets,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._keys = keys
        self._zones = zones
        self._others = others
        self._secrets = secrets
        self._clock = clock
        self._ids = ids

    def connect(
        self,
        *,
        name: str,
        provider_type: str,
        credentials: Mapping[str, str] | None,
        credentials_path: str | None,
        config: Mapping[str, Any],
        managed_zones: Sequence[str],
        verify: bool,
        caller: Caller,
    ) -> str:
        """The new provider's id. Raises InvalidFields, NameInUse, and with `verify` ProviderVerificationFailed."""
        if credentials is not None and credentials_path is not None:
            raise InvalidFields(FieldProblem("credentials_path", "unexpected", "either this or credentials"))
        if credentials_path is not None and not is_secret_path(credentials_path):
            raise InvalidFields(FieldProblem("credentials_path", "invalid_path", "not the path of a secret"))
        provider_id = self._ids.new("dnsp")
        zones = _normalised(managed_zones)
        common_config(config)
        sealed = SecretValue(msgspec.json.encode(credentials or {}))
        given = self._stored_credentials(caller.tenant_id, credentials_path) if credentials_path is not None else sealed
        self._require_own(provider_type, zones, given, caller)
        connection = self._connect(ProviderAccess(provider_type, zones, config, _fields(given)), credentials_path)
        held = self._list_zones(connection) if verify else None
        now = self._clock.now()
        provider = DnsProvider.connect(
            provider_id,
            tenant_id=caller.tenant_id,
            name=name,
            provider_type=provider_type,
            managed_zones=zones,
            config=config,
            sealed_credentials_id=None
            if credentials_path is not None
            else self._keys.seal(SEALED_KIND, caller.tenant_id, provider_id, sealed),
            credentials_path=credentials_path,
            now=now,
        )
        if held is not None:
            provider.verified(held, now)
        try:
            self._store.record(provider, by=caller.provenance)
        except Taken:
            raise NameInUse(name) from None
        return provider_id

    def revise(self, provider_id: str, changes: Changes, caller: Caller) -> None:
        """What is left out stays. Credentials that are replaced are destroyed. Raises NotFound, InvalidFields, NameInUse."""
        provider = self._load_own(provider_id, caller)
        if changes.credentials is not UNSET and changes.credentials_path is not UNSET:
            raise InvalidFields(FieldProblem("credentials_path", "unexpected", "either this or credentials"))
        path, sealed_id, sealed = provider.credentials_path, provider.sealed_credentials_id, None
        if changes.credentials is not UNSET:
            path, sealed = None, SecretValue(msgspec.json.encode(changes.credentials))
        if changes.credentials_path is not UNSET:
            path, sealed_id = changes.credentials_path, None
            if not is_secret_path(path):
                raise InvalidFields(FieldProblem("credentials_path", "invalid_path", "not the path of a secret"))
        zones = provider.managed_zones if changes.managed_zones is UNSET else _normalised(changes.managed_zones)
        config = provider.config if changes.config is UNSET else changes.config
        common_config(config)
        is_given_anew = changes.credentials is not UNSET or changes.credentials_path is not UNSET
        if _own_part(config) != _own_part(provider.config) and not is_given_anew:
            message = "who changes where a provider is reached gives its credentials again"  # or learns them there
            raise InvalidFields(FieldProblem("credentials", "required", message))
        given = sealed or self._credentials_of(provider, path)
        self._require_own(provider.provider_type, zones, given, caller)
        self._connect(ProviderAccess(provider.provider_type, zones, config, _fields(given)), path)
        if sealed is not None:
            sealed_id = self._keys.seal(SEALED_KIND, provider.tenant_id, provider.id, sealed)
        replaced = provider.sealed_credentials_id
        provider.revise(
            name=provider.name if changes.name is UNSET else changes.name,
            managed_zones=zones,
            config=config,
            sealed_credentials_id=sealed_id,
            credentials_path=path,
            is_active=provider.is_active if changes.is_active is UNSET else changes.is_active,
            now=self._clock.now(),
        )
        try:
            self._store.record(provider, by=caller.provenance)
        except Taken:
            raise NameInUse(provider.name) from None
        if replaced is not None and replaced != sealed_id:
            self._keys.shred([replaced])

    def disconnect(self, provider_id: str, caller: Caller) -> None:
        """Its credentials are destroyed. Raises NotFound, DnsProviderInUse."""
        provider = self._load_own(provider_id, caller)
        order_id = self._others.order_at_provider(provider_id)
        if order_id is not None:
            raise DnsProviderInUse(provider_id, order_id)
        provider.disconnect(self._clock.now())
        self._store.record(provider, by=caller.provenance)
        if provider.sealed_credentials_id is not None:
            self._keys.shred([provider.sealed_credentials_id])

    def verify(self, provider_id: str, *, write_test: bool, caller: Caller) -> Verification:
        """Lists the zones, and with `write_test` writes and removes a value in each managed one. Raises NotFound."""
        provider = self._load_own(provider_id, caller)
        checks: list[Check] = []
        held: Sequence[str] = ()
        missing: Sequence[str] = provider.managed_zones
        try:
            zone, _ = self.reach(provider)
            held = self._list_zones(zone)
            missing = missing_zones(provider.managed_zones, held)
            checks.append(Check("list_zones", ok=True, detail=f"{len(held)} zones"))
            provider.verified(held, self._clock.now())
            if write_test:
                reachable = [managed for managed in provider.managed_zones if managed not in missing]
                checks += [_write_test(zone, managed, provider.id) for managed in reachable]
        except (ProviderVerificationFailed, InvalidFields) as refusal:
            checks.append(Check("list_zones", ok=False, detail=str(refusal)))
            reason = refusal.reason if isinstance(refusal, ProviderVerificationFailed) else "credentials_rejected"
            provider.verification_failed(reason, str(refusal), self._clock.now())
        self._store.record(provider, by=caller.provenance)
        return Verification(
            verified=not missing and all(check.ok for check in checks),
            zones=held,
            missing_zones=missing,
            checks=checks,
        )

    def sing(self, provider: DnsProvider) -> Sequence[str]:
        """Writes and removes a value in each managed zone that the provider holds, and gives those zones. Raises Failure,
        InvalidFields."""
        zone, _ = self.reach(provider)
        missing = missing_zones(provider.managed_zones, zone.zones())
        held = [managed for managed in provider.managed_zones if managed not in missing]
        if not held:
            raise ZoneRefused("zone_not_found", f"the provider has none of {', '.join(missing)}")
        for managed in held:
            _write_and_remove(zone, _canary_in(managed, provider.id))
        return held

    def note(self, provider: DnsProvider, by: Provenance) -> None:
        """What an order learnt of its provider. Somebody else may have noticed it at the same moment."""
        with suppress(VersionConflict):
            self._store.record(provider, by=by)

    def reach(self, provider: DnsProvider) -> tuple[DnsZone, CommonConfig]:
        """The provider's zones, with its credentials as they are now. Raises InvalidFields, ProviderVerificationFailed."""
        if provider.is_gone:
            raise InvalidFields(FieldProblem("dns_provider_id", "gone", f"{provider.id} is not connected any longer"))
        credentials = self._credentials_of(provider, provider.credentials_path)
        _require_own_role(provider.provider_type, credentials, provider.tenant_id)  # a secret may be empty by now
        access = ProviderAccess(provider.provider_type, provider.managed_zones, provider.config, _fields(credentials))
        return self._connect(access, provider.credentials_path), common_config(provider.config)

    def _credentials_of(self, provider: DnsProvider, path: str | None) -> SecretValue:
        """Those at the path, or the sealed ones."""
        if path is not None:
            return self._stored_credentials(provider.tenant_id, path)
        return self._keys.open(SEALED_KIND, provider.tenant_id, provider.id, provider.sealed_credentials_id or "")

    def _load_own(self, provider_id: str, caller: Caller) -> DnsProvider:
        provider = self._store.load(DnsProvider, provider_id, caller.tenant_id)
        if provider.is_gone:
            raise NotFound(DnsProvider.TOPIC, provider_id)
        return provider

    def load(self, provider_id: str) -> DnsProvider:
        return self._store.load(DnsProvider, provider_id)

    def _connect(self, access: ProviderAccess, credentials_path: str | None) -> DnsZone:
        """What is wrong with a stored secret is not told field by field: the asker may not be allowed to read it."""
        try:
            return self._zones.connect(access)
        except InvalidFields as refusal:
            if credentials_path is None or not any(field.field.startswith("credentials") for field in refusal.fields):
                raise
            problem = FieldProblem("credentials_path", "unsuitable", "this secret does not hold such credentials")
            raise InvalidFields(problem) from None

    def _require_own(self, provider_type: str, zones: Sequence[str], credentials: SecretValue, caller: Caller) -> None:
        """What needs no credentials proves nothing about whose it is. Raises InvalidFields."""
        if provider_type == "embedded":
            taken = self._others.embedded_zones_of_others(caller.tenant_id)
            problems = [
                FieldProblem(f"managed_zones[{index}]", "taken", "another tenant's embedded zone")
                for index, zone in enumerate(map(base_name, zones))
                if any(zone_covers(zone, other) or zone_covers(other, zone) for other in taken)
            ]
            if problems:
                raise InvalidFields(*problems)
        _require_own_role(provider_type, credentials, caller.tenant_id)
        if provider_type == "lexicon" and caller.tenant_id != DEFAULT_TENANT:
            raise InvalidFields(
                FieldProblem("provider_type", "not_allowed", "others' code is the first tenant's alone")
            )

    def _stored_credentials(self, tenant_id: str, path: str) -> SecretValue:
        try:
            return self._secrets.open(tenant_id, path)[2]
        except NotFound:
            raise InvalidFields(FieldProblem("credentials_path", "not_found", f"no secret at {path}")) from None

    def _list_zones(self, zone: DnsZone) -> Sequence[str]:
        try:
            return zone.zones()
        except Failure as failure:
            raise ProviderVerificationFailed(reason_of(failure), failure.detail) from None


def reason_of(failure: Failure) -> str:
    """The contract's word for what went wrong at a DNS provider."""
    match failure:
        case ZoneRefused(reason=reason):
            return reason
        case ZoneThrottled():
            return "throttled"
        case EgressRefused():
            return "permission_missing"
        case _:
            return "unreachable"


def _write_test(zone: DnsZone, managed_zone: str, provider_id: str) -> Check:
    value = _canary_in(managed_zone, provider_id)
    try:
        _write_and_remove(zone, value)
    except Failure as failure:
        detail = f"{failure.detail} (a value may be left at {value.record_name})"
        return Check(f"write_test {managed_zone}", ok=False, detail=detail)
    return Check(f"write_test {managed_zone}", ok=True, detail=f"wrote and removed a value at {value.record_name}")


def _canary_in(managed_zone: str, provider_id: str) -> TxtValue:
    """The same each time: what one leaves behind, the next removes."""
    digest = hashlib.sha256(provider_id.encode()).digest()
    value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return TxtValue(f"{CANARY_LABEL}.{base_name(managed_zone)}", value)


def _write_and_remove(zone: DnsZone, value: TxtValue) -> None:
    try:
        zone.add([value])
    finally:  # a write may have happened although its answer was lost
        zone.remove([value])


def _require_own_role(provider_type: str, credentials: SecretValue, tenant_id: str) -> None:
    if provider_type == "route53" and not _fields(credentials) and tenant_id != DEFAULT_TENANT:
        raise InvalidFields(FieldProblem("credentials", "required", "the host's role is the first tenant's alone"))


def _own_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what all types take, which says nothing of where requests go."""
    return {name: value for name, value in config.items() if name not in COMMON_FIELDS}


def _normalised(managed_zones: Sequence[str]) -> tuple[str, ...]:
    if len(managed_zones) > MOST_ZONES:
        raise InvalidFields(FieldProblem("managed_zones", "too_many", f"at most {MOST_ZONES} zones"))
    problems = []
    zones: dict[str, None] = {}
    for index, text in enumerate(managed_zones):
        try:
            zones[normalise_dns_name(text)] = None
        except ValueError as problem:
            problems.append(FieldProblem(f"managed_zones[{index}]", "invalid_name", str(problem)))
    if not managed_zones:
        problems.append(FieldProblem("managed_zones", "required", "at least one zone is needed"))
    if problems:
        raise InvalidFields(*problems)
    return tuple(zones)


def _fields(credentials: SecretValue) -> Mapping[str, SecretValue]:
    try:
        fields = msgspec.json.decode(credentials.reveal(), type=dict[str, str])
    except msgspec.ValidationError:
        raise InvalidFields(FieldProblem("credentials", "invalid", "every credential is a string")) from None
    return {name: SecretValue(value) for name, value in fields.items()}
