from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.subscription import Listener, Subscription, WebhookTarget, is_path_glob, lies_under, path_matches
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TARGET = WebhookTarget("https://edge.example/hook", "sealed_1", None)
LISTENER = Listener("sub_1", "tnt_default", ("pki/certificates/*",), ("certificate.renewed",), since_position=10)


def test_a_subscription_keeps_the_wish_and_whose_it_is() -> None:
    subscription = Subscription.subscribe(
        "sub_1",
        tenant_id="tnt_default",
        identity_id="tok_1",
        name="edge",
        paths=("pki/certificates/*",),
        event_types=("certificate.renewed",),
        target=TARGET,
        now=NOW,
    )
    assert recorded(subscription, NOW) == [
        (
            Subscription.Subscribed,
            {
                "tenant_id": "tnt_default",
                "identity_id": "tok_1",
                "name": "edge",
                "paths": ("pki/certificates/*",),
                "event_types": ("certificate.renewed",),
                "target": TARGET,
            },
        )
    ]
    assert (subscription.tenant_id, subscription.target) == ("tnt_default", TARGET)


def wants(
    listener: Listener,
    tenant_id: str = "tnt_default",
    path: str = "pki/certificates/cert_1",
    event_type: str = "certificate.renewed",
    position: int = 11,
) -> bool:
    return listener.wants(tenant_id, path, event_type, position)


def test_a_listener_wants_events_of_its_types_below_its_paths() -> None:
    assert wants(LISTENER)
    assert not wants(LISTENER, event_type="certificate.issued")
    assert not wants(LISTENER, path="pki/acme/orders/acme_order_1")


def test_a_listener_wants_nothing_of_another_tenant() -> None:
    assert not wants(LISTENER, tenant_id="tnt_other")


def test_a_listener_wants_nothing_from_before_it_subscribed() -> None:
    assert not wants(LISTENER, position=10)


def test_one_path_that_matches_is_enough() -> None:
    assert wants(replace(LISTENER, paths=("secrets/**", "pki/**")))
    assert not wants(replace(LISTENER, paths=()))


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("pki/certificates/cert_1", "pki/certificates/cert_1", True),
        ("pki/certificates/cert_1", "pki/certificates/cert_10", False),
        ("pki/certificates/*", "pki/certificates/cert_1", True),
        ("pki/certificates/*", "pki/certificates", False),
        ("pki/certificates/*", "pki/certificates/cert_1/more", False),
        ("pki/*/cert_1", "pki/certificates/cert_1", True),
        ("pki/*", "pki/acme/orders", False),
        ("pki/cert*s/*_1", "pki/certificates/cert_1", True),
        ("pki/**", "pki/certificates/cert_1", True),
        ("pki/**", "pki/x", True),
        ("pki/**", "pki", True),
        ("pki/**", "pkix/certificates", False),
        ("**", "pki/certificates/cert_1", True),
        ("**/cert_1", "pki/certificates/cert_1", True),
        ("**/cert_1", "cert_1", True),
        ("pki/**/cert_1", "pki/cert_1", True),
        ("pki/**/cert_1", "pki/a/b/c/cert_1", True),
        ("pki/**/cert_1", "pki/a/b/c/cert_2", False),
        ("**/a/**/b", "x/a/y/a/z/b", True),
        ("pki/certificates/cert_?", "pki/certificates/cert_1", True),
        ("pki/certificates/cert_?", "pki/certificates/cert_", False),
        ("pki/certificates/cert_?", "pki/certificates/cert_12", False),
        ("pki?certificates", "pki/certificates", False),
        ("pki*certificates", "pki/certificates", False),
        ("a.c", "abc", False),
        ("PKI/*", "pki/x", False),
        ("/pki/*", "pki/x", False),
    ],
)
def test_a_star_stays_in_its_segment_two_stars_are_any_segments_and_a_question_mark_is_one_character(
    glob: str, path: str, matches: bool
) -> None:
    assert path_matches(glob, path) is matches


def matches_naively(glob: list[str], path: list[str]) -> bool:
    """By trying everything, and each segment by a regular expression."""
    if not glob:
        return not path
    first, rest = glob[0], glob[1:]
    if first == "**":
        return any(matches_naively(rest, path[skipped:]) for skipped in range(len(path) + 1))
    segment = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in first)
    return bool(path) and re.fullmatch(segment, path[0]) is not None and matches_naively(rest, path[1:])


GLOBS = st.lists(st.just("**") | st.text("ab*?", max_size=5).filter(lambda part: part != "**"), min_size=1, max_size=5)
PATHS = st.lists(st.text("ab", max_size=5), min_size=1, max_size=5)


@settings(deadline=None, max_examples=500)
@given(GLOBS, PATHS)
def test_a_glob_matches_what_trying_everything_finds(glob: list[str], path: list[str]) -> None:
    assert path_matches("/".join(glob), "/".join(path)) is matches_naively(glob, path)


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("*a" * 249 + "*b", "a" * 500),
        ("**/" * 160 + "b", "a/" * 249 + "a"),
        ("**/*a*a*a*a/" * 30 + "b", "aaaaaaaa/" * 50 + "a"),
    ],
    ids=["stars in a segment", "stars for segments", "both"],
)
def test_no_glob_takes_for_ever(glob: str, path: str) -> None:
    assert not path_matches(glob, path)


@pytest.mark.parametrize(
    "glob", ["pki", "pki/certificates/cert_1", "pki/**", "**", "*", "a/*/b?c/**", "A-Z.0_9", "a*b*c", "a" * 512]
)
def test_a_glob_has_segments_and_no_leading_slash(glob: str) -> None:
    assert is_path_glob(glob)


@pytest.mark.parametrize(
    "glob", ["", "/", "/pki", "pki/", "pki//x", "pki/**x", "***", "a/b**", "a b", "pki/[ab]", "é", "a\n", "a" * 513]
)
def test_anything_else_is_no_glob(glob: str) -> None:
    assert not is_path_glob(glob)


@pytest.mark.parametrize(
    ("glob", "lies"),
    [
        ("pki/**", True),
        ("pki/certificates/*", True),
        ("pki", False),
        ("pkix/*", False),
        ("*/certificates", False),
        ("**", False),
        ("pk?/certificates", False),
    ],
)
def test_a_glob_lies_under_a_root_that_it_names_literally(glob: str, lies: bool) -> None:
    assert lies_under(glob, "pki") is lies
