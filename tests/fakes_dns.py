"""DNS in memory: a DnsZone with knobs, a DnsSurvey, the store of the embedded provider, and an AWS that only says no."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from application.errors import Failure, ZoneRefused, ZoneThrottled, ZoneUnreachable
from application.ports import TxtValue
from domain.dns_survey import CaaLookUp, LookUp, NameSeen, ServerSeen, TxtSeen, ZoneSeen
from tests.servers.process import LOOPBACK


class FakeZone:
    """DnsZone. While `failure` is set every call raises it and changes nothing."""

    def __init__(self, zones: Sequence[str]) -> None:
        self.failure: Failure | None = None
        self._zones = tuple(zones)
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def reject_credentials(self) -> None:
        self.failure = ZoneRefused("credentials_rejected", "wrong key")

    def throttle(self, retry_after_seconds: float | None = None) -> None:
        self.failure = ZoneThrottled("too many requests", retry_after_seconds)

    def vanish(self) -> None:
        self.failure = ZoneUnreachable("nobody answers")

    def recover(self) -> None:
        self.failure = None

    def add(self, values: Sequence[TxtValue]) -> None:
        self._check(values)
        with self._lock:
            for value in values:
                self._held[value.record_name].add(value.value)

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._check(values)
        with self._lock:
            for value in values:
                self._held[value.record_name].discard(value.value)

    def zones(self) -> Sequence[str]:
        self._check(())
        return sorted(self._zones)

    def txt(self, record_name: str) -> list[str]:
        """What the zone's servers would serve, sorted."""
        with self._lock:
            return sorted(self._held[record_name])

    def _check(self, values: Sequence[TxtValue]) -> None:
        if self.failure is not None:
            raise self.failure
        for value in values:
            if not any(f".{value.record_name}".endswith(f".{zone}") for zone in self._zones):
                raise ZoneRefused("zone_not_found", value.record_name)


class FakeSurvey:
    """DnsSurvey. `zones` hold the names, each the nearest, at one server; what `seen` has of a name is told instead."""

    def __init__(self, zones: Sequence[str]) -> None:
        self.seen: dict[str, NameSeen] = {}
        self.asked: list[tuple[Sequence[str], Mapping[str, Sequence[str]]]] = []
        self._zones = tuple(zones)

    def look(self, dns_names: Sequence[str], nameservers: Mapping[str, Sequence[str]]) -> Sequence[NameSeen]:
        self.asked.append((dns_names, nameservers))
        return [self.seen.get(name) or self._spotless(name, nameservers.get(name, ())) for name in dns_names]

    def _spotless(self, name: str, nameservers: Sequence[str]) -> NameSeen:
        zone = max((zone for zone in self._zones if f".{name}".endswith(f".{zone}")), key=len)
        labels = name.split(".")
        climb = [".".join(labels[at:]) for at in range(len(labels))]
        servers = [
            ServerSeen(server, "authoritative", "serial 1", 1, over_tcp=True)
            for server in nameservers or [f"ns1.{zone}"]
        ]
        record_name = f"_acme-challenge.{name}"
        return NameSeen(
            dns_name=name,
            record_name=record_name,
            caa=tuple(CaaLookUp(above, LookUp(f"CAA {above}", "empty")) for above in climb),
            zone=zone,
            look_ups=(),
            hops=(),
            chain_end="end",
            end=record_name,
            wildcard=None,
            zone_seen=ZoneSeen(zone, tuple(servers), LookUp(f"SOA {zone}", "found"), LookUp(f"DS {zone}", "empty")),
            txt=tuple(TxtSeen(server.server, "absent") for server in servers),
        )


class MemoryValues:
    """EmbeddedValues for one process. While `failure` is set every call raises it."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._held: set[TxtValue] = set()
        self._lock = threading.Lock()

    def add(self, values: Sequence[TxtValue]) -> None:
        self._check()
        with self._lock:
            self._held.update(values)

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._check()
        with self._lock:
            self._held.difference_update(values)

    def values(self, record_name: str) -> Sequence[str]:
        self._check()
        with self._lock:
            return sorted(held.value for held in self._held if held.record_name == record_name)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class AwsError:
    """An HTTP server at `endpoint_url` that answers every request with one AWS error, inside a `with` block."""

    def __init__(self, code: str, message: str = "as told", status: int = 400) -> None:
        body = (
            '<ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Error><Type>Sender</Type>'
            f"<Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Says nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.endpoint_url = f"http://{LOOPBACK}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
