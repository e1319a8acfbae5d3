"""The fake's knobs, which the process managers' tests rely on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from application.errors import CaRefused, CaUnavailable
from application.x509 import ari_id
from domain.acme import ERROR_NAMESPACE, Problem, RenewalInfo
from tests.contracts.ca_world import TxtZone, World, csr_der
from tests.fakes import NEW_YEAR
from tests.fakes_ca import DIRECTORY_URL, FakeCa

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def world() -> World:
    zone = TxtZone()
    fake = FakeCa(zone.values)
    return World(fake, DIRECTORY_URL, zone, fake.requests.total)


@pytest.fixture
def fake(world: World) -> FakeCa:
    assert isinstance(world.ca, FakeCa)
    return world.ca


def test_a_failure_happens_once_and_does_nothing(fake: FakeCa, world: World) -> None:
    account = world.register()
    fake.fail("new_order", CaUnavailable("down"))
    with pytest.raises(CaUnavailable):
        fake.new_order(account, [world.dns_name], None)
    assert fake._orders == {}
    assert fake.new_order(account, [world.dns_name], None).status == "pending"
    assert fake.requests["newOrder"] == 2


def test_a_lost_answer_is_to_work_that_was_done(fake: FakeCa, world: World) -> None:
    account = world.register()
    order = world.ready_order(account, [world.dns_name])
    fake.lose_answer("finalize", CaUnavailable("lost"))
    with pytest.raises(CaUnavailable):
        fake.finalize(account, order, csr_der(KEY, [world.dns_name]))
    assert fake.order(account, order.url).status == "valid"
    assert fake.finalized[order.url] == 1


def test_an_order_of_preauthorized_names_is_born_ready(fake: FakeCa, world: World) -> None:
    fake.knobs.preauthorized.add(world.dns_name)
    assert fake.new_order(world.register(), [world.dns_name, f"*.{world.dns_name}"], None).status == "ready"


def test_an_order_is_processing_for_as_many_polls_as_told(fake: FakeCa, world: World) -> None:
    fake.knobs.processing_polls, fake.knobs.retry_after_seconds = 2, 3.0
    account = world.register()
    order = fake.finalize(account, world.ready_order(account, [world.dns_name]), csr_der(KEY, [world.dns_name]))
    said = [order, *(fake.order(account, order.url) for _ in range(3))]
    assert [each.status for each in said] == ["processing", "processing", "processing", "valid"]
    assert [each.retry_after_seconds for each in said] == [3.0, 3.0, 3.0, None]


def test_a_name_is_invalid_with_the_problem_it_was_given(fake: FakeCa, world: World) -> None:
    problem = Problem(ERROR_NAMESPACE + "caa", "forbidden")
    fake.knobs.invalid[world.dns_name] = problem
    account = world.register()
    order = fake.new_order(account, [world.dns_name], None)
    fake.answer(account, world.publish(account, fake.authorizations(account, order.authorization_urls)))
    (said,) = fake.authorizations(account, order.authorization_urls)
    assert (said.status, said.challenges[0].error) == ("invalid", problem)
    assert fake.order(account, order.url).status == "invalid"


def test_a_certificate_comes_with_another_key_or_names_on_demand(fake: FakeCa, world: World) -> None:
    account = world.register()
    fake.knobs.certificate_fault = "wrong_key"
    world.issue(account, KEY, [world.dns_name])
    fake.knobs.certificate_fault = "wrong_names"
    world.issue(account, KEY, [world.dns_name])
    wrong_key, wrong_names = fake.issued
    assert wrong_key.public_key() != KEY.public_key()
    names = wrong_names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["wrong.example"]


def test_a_ca_that_forgot_everything_knows_no_account(fake: FakeCa, world: World) -> None:
    account = world.register()
    fake.forget_everything()
    with pytest.raises(CaRefused) as refusal:
        fake.new_order(account, [world.dns_name], None)
    assert refusal.value.problem.name == "accountDoesNotExist"


def issued(fake: FakeCa, world: World) -> str:
    """The ARI id of a new certificate of a new account."""
    account = world.register()
    return ari_id(fake.chain(account, world.issue(account, KEY, [world.dns_name]), None)) or ""


@pytest.mark.parametrize(("days", "centre_days"), [(90, 60), (10, 10 * 2 / 3), (6, 3)])
def test_the_window_lies_where_lets_encrypt_puts_it(fake: FakeCa, world: World, days: int, centre_days: float) -> None:
    fake.knobs.certificate_lifetime = timedelta(days=days)
    named, account = issued(fake, world), world.register()
    suggested = fake.renewal_info(account, named)
    assert suggested is not None
    begins, width = fake.issued[0].not_valid_before_utc, timedelta(days=days) / 100
    assert abs(suggested.window_start - (begins + timedelta(days=centre_days) - width)) < timedelta(seconds=1)
    assert suggested.window_end - suggested.window_start == 2 * width
    assert suggested.retry_after_seconds == 6 * 3600


def test_a_window_is_given_to_one_certificate_or_to_all_others(fake: FakeCa, world: World) -> None:
    past, future = (RenewalInfo(moment, moment) for moment in (NEW_YEAR, NEW_YEAR + timedelta(days=9999)))
    one, other, account = issued(fake, world), issued(fake, world), world.register()
    fake.knobs.windows[one] = past
    fake.knobs.window = lambda _certificate: future
    assert [fake.renewal_info(account, named) for named in (one, other)] == [past, future]


def test_without_ari_nothing_is_suggested_and_replaces_means_nothing(fake: FakeCa, world: World) -> None:
    fake.knobs.turn_ari_off()
    account = world.register()
    assert not fake.capabilities(DIRECTORY_URL, None).ari
    assert fake.renewal_info(account, "any.thing") is None
    fake.new_order(account, [world.dns_name], None, "any.thing")
    assert fake.replaces == ["any.thing"]


def test_only_an_order_that_was_finalized_replaces(fake: FakeCa, world: World) -> None:
    account = world.register()
    first = ari_id(fake.chain(account, world.issue(account, KEY, [world.dns_name]), None))
    for _ in range(2):
        fake.new_order(account, [world.dns_name], None, first)
    order = world.ready_order(account, [world.dns_name], first)
    fake.finalize(account, order, csr_der(KEY, [world.dns_name]))
    with pytest.raises(CaRefused, match="has been replaced"):
        fake.new_order(account, [world.dns_name], None, first)
    assert fake.replaces == [None, first, first, first]


@pytest.mark.parametrize(("name", "status"), [("unauthorized", 403), ("malformed", 400)])
def test_an_order_replaces_a_certificate_of_its_account_with_one_of_its_names(
    fake: FakeCa, world: World, name: str, status: int
) -> None:
    owner = world.register()
    first = ari_id(fake.chain(owner, world.issue(owner, KEY, [world.dns_name]), None))
    account = world.register() if name == "unauthorized" else owner
    with pytest.raises(CaRefused) as refusal:
        fake.new_order(account, ["other.example"], None, first)
    assert (refusal.value.problem.name, refusal.value.status) == (name, status)
