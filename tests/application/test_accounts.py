"""Registering accounts at a CA."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from application.errors import CaRefused, CaThrottled, CaUnavailable, EgressRefused, Failure, Retryable
from application.ports import Capabilities, ExternalAccountBinding
from application.secret_value import SecretValue
from domain.account import Account, Profile
from domain.acme import ERROR_NAMESPACE, Problem
from domain.errors import FieldProblem, InvalidFields, NameInUse, NotFound
from interfaces.acme.account_key import thumbprint
from tests.application.world import OWNER, STRANGER, World, field_codes
from tests.fakes_ca import DIRECTORY_URL, refused
from tests.servers.https import ca_bundle_pem

BUNDLE = ca_bundle_pem()

EAB = ExternalAccountBinding("kid-1", SecretValue("aG1hYw"))


@pytest.fixture
def world() -> World:
    return World()


def register(world: World, **wrong: Any) -> str:
    right: dict[str, Any] = {
        "name": "main",
        "provider": "custom",
        "environment": "staging",
        "email": "ops@acme.example",
        "directory_url": DIRECTORY_URL,
        "eab": None,
        "key_type": "ec256",
        "ca_bundle_pem": None,
        "caller": OWNER,
    }
    return world.accounts.register(**{**right, **wrong})


def test_an_account_is_registered_at_the_ca_before_the_answer(world: World) -> None:
    account_id = register(world)
    assert account_id.startswith("acme_staging_")
    assert world.ca.requests == {"directory": 1, "newAccount": 1}
    (registered,) = world.events(account_id)
    assert isinstance(registered, Account.Registered)
    assert registered.account_url.startswith("https://ca.fake/account/")
    assert (registered.provider, registered.environment, registered.directory_url) == (
        "custom",
        "staging",
        DIRECTORY_URL,
    )
    assert world.recorder.history[-1].by == OWNER.provenance


def test_the_key_is_sealed_before_the_ca_sees_it(world: World) -> None:
    world.ca.fail("register", CaUnavailable("503"))
    with world.records_nothing(), pytest.raises(CaUnavailable):
        register(world)
    assert world.sealed.sealed == 1


def test_whoever_speaks_as_the_account_has_its_key(world: World) -> None:
    account_id = register(world, ca_bundle_pem=BUNDLE)
    account, at_ca = world.accounts.at_ca(account_id)
    assert account.key_thumbprint == thumbprint(at_ca.key_pem)
    assert (at_ca.directory_url, at_ca.account_url, at_ca.ca_bundle_pem) == (
        DIRECTORY_URL,
        account.account_url,
        BUNDLE,
    )
    assert at_ca.key_pem.reveal_text() not in repr(world.recorded)
    with pytest.raises(NotFound):
        world.accounts.at_ca("acme_staging_404")


@pytest.mark.parametrize(("key_type", "kind"), [("ec384", ec.EllipticCurvePrivateKey), ("rsa2048", rsa.RSAPrivateKey)])
def test_the_key_is_of_the_type_that_was_asked_for(world: World, key_type: str, kind: type) -> None:
    _, at_ca = world.accounts.at_ca(register(world, key_type=key_type))
    key = load_pem_private_key(at_ca.key_pem.reveal(), password=None)
    assert isinstance(key, kind)


def test_what_the_directory_offers_is_kept(world: World) -> None:
    world.ca.knobs.offers = Capabilities(
        ari=True, profiles={"shortlived": "six days"}, eab_required=False, caa_identities=("ca.fake",)
    )
    offer = world.accounts.at_ca(register(world))[0].offer
    assert (offer.ari, offer.profiles, offer.caa_identities) == (
        True,
        (Profile("shortlived", "six days"),),
        ("ca.fake",),
    )


def test_a_name_is_used_once_in_a_tenant(world: World) -> None:
    register(world)
    with world.records_nothing(), pytest.raises(NameInUse):
        register(world)
    register(world, name="second")
    register(world, caller=STRANGER)


@pytest.mark.parametrize(
    ("wrong", "codes"),
    [
        ({"directory_url": None}, {"directory_url": "required"}),
        ({"provider": "letsencrypt"}, {"directory_url": "unexpected"}),
        ({"provider": "acme-corp", "directory_url": None}, {"provider": "unknown"}),
        ({"provider": "buypass", "directory_url": None}, {"provider": "discontinued"}),
        ({"provider": "zerossl", "environment": "production", "directory_url": None}, {"eab": "required"}),
        ({"provider": "zerossl", "directory_url": None, "eab": EAB}, {"environment": "unsupported"}),
    ],
)
def test_what_the_catalogue_does_not_allow_is_refused_before_the_ca_is_asked(
    world: World, wrong: dict[str, Any], codes: dict[str, str]
) -> None:
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        register(world, **wrong)
    assert field_codes(refusal) == codes
    assert world.ca.requests.total() == 0
    assert world.sealed.sealed == 0


def test_a_binding_is_handed_on(world: World) -> None:
    world.ca.knobs.eab_kids.add("kid-1")
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        register(world)
    assert field_codes(refusal) == {"eab": "refused_by_ca"}
    register(world, eab=EAB)


@pytest.mark.parametrize(
    ("method", "failure", "codes"),
    [
        ("register", refused("invalidContact", "no such host", 400), {"email": "refused_by_ca"}),
        ("register", refused("unsupportedContact", "tel:", 400), {"email": "refused_by_ca"}),
        ("register", refused("unauthorized", "wrong HMAC", 403), {"eab": "refused_by_ca"}),
        ("register", refused("userActionRequired", "new terms", 403), {"provider": "refused_by_ca"}),
        ("capabilities", CaRefused(Problem("about:blank", "404"), 404), {"provider": "refused_by_ca"}),
        ("capabilities", EgressRefused("10.0.0.1"), {"directory_url": "not_allowed"}),
    ],
)
def test_what_the_ca_refuses_is_said_at_the_field(
    world: World, method: Any, failure: Failure, codes: dict[str, str]
) -> None:
    world.ca.fail(method, failure)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        register(world)
    assert field_codes(refusal) == codes


def test_a_binding_that_cannot_be_read_is_refused_in_the_ports_own_words(world: World) -> None:
    def refuse() -> None:
        raise InvalidFields(FieldProblem("eab.hmac_key", "invalid_base64", "is no base64"))

    world.calls.before("ca.register", refuse)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        register(world, eab=EAB)
    assert field_codes(refusal) == {"eab.hmac_key": "invalid_base64"}


@pytest.mark.parametrize(
    "failure", [CaUnavailable("503"), CaThrottled(Problem(ERROR_NAMESPACE + "rateLimited", "slow down"), 60)]
)
@pytest.mark.parametrize("method", ["capabilities", "register"])
def test_a_ca_that_is_out_of_reach_leaves_no_account(world: World, method: Any, failure: Retryable) -> None:
    world.ca.fail(method, failure)
    with world.records_nothing(), pytest.raises(type(failure)):
        register(world)
    register(world)
