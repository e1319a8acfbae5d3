"""Keys, signing requests and certificates (RFC 5280, RFC 2986): made and read here, decided about in `domain`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import get_args

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

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


class SigningRequest(msgspec.Struct, frozen=True):
    """A request that somebody brought, and the kind of its key, which is not ours."""

    csr_der: bytes
    key_type: KeyType


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


def read_csr(csr_pem: str, dns_names: Sequence[str]) -> SigningRequest:
    """Raises InvalidFields (`csr_pem`) unless it is signed by its own key, of a kind that CAs take, and for exactly these
    names."""
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        named = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        subjects = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        is_signed = request.is_signature_valid
        key_type = _key_type(request)
    except (*UNREADABLE, TypeError) as problem:
        raise _refused_csr(
            "unreadable", f"no readable PKCS #10 request in PEM with alternative names: {problem}"
        ) from None
    if not is_signed:
        raise _refused_csr("invalid", "it is not signed by its own key")
    if key_type is None:
        raise _refused_csr("unsupported", f"its key is none of {', '.join(get_args(KeyType))}")
    wanted = set(dns_names)
    others = [name for name in named if not isinstance(name, x509.DNSName)]
    if others or {str(name).lower() for name in named.get_values_for_type(x509.DNSName)} != wanted:
        raise _refused_csr("other_names", "its alternative names are not exactly the domains")
    if any(str(subject.value).lower() not in wanted for subject in subjects):
        raise _refused_csr("other_names", "its common name is none of the domains")
    return SigningRequest(request.public_bytes(Encoding.DER), key_type)


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
    if public_key != key_of_csr(csr_der):
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


def key_of_chain(chain_pem: str) -> bytes:
    """The public key of a chain's leaf, as `key_of_csr` gives it: SubjectPublicKeyInfo in DER."""
    return _public_key(x509.load_pem_x509_certificates(chain_pem.encode())[0])


def key_of_csr(csr_der: bytes) -> bytes:
    return _public_key(x509.load_der_x509_csr(csr_der))


def _key_type(request: x509.CertificateSigningRequest) -> KeyType | None:
    match request.public_key():
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return "ec256"
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return "ec384"
        case rsa.RSAPublicKey(key_size=2048):
            return "rsa2048"
        case rsa.RSAPublicKey(key_size=3072):
            return "rsa3072"
        case rsa.RSAPublicKey(key_size=4096):
            return "rsa4096"
        case _:
            return None


def _refused_csr(code: str, message: str) -> InvalidFields:
    return InvalidFields(FieldProblem("csr_pem", code, message))


def _public_key(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _hex_octets(number: int) -> str:
    """Whole octets, as tools show serial numbers."""
    digits = f"{number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)
