"""A certificate with its key in one file, in the forms that programs read.

PEM and PKCS #12 (RFC 7292) come from `cryptography`. It does not write Java's old key stores (JKS), and the one library
that does, `pyjks`, has not been kept since 2020 and brings two further ciphers in C: what is needed of the format is
written here."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from application.secret_value import SecretValue

KDF_ROUNDS = 100_000
JKS_MAGIC, JKS_VERSION, JKS_PRIVATE_KEY = 0xFEEDFEED, 2, 1
JKS_WHITENER = b"Mighty Aphrodite"  # of the JDK's sun.security.provider.JavaKeyStore
SHA1_BYTES = 20
DER_SEQUENCE, DER_OCTETS, DER_SHORT_LENGTH = 0x30, 0x04, 0x80
KEY_PROTECTOR = bytes.fromhex("060a2b060104012a021101010500")
"""The object identifier 1.3.6.1.4.1.42.2.17.1.1 (Sun's KeyProtector), and NULL."""


def pem_file(chain_pem: str, key_pem: SecretValue) -> SecretValue:
    """The key, the leaf, and the rest of the chain."""
    return SecretValue(key_pem.reveal_text().rstrip("\n") + "\n" + chain_pem)


def pkcs12_file(chain_pem: str, key_pem: SecretValue, password: SecretValue, alias: str) -> SecretValue:
    """Sealed by AES-256-CBC under PBKDF2, its MAC by SHA-256 (RFC 8018, RFC 9579): what OpenSSL 3 and Java 8u301 read."""
    leaf, *others = x509.load_pem_x509_certificates(chain_pem.encode())
    protection = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(KDF_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(SHA256())
        .build(password.reveal())
    )
    key = _key(key_pem)
    return SecretValue(pkcs12.serialize_key_and_certificates(alias.encode(), key, leaf, others, protection))


def jks_file(
    chain_pem: str, key_pem: SecretValue, password: SecretValue, alias: str, created_at: datetime
) -> SecretValue:
    """The same password seals the key and the store. The format knows nothing better than SHA-1; it keeps aliases in
    lower case."""
    chain = x509.load_pem_x509_certificates(chain_pem.encode())
    spelled = password.reveal_text().encode("utf-16-be")
    key_der = _key(key_pem).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed_key = _der(DER_SEQUENCE, _der(DER_SEQUENCE, KEY_PROTECTOR) + _der(DER_OCTETS, _sealed(key_der, spelled)))
    store = b"".join(
        [
            struct.pack(">III", JKS_MAGIC, JKS_VERSION, 1),
            struct.pack(">I", JKS_PRIVATE_KEY),
            _text(alias.lower()),
            struct.pack(">Q", int(created_at.timestamp() * 1000)),
            _counted(sealed_key),
            struct.pack(">I", len(chain)),
            *(_text("X.509") + _counted(certificate.public_bytes(Encoding.DER)) for certificate in chain),
        ]
    )
    return SecretValue(store + _sha1(spelled + JKS_WHITENER + store))


def _key(key_pem: SecretValue) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    key = load_pem_private_key(key_pem.reveal(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise TypeError("a leaf's key is EC or RSA")
    return key


def _sealed(key_der: bytes, password: bytes) -> bytes:
    """As the JDK's KeyProtector does: a salt, the key under a stream of digests, and a digest of it."""
    salt = secrets.token_bytes(SHA1_BYTES)
    stream = _digests(password, salt)
    blocks = (key_der[start : start + SHA1_BYTES] for start in range(0, len(key_der), SHA1_BYTES))
    under = b"".join(bytes(a ^ b for a, b in zip(block, next(stream), strict=False)) for block in blocks)
    return salt + under + _sha1(password + key_der)


def _digests(password: bytes, digest: bytes) -> Iterator[bytes]:
    while True:
        digest = _sha1(password + digest)
        yield digest


def _sha1(octets: bytes) -> bytes:
    return hashlib.sha1(octets).digest()  # noqa: S324  the format's


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode("ascii")


def _counted(octets: bytes) -> bytes:
    return struct.pack(">I", len(octets)) + octets


def _der(tag: int, content: bytes) -> bytes:
    if len(content) < DER_SHORT_LENGTH:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, DER_SHORT_LENGTH | len(length)]) + length + content
