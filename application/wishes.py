"""What somebody asks to be told, and how: what is acceptable of it, and the one form in which it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from application.urls import is_plain_url
from application.x509 import require_ca_bundle
from domain.announcement import EVENT_TYPES, EventType
from domain.errors import FieldProblem, InvalidFields
from domain.globs import is_path_glob
from domain.names import normalise_name_glob
from domain.subscription import Subscription
from domain.terms import pattern_characters

MOST_PATHS = 100
MOST_WILDCARDS = 16  # in one path: all subscribers' paths are looked up together
MOST_CHARACTERS = 16_384  # of all paths and domains together
DEFAULT_BUFFER, LARGEST_BUFFER = 1000, 10_000


class Wish(msgspec.Struct, frozen=True):
    """`url` is None for polling. `domains` are globs of DNS names."""

    name: str
    paths: Sequence[str]
    events: Sequence[str]
    domains: Sequence[str] = ()
    url: str | None = None
    ca_bundle_pem: str | None = None
    ordered: bool = False
    buffer_size: int = DEFAULT_BUFFER


class Kept(msgspec.Struct, frozen=True):
    """A wish that is acceptable: the event types in the catalogue's order, the domains as names are written."""

    name: str
    paths: tuple[str, ...]
    event_types: tuple[EventType, ...]
    dns_names: tuple[str, ...]
    url: str | None
    ca_bundle_pem: str | None
    ordered: bool
    buffer_size: int

    @property
    def characters(self) -> int:
        return pattern_characters(self.paths, self.dns_names)


class Changes(msgspec.Struct, frozen=True):
    """What is to be different from now on. `identity_id` hands the subscription over to another token."""

    name: str | UnsetType = UNSET
    paths: Sequence[str] | UnsetType = UNSET
    events: Sequence[str] | UnsetType = UNSET
    domains: Sequence[str] | UnsetType = UNSET
    url: str | UnsetType = UNSET
    ca_bundle_pem: str | UnsetType | None = UNSET
    ordered: bool | UnsetType = UNSET
    buffer_size: int | UnsetType = UNSET
    identity_id: str | UnsetType = UNSET
    status: Literal["active", "paused"] | UnsetType = UNSET


def accepted(wish: Wish) -> Kept:
    """Raises InvalidFields."""
    for field, values in (("paths", wish.paths), ("events", wish.events), ("filters.domains", wish.domains)):
        if len(values) > MOST_PATHS:
            raise InvalidFields(FieldProblem(field, "too_many", f"at most {MOST_PATHS}"))
    dns_names, problems = _dns_names(wish.domains)
    problems = [*_problems(wish), *problems]
    if problems:
        raise InvalidFields(*problems)
    require_ca_bundle(wish.ca_bundle_pem, "delivery.ca_bundle_pem")
    kept = Kept(
        name=wish.name,
        paths=tuple(wish.paths),
        event_types=tuple(event_type for event_type in EVENT_TYPES if event_type in wish.events),
        dns_names=dns_names,
        url=wish.url,
        ca_bundle_pem=wish.ca_bundle_pem,
        ordered=wish.ordered,
        buffer_size=wish.buffer_size,
    )
    if kept.characters > MOST_CHARACTERS:
        message = f"all paths and domains together have {MOST_CHARACTERS} characters at most"
        raise InvalidFields(FieldProblem("paths", "too_long", message))
    return kept


def revised(subscription: Subscription, changes: Changes) -> Wish:
    """The subscription's terms with the changes. Raises InvalidFields for what the other kind of subscription has."""
    wrong = list(_of_the_other_kind(subscription, changes))
    if wrong:
        raise InvalidFields(*wrong)
    given = {
        name: value
        for name, value in msgspec.structs.asdict(changes).items()
        if value is not UNSET and name in Wish.__struct_fields__
    }
    wish = msgspec.structs.replace(_wish_of(subscription), **given)
    if (wish.url is None) is subscription.is_webhook:
        raise InvalidFields(
            FieldProblem("delivery.url", "invalid", "a subscription stays what it is: webhook or polling")
        )
    return wish


def _wish_of(subscription: Subscription) -> Wish:
    return Wish(
        name=subscription.name,
        paths=subscription.paths,
        events=subscription.event_types,
        domains=subscription.dns_names,
        url=subscription.url,
        ca_bundle_pem=subscription.ca_bundle_pem,
        ordered=subscription.ordered,
        buffer_size=subscription.buffer_size,
    )


def _of_the_other_kind(subscription: Subscription, changes: Changes) -> Iterator[FieldProblem]:
    if subscription.is_webhook:
        if changes.buffer_size is not UNSET:
            yield FieldProblem("delivery.buffer_size", "not_polling", "a webhook has none")
        return
    if changes.ordered is not UNSET:
        yield FieldProblem("delivery.ordered", "not_a_webhook", "polling is always in order")
    if changes.status is not UNSET:
        yield FieldProblem("status", "not_a_webhook", "polling needs no pause")


def _dns_names(domains: Sequence[str]) -> tuple[tuple[str, ...], list[FieldProblem]]:
    globs, problems = [], []
    for index, domain in enumerate(domains):
        try:
            globs.append(normalise_name_glob(domain))
        except ValueError as problem:
            problems.append(FieldProblem(f"filters.domains[{index}]", "invalid_glob", str(problem)))
    return tuple(globs), problems


def _problems(wish: Wish) -> Iterator[FieldProblem]:
    if not wish.paths:
        yield FieldProblem("paths", "required", "at least one path is needed")
    if not wish.events:
        yield FieldProblem("events", "required", "at least one event type is needed")
    for index, path in enumerate(wish.paths):
        if not is_path_glob(path) or sum(map(path.count, "*?")) > MOST_WILDCARDS:
            message = (
                f"segments without a leading slash; ** only as a whole segment; at most {MOST_WILDCARDS} wildcards"
            )
            yield FieldProblem(f"paths[{index}]", "invalid_glob", message)
    for index, event in enumerate(wish.events):
        if event not in EVENT_TYPES:
            yield FieldProblem(f"events[{index}]", "unknown", f"known are {', '.join(EVENT_TYPES)}")
    if wish.url is None and wish.ca_bundle_pem is not None:
        yield FieldProblem("delivery.ca_bundle_pem", "not_a_webhook", "polling takes none")
    if wish.url is not None and not is_plain_url(wish.url, {"http", "https"}):
        yield FieldProblem("delivery.url", "invalid", "an https URL without user information is needed")
    if not 1 <= wish.buffer_size <= LARGEST_BUFFER:
        yield FieldProblem("delivery.buffer_size", "out_of_range", f"between 1 and {LARGEST_BUFFER}")
