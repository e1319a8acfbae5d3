"""Knot DNS from Debian as an authoritative server with dynamic updates (RFC 2136, TSIG)."""

from collections.abc import Sequence
from pathlib import Path

from tests.servers.authoritative import AuthoritativeServer
from tests.servers.process import peer_path


class Knot(AuthoritativeServer):
    """knotd in the foreground as the tests' own user; updates live in its journal, the zone files stay as written."""

    def __init__(self, folder: Path, zones: Sequence[str]) -> None:
        super().__init__(folder, zones)
        self._configuration = folder / "knot.conf"
        self._configuration.write_text(self._server() + "".join(self._zone(zone) for zone in self.zones))

    def command(self) -> list[str]:
        return [peer_path("knotd", "Debian's package knot"), "--config", str(self._configuration)]

    def _server(self) -> str:
        # knotd does not run without its control socket, and a socket's path holds 107 bytes: fewer than a test's folder may.
        return f"""\
server:
    rundir: "{self.folder}"
    listen: {self.host}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: /proc/self/cwd/knot.sock
log:
  - target: stderr
    any: info
database:
    storage: "{self.folder}"
    journal-db-max-size: 64M
key:
  - id: {self.tsig_key_name}
    algorithm: {self.tsig_algorithm}
    secret: {self.tsig_secret}
acl:
  - id: {self.tsig_key_name}
    key: {self.tsig_key_name}
    action: [update, transfer]
template:
  - id: default
    storage: "{self.folder}"
    zonefile-sync: -1
    acl: {self.tsig_key_name}
zone:
"""

    def _zone(self, zone: str) -> str:
        return f"  - domain: {zone}\n    file: {zone}.zone\n"
