"""Keys, signing requests and certificates (RFC 5280, RFC 2986): made and read here, decided about in `domain`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from application.secret_value import SecretValue
from domain.errors import FieldProblem, InvalidFields
from domain.order import KeyType

UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class CertificateRejected(Exception):
    """What the CA handed out is not what was ordered."""


class LeafFacts(msgspec.Struct, frozen=True):
    """What a chain's leaf says. `serial_number` in upper-case hex, `fingerprint_sha256` of the DER in lower-case hex."""

    serial_number: str
    fingerprint_sha256: str
    issuer: str
    not_before: datetime
    not_after: datetime


def new_private_key(key_type: KeyType) -> SecretValue:
    """A fresh key as PKCS #8 PEM."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    match key_type:
        case "ec256":
            key = ec.generate_private_key(ec.SECP256R1())
        case "ec384":
            key = ec.generate_private_key(ec.SECP384R1())
        case "rsa2048" | "rsa3072" | "rsa4096":
            key = rsa.generate_private_key(public_exponent=65537, key_size=int(key_type.removeprefix("rsa")))
    return SecretValue(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def new_csr_der(key_pem: SecretValue, dns_names: Sequence[str]) -> bytes:
    """The names stand in the subject alternative name alone; the subject is empty."""
    key = serialization.load_pem_private_key(key_pem.reveal(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise TypeError("a leaf's key is EC or RSA")
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names])
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def require_ca_bundle(ca_bundle_pem: str | None, field: str) -> None:
    """Raises InvalidFields naming the field unless it is PEM with certificates, or None."""
    try:
        if ca_bundle_pem is not None:
            x509.load_pem_x509_certificates(ca_bundle_pem.encode("ascii"))
    except ValueError:
        raise InvalidFields(FieldProblem(field, "invalid", "PEM with certificates is needed")) from None


def read_chain(chain_pem: str, csr_der: bytes, dns_names: Sequence[str]) -> LeafFacts:
    """Checks that the leaf is for the CSR's key and exactly these names, and that each certificate was issued by the
    next one. Raises CertificateRejected."""
    try:
        chain = x509.load_pem_x509_certificates(chain_pem.encode())
        leaf = chain[0]
        named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = named.get_values_for_type(x509.DNSName)
        public_key = _public_key(leaf)
    except UNREADABLE as problem:
        raise CertificateRejected(f"not a readable certificate: {problem}") from None
    if public_key != _public_key(x509.load_der_x509_csr(csr_der)):
        raise CertificateRejected("the certificate is for another key")
    if {name.lower() for name in names} != set(dns_names):
        raise CertificateRejected(f"the certificate is for {', '.join(sorted(names))}")
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (*UNREADABLE, TypeError, InvalidSignature):
            raise CertificateRejected("the chain does not hold together") from None
    return LeafFacts(
        serial_number=_hex_octets(leaf.serial_number),
        fingerprint_sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        issuer=leaf.issuer.rfc4514_string(),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def ari_id(chain_pem: str) -> str | None:
    """What the leaf is called when its CA is asked about its renewal (RFC 9773 §4.1); None where it does not say which
    key signed it."""
    leaf = x509.load_pem_x509_certificates(chain_pem.encode())[0]
    try:
        key_identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None
    return None if key_identifier is None else ari_id_of(key_identifier, leaf.serial_number)


def ari_id_of(key_identifier: bytes, serial_number: int) -> str:
    """The serial number as the octets of a DER integer, with the leading 00 that keeps a high bit from being a sign."""
    serial = serial_number.to_bytes(serial_number.bit_length() // 8 + 1, "big")
    return f"{_base64url(key_identifier)}.{_base64url(serial)}"


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _hex_octets(number: int) -> str:
    """Whole octets, as tools show serial numbers."""
    digits = f"{number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)
