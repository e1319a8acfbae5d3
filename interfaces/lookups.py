"""Looking up names. The host's resolver cannot be hurried or cancelled, so a look-up whose answer does not come in time is
left behind in its thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread

from application.errors import ResolverFailed

Resolve = Callable[[str, int], Sequence[str]]

MOST_LOOKUPS = 128


def host_addresses(host: str, port: int) -> Sequence[str]:
    """Asks the host's own resolver. Its time limits are the host's too. Raises ResolverFailed."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: no IDNA
        raise ResolverFailed(f"{host!r} does not resolve: {error}") from error
    return [str(address[0]) for *_, address in answers]


class Lookups:
    """Who asks for what is being looked up already shares the answer: a name that hangs holds one thread however often it
    is asked for. When names hang in all threads, who asks for another waits for a thread."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._running: dict[str, Future[Sequence[str]]] = {}
        self._changed = Condition()

    def addresses(self, host: str, port: int, timeout_seconds: float) -> Sequence[str]:
        ends_at = time.monotonic() + timeout_seconds
        with self._changed:
            if not self._changed.wait_for(
                lambda: host in self._running or len(self._running) < MOST_LOOKUPS, timeout_seconds
            ):
                raise ResolverFailed(f"{host!r} is not looked up: too many other names give no answer")
            answer = self._running.get(host) or self._start(host, port)
        try:
            return answer.result(max(0.0, ends_at - time.monotonic()))
        except TimeoutError:
            raise ResolverFailed(f"{host!r} does not resolve in time") from None

    def _start(self, host: str, port: int) -> Future[Sequence[str]]:
        answer: Future[Sequence[str]] = Future()
        Thread(target=self._look_up, args=[host, port, answer], name="lookup", daemon=True).start()
        self._running[host] = answer
        return answer

    def _look_up(self, host: str, port: int, answer: Future[Sequence[str]]) -> None:
        try:
            answer.set_result(self._resolved(host, port))
        except ResolverFailed as failure:
            answer.set_exception(failure)

    def _resolved(self, host: str, port: int) -> Sequence[str]:
        try:
            return self._resolve(host, port)
        finally:
            with self._changed:
                del self._running[host]
                self._changed.notify_all()
