"""PowerDNS Authoritative from Debian, with its HTTP API and zones in SQLite."""

import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import httpx

from tests.servers.authoritative import TIMEOUT_SECONDS, ask_txt
from tests.servers.process import LOOPBACK, PeerMissing, ServerProcess, free_port, peer_path

SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
APEX = {"SOA": "{0} hostmaster.{0} 1 3600 600 86400 1", "NS": "ns.{0}"}


class Tenant(NamedTuple):
    """Somebody else who uses the API at `url`, which may be a stand-in's."""

    url: str
    key: str
    zones: Sequence[str]

    def rrset(self, name: str) -> Any:
        """The TXT set at a name as the API shows it, with disabled records and comments; None where there is none."""
        rrsets = self.call("GET", self._zone_of(name)).raise_for_status().json()["rrsets"]
        return next((each for each in rrsets if (each["name"], each["type"]) == (f"{name}.", "TXT")), None)

    def replace(self, name: str, records: Sequence[Any], *, ttl_seconds: int = 60, **more: Any) -> None:
        """Write a name's TXT set. `records` and `more` (e.g. `comments`) are in the API's form."""
        rrset = {"name": f"{name}.", "type": "TXT", "changetype": "REPLACE", "ttl": ttl_seconds, "records": records}
        self.call("PATCH", self._zone_of(name), {"rrsets": [{**rrset, **more}]}).raise_for_status()

    def call(self, method: str, zone: str, body: Any = None) -> httpx.Response:
        url = f"{self.url}/api/v1/servers/localhost/zones/{zone}."
        with httpx.Client(trust_env=False, timeout=TIMEOUT_SECONDS) as client:
            return client.request(method, url, json=body, headers={"X-API-Key": self.key})

    def _zone_of(self, name: str) -> str:
        return max((zone for zone in self.zones if f".{name}".endswith(f".{zone}")), key=len)


class Pdns(ServerProcess):
    """pdns_server in the foreground as the tests' own user, without caches. Zones outlast a restart in the same folder."""

    def __init__(self, folder: Path, zones: Sequence[str]) -> None:
        super().__init__(folder)
        self.zones = tuple(zones)
        self.host, self.port = LOOPBACK, free_port()
        self.api_port = free_port()
        self.api_url = f"http://{self.host}:{self.api_port}"
        self.api_key = secrets.token_urlsafe()
        self.tenant = Tenant(self.api_url, self.api_key, self.zones)
        self._database = folder / "zones.sqlite3"
        (folder / "pdns.conf").write_text(self._configuration())

    def txt(self, name: str) -> list[str]:
        """The TXT values at a name, sorted, asked over DNS."""
        return ask_txt(self.host, self.port, name)

    def add(self, name: str, value: str) -> None:
        """Write one more value as another tenant of the zone would."""
        held = self.tenant.rrset(name) or {"records": []}
        self.tenant.replace(name, [*held["records"], {"content": f'"{value}"', "disabled": False}])

    def command(self) -> list[str]:
        return [peer_path("pdns_server", "Debian's package pdns-server"), f"--config-dir={self.folder}"]

    def start(self) -> None:
        if not SCHEMA.exists():
            raise PeerMissing(SCHEMA.name, "Debian's package pdns-backend-sqlite3")
        if not self._database.exists():
            with closing(sqlite3.connect(self._database)) as database, database:
                database.executescript(SCHEMA.read_text())
                for zone in self.zones:
                    added = database.execute("INSERT INTO domains (name, type) VALUES (?, 'NATIVE')", (zone,)).lastrowid
                    database.executemany(
                        "INSERT INTO records (domain_id, name, type, content, ttl, prio) VALUES (?, ?, ?, ?, 60, 0)",
                        [(added, zone, kind, content.format(zone)) for kind, content in APEX.items()],
                    )
        super().start()

    def is_ready(self) -> bool:
        question = dns.message.make_query(self.zones[0], dns.rdatatype.SOA)
        try:
            answered = dns.query.tcp(question, self.host, TIMEOUT_SECONDS, self.port).answer
            return bool(answered) and self.tenant.call("GET", self.zones[0]).is_success
        except (OSError, EOFError, dns.exception.DNSException, httpx.HTTPError):
            return False

    def _configuration(self) -> str:
        # A socket's path holds 107 bytes: fewer than a test's folder may. The security poll would ask the Internet.
        return f"""\
launch=gsqlite3
gsqlite3-database={self._database}
gsqlite3-pragma-synchronous=0
local-address={self.host}
local-port={self.port}
api=yes
api-key={self.api_key}
webserver=yes
webserver-address={self.host}
webserver-port={self.api_port}
webserver-allow-from={self.host}
socket-dir=.
disable-syslog=yes
write-pid=no
security-poll-suffix=
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
receiver-threads=1
distributor-threads=1
"""
