"""Revoking at the CA: by whom, what follows, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.errors import CaRefused, CaUnavailable
from application.revocations import Revocations
from domain.account import Account
from domain.acme import ERROR_NAMESPACE, Problem
from domain.certificate import Certificate
from domain.errors import AlreadyRevoked, InvalidFields, NotFound
from tests.application.world import OWNER, STRANGER, World

MINUTE = timedelta(minutes=1)
UNAUTHORIZED = CaRefused(Problem(ERROR_NAMESPACE + "unauthorized", "not this account"), 403)


@pytest.fixture
def world() -> World:
    world = World()
    world.issued()
    return world


@pytest.fixture
def revocations(world: World) -> Revocations:
    ca = world.calls.of("ca", world.ca)
    return Revocations(world.store, world.accounts, world.sealed, ca, world.clock)


def line(world: World) -> Certificate:
    first = next(event for event in world.recorded if isinstance(event, Certificate.Issued))
    return world.store.load(Certificate, first.originator_id)


@pytest.mark.parametrize(("reason", "code"), [("unspecified", 0), ("key_compromise", 1), ("superseded", 4)])
def test_a_certificate_is_revoked_at_the_ca_with_its_reason(
    world: World, revocations: Revocations, reason: str, code: int
) -> None:
    revocations.revoke(line(world).id, None, reason, OWNER)  # type: ignore[arg-type]
    (serial,) = world.ca.revoked
    assert world.ca.revoked[serial] == code
    assert f"{serial:X}" == line(world).current.serial_number.lstrip("0")


def test_it_is_replaced_at_once_with_another_key(world: World, revocations: Revocations) -> None:
    world.renew_by_itself()
    revocations.revoke(line(world).id, None, "key_compromise", OWNER)
    world.run_for(MINUTE)
    first, second = line(world).versions
    assert first.sealed_key_id != second.sealed_key_id
    began = [event for event in world.recorded if isinstance(event, Certificate.RenewalBegan)]
    assert [event.reason for event in began] == ["revoked"]


def test_what_is_not_renewed_by_itself_is_not_replaced(world: World, revocations: Revocations) -> None:
    world.certificates.revise(line(world).id, OWNER, auto_renew=False, new_name=None)
    world.renew_by_itself()
    revocations.revoke(line(world).id, None, "cessation_of_operation", OWNER)
    world.run_for(MINUTE)
    assert len(line(world).versions) == 1


def test_a_second_time_is_refused_without_asking_the_ca(world: World, revocations: Revocations) -> None:
    revocations.revoke(line(world).id, None, "superseded", OWNER)
    asked = world.ca.requests["revokeCert"]
    with world.records_nothing(), pytest.raises(AlreadyRevoked):
        revocations.revoke(line(world).id, 1, "superseded", OWNER)
    assert world.ca.requests["revokeCert"] == asked


def test_an_answer_that_was_lost_is_made_up_for(world: World, revocations: Revocations) -> None:
    world.ca.lose_answer("revoke", CaUnavailable("no answer"))
    with world.records_nothing(), pytest.raises(CaUnavailable):
        revocations.revoke(line(world).id, None, "superseded", OWNER)
    revocations.revoke(line(world).id, None, "superseded", OWNER)
    assert line(world).revoked_versions == (1,)


def test_where_the_account_is_not_good_for_it_the_certificate_s_own_key_is(
    world: World, revocations: Revocations
) -> None:
    world.ca.fail("revoke", UNAUTHORIZED)
    revocations.revoke(line(world).id, None, "superseded", OWNER)
    assert len(world.ca.revoked) == 1


def test_through_a_deactivated_account_the_own_key_alone_is_used(world: World, revocations: Revocations) -> None:
    world.certificates.revise(line(world).id, OWNER, auto_renew=False, new_name=None)
    world.accounts.deactivate(line(world).account_id, OWNER)
    assert world.store.load(Account, line(world).account_id).status == "deactivated"
    revocations.revoke(line(world).id, None, "superseded", OWNER)
    assert len(world.ca.revoked) == 1


def test_a_ca_that_refuses_changes_nothing(world: World, revocations: Revocations) -> None:
    bad = CaRefused(Problem(ERROR_NAMESPACE + "badRevocationReason", "not that one"), 400)
    world.ca.fail("revoke", bad, bad)
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        revocations.revoke(line(world).id, None, "affiliation_changed", OWNER)
    assert refusal.value.fields[0].code == "refused_by_ca"


@pytest.mark.parametrize("number", [0, 2])
def test_what_is_not_there_is_not_revoked(world: World, revocations: Revocations, number: int) -> None:
    with world.records_nothing():
        with pytest.raises(NotFound):
            revocations.revoke(line(world).id, number, "superseded", OWNER)
        with pytest.raises(NotFound):
            revocations.revoke(line(world).id, None, "superseded", STRANGER)
