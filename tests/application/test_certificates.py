"""Handing out private keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from application.errors import StoreUnavailable
from domain.access import PrivateKeyRead
from domain.certificate import Certificate
from domain.errors import Denied, NotFound, PrivateKeyNotStored
from domain.token import Limits
from tests.application.calls import Death
from tests.application.world import NAMES, OWNER, STRANGER, ZONE, World, caller, public_key


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def certificate(world: World) -> Certificate:
    """With two versions."""
    first = world.issued()
    world.renewal_of(first)
    world.run_until_quiet()
    return world.certificate(first)


@pytest.mark.parametrize(("asked_for", "given"), [(None, 2), (1, 1), (2, 2)])
def test_a_key_is_that_of_its_version(
    world: World, certificate: Certificate, asked_for: int | None, given: int
) -> None:
    version, key_pem = world.certificates.private_key(certificate.id, asked_for, OWNER)
    assert version.number == given
    assert public_key(key_pem) == public_key(world.ca.issued[given - 1])
    assert key_pem.reveal_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_that_a_key_was_read_is_on_record(world: World, certificate: Certificate) -> None:
    world.certificates.private_key(certificate.id, 1, OWNER)
    read = world.recorder.history[-1]
    assert isinstance(read.event, PrivateKeyRead)
    assert (read.event.certificate_id, read.event.version) == (certificate.id, 1)
    assert read.by == OWNER.provenance


def test_no_key_is_given_that_could_not_be_put_on_record(world: World, certificate: Certificate) -> None:
    reading = world.calls.made.copy()
    world.certificates.private_key(certificate.id, None, OWNER)
    calls = world.calls.made[len(reading) :]
    assert calls == ["store.select_events", "keys.open", "store.insert_events"]
    world.calls.kill(Death(2, acted=False, of=StoreUnavailable("gone")))
    with world.records_nothing(), pytest.raises(StoreUnavailable):
        world.certificates.private_key(certificate.id, None, OWNER)


def test_the_key_is_in_no_event(world: World, certificate: Certificate) -> None:
    _, key_pem = world.certificates.private_key(certificate.id, None, OWNER)
    assert key_pem.reveal_text() not in repr(world.recorded)
    assert "PRIVATE KEY" not in repr(world.recorded)


def test_what_is_not_there_is_not_found(world: World, certificate: Certificate) -> None:
    with world.records_nothing():
        with pytest.raises(NotFound) as no_certificate:
            world.certificates.private_key("cert_404", None, OWNER)
        with pytest.raises(NotFound) as no_version:
            world.certificates.private_key(certificate.id, 3, OWNER)
        with pytest.raises(NotFound) as another_tenants:
            world.certificates.private_key(certificate.id, None, STRANGER)
    kinds = [refusal.value.kind for refusal in (no_certificate, no_version, another_tenants)]
    assert kinds == ["certificate", "version", "certificate"]


@pytest.mark.parametrize(
    "limits", [Limits(certificate_ids=("cert_2",)), Limits(dns_names=(ZONE,)), Limits(dns_names=("other.example",))]
)
def test_a_token_has_no_keys_outside_its_limits(world: World, certificate: Certificate, limits: Limits) -> None:
    with world.records_nothing(), pytest.raises(Denied) as refusal:
        world.certificates.private_key(certificate.id, None, caller("pki:export", limits=limits))
    assert refusal.value.code == "access_denied"
    insider = caller("pki:export", limits=Limits(dns_names=NAMES, certificate_ids=(certificate.id,)))
    assert world.certificates.private_key(certificate.id, None, insider)


def test_a_key_that_was_never_here_is_not_given(world: World, certificate: Certificate) -> None:
    world.store.record(
        Certificate.issue(
            "cert_csr",
            tenant_id=OWNER.tenant_id,
            account_id=certificate.account_id,
            name=None,
            dns_names=NAMES,
            auto_renew=False,
            version=replace(certificate.current, number=1, sealed_key_id=None),
            now=world.clock.now(),
        ),
        by=OWNER.provenance,
    )
    with world.records_nothing(), pytest.raises(PrivateKeyNotStored):
        world.certificates.private_key("cert_csr", None, OWNER)
