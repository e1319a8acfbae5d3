"""acme2certifier 0.46 from PyPI: a CA with renewal information (RFC 9773 §4), over the `openssl_ca_handler`.

It needs an older `cryptography` than we do and is under the GPL, so `scripts/peers` gives it an environment of its own.
An account needs a contact. A challenge that failed is invalid while its order stays pending. What a newOrder `replaces` is
passed over. Half of its serial numbers have their high bit set.
"""

import ipaddress
import json
import ssl
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.servers.process import LOOPBACK, PeerMissing, ServerProcess, free_port

CONFIGURATION = Template("""\
[DEFAULT]
debug: False

[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: ca.key
issuing_ca_cert: ca.pem
issuing_ca_crl: ca.crl
ca_cert_chain_list: ["ca.pem"]
cert_validity_days: $validity_days
cert_save_path: certificates

[DBhandler]
handler: wsgi
dbfile: acme2certifier.db

[Renewalinfo]
renewalthreshold_pctg: $threshold_percent

[Directory]
caaidentities: $caa_identities

[Order]
identifier_limit: 100
profiles: $profiles
""")

BINDINGS = """
[EABhandler]
eab_handler_module: acme2certifier.eabhandlers.json_handler
key_file: eab.json
"""

# Its own `dns_server_list` takes no ports, and is set anew at each question, for all threads at once.
# A proxy before it may have its endpoints move into a folder whose name begins with `moved`.
LAUNCHER = """\
import json, re, sys
import dns.resolver
from werkzeug.serving import run_simple

settings = json.loads(sys.argv[1])
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = [settings["dns_host"]], settings["dns_port"]
dns.resolver.default_resolver = resolver

from acme2certifier.acme_srv.helpers import network
from acme2certifier.share.acme2certifier_wsgi import application

as_it_is = network.normalize_request_url
network.normalize_request_url = lambda url: re.sub("/moved[^/]*/", "/", as_it_is(url))

run_simple(settings["host"], settings["port"], application, threaded=True, ssl_context=("endpoint.pem", "endpoint.key"))
"""


class Acme2Certifier(ServerProcess):
    """A CA on HTTPS whose one root verifies both its own endpoint and what it issues.

    ``dns_server`` ("127.0.0.1:5353", authoritative will do) is asked for the challenges' TXT. Suggested windows begin
    after ``threshold_percent`` of the validity and end with it. ``profiles`` are what the directory says of them, by name;
    where there is only one, any other is taken for it. ``external_account_keys`` makes a binding required: the HMAC keys
    (base64url) by key id.
    """

    def __init__(
        self,
        folder: Path,
        dns_server: str,
        *,
        validity_days: int = 90,
        threshold_percent: float = 66.0,
        profiles: Mapping[str, str] | None = None,
        external_account_keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        host, _, port = dns_server.rpartition(":")
        self._port = free_port()
        self._dns = (host, int(port))
        self.directory_url = f"https://{LOOPBACK}:{self._port}/directory"
        (self.ca_bundle_pem, issuing_key_pem), (endpoint_pem, endpoint_key_pem) = _certificates()
        self._context = ssl.create_default_context(cadata=self.ca_bundle_pem)
        self._validity = {"validity_days": validity_days, "threshold_percent": threshold_percent}
        (folder / "certificates").mkdir(exist_ok=True)
        for name, text in (
            ("endpoint.pem", endpoint_pem),
            ("endpoint.key", endpoint_key_pem),
            ("ca.pem", self.ca_bundle_pem),
            ("ca.key", issuing_key_pem),
            ("launcher.py", LAUNCHER),
            ("eab.json", json.dumps(dict(external_account_keys or {}))),
        ):
            (folder / name).write_text(text)
        self._bindings = BINDINGS if external_account_keys else ""
        self.offer(profiles or {})

    def offer(self, profiles: Mapping[str, str], caa_identities: Sequence[str] = ()) -> None:
        """What its directory says from the next start on."""
        offered = {"profiles": json.dumps(dict(profiles)), "caa_identities": json.dumps(list(caa_identities))}
        text = CONFIGURATION.substitute(**self._validity, **offered)
        (self.folder / "acme_srv.cfg").write_text(text + self._bindings)

    def command(self) -> list[str]:
        python = Path(sys.prefix) / "peers/acme2certifier/bin/python"
        if not python.is_file():
            raise PeerMissing("acme2certifier", "scripts/peers")
        settings = {"host": LOOPBACK, "port": self._port, "dns_host": self._dns[0], "dns_port": self._dns[1]}
        return [str(python), "launcher.py", json.dumps(settings)]

    def environment(self) -> dict[str, str]:
        return {"ACME_SRV_CONFIGFILE": str(self.folder / "acme_srv.cfg"), "ACME2CERTIFIER_BASE_DIR": str(self.folder)}

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.directory_url, verify=self._context, trust_env=False).is_success
        except httpx.TransportError:
            return False


def _certificates() -> tuple[tuple[str, str], tuple[str, str]]:
    """The root, which issues by itself, and what the endpoint shows, each with its key (all PEM)."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acme2certifier's root")])
    endpoint_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, LOOPBACK)])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    root = _unsigned(name, name, root_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    endpoint = _unsigned(endpoint_name, name, key).add_extension(address, critical=False)
    return _pem(root.sign(root_key, hashes.SHA256()), root_key), _pem(endpoint.sign(root_key, hashes.SHA256()), key)


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))  # tests turn clocks
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), key_pem.decode()
