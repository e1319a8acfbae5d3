"""Pebble 2.4 from Debian: a CA that rejects good nonces and reuses valid authorizations on purpose.

It remembers nothing over a restart, not even its root. Many concurrent orders can deadlock it: each load test takes its own.
"""

import ipaddress
import json
import re
import ssl
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.process import LOOPBACK, ServerProcess, free_port, peer_path

NINETY_DAYS_SECONDS = 90 * 24 * 3600


class Pebble(ServerProcess):
    """A CA on HTTPS, with its management port beside it.

    ``dns_server`` ("127.0.0.1:5353", authoritative will do) is asked for the challenges' TXT. ``external_account_keys``
    are MAC keys (base64url) by key id; when given, an account without a binding is refused.
    """

    def __init__(
        self,
        folder: Path,
        dns_server: str,
        *,
        nonce_reject_percent: int = 5,
        authz_reuse_percent: int = 50,
        certificate_validity_seconds: int = NINETY_DAYS_SECONDS,
        alternate_roots: int = 0,
        external_account_keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        port, management_port = free_port(), free_port()
        self.directory_url = f"https://{LOOPBACK}:{port}/dir"
        self.management_url = f"https://{LOOPBACK}:{management_port}"
        self.ca_bundle_pem, key_pem = _endpoint_certificate()
        self._context = ssl.create_default_context(cadata=self.ca_bundle_pem)
        self._dns_server = dns_server
        self._environment = {
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": str(nonce_reject_percent),
            "PEBBLE_AUTHZREUSE": str(authz_reuse_percent),
            "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
        }
        (folder / "endpoint.pem").write_text(self.ca_bundle_pem)
        (folder / "endpoint.key").write_text(key_pem)
        self._configuration = folder / "pebble.json"
        self._configuration.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"{LOOPBACK}:{port}",
                        "managementListenAddress": f"{LOOPBACK}:{management_port}",
                        "certificate": "endpoint.pem",
                        "privateKey": "endpoint.key",
                        "httpPort": 1,  # http-01 and tls-alpn-01 shall find nothing
                        "tlsPort": 1,
                        "certificateValidityPeriod": certificate_validity_seconds,
                        "externalAccountBindingRequired": bool(external_account_keys),
                        "externalAccountMACKeys": dict(external_account_keys or {}),
                    }
                }
            )
        )

    def root_pem(self) -> str:
        """The root of the chains it issues (PEM); another one after each start."""
        return self._get(f"{self.management_url}/roots/0").raise_for_status().text

    def requests_by_path(self) -> Counter[str]:
        """How often each endpoint was asked since the first start: "POST /order-plz", "POST /my-order/"."""
        return Counter(re.findall(r"(\w+ /\S*) -> calling handler\(\)", self.log_path.read_text()))

    def command(self) -> list[str]:
        program = peer_path("pebble", "Debian's package pebble")
        return [program, "-config", str(self._configuration), "-dnsserver", self._dns_server]

    def environment(self) -> dict[str, str]:
        return self._environment

    def is_ready(self) -> bool:
        # The management port opens first.
        try:
            return self._get(self.directory_url).is_success
        except httpx.TransportError:
            return False

    def _get(self, url: str) -> httpx.Response:
        return httpx.get(url, verify=self._context, trust_env=False)


def _endpoint_certificate() -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key (both PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pebble's endpoint")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))  # tests turn clocks
        .not_valid_after(now + timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem.decode()
