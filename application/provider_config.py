"""What every DNS provider takes in its `config`, whatever its type; and the check that names each wrong field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec

from domain.durations import parse_duration
from domain.errors import FieldProblem, InvalidFields

Propagation = Literal["strict", "advisory", "skip"]

HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]@]+)):([0-9]{1,5})")


class CommonConfig(msgspec.Struct, frozen=True):
    """`propagation`: `strict` waits until all servers answer, `advisory` goes on after the limit, `skip` asks nobody.

    `nameservers` (`host:port`) are asked instead of the zone's own. The embedded provider has a TTL of its own."""

    ttl_seconds: int
    propagation: Propagation
    propagation_timeout: timedelta
    nameservers: Sequence[str]


class CommonFields(msgspec.Struct, frozen=True):
    """As they are written."""

    ttl: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 60
    propagation: Propagation = "advisory"
    propagation_timeout: str = "5m"
    nameservers: list[str] = []
    canary: bool = True


COMMON_FIELDS = frozenset(CommonFields.__struct_fields__)


def common_config(config: Mapping[str, Any]) -> CommonConfig:
    """The part that all types share; other fields are left alone. Raises InvalidFields naming each wrong `config.…`."""
    given = {name: value for name, value in config.items() if name in COMMON_FIELDS}
    problems = list(field_problems(CommonFields, given, "config"))
    if problems:
        raise InvalidFields(*problems)
    fields = msgspec.convert(given, CommonFields)
    try:
        timeout = parse_duration(fields.propagation_timeout)
    except ValueError as problem:
        problems.append(FieldProblem("config.propagation_timeout", "invalid_duration", str(problem)))
        timeout = timedelta()
    for index, nameserver in enumerate(fields.nameservers):
        try:
            host_and_port(nameserver)
        except ValueError as problem:
            problems.append(FieldProblem(f"config.nameservers[{index}]", "invalid", str(problem)))
    if problems:
        raise InvalidFields(*problems)
    return CommonConfig(fields.ttl, fields.propagation, timeout, tuple(fields.nameservers))


def field_problems(kind: type[msgspec.Struct], given: Mapping[str, Any], path: str) -> Sequence[FieldProblem]:
    """One problem per field of `given` that `kind` does not take: `required`, `unknown` or `invalid`."""
    fields = msgspec.structs.fields(kind)
    known = {field.encode_name for field in fields}
    problems = [FieldProblem(f"{path}.{name}", "unknown", "is not known here") for name in given if name not in known]
    for field in fields:
        place = f"{path}.{field.encode_name}"
        if field.encode_name in given:
            try:
                msgspec.convert(given[field.encode_name], field.type)
            except msgspec.ValidationError as problem:
                problems.append(FieldProblem(place, "invalid", str(problem)))
        elif field.required:
            problems.append(FieldProblem(place, "required", "is required"))
    return problems


def host_and_port(text: str) -> tuple[str, int]:
    """`host:port` in two; an IPv6 address stands in brackets, and comes back without. Raises ValueError."""
    match = HOST_AND_PORT.fullmatch(text)
    if match is None or not 0 < int(match[3]) <= 65535:  # noqa: PLR2004  the largest port there is
        raise ValueError("is no host:port")
    return match[1] or match[2], int(match[3])
