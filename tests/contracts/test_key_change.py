"""The change of an account's key on a real CA, whose process dies at every call: afterwards the CA knows exactly one key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from application.process import account_upkeep
from domain.account import Account
from interfaces.acme.client import AcmeClient
from interfaces.egress import Egress
from tests.application.calls import Death, Killed
from tests.application.test_account_life import CALLS
from tests.application.world import OWNER, World
from tests.contracts.ca_world import LOOPBACK, TxtZone
from tests.servers.pebble import Pebble
from tests.servers.responder import DnsResponder

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with (
        DnsResponder(TxtZone().answer) as responder,
        Pebble(tmp_path_factory.mktemp("pebble"), responder.address) as server,
    ):
        yield server


@pytest.fixture
def client() -> Iterator[AcmeClient]:
    with closing(AcmeClient(Egress([LOOPBACK]), "ScaiVault/test")) as client:
        yield client


@pytest.mark.peers
@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(CALLS))
def test_the_ca_knows_exactly_one_key_whenever_the_process_died(
    pebble: Pebble, client: AcmeClient, call: int, *, acted: bool
) -> None:
    def real(*_: Any) -> Any:
        return client

    world = World(real)  # type: ignore[arg-type]
    account_id = world.accounts.register(
        name="pebble",
        provider="custom",
        environment="staging",
        email="ops@acme.example",
        directory_url=pebble.directory_url,
        eab=None,
        key_type="ec256",
        ca_bundle_pem=pebble.ca_bundle_pem,
        caller=OWNER,
    )
    old = world.accounts.speak_as(world.store.load(Account, account_id))
    world.running = (account_upkeep.NAME,)
    world.accounts.begin_key_change(account_id, "ec256", OWNER)
    world.calls.kill(Death(call, acted, Killed()))

    world.run_for(5 * MINUTE)

    assert world.calls.deaths == 1
    account = world.store.load(Account, account_id)
    assert (account.new_key, account.retired_keys) == (None, ())
    now = world.accounts.speak_as(account)
    assert client.find_account(pebble.directory_url, now.key_pem, pebble.ca_bundle_pem) == account.account_url
    assert client.find_account(pebble.directory_url, old.key_pem, pebble.ca_bundle_pem) is None
    assert client.new_order(now, ["www.acme.example"], None).status == "pending"
