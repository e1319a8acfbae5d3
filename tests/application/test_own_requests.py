"""Orders for a key that is not ours: its owner brings a signing request, and the key is never here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from application.process.issuance import is_for_the_key_of
from application.revocations import Revocations
from application.x509 import key_of_chain
from domain.certificate import Certificate
from domain.errors import InvalidFields, OrderInProgress, PrivateKeyNotStored
from tests.application.world import NAMES, OWNER, World

MINUTE = timedelta(minutes=1)


def request_pem(names: Sequence[str] = NAMES, key: CertificateIssuerPrivateKeyTypes | None = None) -> str:
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(alternative, critical=False)
    signed = request.sign(key or ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def key_of(csr_pem: str) -> bytes:
    key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def csr_pem() -> str:
    return request_pem()


@pytest.fixture
def certificate(world: World, csr_pem: str) -> Certificate:
    """Issued for the request."""
    order_id, _ = world.place(world.ready(), *NAMES, csr_pem=csr_pem)
    world.run_until_quiet()
    return world.certificate(order_id)


def keys_of(world: World, certificate: Certificate) -> list[bytes]:
    line = world.store.load(Certificate, certificate.id)
    return [key_of_chain(version.chain_pem) for version in line.versions]


def test_the_certificate_is_for_the_key_that_was_brought(world: World, certificate: Certificate, csr_pem: str) -> None:
    assert keys_of(world, certificate) == [key_of(csr_pem)]
    assert certificate.current.key_type == "ec384"
    with world.records_nothing(), pytest.raises(PrivateKeyNotStored):
        world.certificates.private_key(certificate.id, None, OWNER)


def test_a_renewal_is_for_the_same_request(world: World, certificate: Certificate, csr_pem: str) -> None:
    world.renew_by_itself()
    world.run_for(certificate.current.not_after - world.clock.now())
    line = world.store.load(Certificate, certificate.id)
    assert len(line.versions) > 1
    assert set(keys_of(world, certificate)) == {key_of(csr_pem)}
    assert {version.key_type for version in line.versions} == {"ec384"}


def test_a_renewal_takes_another_request_and_stays_with_it(
    world: World, certificate: Certificate, csr_pem: str
) -> None:
    another = request_pem(key=ec.generate_private_key(ec.SECP256R1()))
    world.renewals.renew(certificate.id, reason="rotation", csr_pem=another, caller=OWNER)
    world.run_until_quiet()
    world.renewals.renew(certificate.id, reason="again", caller=OWNER)
    world.run_until_quiet()
    assert keys_of(world, certificate) == [key_of(csr_pem), key_of(another), key_of(another)]


def test_a_line_with_our_keys_can_be_taken_over_by_a_request(world: World, csr_pem: str) -> None:
    certificate = world.certificate(world.issued())
    world.renewals.renew(certificate.id, reason="hsm", csr_pem=csr_pem, caller=OWNER)
    world.run_until_quiet()
    assert keys_of(world, certificate)[1:] == [key_of(csr_pem)]


def test_an_order_in_progress_is_joined_for_the_same_request_alone(world: World, csr_pem: str) -> None:
    account_id = world.ready()
    first, _ = world.place(account_id, *NAMES, csr_pem=csr_pem)
    with world.records_nothing():
        assert world.place(account_id, *NAMES, csr_pem=csr_pem) == (first, False)
        for other in (request_pem(), None):
            with pytest.raises(OrderInProgress) as refusal:
                world.place(account_id, *NAMES, csr_pem=other)
            assert refusal.value.order_id == first


def test_an_order_in_progress_for_a_key_of_ours_is_not_joined_by_a_request(world: World, csr_pem: str) -> None:
    account_id = world.ready()
    world.place(account_id, *NAMES)
    with world.records_nothing(), pytest.raises(OrderInProgress):
        world.place(account_id, *NAMES, csr_pem=csr_pem)


def test_a_renewal_in_progress_is_joined_without_a_request_or_with_the_same(
    world: World, certificate: Certificate, csr_pem: str
) -> None:
    running = world.renewals.renew(certificate.id, reason="requested", caller=OWNER).order_id
    with world.records_nothing():
        for same in (None, csr_pem):
            joined = world.renewals.renew(certificate.id, reason="requested", csr_pem=same, caller=OWNER)
            assert (joined.order_id, joined.is_new) == (running, False)
        with pytest.raises(OrderInProgress):
            world.renewals.renew(certificate.id, reason="requested", csr_pem=request_pem(), caller=OWNER)


@pytest.mark.parametrize(
    ("asked", "field", "code"),
    [
        ({"new_key": True}, "csr_pem", "required"),
        ({"new_key": False, "csr_pem": request_pem()}, "new_key", "conflicting"),
        ({"csr_pem": request_pem(["other.example"])}, "csr_pem", "other_names"),
    ],
)
def test_a_renewal_whose_key_is_not_clear_is_refused(
    world: World, certificate: Certificate, asked: dict[str, str | bool], field: str, code: str
) -> None:
    with world.records_nothing(), pytest.raises(InvalidFields) as refusal:
        world.renewals.renew(certificate.id, reason="requested", caller=OWNER, **asked)  # type: ignore[arg-type]
    assert [(each.field, each.code) for each in refusal.value.fields] == [(field, code)]


def test_another_key_type_than_that_of_the_request_is_refused(world: World, csr_pem: str) -> None:
    account_id = world.ready()
    with world.records_nothing(), pytest.raises(InvalidFields, match="ec384"):
        world.place(account_id, *NAMES, key_type="ec256", csr_pem=csr_pem)
    world.place(account_id, *NAMES, key_type="ec384", csr_pem=csr_pem)


def test_only_an_earlier_order_for_the_same_key_is_what_who_brought_one_wants(world: World, csr_pem: str) -> None:
    account_id = world.ready()
    same_key = ec.generate_private_key(ec.SECP256R1())
    orders = {}
    for name, csr in {
        "mine": request_pem(key=same_key),
        "again": request_pem(key=same_key),
        "other": csr_pem,
        "ours": None,
    }.items():
        order_id, _ = world.place(account_id, *NAMES, csr_pem=csr)
        world.run_until_quiet()
        orders[name] = world.order(order_id)
    assert is_for_the_key_of(orders["again"], orders["mine"])
    assert not is_for_the_key_of(orders["other"], orders["mine"])
    assert not is_for_the_key_of(orders["ours"], orders["mine"])
    assert is_for_the_key_of(orders["other"], orders["ours"])


# --- keys that are known to others ---


def revoke_as_compromised(world: World, certificate: Certificate) -> None:
    ca = world.calls.of("ca", world.ca)
    revocations = Revocations(world.store, world.accounts, world.sealed, ca, world.clock)
    revocations.revoke(certificate.id, None, "key_compromise", OWNER)


def test_a_compromised_key_is_renewed_by_nobody(world: World, certificate: Certificate, csr_pem: str) -> None:
    world.renew_by_itself()
    revoke_as_compromised(world, certificate)
    world.run_for(MINUTE)
    (failed,) = [event for event in world.recorded if isinstance(event, Certificate.RenewalFailed)]
    assert (failed.error.code, failed.order_id) == ("certificate_rejected", None)
    with world.records_nothing():
        for same in (None, csr_pem):
            with pytest.raises(InvalidFields, match="compromised"):
                world.renewals.renew(certificate.id, reason="requested", csr_pem=same, caller=OWNER)
    world.renewals.renew(certificate.id, reason="requested", csr_pem=request_pem(), caller=OWNER)
    world.run_for(MINUTE)
    assert len(set(keys_of(world, certificate))) == 2


def test_a_compromised_key_of_ours_is_not_kept(world: World) -> None:
    certificate = world.certificate(world.issued())
    revoke_as_compromised(world, certificate)
    with world.records_nothing(), pytest.raises(InvalidFields, match="compromised"):
        world.renewals.renew(certificate.id, reason="requested", new_key=False, caller=OWNER)
    world.renewals.renew(certificate.id, reason="requested", caller=OWNER)
