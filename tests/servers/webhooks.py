"""A receiver of webhooks on plain HTTP, which keeps each delivery and answers as it is told."""

import json
import socketserver
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.process import LOOPBACK, free_port

IDLE_SECONDS = 5.0
STOP_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Delivery:
    """One POST: its path with the query, its headers by lower-case name, its body as text."""

    path: str
    headers: dict[str, str]
    body: str


class WebhookReceiver:
    """Takes every POST below ``url`` inside a ``with`` block.

    ``statuses`` are given out from the front, one a delivery; 204 when none is left. A delivery is a JSON line of
    ``log_path`` before it is answered.
    """

    def __init__(self, folder: Path, statuses: Sequence[int] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "deliveries.jsonl"
        self.statuses = list(statuses)
        self._deliveries: list[Delivery] = []
        self._arrived = threading.Condition()
        self._port = free_port()
        self.url = f"http://{LOOPBACK}:{self._port}"
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def deliveries(self) -> list[Delivery]:
        with self._arrived:
            return list(self._deliveries)

    def wait_for(self, predicate: Callable[[list[Delivery]], bool], timeout_seconds: float = 10) -> list[Delivery]:
        """The deliveries, as soon as the predicate holds of them all. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: predicate(list(self._deliveries)), timeout_seconds):
                raise TimeoutError(f"not within {timeout_seconds} seconds; came so far: {self._deliveries}")
            return list(self._deliveries)

    def start(self) -> None:
        self._server = _Server((LOOPBACK, self._port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_SECONDS,), name=self.url)
        self._thread.start()

    def stop(self) -> None:
        """Close the port, after the deliveries in hand. What came so far stays."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server, self._thread = None, None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _take(self, delivery: Delivery) -> int:
        with self._arrived:
            with self.log_path.open("a") as log:
                log.write(json.dumps(asdict(delivery)) + "\n")
            self._deliveries.append(delivery)
            self._arrived.notify_all()
            return self.statuses.pop(0) if self.statuses else HTTPStatus.NO_CONTENT

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            timeout = IDLE_SECONDS

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(take(Delivery(self.path, headers, body.decode())))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's own name
                """Nothing: the deliveries are the log."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the deliveries in hand

    def server_bind(self) -> None:
        # HTTPServer would ask the system's resolver for this host's full name.
        socketserver.TCPServer.server_bind(self)
