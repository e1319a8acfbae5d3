"""API tokens: making them, showing them, and what they do not open."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.secret_value import SecretValue
from application.tokens import NotAuthenticated, require_network
from domain.errors import Denied, NotFound
from domain.provenance import Provenance
from domain.token import Limits, Scope, Token
from tests.application.world import World, caller

OPERATOR = Provenance("tnt_default", "operator", "root")
DAY = timedelta(days=1)


@pytest.fixture
def world() -> World:
    return World()


def issue(world: World, *scopes: Scope, limits: Limits | None = None, tenant_id: str = "tnt_default") -> SecretValue:
    return world.tokens.issue(
        tenant_id=tenant_id,
        name="edge",
        scopes=scopes or ("pki:read",),
        limits=limits or Limits(),
        valid_for=DAY,
        by=OPERATOR,
    )


def rejection(world: World, token: SecretValue | str) -> NotAuthenticated:
    presented = SecretValue(token) if isinstance(token, str) else token
    with world.records_nothing(), pytest.raises(NotAuthenticated) as refusal:
        world.tokens.authenticate(presented, "req_1", "192.0.2.1", "curl")
    return refusal.value


def token_id(world: World) -> str:
    return next(event.originator_id for event in world.recorded if isinstance(event, Token.Issued))


def test_whoever_presents_a_token_is_its_bearer(world: World) -> None:
    limits = Limits(dns_names=("*.acme.example",))
    token = issue(world, "pki:issue", "audit:read", limits=limits, tenant_id="tnt_other")
    with world.records_nothing():
        bearer = world.tokens.authenticate(token, "req_1", "192.0.2.1", "curl")
    assert (bearer.tenant_id, bearer.token_id) == ("tnt_other", token_id(world))
    assert (bearer.scopes, bearer.limits) == (("pki:issue", "audit:read"), limits)
    assert (bearer.request_id, bearer.source_ip, bearer.user_agent) == ("req_1", "192.0.2.1", "curl")


def test_a_token_is_of_the_documented_form_and_in_no_event(world: World) -> None:
    text = issue(world).reveal_text()
    assert text.startswith("skt_" + token_id(world).removeprefix("tok_") + "_")
    assert len(text) == len("skt_") + 26 + len("_") + 43
    assert text not in repr(world.recorded)
    assert text[31:] not in repr(world.recorded)


def test_two_tokens_are_never_the_same(world: World) -> None:
    assert issue(world) != issue(world)


def test_what_is_no_token_of_ours_is_invalid(world: World) -> None:
    text = issue(world).reveal_text()
    other = issue(world).reveal_text()
    of_nobody = "skt_" + "0" * 26 + text[30:]
    for presented in ("", "skt_", "skt__", "nonsense", text[:-1], text + "x", text.upper(), text[4:], of_nobody):
        assert rejection(world, presented).code == "token_invalid", presented
    assert rejection(world, text[:30] + other[30:]).known is None


def test_an_id_that_is_no_tokens_is_invalid(world: World) -> None:
    issue(world)
    provider_id = world.connect_provider()
    assert rejection(world, "skt_" + provider_id.removeprefix("dnsp_") + "_x").code == "token_invalid"


def test_a_token_expires_at_its_very_time(world: World) -> None:
    token = issue(world)
    world.clock.advance(DAY - timedelta(microseconds=1))
    assert world.tokens.authenticate(token, "req_1", None, None).token_id == token_id(world)
    world.clock.advance(timedelta(microseconds=1))
    rejected = rejection(world, token)
    assert rejected.code == "token_expired"
    assert rejected.known is not None
    assert rejected.known.token_id == token_id(world)


def test_a_revoked_token_is_rejected_at_once_and_for_ever(world: World) -> None:
    token = issue(world)
    world.tokens.revoke(token_id(world), OPERATOR)
    assert rejection(world, token).code == "token_revoked"
    world.clock.advance(2 * DAY)
    assert rejection(world, token).code == "token_revoked"
    with world.records_nothing():
        world.tokens.revoke(token_id(world), OPERATOR)


def test_a_token_that_is_not_there_cannot_be_revoked(world: World) -> None:
    with world.records_nothing(), pytest.raises(NotFound):
        world.tokens.revoke("tok_404", OPERATOR)


def test_a_wrong_token_is_not_told_that_the_right_one_was_revoked(world: World) -> None:
    text = issue(world).reveal_text()
    world.tokens.revoke(token_id(world), OPERATOR)
    assert rejection(world, text[:-2] + "xx").code == "token_invalid"


# --- what a token may do ---


@pytest.mark.parametrize(
    ("scope", "allows"),
    [
        ("pki:issue", {"pki:issue", "pki:read", "pki:export"}),
        ("pki:admin", {"pki:admin", "pki:read", "secrets:write"}),
        ("pki:read", {"pki:read"}),
        ("admin", {"admin"}),
    ],
)
def test_a_scope_allows_what_it_implies_and_no_more(scope: Scope, allows: set[Scope]) -> None:
    bearer = caller(scope)
    every: tuple[Scope, ...] = caller().scopes
    assert {each for each in every if bearer.may(each)} == allows
    for each in every:
        if each in allows:
            bearer.require(each)
        else:
            with pytest.raises(Denied) as refusal:
                bearer.require(each)
            assert (refusal.value.code, refusal.value.required) == ("insufficient_scope", each)


@pytest.mark.parametrize(
    ("networks", "source_ip", "is_inside"),
    [
        ((), None, True),
        ((), "192.0.2.1", True),
        (("10.0.0.0/8", "2001:db8::/32"), "10.1.2.3", True),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "2001:db8::1", False),
        (("10.0.0.0/8",), None, False),
    ],
)
def test_a_token_is_valid_from_its_networks_alone(
    networks: tuple[str, ...], source_ip: str | None, *, is_inside: bool
) -> None:
    bearer = caller(limits=Limits(networks=networks), source_ip=source_ip)
    if is_inside:
        require_network(bearer)
    else:
        with pytest.raises(Denied) as refusal:
            require_network(bearer)
        assert refusal.value.code == "access_denied"


def test_a_token_sees_the_certificates_of_its_limits_alone() -> None:
    assert caller().limits.allow_certificate("cert_2")
    bearer = caller(limits=Limits(certificate_ids=("cert_1",)))
    assert bearer.limits.allow_certificate("cert_1")
    assert not bearer.limits.allow_certificate("cert_2")
    with pytest.raises(Denied):
        bearer.require_certificate("cert_2")
