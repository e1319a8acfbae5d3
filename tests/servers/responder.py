"""A DNS server of the tests' own, on UDP and TCP, whose answers a function gives."""

import socketserver
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import dns.message

from tests.servers.process import LOOPBACK, free_port

IDLE_SECONDS = 2.0
STOP_POLL_SECONDS = 0.02
PLAIN_UDP_BYTES = 512  # RFC 1035 §4.2.1: without EDNS

Answer = Callable[[dns.message.Message], dns.message.Message]


class DnsResponder:
    """Serves ``answer`` at ``host`` and ``port`` (``address``: "127.0.0.1:5353") inside a ``with`` block.

    ``answer`` is called in many threads at once. What it raises is printed, and the question stays without an answer.
    """

    def __init__(self, answer: Answer) -> None:
        self.host = LOOPBACK
        self.port = free_port()
        self.address = f"{self.host}:{self.port}"
        self._answer = answer
        self._servers: list[socketserver.BaseServer] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        place, answer = (self.host, self.port), self._answer

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire, udp = self.request
                query = dns.message.from_wire(wire)
                size = query.payload if query.edns >= 0 else PLAIN_UDP_BYTES
                udp.sendto(answer(query).to_wire(max_size=size, prefer_truncation=True), self.client_address)

        class Stream(socketserver.StreamRequestHandler):
            timeout = IDLE_SECONDS

            def handle(self) -> None:
                while len(length := self.rfile.read(2)) == 2:
                    query = dns.message.from_wire(self.rfile.read(*struct.unpack("!H", length)))
                    wire = answer(query).to_wire()
                    self.wfile.write(struct.pack("!H", len(wire)) + wire)

        self._servers = [
            socketserver.ThreadingUDPServer(place, Datagram),
            socketserver.ThreadingTCPServer(place, Stream),
        ]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(STOP_POLL_SECONDS,), name=f"dns {self.address}")
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close both ports, after the questions in hand."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()
        self._servers, self._threads = [], []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
