"""From a provider's `config` and `credentials` to the structs that its adapter declares."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from application.ports import ProviderAccess
from application.provider_config import COMMON_FIELDS, CommonConfig, common_config, field_problems
from domain.errors import FieldProblem, InvalidFields


class Credentials(msgspec.Struct, frozen=True):
    """What every adapter's credentials are: fields of plain text that do not print themselves."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"


class NoConfig(msgspec.Struct, frozen=True):
    """For types that take the common part alone."""


ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)
CredentialsT = TypeVar("CredentialsT", bound=Credentials)


def settings_of(
    access: ProviderAccess, config_type: type[ConfigT], credentials_type: type[CredentialsT]
) -> tuple[CommonConfig, ConfigT, CredentialsT]:
    """Raises InvalidFields naming every wrong field of both; no message repeats a credential."""
    config = {name: value for name, value in access.config.items() if name not in COMMON_FIELDS}
    # What is no text meets no field's form.
    credentials = {name: secret.reveal().decode(errors="replace") for name, secret in access.credentials.items()}
    problems = [
        *field_problems(config_type, config, "config"),
        *map(_silent, field_problems(credentials_type, credentials, "credentials")),
    ]
    try:
        common = common_config(access.config)
    except InvalidFields as refusal:
        raise InvalidFields(*refusal.fields, *problems) from None
    if problems:
        raise InvalidFields(*problems)
    return common, msgspec.convert(config, config_type), msgspec.convert(credentials, credentials_type)


def _silent(problem: FieldProblem) -> FieldProblem:
    """Msgspec's own words may quote the value."""
    return FieldProblem(problem.field, problem.code, "has the wrong form") if problem.code == "invalid" else problem
