"""Any provider that the package dns-lexicon has a module for, where that package is installed (`scaivault[lexicon]`).

What a module is told comes from the provider's own settings alone, and is what it declares: its options in `config`, its
`auth_…` in `credentials`. Its requests go through the guard (`lexicon_modules.py`). Only the first tenant may use it, as it
is others' code."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec

from application.errors import ZoneRefused
from application.ports import DnsZone, ProviderAccess, TxtValue
from application.provider_config import COMMON_FIELDS
from domain.errors import FieldProblem, InvalidFields
from domain.names import base_name, zone_covers
from interfaces.dns.held_zones import HeldZone, HeldZones
from interfaces.dns.http_api import TIMEOUT_SECONDS
from interfaces.dns.provider_types import ProviderType, Surroundings
from interfaces.dns.settings import Credentials, settings_of
from interfaces.dns.txt_strings import unquoted

if TYPE_CHECKING:  # not there without the package
    from interfaces.dns.lexicon_modules import LexiconModule

LONGEST_OPTION = 16384  # a key in PEM
CREDENTIAL = "auth_"

ModuleName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9]{0,31}\Z")]
ZoneName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*\Z", max_length=253)]


class LexiconConfig(msgspec.Struct, frozen=True):
    """Beside these, the options of lexicon's module (`pdns_server`). `zone` is the one that holds all managed ones, where
    they are no zones themselves."""

    provider_name: ModuleName
    zone: ZoneName | None = None


class LexiconCredentials(Credentials, frozen=True):
    """The options of lexicon's module that are secret (`auth_token`)."""


class SignedIn(Protocol):
    """A provider of lexicon, at one zone. What is not there is deleted without harm."""

    def list_records(self, rtype: str | None, name: str | None) -> Sequence[Mapping[str, Any]]: ...

    def create_record(self, rtype: str, name: str, content: str) -> bool: ...

    def delete_record(self, identifier: None, rtype: str, name: str, content: str) -> bool: ...


Change = Callable[[SignedIn, str, Sequence[str], Sequence[str]], None]
"""Signed in at the name's zone, with its lock: the name, the values that are there, and those that are meant."""


class LexiconZone:
    """DnsZone. Some modules write a name's values as one set, so `around.lock` lets one process at a time write to a zone.

    The zones are those it was told: lexicon lists none, and signs in at one."""

    def __init__(
        self,
        module: LexiconModule,
        options: Mapping[str, object],
        secrets: tuple[str, ...],
        zones: Sequence[str],
        ttl_seconds: int,
        around: Surroundings,
    ) -> None:
        self._module = module
        self._options = options
        self._secrets = secrets
        self._ttl_seconds = ttl_seconds
        self._lock = around.lock
        self._zones = HeldZones(lambda: [HeldZone(zone, zone) for zone in zones])
        self._http = around.egress.client(timeout_seconds=TIMEOUT_SECONDS)
        weakref.finalize(self, self._http.close)

    def add(self, values: Sequence[TxtValue]) -> None:
        def create(provider: SignedIn, record_name: str, held: Sequence[str], wanted: Sequence[str]) -> None:
            for value in wanted:
                if value not in held:
                    provider.create_record("TXT", record_name, value)

        self._at_each_name(values, create)

    def remove(self, values: Sequence[TxtValue]) -> None:
        def delete(provider: SignedIn, record_name: str, held: Sequence[str], unwanted: Sequence[str]) -> None:
            for value in unwanted:
                if value in held:
                    provider.delete_record(None, "TXT", record_name, value)

        self._at_each_name(values, delete)

    def zones(self) -> Sequence[str]:
        """Those at which it can sign in. Raises Failure, ZoneRefused only when there are none."""
        found: list[str] = []
        refusals: list[ZoneRefused] = []
        for zone in self._zones.names():
            try:
                with self._opened(zone):
                    found.append(zone)
            except ZoneRefused as refusal:
                refusals.append(refusal)
        if refusals and not found:
            raise refusals[0]
        return found

    def _at_each_name(self, values: Sequence[TxtValue], change: Change) -> None:
        for zone, by_name in self._zones.by_zone(values).items():
            key = f"lexicon/{self._module.name}/{zone.dns_name}"
            with self._lock(key), self._opened(zone.dns_name) as provider:
                for record_name, meant in by_name.items():
                    records = provider.list_records("TXT", record_name)
                    change(provider, record_name, _values(records, record_name, zone.dns_name), meant)

    def _opened(self, zone: str) -> AbstractContextManager[SignedIn]:
        return self._module.opened(self._http, zone, self._options, self._ttl_seconds, self._secrets)


def _values(records: Sequence[Mapping[str, Any]], record_name: str, zone: str) -> Sequence[str]:
    """Not every module filters, or gives names in full and values without their quotes."""
    names = {record_name, record_name.removesuffix(f".{zone}")}
    mine = [record["content"] for record in records if record["name"].rstrip(".").lower() in names]
    return [unquoted(content) if content.startswith('"') else content for content in mine]


def connect(access: ProviderAccess, around: Surroundings) -> DnsZone:
    try:
        from interfaces.dns.lexicon_modules import LexiconModule, UnsuitableModule  # noqa: PLC0415  may not be installed
    except ImportError:
        words = "dns-lexicon is not installed here: pip install 'scaivault[lexicon]'"
        raise InvalidFields(FieldProblem("provider_type", "unavailable", words)) from None
    own = COMMON_FIELDS | set(LexiconConfig.__struct_fields__)
    ours = {name: value for name, value in access.config.items() if name in own}
    told = {name: value for name, value in access.config.items() if name not in own}
    known = msgspec.structs.replace(access, config=ours, credentials={})
    common, config, _ = settings_of(known, LexiconConfig, LexiconCredentials)
    try:
        module = LexiconModule(config.provider_name)
    except UnsuitableModule as problem:
        raise InvalidFields(FieldProblem("config.provider_name", problem.code, str(problem))) from None
    secret = {name: value.reveal().decode(errors="replace") for name, value in access.credentials.items()}
    zones = _zones(config.zone, access.managed_zones)
    problems = [*_of_options(told, module.options(), "config"), *_of_options(secret, module.options(), "credentials")]
    if problems:
        raise InvalidFields(*problems)
    return LexiconZone(module, {**told, **secret}, tuple(secret.values()), zones, common.ttl_seconds, around)


def _zones(zone: str | None, managed_zones: Sequence[str]) -> Sequence[str]:
    """Raises InvalidFields."""
    managed = sorted({base_name(each).lower() for each in managed_zones})
    if zone is None:
        return managed
    if not all(zone_covers(zone, each) for each in managed):
        raise InvalidFields(FieldProblem("config.zone", "unsuitable", "does not hold all managed zones"))
    return [zone]


def _of_options(given: Mapping[str, object], declared: frozenset[str], path: str) -> Iterator[FieldProblem]:
    """No words of it repeat a value."""
    for name, value in given.items():
        if name not in declared:
            yield FieldProblem(f"{path}.{name}", "unknown", "is no option of lexicon's module")
        elif path == "config" and name.startswith(CREDENTIAL):
            yield FieldProblem(f"{path}.{name}", "unexpected", "belongs into credentials")
        elif not isinstance(value, str | int) or not 0 < len(str(value)) <= LONGEST_OPTION:
            yield FieldProblem(f"{path}.{name}", "invalid", "has the wrong form")


TYPE = ProviderType(
    name="lexicon",
    title="A provider of dns-lexicon",
    config=LexiconConfig,
    credentials=LexiconCredentials,
    connect=connect,
    least_privilege="What the provider has: reading the managed zones and changing their TXT records.",
    policy={},
    verify_checks="Lexicon signs in at each managed zone; those where it may are listed.",
)
