"""Keys and signing requests as they are made, and certificates as they are judged."""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from application.secret_value import SecretValue
from application.x509 import CertificateRejected, ari_id, ari_id_of, new_csr_der, new_private_key, read_chain
from application.x509 import read_csr as read_request
from domain.errors import InvalidFields
from domain.order import KeyType
from tests.fakes import NEW_YEAR
from tests.fakes_ca_issuance import authority, issue, pem, read_csr

NAMES = ("acme.example", "*.acme.example")
KEY = new_private_key("ec256")
CSR = new_csr_der(KEY, NAMES)
EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")  # 1.2.840.10045.2.1
SECP256R1 = bytes.fromhex("06082a8648ce3d030107")
UNHEARD_OF_KIND = EC_PUBLIC_KEY[:-1] + b"\x63"
UNHEARD_OF_CURVE = SECP256R1[:-1] + b"\x63"
ALTERNATIVE_NAME = bytes.fromhex("0603551d11")


def public_key(key_pem: SecretValue = KEY) -> CertificatePublicKeyTypes:
    key = load_pem_private_key(key_pem.reveal(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key.public_key()


def leaf(names: Sequence[str] = NAMES, key_pem: SecretValue = KEY) -> x509.Certificate:
    return issue(public_key(key_pem), names, NEW_YEAR, timedelta(days=90))


def chain(certificate: x509.Certificate, *others: x509.Certificate) -> str:
    return "".join(pem(each) for each in (certificate, *others))


def issued_by_a_name(certificate: x509.Certificate) -> x509.Certificate:
    """The same without the issuer's key identifier: its name and serial number instead (RFC 5280 §4.2.1.1)."""
    issuer = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(certificate.issuer)], 1)
    return (
        x509.CertificateBuilder(certificate.issuer, certificate.subject, certificate.public_key(), 1)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .add_extension(issuer, critical=False)
        .sign(authority().key, hashes.SHA256())
    )


def tampered(certificate: x509.Certificate, old: bytes, new: bytes) -> str:
    der = certificate.public_bytes(Encoding.DER)
    assert der.count(old) >= 1
    return ssl.DER_cert_to_PEM_cert(der.replace(old, new, 1))


# --- making ---


@pytest.mark.parametrize(
    ("key_type", "kind", "bits"),
    [
        ("ec256", ec.EllipticCurvePrivateKey, 256),
        ("ec384", ec.EllipticCurvePrivateKey, 384),
        ("rsa2048", rsa.RSAPrivateKey, 2048),
        ("rsa3072", rsa.RSAPrivateKey, 3072),
    ],
)
def test_a_key_is_of_its_type(key_type: KeyType, kind: type, bits: int) -> None:
    key = load_pem_private_key(new_private_key(key_type).reveal(), password=None)
    assert isinstance(key, kind)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    assert key.key_size == bits


def test_a_signing_request_names_its_names_in_the_alternative_name_alone() -> None:
    request = x509.load_der_x509_csr(CSR)
    assert read_csr(CSR) == (public_key(), frozenset(NAMES))
    assert list(request.subject) == []
    (extension,) = request.extensions
    assert (extension.oid, extension.critical) == (ExtensionOID.SUBJECT_ALTERNATIVE_NAME, True)


# --- taking what somebody brings ---


def brought(
    names: Sequence[str] = NAMES,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None,
    common_name: str | None = None,
    others: Sequence[x509.GeneralName] = (),
) -> str:
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    alternative = x509.SubjectAlternativeName([*map(x509.DNSName, names), *others])
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder(x509.Name(subject)).add_extension(alternative, critical=False)
    hashed = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return request.sign(key, hashed).public_bytes(Encoding.PEM).decode()


def nameless() -> str:
    request = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )
    return request.public_bytes(Encoding.PEM).decode()


def signed_by_another() -> str:
    """The signature's last octet is another one."""
    der = x509.load_pem_x509_csr(brought().encode()).public_bytes(Encoding.DER)
    body = base64.encodebytes(der[:-1] + bytes([der[-1] ^ 1])).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize(
    ("key", "key_type"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ec256"),
        (ec.generate_private_key(ec.SECP384R1()), "ec384"),
        (rsa.generate_private_key(65537, 2048), "rsa2048"),
        (rsa.generate_private_key(65537, 3072), "rsa3072"),
    ],
)
def test_a_request_is_taken_with_the_kind_of_its_key(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, key_type: KeyType
) -> None:
    request = read_request(brought(key=key), NAMES)
    assert request.key_type == key_type
    assert read_csr(request.csr_der) == (key.public_key(), frozenset(NAMES))


def test_the_names_of_a_request_may_stand_in_any_order_and_case_and_one_in_its_subject() -> None:
    read_request(brought([NAMES[1].upper(), NAMES[0]], common_name=NAMES[0].title()), NAMES)


@pytest.mark.parametrize(
    ("csr_pem", "code"),
    [
        ("", "unreadable"),
        ("<html>", "unreadable"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "unreadable"),
        (pem(leaf()), "unreadable"),
        (KEY.reveal_text(), "unreadable"),
        (brought().replace("MI", "\u00fc", 1), "unreadable"),
        (nameless(), "unreadable"),
        (signed_by_another(), "invalid"),
        (brought(key=ec.generate_private_key(ec.SECP521R1())), "unsupported"),
        (brought(key=rsa.generate_private_key(65537, 1024)), "unsupported"),
        (brought(key=ed25519.Ed25519PrivateKey.generate()), "unsupported"),
        (brought(NAMES[:1]), "other_names"),
        (brought([*NAMES, "third.example"]), "other_names"),
        (brought(others=[x509.RFC822Name("ops@acme.example")]), "other_names"),
        (brought(common_name="other.example"), "other_names"),
    ],
)
def test_another_request_is_refused(csr_pem: str, code: str) -> None:
    with pytest.raises(InvalidFields) as refusal:
        read_request(csr_pem, NAMES)
    (problem,) = refusal.value.fields
    assert (problem.field, problem.code) == ("csr_pem", code)
    assert "PRIVATE" not in problem.message


# --- judging ---


def test_what_was_ordered_is_taken() -> None:
    certificate = leaf()
    facts = read_chain(chain(certificate, authority().intermediate), CSR, NAMES)
    assert int(facts.serial_number, 16) == certificate.serial_number
    assert re.fullmatch(r"([0-9A-F]{2})+", facts.serial_number)
    assert re.fullmatch(r"[0-9a-f]{64}", facts.fingerprint_sha256)
    assert facts.issuer == "CN=Fake Intermediate"
    assert (facts.not_before, facts.not_after) == (NEW_YEAR, NEW_YEAR + timedelta(days=90))


def test_names_are_the_same_in_any_order_and_case() -> None:
    read_chain(chain(leaf([NAMES[1].upper(), NAMES[0]])), CSR, NAMES)


@pytest.mark.parametrize(
    ("chain_pem", "why"),
    [
        (chain(leaf(key_pem=new_private_key("ec256"))), "another key"),
        (chain(leaf(key_pem=new_private_key("rsa2048"))), "another key"),
        (chain(leaf(NAMES[:1])), "is for acme.example"),
        (chain(leaf([*NAMES, "third.example"])), "third.example"),
        (chain(leaf(["other.example"])), "other.example"),
        (chain(leaf(), leaf(), authority().intermediate), "hold together"),
        (chain(authority().intermediate), "not a readable certificate"),
        ("", "not a readable certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a readable certificate"),
        ("<html>", "not a readable certificate"),
        (tampered(leaf(), EC_PUBLIC_KEY, UNHEARD_OF_KIND), "not a readable certificate"),
        (tampered(leaf(), SECP256R1, UNHEARD_OF_CURVE), "not a readable certificate"),
        (
            tampered(leaf(), ALTERNATIVE_NAME + b"\x04", ALTERNATIVE_NAME[:-1] + b"\x63\x04"),
            "not a readable certificate",
        ),
    ],
)
def test_what_was_not_ordered_is_rejected(chain_pem: str, why: str) -> None:
    with pytest.raises(CertificateRejected, match=why):
        read_chain(chain_pem, CSR, NAMES)


# --- naming ---

OF_RFC_9773 = """\
-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----
"""


def test_the_example_of_rfc_9773_is_named_as_there() -> None:
    key_identifier = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    assert ari_id_of(key_identifier, 0x87654321) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    assert ari_id(OF_RFC_9773) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@pytest.mark.parametrize(
    ("serial_number", "octets"),
    [
        (0x7F, "7f"),
        (0x80, "0080"),
        (0xFF, "00ff"),
        (0x0100, "0100"),
        (0x8000, "008000"),
        (1 << 159, "0080" + "00" * 19),
    ],
)
def test_a_serial_number_keeps_the_octets_of_its_der_integer(serial_number: int, octets: str) -> None:
    _, _, named = ari_id_of(b"key", serial_number).partition(".")
    assert base64.urlsafe_b64decode(named + "=" * (-len(named) % 4)).hex() == octets


def test_the_leaf_is_named_whatever_comes_after_it() -> None:
    certificate = leaf()
    digest = x509.SubjectKeyIdentifier.from_public_key(authority().key.public_key()).digest
    named = ari_id(chain(certificate, authority().intermediate))
    assert named == ari_id_of(digest, certificate.serial_number)
    assert re.fullmatch(r"[\w-]+\.[\w-]+", named)


@pytest.mark.parametrize("certificate", [authority().intermediate, issued_by_a_name(leaf())])
def test_a_leaf_that_does_not_say_which_key_signed_it_has_no_name(certificate: x509.Certificate) -> None:
    assert ari_id(chain(certificate)) is None
