"""The embedded responder's sockets: UDP and TCP at one address (RFC 1035 §4.2, RFC 7766), in a bounded number of threads."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from threading import Lock, Thread
from types import TracebackType
from typing import Self

import structlog

from interfaces.dns.embedded import EmbeddedValues
from interfaces.dns.embedded_answers import EmbeddedAnswers
from interfaces.dns.frames import read_frame, write_frame

log = structlog.get_logger()

UDP_THREADS = 4
MOST_CONNECTIONS = 64
MESSAGE_SECONDS = 5.0  # for one whole question to come in, and for its answer to be taken
CONNECTION_SECONDS = 30.0
UDP_QUERY_BYTES = 4096
BACKLOG = 128


class EmbeddedDns:
    """Answers between `start` and `stop`, or inside a `with`. Port 0 takes any that is free, and `port` tells which.

    A host with several addresses should be given one of them: answers leave by the way the machine chooses."""

    def __init__(
        self,
        host: str,
        port: int,
        values: EmbeddedValues,
        zones: Callable[[], Sequence[str]],
        ns_names: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.port = port
        self._answers = EmbeddedAnswers(values, zones, ns_names)
        self._running = ExitStack()
        self._connections: dict[socket.socket, Thread] = {}
        self._counting = Lock()

    def start(self) -> None:
        """Raises OSError where the address cannot be had."""
        family, _, _, _, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as running:
            tcp = running.enter_context(socket.socket(family, socket.SOCK_STREAM))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(place)
            tcp.listen(BACKLOG)
            udp = running.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            udp.bind(tcp.getsockname())
            for listening in (tcp, udp):
                listening.setblocking(False)
            ended, end = map(running.enter_context, socket.socketpair())
            self.port = tcp.getsockname()[1]
            threads = [
                *(
                    Thread(target=_serve, args=(udp, ended, self._take_datagram), name="dns-udp")
                    for _ in range(UDP_THREADS)
                ),
                Thread(target=_serve, args=(tcp, ended, self._take_connection), name="dns-tcp"),
            ]
            running.callback(self._end_connections)
            for thread in threads:
                thread.start()
                running.callback(thread.join)
            running.callback(end.shutdown, socket.SHUT_RDWR)
            self._running = running.pop_all()

    def stop(self) -> None:
        """Ends what is in hand and closes everything."""
        self._running.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _take_datagram(self, udp: socket.socket) -> None:
        wire, asker = udp.recvfrom(UDP_QUERY_BYTES)
        answer = self._answer(wire, over_tcp=False)
        if answer is not None:
            udp.sendto(answer, asker)

    def _take_connection(self, tcp: socket.socket) -> None:
        connection, _ = tcp.accept()
        with self._counting:
            if len(self._connections) >= MOST_CONNECTIONS:
                connection.close()
                return
            thread = Thread(target=self._converse, args=(connection,), name="dns-connection")
            self._connections[connection] = thread
        thread.start()

    def _converse(self, connection: socket.socket) -> None:
        """One question after the other (RFC 7766 §6.2.1) until the asker or its time is gone."""
        until = time.monotonic() + CONNECTION_SECONDS
        with connection, suppress(OSError):
            while (left := until - time.monotonic()) > 0:
                wire = read_frame(connection, min(left, MESSAGE_SECONDS))
                answer = self._answer(wire, over_tcp=True)
                if answer is None:
                    break
                write_frame(connection, answer, MESSAGE_SECONDS)
        with self._counting:
            del self._connections[connection]

    def _end_connections(self) -> None:
        with self._counting:
            connections = dict(self._connections)
        for connection, thread in connections.items():
            with suppress(OSError):  # it may have gone by itself
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _answer(self, wire: bytes, *, over_tcp: bool) -> bytes | None:
        try:
            return self._answers.answer(wire, over_tcp=over_tcp)
        except Exception:  # the edge: no question of a stranger may end the service
            log.exception("a DNS question went unanswered")
            return None


def _serve(listening: socket.socket, ended: socket.socket, take: Callable[[socket.socket], None]) -> None:
    """Takes one thing after the other until the other end of `ended` is closed."""
    with selectors.DefaultSelector() as ready:
        ready.register(listening, selectors.EVENT_READ)
        ready.register(ended, selectors.EVENT_READ)
        while not any(key.fileobj is ended for key, _ in ready.select()):
            with suppress(OSError):  # another thread was quicker, or the asker is gone
                take(listening)
