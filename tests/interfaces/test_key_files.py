"""Each file is read back by a program that somebody else wrote."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from application.certificates import SEALED_KIND
from application.secret_value import SecretValue
from domain.order import KeyType
from interfaces.key_files import jks_file, pem_file, pkcs12_file
from tests.fakes import CountingIds, MemoryKeyStore
from tests.lines import real_version

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PASSWORD = SecretValue(r"""pass 'word' "$~\ """)
PASSWORD_OF_TOOLS = SecretValue("correct-horse")
KEY_TYPES: Sequence[KeyType] = ("ec256", "ec384", "rsa2048")
HEADER = struct.Struct(">IIIIH")
needs_keytool = pytest.mark.skipif(shutil.which("keytool") is None, reason="there is no Java here")


def made(key_type: KeyType = "ec256") -> tuple[str, SecretValue]:
    """A chain of two certificates, and the leaf's key."""
    keys = MemoryKeyStore(CountingIds())
    version = real_version(keys, "cert_1", tenant_id="tnt_1", order_id="acme_order_1", key_type=key_type)
    assert version.sealed_key_id is not None
    return version.chain_pem, keys.open(SEALED_KIND, "tnt_1", "cert_1", version.sealed_key_id)


def fingerprints(pem: str) -> Sequence[str]:
    return [hashlib.sha256(der(each)).hexdigest() for each in x509.load_pem_x509_certificates(pem.encode())]


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def same_key(one: bytes, other: SecretValue) -> bool:
    key, expected = load_pem_private_key(one, None), load_pem_private_key(other.reveal(), None)
    forms = [each.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for each in (key, expected)]
    return forms[0] == forms[1]


def run(*words: str, said: str = "") -> str:
    done = subprocess.run(words, input=said, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def openssl_reads(path: Path, password: str, *options: str) -> str:
    return run("openssl", "pkcs12", "-in", str(path), "-passin", f"pass:{password}", *options)


# --- PEM ---


def test_a_pem_file_is_the_key_and_the_chain(tmp_path: Path) -> None:
    chain_pem, key_pem = made()
    text = pem_file(chain_pem, key_pem).reveal_text()
    assert text == key_pem.reveal_text() + chain_pem
    path = tmp_path / "all.pem"
    path.write_text(text)
    of_key = run("openssl", "pkey", "-in", str(path), "-pubout")
    of_leaf = run("openssl", "x509", "-in", str(path), "-noout", "-pubkey")
    assert of_key == of_leaf


def test_a_key_without_a_last_line_end_stands_apart_from_the_chain() -> None:
    chain_pem, key_pem = made()
    bare = SecretValue(key_pem.reveal_text().strip())
    assert pem_file(chain_pem, bare) == pem_file(chain_pem, key_pem)


# --- PKCS #12 ---


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_openssl_reads_chain_and_key_out_of_pkcs12(tmp_path: Path, key_type: KeyType) -> None:
    chain_pem, key_pem = made(key_type)
    path = tmp_path / "all.p12"
    path.write_bytes(pkcs12_file(chain_pem, key_pem, PASSWORD, "edge-1").reveal())
    password = PASSWORD.reveal_text()
    certificates = openssl_reads(path, password, "-nokeys")
    assert sorted(fingerprints(certificates)) == sorted(fingerprints(chain_pem))
    leaf = openssl_reads(path, password, "-nokeys", "-clcerts")
    assert fingerprints(leaf) == fingerprints(chain_pem)[:1]
    assert "friendlyName: edge-1" in leaf
    assert same_key(openssl_reads(path, password, "-nocerts", "-nodes").encode(), key_pem)


def test_pkcs12_is_sealed_by_what_is_good_today(tmp_path: Path) -> None:
    path = tmp_path / "all.p12"
    path.write_bytes(pkcs12_file(*made(), PASSWORD, "x").reveal())
    command = ["openssl", "pkcs12", "-in", str(path), "-passin", f"pass:{PASSWORD.reveal_text()}", "-info", "-noout"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "MAC: sha256" in told
    assert len(re.findall(r"PBES2, PBKDF2, AES-256-CBC, Iteration 100000, PRF hmacWithSHA256", told)) == 2


def test_pkcs12_does_not_open_by_another_password(tmp_path: Path) -> None:
    path = tmp_path / "all.p12"
    path.write_bytes(pkcs12_file(*made(), PASSWORD, "x").reveal())
    command = ["openssl", "pkcs12", "-in", str(path), "-passin", "pass:another-one", "-noout"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


# --- Java's ---


def keytool(path: Path, kind: str, *words: str) -> str:
    password = PASSWORD_OF_TOOLS.reveal_text()
    return run("keytool", *words, "-keystore", str(path), "-storetype", kind, "-storepass", password)


@needs_keytool
@pytest.mark.parametrize("kind", ["JKS", "PKCS12"])
def test_java_lists_the_chain_of_either(tmp_path: Path, kind: str) -> None:
    chain_pem, key_pem = made()
    path = tmp_path / "store"
    store = (
        jks_file(chain_pem, key_pem, PASSWORD_OF_TOOLS, "Edge-1", NOW)
        if kind == "JKS"
        else pkcs12_file(chain_pem, key_pem, PASSWORD_OF_TOOLS, "edge-1")
    )
    path.write_bytes(store.reveal())
    told = keytool(path, kind, "-list", "-v")
    assert re.search(r"Alias name: edge-1\n", told)
    assert "Entry type: PrivateKeyEntry" in told
    assert "Certificate chain length: 2" in told
    shown = [each.replace(":", "").lower() for each in re.findall(r"SHA256: ([0-9A-F:]+)", told)]
    assert shown == fingerprints(chain_pem)


@needs_keytool
@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_java_takes_the_key_out_of_a_jks(tmp_path: Path, key_type: KeyType) -> None:
    chain_pem, key_pem = made(key_type)
    path, out = tmp_path / "store.jks", tmp_path / "out.p12"
    path.write_bytes(jks_file(chain_pem, key_pem, PASSWORD_OF_TOOLS, "edge", NOW).reveal())
    password = PASSWORD_OF_TOOLS.reveal_text()
    words = ["-importkeystore", "-srckeystore", str(path), "-srcstoretype", "JKS", "-srcstorepass", password]
    run("keytool", *words, "-destkeystore", str(out), "-deststoretype", "PKCS12", "-deststorepass", password)
    assert same_key(openssl_reads(out, password, "-nocerts", "-nodes").encode(), key_pem)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_a_jks_holds_what_the_jdks_sources_say(key_type: KeyType) -> None:
    chain_pem, key_pem = made(key_type)
    octets = jks_file(chain_pem, key_pem, PASSWORD, "Edge", NOW).reveal()
    password = PASSWORD.reveal_text().encode("utf-16-be")
    store, digest = octets[:-20], octets[-20:]
    assert hashlib.sha1(password + b"Mighty Aphrodite" + store).digest() == digest
    assert HEADER.unpack_from(store) == (0xFEEDFEED, 2, 1, 1, 4)
    rest = store[HEADER.size :]
    assert (rest[:4], int.from_bytes(rest[4:12], "big")) == (b"edge", round(NOW.timestamp() * 1000))
    sealed, rest = counted(rest[12:])
    assert same_key(pem_of(unsealed(sealed, password)), key_pem)
    count, rest = int.from_bytes(rest[:4], "big"), rest[4:]
    found = []
    for _ in range(count):
        assert rest[:7] == b"\x00\x05X.509"
        certificate, rest = counted(rest[7:])
        found.append(hashlib.sha256(certificate).hexdigest())
    assert rest == b""
    assert found == fingerprints(chain_pem)


def test_no_two_are_sealed_by_the_same_salt() -> None:
    pair = made()
    assert jks_file(*pair, PASSWORD, "edge", NOW) != jks_file(*pair, PASSWORD, "edge", NOW)


def counted(octets: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(octets[:4], "big")
    return octets[4 : 4 + length], octets[4 + length :]


def unsealed(info: bytes, password: bytes) -> bytes:
    """A PKCS #8 key (DER) out of an EncryptedPrivateKeyInfo by Sun's KeyProtector."""
    algorithm = bytes.fromhex("300e060a2b060104012a021101010500")
    assert algorithm in info[:24]
    octets = info[info.index(algorithm) + len(algorithm) :]
    assert octets[0] == 0x04
    size = 2 + (octets[1] & 0x7F if octets[1] & 0x80 else 0)
    octets = octets[size:]
    digest, under, check = octets[:20], octets[20:-20], octets[-20:]
    stream = bytearray()
    while len(stream) < len(under):
        digest = hashlib.sha1(password + digest).digest()
        stream += digest
    key = bytes(a ^ b for a, b in zip(under, stream, strict=False))
    assert hashlib.sha1(password + key).digest() == check
    return key


def pem_of(key_der: bytes) -> bytes:
    return load_der_private_key(key_der, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
