"""Placing, joining, renewing and cancelling orders."""

from __future__ import annotations

import pytest

from application.caller import Caller
from application.ports import Capabilities
from domain.certificate import Certificate
from domain.errors import Denied, InvalidFields, NotFound, OrderAlreadyEnded, OrderInProgress
from domain.order import Assignment, Order
from domain.token import Limits
from tests.application.world import NAMES, OWNER, STRANGER, ZONE, World, caller, field_codes

MANY = [f"n{number}.{ZONE}" for number in range(101)]


@pytest.fixture
def world() -> World:
    return World()


def limited(*dns_names: str, certificate_ids: tuple[str, ...] = ()) -> Caller:
    return caller(limits=Limits(dns_names=dns_names, certificate_ids=certificate_ids))


# --- placing ---


def test_an_order_is_placed_for_the_names_in_their_normal_form(world: World) -> None:
    account_id = world.ready()
    order_id, is_new = world.place(account_id, "WWW.Acme.Example.", "bücher.acme.example", "www.acme.example")
    assert is_new
    (placed,) = world.events(order_id)
    assert isinstance(placed, Order.Placed)
    assert [assignment.dns_name for assignment in placed.assignments] == [f"www.{ZONE}", f"xn--bcher-kva.{ZONE}"]
    assert (placed.tenant_id, placed.account_id, placed.renewal_reason) == (OWNER.tenant_id, account_id, None)
    assert world.recorder.history[-1].by == OWNER.provenance
    assert [(item.subject, item.step) for item in world.todo] == [(order_id, "SealKey")]
    assert world.ca.requests.total() == 0


@pytest.mark.parametrize(
    ("domains", "codes"),
    [
        ([], {"domains": "required"}),
        (["not a name"], {"domains[0]": "invalid_name"}),
        (["localhost"], {"domains[0]": "invalid_name"}),
        (["192.0.2.1"], {"domains[0]": "invalid_name"}),
        (["www.*.acme.example"], {"domains[0]": "invalid_name"}),
        (["co.uk"], {"domains[0]": "public_suffix"}),
        (["acme.example", "*.co.uk", "-x.example"], {"domains[1]": "public_suffix", "domains[2]": "invalid_name"}),
        (MANY, {"domains": "too_many"}),
    ],
)
def test_names_that_no_ca_would_take_are_each_named(world: World, domains: list[str], codes: dict[str, str]) -> None:
    account_id = world.ready()
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.place(account_id, *domains)
    assert field_codes(refusal) == codes


@pytest.mark.parametrize("domains", [(ZONE,), NAMES])
@pytest.mark.parametrize("challenge_type", ["http-01", "tls-alpn-01", "unheard-of"])
def test_only_dns_01_is_there(world: World, challenge_type: str, domains: tuple[str, ...]) -> None:
    account_id = world.ready()
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.place(account_id, *domains, challenge_type=challenge_type)
    assert field_codes(refusal) == {"challenge_type": "unsupported"}
    assert ("wildcard" in str(refusal.value)) is (len(domains) > 1)


def test_a_profile_must_be_one_that_the_ca_offers(world: World) -> None:
    profiles = {"shortlived": "six days"}
    world.ca.knobs.offers = Capabilities(ari=False, profiles=profiles, eab_required=False, caa_identities=())
    account_id = world.ready()
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.place(account_id, ZONE, profile="classic")
    assert field_codes(refusal) == {"profile": "unknown"}
    assert "shortlived" in str(refusal.value)
    order_id, _ = world.place(account_id, ZONE, profile="shortlived")
    world.run_until_quiet()
    assert world.order(order_id).ended == "valid"


def test_an_account_or_provider_that_is_not_there_is_not_found(world: World) -> None:
    account_id = world.ready()
    with world.records_nothing():
        with pytest.raises(NotFound, match="account"):
            world.place("acme_staging_404", ZONE)
        with pytest.raises(NotFound, match="dns_provider"):
            world.place(account_id, ZONE, dns_provider_id="dnsp_404")
        with pytest.raises(NotFound, match="dns_provider"):
            world.place(account_id, ZONE, dns_provider_id=account_id)


def test_accounts_and_providers_of_another_tenant_are_not_found(world: World) -> None:
    account_id = world.ready()
    (provider_id,) = (zones.dns_provider_id for zones in world.views.managed_zones(OWNER.tenant_id))
    theirs = world.register_account(caller=STRANGER)
    with world.records_nothing():
        with pytest.raises(NotFound):
            world.place(account_id, ZONE, caller=STRANGER)
        with pytest.raises(NotFound):
            world.place(theirs, ZONE, dns_provider_id=provider_id, caller=STRANGER)


def test_the_zones_of_another_tenant_are_not_used(world: World) -> None:
    world.ready()
    order_id, _ = world.place(world.register_account(caller=STRANGER), ZONE, caller=STRANGER)
    assert world.failure(order_id).error.code == "zone_not_managed"


def test_on_a_tie_the_provider_of_the_request_decides(world: World) -> None:
    account_id = world.ready()
    second = world.connect_provider(ZONE, name="second")
    order_id, _ = world.place(account_id, *NAMES, dns_provider_id=second)
    assert world.order(order_id).assignments == tuple(Assignment(name, second) for name in NAMES)


# --- a token's limits ---


@pytest.mark.parametrize(
    ("globs", "domains"),
    [
        ([ZONE], [f"www.{ZONE}"]),
        ([f"*.{ZONE}"], [ZONE]),
        ([ZONE], NAMES),
        ([f"?.{ZONE}"], [f"*.{ZONE}"]),
        ([f"[!a].{ZONE}"], [f"*.{ZONE}"]),
        ([f"www.{ZONE}", "other.example"], [f"www.{ZONE}", "third.example"]),
    ],
)
def test_a_token_cannot_have_names_outside_its_limits(world: World, globs: list[str], domains: list[str]) -> None:
    account_id = world.ready()
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.place(account_id, *domains, caller=limited(*globs))
    assert refusal.value.code == "access_denied"


@pytest.mark.parametrize(
    ("globs", "domains"),
    [([], NAMES), ([f"*.{ZONE}"], [f"*.{ZONE}", f"www.{ZONE}"]), ([ZONE, f"*.{ZONE}"], NAMES), (["*"], NAMES)],
)
def test_a_token_has_the_names_within_its_limits(world: World, globs: list[str], domains: list[str]) -> None:
    assert world.place(world.ready(), *domains, caller=limited(*globs))[1]


def test_a_token_for_certain_certificates_begins_no_others(world: World) -> None:
    account_id = world.ready()
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.place(account_id, ZONE, caller=limited(certificate_ids=("cert_1",)))
    assert refusal.value.code == "access_denied"


OUTSIDERS = [limited(certificate_ids=("cert_2",)), limited(f"www.{ZONE}"), limited(ZONE)]


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_a_token_renews_no_certificates_but_its_own(world: World, outsider: Caller) -> None:
    certificate_id = world.order(world.issued()).certificate_id
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.renewals.renew(certificate_id, reason="requested", new_key=True, caller=outsider)
    assert refusal.value.code == "access_denied"
    insider = limited(*NAMES, certificate_ids=(certificate_id,))
    assert world.renewals.renew(certificate_id, reason="requested", new_key=True, caller=insider).is_new


@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_a_token_cancels_no_orders_but_its_own(world: World, outsider: Caller) -> None:
    order_id = world.placed()
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.orders.cancel(order_id, outsider)
    assert refusal.value.code == "access_denied"
    world.orders.cancel(order_id, limited(*NAMES, certificate_ids=(world.order(order_id).certificate_id,)))


# --- joining ---


def test_the_same_names_in_progress_are_the_running_order(world: World) -> None:
    account_id = world.ready()
    first, _ = world.place(account_id, *NAMES)
    with world.records_nothing():
        assert world.place(account_id, *reversed(NAMES)) == (first, False)
    world.run_until_quiet()
    second, is_new = world.place(account_id, *NAMES)
    assert is_new
    assert second != first


def test_other_names_or_another_account_are_an_order_of_their_own(world: World) -> None:
    account_id = world.ready()
    assert world.place(account_id, *NAMES)[1]
    assert world.place(account_id, ZONE)[1]
    assert world.place(world.register_account("second"), *NAMES)[1]


def test_an_order_that_ended_while_it_was_looked_for_makes_room(world: World) -> None:
    account_id = world.ready()
    first, _ = world.place(account_id, ZONE)
    world.calls.before("views.running_order", lambda: world.orders.cancel(first, OWNER))
    second, is_new = world.place(account_id, ZONE)
    assert (is_new, second == first) == (True, False)
    world.run_until_quiet()
    assert world.order(second).ended == "valid"


# --- renewing ---


@pytest.mark.parametrize("new_key", [True, False])
def test_a_renewal_is_an_order_for_the_next_version_of_the_line(world: World, *, new_key: bool) -> None:
    first = world.issued()
    certificate = world.certificate(first)
    placed = world.renewals.renew(certificate.id, reason="key_compromise", new_key=new_key, caller=OWNER)
    assert placed.is_new
    (renewal,) = world.events(placed.order_id)
    (original, *_) = world.events(first)
    assert isinstance(renewal, Order.Placed)
    assert isinstance(original, Order.Placed)
    assert (renewal.certificate_id, renewal.account_id) == (original.certificate_id, original.account_id)
    assert (renewal.assignments, renewal.key_type) == (original.assignments, original.key_type)
    assert renewal.renewal_reason == "key_compromise"
    assert renewal.kept_key_id == (None if new_key else certificate.current.sealed_key_id)


def test_a_renewal_in_progress_is_joined(world: World) -> None:
    first = world.issued()
    renewal_id = world.renewal_of(first)
    with world.records_nothing():
        placed = world.renewals.renew(world.certificate(first).id, reason="again", new_key=True, caller=OWNER)
    assert (placed.order_id, placed.is_new) == (renewal_id, False)


def test_a_renewal_does_not_join_an_order_for_another_line(world: World) -> None:
    first = world.issued()
    order = world.order(first)
    other, _ = world.place(order.account_id, *NAMES)
    with world.records_nothing(), pytest.raises(OrderInProgress) as refusal:
        world.renewals.renew(order.certificate_id, reason="requested", new_key=True, caller=OWNER)
    assert refusal.value.order_id == other


def test_a_renewal_of_what_is_not_there_is_refused(world: World) -> None:
    certificate_id = world.order(world.issued()).certificate_id
    with world.records_nothing():
        for unknown, somebody in ((certificate_id, STRANGER), ("cert_404", OWNER), (world.ids.new("acme"), OWNER)):
            with pytest.raises(NotFound):
                world.renewals.renew(unknown, reason="requested", new_key=True, caller=somebody)


def test_a_renewal_whose_zone_nobody_manages_any_longer_fails_at_once_and_is_told(world: World) -> None:
    first = world.issued()
    world.views.managed_zones(OWNER.tenant_id).clear()
    renewal_id = world.renewal_of(first)
    world.run_until_quiet()
    assert world.failure(renewal_id).error.code == "zone_not_managed"
    assert isinstance(world.recorded[-1], Certificate.RenewalFailed)
    world.require_sound()


# --- cancelling ---


def test_a_cancelled_order_has_ended(world: World) -> None:
    order_id = world.placed()
    world.orders.cancel(order_id, OWNER)
    assert world.failure(order_id).error.code == "cancelled"
    assert world.todo == []
    with world.records_nothing(), pytest.raises(OrderAlreadyEnded):
        world.orders.cancel(order_id, OWNER)


def test_an_order_of_another_tenant_is_not_cancelled(world: World) -> None:
    order_id = world.placed()
    with world.records_nothing(), pytest.raises(NotFound):
        world.orders.cancel(order_id, STRANGER)


def test_a_cancelled_renewal_is_a_failed_one(world: World) -> None:
    first = world.issued()
    world.orders.cancel(world.renewal_of(first), OWNER)
    assert world.certificate(first).failed_renewals == 1
