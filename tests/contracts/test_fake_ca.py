"""The fake's knobs, which the process managers' tests rely on."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from application.errors import CaRefused, CaUnavailable
from domain.acme import ERROR_NAMESPACE, Problem
from tests.contracts.ca_world import TxtZone, World, csr_der
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
