"""Certificate lines whose versions are real: key, leaf and chain belong together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from application.certificates import SEALED_KIND
from application.ports import KeyStore
from application.secret_value import SecretValue
from application.x509 import new_private_key
from domain.certificate import Certificate, Version
from domain.order import KeyType
from tests.fakes_ca_issuance import authority, issue, pem

NAMES = ("www.acme.example",)


def real_version(
    keys: KeyStore,
    certificate_id: str,
    number: int = 1,
    *,
    tenant_id: str,
    order_id: str,
    dns_names: Sequence[str] = NAMES,
    key_type: KeyType = "ec256",
    valid_for: timedelta = timedelta(days=90),
) -> Version:
    """Issued a day ago, its key sealed."""
    key_pem = new_private_key(key_type)
    now = datetime.now(UTC).replace(microsecond=0)
    leaf = issue(public_key_of(key_pem), dns_names, now - timedelta(days=1), valid_for + timedelta(days=1))
    return Version(
        number=number,
        order_id=order_id,
        serial_number=f"{leaf.serial_number:X}",
        fingerprint_sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        issuer=leaf.issuer.rfc4514_string(),
        key_type=key_type,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        chain_pem=pem(leaf) + pem(authority().intermediate),
        sealed_key_id=keys.seal(SEALED_KIND, tenant_id, certificate_id, key_pem),
    )


def real_line(
    version: Version,
    certificate_id: str,
    *,
    tenant_id: str,
    account_id: str = "acme_staging_1",
    dns_names: Sequence[str] = NAMES,
) -> Certificate:
    """With that as its first version. It is not renewed by itself."""
    return Certificate.issue(
        certificate_id,
        tenant_id=tenant_id,
        account_id=account_id,
        name=None,
        dns_names=tuple(dns_names),
        auto_renew=False,
        version=version,
        now=datetime.now(UTC),
    )


def public_key_of(key_pem: SecretValue) -> CertificatePublicKeyTypes:
    key = serialization.load_pem_private_key(key_pem.reveal(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key.public_key()


def leaf_key_of(certificate_pem: str) -> CertificatePublicKeyTypes:
    """The public key of a chain's first certificate."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
