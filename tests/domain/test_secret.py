from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.errors import NotFound
from domain.secret import Secret, SecretVersion, is_secret_path, secret_id
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def stored() -> Secret:
    return Secret.store(
        tenant_id="tnt_default",
        path="dns/route53",
        secret_type="json",
        metadata={"owner": "ops"},
        sealed_id="sealed_1",
        now=NOW,
    )


def with_two_versions() -> Secret:
    secret = stored()
    secret.add_version("kv", {"owner": "dev"}, "sealed_2", LATER)
    return secret


def test_a_secret_is_stored_as_the_first_version_under_its_path() -> None:
    secret = stored()
    assert recorded(secret, NOW) == [
        (
            Secret.Stored,
            {
                "tenant_id": "tnt_default",
                "path": "dns/route53",
                "secret_type": "json",
                "metadata": {"owner": "ops"},
                "sealed_id": "sealed_1",
            },
        )
    ]
    assert secret.id == secret_id("tnt_default", "dns/route53")
    assert secret.versions == (SecretVersion(1, "json", {"owner": "ops"}, "sealed_1", NOW),)


def test_a_write_adds_a_version_and_overwrites_none() -> None:
    secret = stored()
    secret.collect_events()
    secret.add_version("kv", {"owner": "dev"}, "sealed_2", LATER)
    assert recorded(secret, LATER) == [
        (
            Secret.VersionAdded,
            {"number": 2, "secret_type": "kv", "metadata": {"owner": "dev"}, "sealed_id": "sealed_2"},
        )
    ]
    assert secret.versions == (
        SecretVersion(1, "json", {"owner": "ops"}, "sealed_1", NOW),
        SecretVersion(2, "kv", {"owner": "dev"}, "sealed_2", LATER),
    )


def test_versions_are_numbered_on_and_on() -> None:
    secret = with_two_versions()
    secret.add_version("kv", {}, "sealed_3", LATER)
    assert [version.number for version in secret.versions] == [1, 2, 3]


def test_the_same_written_again_is_a_version_again() -> None:
    secret = stored()
    secret.collect_events()
    secret.add_version("json", {"owner": "ops"}, "sealed_1", LATER)
    assert len(recorded(secret, LATER)) == 1


@pytest.mark.parametrize(("number", "sealed_id"), [(1, "sealed_1"), (2, "sealed_2"), (None, "sealed_2")])
def test_a_version_is_read_by_its_number_and_without_one_the_newest(number: int | None, sealed_id: str) -> None:
    assert with_two_versions().version_numbered(number).sealed_id == sealed_id


@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_version_that_never_was_is_not_found(number: int) -> None:
    with pytest.raises(NotFound) as refusal:
        with_two_versions().version_numbered(number)
    assert (refusal.value.kind, refusal.value.subject_id) == ("version", f"dns/route53 version {number}")


def test_a_path_names_one_secret_of_a_tenant() -> None:
    assert secret_id("tnt_a", "dns/route53") != secret_id("tnt_b", "dns/route53")


@pytest.mark.parametrize("path", ["a", "dns/route53", "a-b_c/0", "/".join("abcdefghij"), "a" * 512])
def test_a_path_has_up_to_ten_segments_and_512_characters(path: str) -> None:
    assert is_secret_path(path)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", "A", "a.b", "../a", "a b", "a\n", "é", "/".join("abcdefghijk"), "a" * 513],
)
def test_anything_else_is_no_path(path: str) -> None:
    assert not is_secret_path(path)
