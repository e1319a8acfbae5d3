"""The ledger before each order: what is refused here before the CA would, what is given back, and what is never counted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.errors import CaThrottled
from domain.acme import ERROR_NAMESPACE, Problem
from domain.certificate import Certificate
from domain.errors import CaLimitReached
from domain.order import Order
from domain.rate_limit import FULL, LETS_ENCRYPT, Bucket, limits_of, set_digest
from tests.application.world import OWNER, ZONE, World

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
WWW = f"www.{ZONE}"
PER_SET = Bucket(LETS_ENCRYPT, "certificates_per_set", set_digest([WWW]))


@pytest.fixture
def world() -> World:
    """With a provider for acme.example, and an account at Let's Encrypt: `account_of`."""
    world = World()
    world.connect_provider(ZONE)
    world.accounts.register(
        name="le",
        provider="letsencrypt",
        environment="production",
        email="ops@acme.example",
        directory_url=None,
        eab=None,
        key_type="ec256",
        ca_bundle_pem=None,
        caller=OWNER,
    )
    world.ca.requests.clear()
    return world


def account_of(world: World) -> str:
    return next(event.originator_id for event in world.recorded if event.TOPIC == "account.registered")  # type: ignore[attr-defined]


def tokens_of(world: World, bucket: Bucket) -> int:
    """How many are missing."""
    level = world.views.levels([bucket]).get(bucket, FULL)
    refill = limits_of(bucket.ca)[bucket.limit].refill
    return 0 if level.full_at is None else -((world.clock.now() - level.full_at) // refill)


def test_the_sixth_certificate_for_the_same_names_is_refused_before_the_ca_is_asked(world: World) -> None:
    for _ in range(5):
        world.place(account_of(world), WWW)
        world.run_until_quiet()
    world.ca.requests.clear()
    with world.records_nothing(), pytest.raises(CaLimitReached) as refusal:
        world.place(account_of(world), WWW)
    assert refusal.value.bucket == PER_SET
    assert 33 * 3600 < refusal.value.retry_after_seconds <= 34 * 3600 + 60
    assert not world.ca.requests
    world.clock.advance(timedelta(seconds=refusal.value.retry_after_seconds))
    world.place(account_of(world), WWW)
    world.run_until_quiet()
    assert world.ca.requests["newOrder"] == 1


def test_fifty_new_names_of_a_domain_fit_into_a_week_and_more_of_another_domain(world: World) -> None:
    world.connect_provider("other.example", name="other")
    for number in range(50):
        world.place(account_of(world), f"host{number}.{ZONE}")
        world.run_until_quiet()
    with pytest.raises(CaLimitReached) as refusal:
        world.place(account_of(world), f"host50.{ZONE}")
    assert refusal.value.bucket == Bucket(LETS_ENCRYPT, "certificates_per_domain", ZONE)
    world.place(account_of(world), "host.other.example")


def test_the_same_names_again_cost_neither_an_order_nor_a_certificate_of_the_domain(world: World) -> None:
    buckets = [
        Bucket(LETS_ENCRYPT, "new_orders", account_of(world)),
        Bucket(LETS_ENCRYPT, "certificates_per_domain", ZONE),
        PER_SET,
    ]
    for paid in ([1, 1, 1], [1, 1, 2]):
        order_id, _ = world.place(account_of(world), WWW)
        world.run_until_quiet()
        assert [tokens_of(world, bucket) for bucket in buckets] == paid
        assert world.order(order_id).ended == "valid"


def test_a_renewal_in_the_window_costs_nothing(world: World) -> None:
    world.place(account_of(world), WWW)
    world.run_until_quiet()
    world.renew_by_itself()
    world.run_for(70 * DAY)
    began = next(event for event in world.recorded if isinstance(event, Certificate.RenewalBegan))
    placed = world.events(began.order_id)[0]
    assert isinstance(placed, Order.Placed)
    assert (began.in_window, placed.charges) == (True, ())


def test_the_cost_of_a_renewal_on_request_depends_on_the_window(world: World) -> None:
    world.place(account_of(world), WWW)
    world.run_until_quiet()
    world.renew_by_itself()
    world.run_for(MINUTE)
    issued = next(event for event in world.recorded if isinstance(event, Certificate.Issued))
    certificate = world.store.load(Certificate, issued.originator_id)
    assert certificate.suggestion is not None
    window = certificate.suggestion.window
    costs = [world.renewals.cost(certificate, at)[1] for at in (window.start - MINUTE, window.start, window.end)]
    assert [(cost.kind, cost.taken) for cost in costs] == [
        ("same_set", (PER_SET,)),
        ("ari_renewal", ()),
        ("same_set", (PER_SET,)),
    ]


def test_names_that_were_last_certified_long_ago_are_new_again(world: World) -> None:
    world.place(account_of(world), WWW)
    world.run_until_quiet()
    world.clock.advance(121 * DAY)
    order_id, _ = world.place(account_of(world), WWW)
    placed = world.events(order_id)[0]
    assert isinstance(placed, Order.Placed)
    assert [bucket.limit for bucket in placed.charges] == [
        "new_orders",
        "certificates_per_domain",
        "certificates_per_set",
    ]


def test_an_order_that_fails_gives_back_what_the_ca_has_not_counted(world: World) -> None:
    world.ca.knobs.invalid[WWW] = Problem(ERROR_NAMESPACE + "unauthorized", "wrong value")
    world.place(account_of(world), WWW)
    world.run_until_quiet()
    assert tokens_of(world, PER_SET) == 0
    assert tokens_of(world, Bucket(LETS_ENCRYPT, "new_orders", account_of(world))) == 1
    failures = Bucket(LETS_ENCRYPT, "failed_authorizations", f"{account_of(world)} {WWW}")
    assert tokens_of(world, failures) == 1


def test_five_failures_at_a_name_close_it_for_new_orders_and_no_other(world: World) -> None:
    world.ca.knobs.invalid[WWW] = Problem(ERROR_NAMESPACE + "unauthorized", "wrong value")
    for _ in range(5):
        world.place(account_of(world), WWW)
        world.run_until_quiet()
    with pytest.raises(CaLimitReached) as refusal:
        world.place(account_of(world), WWW, f"other.{ZONE}")
    assert refusal.value.bucket.limit == "failed_authorizations"
    world.place(account_of(world), f"other.{ZONE}")


def test_an_order_for_a_zone_that_nobody_manages_is_not_refused_for_a_limit(world: World) -> None:
    order_id, _ = world.place(account_of(world), "www.nobody.example")
    assert world.failure(order_id).error.code == "zone_not_managed"
    assert tokens_of(world, Bucket(LETS_ENCRYPT, "new_orders", account_of(world))) == 0


def test_what_the_ca_said_of_one_bucket_is_known_to_all_orders_for_it(world: World) -> None:
    text = f'too many certificates (50) already issued for "{ZONE}" in the last 168h0m0s'
    world.ca.fail("new_order", CaThrottled(Problem(ERROR_NAMESPACE + "rateLimited", text), 5 * 3600))
    first, _ = world.place(account_of(world), WWW)
    second, _ = world.place(account_of(world), f"other.{ZONE}")
    world.run_until_quiet()
    assert world.ca.requests["newOrder"] == 1
    for order_id in (first, second):
        (told,) = (event for event in world.events(order_id) if isinstance(event, Order.Throttled))
        assert told.bucket == Bucket(LETS_ENCRYPT, "certificates_per_domain", ZONE)
        error = world.failure(order_id).error
        assert (error.code, error.retry_after_seconds) == ("backend_rate_limited", 5 * 3600)
    with pytest.raises(CaLimitReached) as refusal:
        world.place(account_of(world), f"third.{ZONE}")
    assert refusal.value.retry_after_seconds == 5 * 3600
    world.connect_provider("other.example", name="other")
    world.place(account_of(world), "www.other.example")
    world.run_until_quiet()
    assert world.ca.requests["newOrder"] == 2


def test_a_running_order_is_joined_whatever_its_bucket_holds(world: World) -> None:
    for _ in range(4):
        world.place(account_of(world), WWW)
        world.run_until_quiet()
    running, _ = world.place(account_of(world), WWW)
    assert world.place(account_of(world), WWW) == (running, False)


def test_orders_on_their_way_take_nothing_that_others_need(world: World) -> None:
    for number in range(60):
        world.place(account_of(world), f"host{number}.{ZONE}")
    assert tokens_of(world, Bucket(LETS_ENCRYPT, "certificates_per_domain", ZONE)) == 0


def test_the_eleventh_account_in_three_hours_is_refused_before_the_ca_is_asked(world: World) -> None:
    def register(number: int) -> None:
        world.accounts.register(
            name=f"le {number}",
            provider="letsencrypt",
            environment="production",
            email="ops@acme.example",
            directory_url=None,
            eab=None,
            key_type="ec256",
            ca_bundle_pem=None,
            caller=OWNER,
        )

    for number in range(9):  # one is there already
        register(number)
    asked = world.ca.requests["newAccount"]
    with world.records_nothing(), pytest.raises(CaLimitReached) as refusal:
        register(10)
    assert refusal.value.bucket.limit == "new_registrations"
    assert world.ca.requests["newAccount"] == asked
    world.clock.advance(timedelta(minutes=18))
    register(10)
