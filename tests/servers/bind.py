"""BIND from Debian as an authoritative server with dynamic updates (RFC 2136, TSIG).

Where AppArmor confines ``/usr/sbin/named`` (Debian, Ubuntu), it may not read the tests' folder: the log then says
"permission denied", and the machine needs a line such as ``/tmp/** rwk,`` in ``/etc/apparmor.d/local/usr.sbin.named``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.servers.authoritative import AuthoritativeServer
from tests.servers.process import peer_path


class Bind(AuthoritativeServer):
    """named in the foreground as the tests' own user, without control channel, recursion, IPv6 or notifications."""

    def __init__(self, folder: Path, zones: Sequence[str]) -> None:
        super().__init__(folder, zones)
        self._configuration = folder / "named.conf"
        self._configuration.write_text(self._options() + "".join(self._zone(zone) for zone in self.zones))

    def added(self) -> list[str]:
        """The names at which updates wrote a value, in their order, by its log."""
        return re.findall(r"adding an RR at '([^']*)'", self.log_path.read_text())

    def command(self) -> list[str]:
        program = peer_path("named", "Debian's package bind9")
        return [program, "-g", "-n", "1", "-c", str(self._configuration)]

    def _options(self) -> str:
        # The listen queue's default of 10 loses connections under load.
        return f"""\
key "{self.tsig_key_name}" {{ algorithm {self.tsig_algorithm}; secret "{self.tsig_secret}"; }};
controls {{ }};
options {{
    directory "{self.folder}";
    pid-file none;
    session-keyfile none;
    lock-file none;
    listen-on port {self.port} {{ {self.host}; }};
    listen-on-v6 {{ none; }};
    tcp-listen-queue 1000;
    tcp-clients 1000;
    recursion no;
    notify no;
    dnssec-validation no;
    empty-zones-enable no;
    allow-update {{ key "{self.tsig_key_name}"; }};
    allow-transfer {{ key "{self.tsig_key_name}"; }};
}};
"""

    def _zone(self, zone: str) -> str:
        return f'zone "{zone}" {{ type primary; file "{zone}.zone"; }};\n'
