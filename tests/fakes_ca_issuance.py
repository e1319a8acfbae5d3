"""How the fake CA makes certificates: real ones, under two roots that nobody trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

ROOT, OTHER_ROOT = "Fake Root", "Fake Other Root"


@dataclass(frozen=True)
class Authority:
    """One issuing key, certified by ROOT and, as `cross_signed`, by OTHER_ROOT."""

    key: ec.EllipticCurvePrivateKey
    intermediate: x509.Certificate
    cross_signed: x509.Certificate


@cache
def authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(key, _intermediate(key, ROOT), _intermediate(key, OTHER_ROOT))


def issue(
    public_key: CertificatePublicKeyTypes, dns_names: Sequence[str], now: datetime, lifetime: timedelta
) -> x509.Certificate:
    names = x509.SubjectAlternativeName([x509.DNSName(each) for each in dns_names])
    issuer = authority().intermediate.subject
    unsigned = _unsigned(_name("Fake Leaf"), issuer, public_key, now, lifetime)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority().key.public_key())
    unsigned = unsigned.add_extension(names, critical=False).add_extension(signed_by, critical=False)
    return unsigned.sign(authority().key, hashes.SHA256())


def read_csr(csr_der: bytes) -> tuple[CertificatePublicKeyTypes, frozenset[str]]:
    """Its key and its DNS names. Raises ValueError."""
    csr = x509.load_der_x509_csr(csr_der)
    if not csr.is_signature_valid:
        raise ValueError("the signature is not the key's")
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("no names") from error
    return csr.public_key(), frozenset(names.get_values_for_type(x509.DNSName))


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _intermediate(key: ec.EllipticCurvePrivateKey, root: str) -> x509.Certificate:
    from_then = datetime.now(UTC) - timedelta(days=3650)
    unsigned = _unsigned(_name("Fake Intermediate"), _name(root), key.public_key(), from_then, timedelta(days=7300))
    root_key = ec.generate_private_key(ec.SECP256R1())
    return unsigned.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        root_key, hashes.SHA256()
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _unsigned(
    subject: x509.Name, issuer: x509.Name, public_key: CertificatePublicKeyTypes, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + lifetime)
    )
