from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from domain.token import SCOPES, Limits, Scope, Token, effective_scopes
from tests.domain.recorded import recorded

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
EXPIRES_AT = NOW + timedelta(days=90)
LIMITS = Limits(dns_names=("*.acme.example",), certificate_ids=("cert_1",), networks=("192.0.2.0/24",))


def issued() -> Token:
    return Token.issue(
        "tok_1",
        tenant_id="tnt_default",
        name="edge",
        scopes=("pki:read", "pki:export"),
        limits=LIMITS,
        expires_at=EXPIRES_AT,
        sealed_verifier_id="sealed_1",
        now=NOW,
    )


def test_a_token_is_issued_with_what_its_bearer_may_do() -> None:
    token = issued()
    assert recorded(token, NOW) == [
        (
            Token.Issued,
            {
                "tenant_id": "tnt_default",
                "name": "edge",
                "scopes": ("pki:read", "pki:export"),
                "limits": LIMITS,
                "expires_at": EXPIRES_AT,
                "sealed_verifier_id": "sealed_1",
            },
        )
    ]
    assert not token.is_revoked


def test_a_token_is_revoked() -> None:
    token = issued()
    token.collect_events()
    token.revoke(LATER)
    assert recorded(token, LATER) == [(Token.Revoked, {})]
    assert token.is_revoked


def test_a_revoked_token_is_not_revoked_again() -> None:
    token = issued()
    token.revoke(NOW)
    token.collect_events()
    token.revoke(LATER)
    assert recorded(token, LATER) == []


@pytest.mark.parametrize(
    ("granted", "effective"),
    [
        ((), set()),
        (("pki:issue",), {"pki:issue", "pki:read", "pki:export"}),
        (("pki:admin",), {"pki:admin", "pki:read", "secrets:write"}),
        (("pki:issue", "pki:admin"), {"pki:issue", "pki:admin", "pki:read", "pki:export", "secrets:write"}),
    ],
)
def test_a_scope_brings_what_it_implies(granted: tuple[Scope, ...], effective: set[Scope]) -> None:
    assert effective_scopes(granted) == effective


@pytest.mark.parametrize("scope", sorted(set(SCOPES) - {"pki:issue", "pki:admin"}))
def test_every_other_scope_stands_for_itself(scope: Scope) -> None:
    assert effective_scopes((scope,)) == {scope}


@pytest.mark.parametrize(
    ("limited_to", "dns_names", "forbidden"),
    [
        ((), ["acme.example", "*.other.example"], None),
        (("*.acme.example", "acme.example"), ["acme.example", "www.acme.example", "*.acme.example"], None),
        (("*.acme.example",), ["www.acme.example", "acme.example", "other.example"], "acme.example"),
        (("www?.acme.example",), ["*.acme.example"], "*.acme.example"),
        (("*.acme.example",), [], None),
    ],
)
def test_the_first_name_that_no_glob_takes_is_forbidden(
    limited_to: tuple[str, ...], dns_names: list[str], forbidden: str | None
) -> None:
    limits = Limits(dns_names=limited_to)
    assert limits.forbidden_name(dns_names) == forbidden
    assert limits.allow("cert_1", dns_names) is (forbidden is None)


@pytest.mark.parametrize(
    ("limited_to", "certificate_id", "is_allowed"),
    [
        ((), "cert_1", True),
        ((), None, True),
        (("cert_1", "cert_2"), "cert_2", True),
        (("cert_1",), "cert_10", False),
        (("cert_1",), None, False),
    ],
)
def test_a_token_for_certain_certificates_is_for_no_other_and_for_none_that_is_yet_to_come(
    limited_to: tuple[str, ...], certificate_id: str | None, *, is_allowed: bool
) -> None:
    limits = Limits(certificate_ids=limited_to)
    assert limits.allow_certificate(certificate_id) is is_allowed
    assert limits.allow(certificate_id, ["acme.example"]) is is_allowed
