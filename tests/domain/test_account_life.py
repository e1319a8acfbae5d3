"""What an account goes through after it was registered: each command does it, repeats it, and is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from domain.account import Account, AccountKey, Offer
from domain.acme import ERROR_NAMESPACE, Problem
from domain.errors import AccountNotActive, KeyChangeInProgress
from tests.domain.recorded import recorded
from tests.projections.story import account

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NEW = AccountKey("sealed_2", "thumb 2")
TERMS = Problem(ERROR_NAMESPACE + "userActionRequired", "the terms have changed")
UNKNOWN = Problem(ERROR_NAMESPACE + "accountDoesNotExist", "no such account")


@pytest.fixture
def registered() -> Account:
    registered = account("acme_1", NOW)
    registered.collect_events()
    return registered


def test_a_contact_is_changed_once(registered: Account) -> None:
    for _ in range(2):
        registered.change_contact("others@a.example", NOW)
    assert recorded(registered, NOW) == [(Account.ContactChanged, {"email": "others@a.example"})]
    assert registered.email == "others@a.example"


def test_another_offer_is_recorded_and_the_same_is_not(registered: Account) -> None:
    other = Offer(False, (), True, ())
    for _ in range(2):
        registered.see_offer(other, NOW + timedelta(days=1))
    assert recorded(registered, NOW + timedelta(days=1)) == [(Account.OfferSeen, {"offer": other})]
    assert registered.offer_read_at == NOW + timedelta(days=1)


def test_the_new_key_is_in_force_when_the_ca_has_it_and_the_old_one_is_to_be_destroyed(registered: Account) -> None:
    registered.begin_key_change(NEW, NOW)
    assert (registered.sealed_key_id, registered.new_key) == ("sealed_1", NEW)
    for _ in range(2):
        registered.key_changed(NOW)
    assert recorded(registered, NOW) == [(Account.KeyChangeBegan, {"key": NEW}), (Account.KeyChanged, {})]
    assert (registered.sealed_key_id, registered.key_thumbprint) == ("sealed_2", "thumb 2")
    assert (registered.new_key, registered.retired_keys) == (None, ("sealed_1",))
    assert registered.changed_its_key_since(NOW)
    assert not registered.changed_its_key_since(NOW + timedelta(seconds=1))


def test_a_refused_key_change_leaves_the_old_key_and_the_new_one_is_to_be_destroyed(registered: Account) -> None:
    registered.begin_key_change(NEW, NOW)
    for _ in range(2):
        registered.key_change_failed(UNKNOWN, NOW)
    assert recorded(registered, NOW)[1:] == [(Account.KeyChangeFailed, {"problem": UNKNOWN})]
    assert (registered.sealed_key_id, registered.new_key, registered.retired_keys) == ("sealed_1", None, ("sealed_2",))


def test_one_key_change_at_a_time(registered: Account) -> None:
    registered.begin_key_change(NEW, NOW)
    with pytest.raises(KeyChangeInProgress):
        registered.begin_key_change(AccountKey("sealed_3", "thumb 3"), NOW)
    assert len(recorded(registered, NOW)) == 1


def test_destroyed_keys_are_forgotten(registered: Account) -> None:
    registered.begin_key_change(NEW, NOW)
    registered.key_changed(NOW)
    registered.keys_destroyed(("sealed_1",), NOW)
    registered.keys_destroyed((), NOW)
    assert recorded(registered, NOW)[2:] == [(Account.KeysDestroyed, {"sealed_ids": ("sealed_1",)})]
    assert registered.retired_keys == ()


@pytest.mark.parametrize(
    ("tell", "kind", "status"),
    [
        (lambda each: each.require_action(TERMS, NOW), Account.ActionRequired, "action_required"),
        (lambda each: each.lose(UNKNOWN, NOW), Account.Lost, "lost"),
    ],
)
def test_what_the_ca_says_of_it_is_told_once(
    registered: Account, tell: Callable[[Account], None], kind: type, status: str
) -> None:
    for _ in range(3):
        tell(registered)
    assert [event for event, _ in recorded(registered, NOW)] == [kind]
    assert registered.status == status


def test_an_account_that_waits_for_somebody_is_active_and_a_lost_one_is_not(registered: Account) -> None:
    registered.require_action(TERMS, NOW)
    registered.require_active()
    registered.lose(UNKNOWN, NOW)
    with pytest.raises(AccountNotActive) as refusal:
        registered.begin_key_change(NEW, NOW)
    assert refusal.value.status == "lost"


def test_what_works_again_is_restored_once(registered: Account) -> None:
    registered.restore(NOW)
    registered.lose(UNKNOWN, NOW)
    for _ in range(2):
        registered.restore(NOW)
    assert [event for event, _ in recorded(registered, NOW)] == [Account.Lost, Account.Restored]
    assert registered.status == "active"


def test_a_deactivated_account_stays_so_and_all_its_keys_are_to_be_destroyed(registered: Account) -> None:
    registered.begin_key_change(NEW, NOW)
    for _ in range(2):
        registered.deactivate(NOW)
    registered.restore(NOW)
    registered.lose(UNKNOWN, NOW)
    assert [event for event, _ in recorded(registered, NOW)] == [Account.KeyChangeBegan, Account.Deactivated]
    assert registered.retired_keys == ("sealed_1", "sealed_2")
    with pytest.raises(AccountNotActive):
        registered.require_active()
