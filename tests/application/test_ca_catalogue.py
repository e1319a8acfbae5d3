"""The CAs that can be named."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from application.ca_catalogue import CUSTOM, directory_for, hosts_of, load_catalogue
from domain.account import Environment
from domain.errors import InvalidFields
from tests.application.world import field_codes

DOCUMENT = Path(__file__).parents[2] / "docs" / "acme.md"
CATALOGUE = load_catalogue()
OFFERED = [
    (provider, environment)
    for provider, entry in CATALOGUE.items()
    if entry.status == "offered"
    for environment in entry.directories
]


def test_the_cas_are_those_of_the_contract() -> None:
    assert set(CATALOGUE) == {"letsencrypt", "zerossl", "google", "sslcom", "actalis", "buypass"}
    assert CUSTOM not in CATALOGUE


@pytest.mark.parametrize(("provider", "environment"), OFFERED)
def test_an_offered_ca_has_a_directory_over_https(provider: str, environment: Environment) -> None:
    url = directory_for(CATALOGUE, provider, environment, None, has_binding=True)
    assert urlsplit(url).scheme == "https"
    assert urlsplit(url).hostname


def test_the_hosts_are_those_of_all_directories() -> None:
    assert {"acme-v02.api.letsencrypt.org", "acme-staging-v02.api.letsencrypt.org"} <= hosts_of(CATALOGUE)
    assert "" not in hosts_of(CATALOGUE)


def test_every_offered_ca_issues_in_production() -> None:
    assert {provider for provider, environment in OFFERED if environment == "production"} == {
        provider for provider, entry in CATALOGUE.items() if entry.status == "offered"
    }


def test_lets_encrypt_needs_no_binding() -> None:
    url = directory_for(CATALOGUE, "letsencrypt", "staging", None, has_binding=False)
    assert url == "https://acme-staging-v02.api.letsencrypt.org/directory"


@pytest.mark.parametrize("provider", ["zerossl", "google", "sslcom", "actalis"])
def test_a_ca_that_needs_a_binding_is_not_asked_without_one(provider: str) -> None:
    with pytest.raises(InvalidFields) as refusal:
        directory_for(CATALOGUE, provider, "production", None, has_binding=False)
    assert field_codes(refusal) == {"eab": "required"}


def test_buypass_is_refused_as_discontinued() -> None:
    with pytest.raises(InvalidFields) as refusal:
        directory_for(CATALOGUE, "buypass", "production", None, has_binding=True)
    assert field_codes(refusal) == {"provider": "discontinued"}


def test_a_custom_ca_is_where_its_url_says() -> None:
    assert directory_for(CATALOGUE, CUSTOM, "staging", "https://ca.fake", has_binding=False) == "https://ca.fake"
    with pytest.raises(InvalidFields) as refusal:
        directory_for(CATALOGUE, CUSTOM, "staging", None, has_binding=False)
    assert field_codes(refusal) == {"directory_url": "required"}


def test_a_known_ca_is_not_sent_elsewhere() -> None:
    with pytest.raises(InvalidFields) as refusal:
        directory_for(CATALOGUE, "letsencrypt", "production", "https://ca.fake", has_binding=False)
    assert field_codes(refusal) == {"directory_url": "unexpected"}


@pytest.mark.parametrize(
    ("provider", "environment", "code"),
    [("acme-corp", "production", {"provider": "unknown"}), ("sslcom", "staging", {"environment": "unsupported"})],
)
def test_what_is_not_in_the_catalogue_is_refused(provider: str, environment: Environment, code: dict[str, str]) -> None:
    with pytest.raises(InvalidFields) as refusal:
        directory_for(CATALOGUE, provider, environment, None, has_binding=True)
    assert field_codes(refusal) == code


def test_the_document_has_what_is_known_of_each() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([\w, ]+) \| (\w+) \| (yes|no) \| (.*?) ?\|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert rows == [
        (
            provider,
            ", ".join(entry.directories),
            entry.external_account_binding,
            "yes" if entry.key_change else "no",
            " ".join(entry.notes),
        )
        for provider, entry in CATALOGUE.items()
        if entry.status == "offered"
    ]
