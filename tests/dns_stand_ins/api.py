"""What the stand-ins have in common: an HTTP server inside a `with` block, its faults, and what was asked of it."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.servers.process import LOOPBACK


@dataclass(frozen=True)
class Request:
    """`path` without the query; `body` is the decoded JSON, None where there is none. `at` in seconds of a clock that only
    goes on."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answer:
    """`body` is sent as JSON, text as it is; None sends nothing."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


Fault = Callable[[Request, Callable[[], Answer]], Answer | None]
"""Instead of the answer; the second argument lets the API act. None closes the connection without a word."""


def acting(_request: Request, act: Callable[[], Answer]) -> Answer:
    """No fault: for a place before others."""
    return act()


def no_answer_after_acting(_request: Request, act: Callable[[], Answer]) -> Answer | None:
    act()
    return None


def answering(status: int, body: Any = None, **headers: str) -> Fault:
    """The API does not act. `Retry_After="7"` is the header `Retry-After`."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _request, _act: Answer(status, body, said)


class StandIn:
    """Subclasses say what the API does in `answer`, which is called for one request at a time."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.faults: deque[Fault] = deque()
        """For the next requests, one each."""
        self.always: Fault | None = None
        self._acting = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer = stand_in._handle(self._request())
                if answer is None:
                    self.close_connection = True
                    return
                body = b"" if answer.body is None else _encoded(answer.body)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def _request(self) -> Request:
                url = urlsplit(self.path)
                octets = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                try:
                    body = json.loads(octets) if octets else None
                except ValueError:
                    body = octets.decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(parse_qsl(url.query, keep_blank_values=True))
                return Request(self.command, url.path, query, headers, body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Says nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, request: Request) -> Answer | None:
        with self._acting:
            self.asked.append(request)
            fault = self.faults.popleft() if self.faults else self.always
            return self.answer(request) if fault is None else fault(request, lambda: self.answer(request))


def _encoded(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
