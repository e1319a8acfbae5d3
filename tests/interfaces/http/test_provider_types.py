"""What is told of each provider type: over HTTP, and in the document, which is made of the same data.

`python -m tests.interfaces.http.test_provider_types` writes the document's part anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from interfaces.dns.provider_types import ProviderType
from interfaces.dns.providers import BY_NAME, TYPES
from tests.interfaces.http.client import Api

DOCUMENT = Path(__file__).parents[3] / "docs" / "dns-providers.md"
BEGIN = "## The types\n"


def rows(schema: Mapping[str, Any]) -> list[str]:
    return [
        f"`{name}`" + ("" if name in schema["required"] else f" ({_default(field)})")
        for name, field in schema["properties"].items()
        if name not in COMMON
    ]


def _default(field: Mapping[str, Any]) -> str:
    return "optional" if field.get("default") in (None, "") else str(field["default"])


COMMON = set(BY_NAME["embedded"].config_schema["properties"])


def section(kind: ProviderType) -> str:
    credentials = ", ".join(rows(kind.credentials_schema)) or "none"
    config = ", ".join(rows(kind.config_schema)) or "none of its own"
    lines = [
        f"### {kind.title}: `{kind.name}`",
        f"Credentials: {credentials}. Config: {config}.",
        f"At least: {kind.least_privilege}",
        f"`verify`: {kind.verify_checks}",
    ]
    if kind.policy:
        lines.append(f"```json\n{json.dumps(kind.policy, indent=2)}\n```")
    return "\n\n".join(lines) + "\n"


def all_sections() -> str:
    return "\n" + "\n".join(section(kind) for kind in TYPES)


def test_the_document_has_what_is_known_of_each_type() -> None:
    assert DOCUMENT.read_text().partition(BEGIN)[2] == all_sections()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_the_schemas_are_schemas_that_refuse_what_they_do_not_know(kind: ProviderType) -> None:
    for schema in (kind.credentials_schema, kind.config_schema):
        OAS31Validator.check_schema(schema)
        assert not OAS31Validator(schema).is_valid({"surprise": 1})


def test_they_are_told_over_http(api: Api) -> None:
    answer = api.ask("GET /v1/dns/provider-types", api.token("pki:admin"))
    assert answer.status_code == 200
    told = {each["provider_type"]: each for each in answer.json()["data"]}
    assert set(told) == set(BY_NAME)
    assert told["cloudflare"]["credentials_schema"]["required"] == ["api_token"]
    assert {"ttl", "propagation", "nameservers", "base_url"} <= set(told["cloudflare"]["config_schema"]["properties"])


if __name__ == "__main__":
    DOCUMENT.write_text(DOCUMENT.read_text().partition(BEGIN)[0] + BEGIN + all_sections())
