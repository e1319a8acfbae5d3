"""Accounts at the CA after they were registered: contacts, keys that change, terms, and accounts that are gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from application.ca_catalogue import CaEntry
from application.errors import CaRefused, CaUnavailable
from application.process.account_upkeep import NAME
from domain.account import Account
from domain.acme import ERROR_NAMESPACE, Problem
from domain.certificate import Certificate
from domain.errors import AccountInUse, AccountNotActive, InvalidFields, NotFound, OrderInProgress
from interfaces.acme.account_key import thumbprint
from tests.application.calls import Death, Killed
from tests.application.world import OWNER, STRANGER, ZONE, World

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    return World()


def load(world: World, account_id: str) -> Account:
    return world.store.load(Account, account_id)


def key_of(world: World, account_id: str) -> str:
    """The thumbprint of the key that is in force."""
    return thumbprint(world.accounts.speak_as(load(world, account_id)).key_pem)


def works(world: World, account_id: str, name: str = ZONE) -> bool:
    order_id, _ = world.place(account_id, name)
    world.run_for(10 * MINUTE)
    return world.order(order_id).ended == "valid"


# --- contact and terms ---


def test_a_contact_is_changed_at_the_ca_and_here(world: World) -> None:
    account_id = world.ready()
    world.accounts.revise(account_id, email="pki@acme.example", agree_to_terms=False, caller=OWNER)
    assert load(world, account_id).email == "pki@acme.example"
    assert "pki@acme.example" in world.ca.emails.values()


def test_a_contact_that_the_ca_refuses_changes_nothing(world: World) -> None:
    account_id = world.ready()
    world.ca.fail("update_account", CaRefused(Problem(ERROR_NAMESPACE + "invalidContact", "no MX"), 400))
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.accounts.revise(account_id, email="nobody@nowhere.example", agree_to_terms=False, caller=OWNER)
    assert refusal.value.fields[0].field == "email"


def test_changed_terms_park_the_orders_and_are_told_once_until_somebody_agrees(world: World) -> None:
    account_id = world.ready()
    world.ca.knobs.terms_changed = True
    orders = [world.place(account_id, name)[0] for name in (ZONE, f"www.{ZONE}")]
    world.run_for(3 * HOUR)
    assert [world.order(order_id).ended for order_id in orders] == [None, None]
    told = [event for event in world.recorded if isinstance(event, Account.ActionRequired)]
    assert len(told) == 1
    assert "https://ca.fake/terms" in told[0].problem.detail
    assert world.ca.requests["newOrder"] <= 8
    world.accounts.revise(account_id, email=None, agree_to_terms=True, caller=OWNER)
    assert load(world, account_id).status == "active"
    world.run_until_quiet()
    assert [world.order(order_id).ended for order_id in orders] == ["valid", "valid"]


def test_terms_that_were_agreed_to_elsewhere_are_noticed(world: World) -> None:
    account_id = world.ready()
    world.ca.knobs.terms_changed = True
    world.place(account_id, ZONE)
    world.run_for(MINUTE)
    assert load(world, account_id).status == "action_required"
    world.ca.knobs.terms_changed = False
    world.run_until_quiet()
    assert load(world, account_id).status == "active"


# --- the key ---


def begin_key_change(world: World) -> str:
    account_id = world.ready()
    world.accounts.begin_key_change(account_id, "ec384", OWNER)
    world.renew_by_itself()
    world.calls.made.clear()
    return account_id


def test_the_key_is_not_changed_where_the_ca_is_known_not_to_do_it(world: World) -> None:
    account_id = world.ready()
    account = load(world, account_id)
    world.accounts._catalogue = {account.provider: CaEntry("offered", "none", {}, key_change=False)}
    with world.records_nothing(), pytest.raises(InvalidFields, match="register another account"):
        world.accounts.begin_key_change(account_id, "ec256", OWNER)
    assert "keys.seal" not in world.calls.made


CALLS = 11
"""How many the change of a key makes."""


def test_a_key_change_ends_with_exactly_one_key(world: World) -> None:
    account_id = begin_key_change(world)
    old = key_of(world, account_id)
    sealed = world.sealed.sealed
    world.calls.made.clear()
    world.run_for(MINUTE)
    assert len(world.calls.made) == CALLS
    assert key_of(world, account_id) == load(world, account_id).key_thumbprint != old
    assert world.sealed.sealed == sealed - 1
    assert works(world, account_id)


@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(CALLS))
def test_a_key_change_survives_the_death_of_its_process(world: World, call: int, *, acted: bool) -> None:
    account_id = begin_key_change(world)
    sealed = world.sealed.sealed
    world.calls.kill(Death(call, acted, Killed()))
    world.run_for(5 * MINUTE)
    assert world.calls.deaths == 1
    account = load(world, account_id)
    assert (account.new_key, account.retired_keys, account.status) == (None, (), "active")
    assert world.sealed.sealed == sealed - 1
    assert works(world, account_id)


def test_a_ca_that_is_away_keeps_a_key_change_waiting(world: World) -> None:
    account_id = begin_key_change(world)
    world.outage("ca.find_account", HOUR, CaUnavailable("502"))
    world.run_for(30 * MINUTE)
    assert load(world, account_id).new_key is not None
    world.run_for(HOUR)
    assert load(world, account_id).new_key is None
    assert works(world, account_id)


def test_a_ca_that_changes_no_keys_leaves_the_old_one(world: World) -> None:
    account_id = begin_key_change(world)
    old = key_of(world, account_id)
    world.ca.fail("change_key", CaRefused(Problem("about:blank", "not implemented"), 501))
    world.run_for(MINUTE)
    assert key_of(world, account_id) == old
    assert load(world, account_id).retired_keys == ()
    assert works(world, account_id)


def test_orders_wait_while_the_key_is_being_changed(world: World) -> None:
    account_id = begin_key_change(world)
    world.outage("ca.find_account", MINUTE, CaUnavailable("502"))
    order_id, _ = world.place(account_id, ZONE)
    world.run_for(MINUTE)
    assert world.order(order_id).ended is None
    world.run_for(10 * MINUTE)
    assert world.order(order_id).ended == "valid"


def test_an_order_that_was_signed_with_the_old_key_at_the_wrong_moment_is_tried_again(world: World) -> None:
    account_id = begin_key_change(world)
    world.run_for(MINUTE)
    world.ca.fail("new_order", CaRefused(Problem(ERROR_NAMESPACE + "malformed", "JWS verification error"), 400))
    assert works(world, account_id)


# --- accounts that are gone ---


def test_a_ca_that_forgot_everything_stops_the_account_s_orders_with_one_alarm(world: World) -> None:
    account_id = world.ready()
    world.ca.forget_everything()
    orders = [world.place(account_id, name)[0] for name in (ZONE, f"www.{ZONE}")]
    world.run_until_quiet()
    assert {world.failure(order_id).error.code for order_id in orders} == {"backend_error"}
    assert sum(isinstance(event, Account.Lost) for event in world.recorded) == 1
    with world.records_nothing(), pytest.raises(AccountNotActive):
        world.place(account_id, f"third.{ZONE}")


def test_an_order_of_a_closed_account_blames_no_challenge(world: World) -> None:
    account_id = world.ready()
    world.ca.lose_answer("deactivate_account", CaUnavailable("no answer"))
    with pytest.raises(CaUnavailable):
        world.accounts.deactivate(account_id, OWNER)
    order_id, _ = world.place(account_id, ZONE)
    world.run_until_quiet()
    failed = world.failure(order_id)
    assert (failed.error.code, failed.error.message) == ("backend_error", "the account is deactivated")
    assert load(world, account_id).status == "lost"


def test_renewals_through_a_lost_account_fail_daily_and_ask_the_ca_nothing(world: World) -> None:
    world.issued()
    world.renew_by_itself()
    account_id = next(event.originator_id for event in world.recorded if isinstance(event, Account.Registered))
    account = load(world, account_id)
    account.lose(Problem(ERROR_NAMESPACE + "accountDoesNotExist", "gone"), world.clock.now())
    world.store.record(account, by=OWNER.provenance)
    world.ca.requests.clear()
    world.run_for(70 * DAY)
    failed = [event for event in world.recorded if isinstance(event, Certificate.RenewalFailed)]
    assert 8 <= len(failed) <= 16
    assert set(world.ca.requests) <= {"directory"}


def test_what_is_refused_for_the_order_s_own_sake_does_not_lose_the_account(world: World) -> None:
    account_id = world.ready()
    world.ca.fail("new_order", CaRefused(Problem(ERROR_NAMESPACE + "unauthorized", "not this name"), 403))
    order_id, _ = world.place(account_id, ZONE)
    world.run_until_quiet()
    assert world.order(order_id).ended == "invalid"
    assert load(world, account_id).status == "active"
    assert works(world, account_id)


def test_an_account_that_is_there_again_is_restored_by_a_change_of_its_contact(world: World) -> None:
    account_id = world.ready()
    account = load(world, account_id)
    account.lose(Problem(ERROR_NAMESPACE + "accountDoesNotExist", "gone"), world.clock.now())
    world.store.record(account, by=OWNER.provenance)
    world.accounts.revise(account_id, email="pki@acme.example", agree_to_terms=False, caller=OWNER)
    assert works(world, account_id)


# --- deactivating ---


def test_an_account_is_deactivated_at_the_ca_and_its_key_destroyed(world: World) -> None:
    account_id = world.ready()
    sealed = world.sealed.sealed
    world.accounts.deactivate(account_id, OWNER)
    world.renew_by_itself()
    world.run_for(MINUTE)
    assert world.ca.deactivated
    assert world.sealed.sealed == sealed - 1
    with world.records_nothing():
        world.accounts.deactivate(account_id, OWNER)
    assert not [item for item in world.recorder.todo if item.process == NAME]


def test_a_deactivation_whose_answer_was_lost_is_completed(world: World) -> None:
    account_id = world.ready()
    world.ca.lose_answer("deactivate_account", CaUnavailable("no answer"))
    with pytest.raises(CaUnavailable):
        world.accounts.deactivate(account_id, OWNER)
    world.accounts.deactivate(account_id, OWNER)
    assert load(world, account_id).status == "deactivated"


def test_an_account_through_which_certificates_renew_is_not_deactivated(world: World) -> None:
    order_id = world.issued()
    certificate = world.certificate(order_id)
    with world.records_nothing(), pytest.raises(AccountInUse) as refusal:
        world.accounts.deactivate(certificate.account_id, OWNER)
    assert refusal.value.certificate_ids == [certificate.id]
    world.certificates.revise(certificate.id, OWNER, auto_renew=False, new_name=None)
    world.accounts.deactivate(certificate.account_id, OWNER)


def test_an_account_with_an_order_in_progress_is_not_deactivated(world: World) -> None:
    account_id = world.ready()
    order_id, _ = world.place(account_id, ZONE)
    with pytest.raises(OrderInProgress) as refusal:
        world.accounts.deactivate(account_id, OWNER)
    assert refusal.value.order_id == order_id


def test_another_tenant_s_account_is_not_found(world: World) -> None:
    account_id = world.ready()
    changes: list[Callable[[], None]] = [
        lambda: world.accounts.deactivate(account_id, STRANGER),
        lambda: world.accounts.begin_key_change(account_id, "ec256", STRANGER),
        lambda: world.accounts.revise(account_id, email="x@y.example", agree_to_terms=False, caller=STRANGER),
    ]
    for change in changes:
        with world.records_nothing(), pytest.raises(NotFound):
            change()


# --- what the CA offers ---


def test_what_the_ca_offers_is_read_daily_and_recorded_when_it_changed(world: World) -> None:
    account_id = world.ready()
    world.renew_by_itself()
    world.run_for(3 * DAY)
    assert not [event for event in world.recorded if isinstance(event, Account.OfferSeen)]
    assert 2 <= world.ca.requests["directory"] <= 4
    world.ca.knobs.turn_ari_off()
    world.run_for(2 * DAY)
    assert [event.offer.ari for event in world.recorded if isinstance(event, Account.OfferSeen)] == [False]
    assert load(world, account_id).offer.ari is False
