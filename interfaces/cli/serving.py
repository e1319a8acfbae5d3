"""The processes that stay: the API, the worker, or both."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from queue import SimpleQueue

import structlog
import uvicorn

from application.process import janitor
from application.process.worker import Worker
from interfaces.http.app import build_app
from interfaces.parts import Parts
from interfaces.postgres.follow import Followers, Listener

GRACE_SECONDS = 5
END_SECONDS = 10.0
HANDLER_THREADS = 32
OK, FAILED, INTERRUPTED = 0, 1, 130

log = structlog.get_logger()


def serve(parts: Parts, *, api: bool, worker: bool) -> int:
    """Until SIGINT or SIGTERM, or until one of the threads has ended by itself; the exit code.

    What is in flight may take a moment to end. What takes longer is left behind: a step is safe to be cut off
    anywhere. A second signal ends the process at once."""
    reason = parts.services.is_ready()
    if reason is not None:
        log.error("not_ready", reason=reason)
        return FAILED
    threads = _Threads()

    def on_signal(*_: object) -> None:
        if threads.end_asked:
            os._exit(INTERRUPTED)
        threads.end()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with ExitStack() as stack:
        wakes: list[Callable[[], object]] = []
        if worker:
            if parts.dns is not None:
                stack.enter_context(parts.dns)
                log.info("dns_listening", host=parts.dns.host, port=parts.dns.port)
            wakes += _add_worker(threads, parts)
        if api:
            wakes += [parts.services.long_polls.wake, parts.services.changes.wake]
            _add_api(threads, parts, works=worker)
            log.info("listening", url=parts.settings.base_url)
        else:
            log.info("working", slots=parts.settings.workers)
        threads.add("measurements", parts.measurements.run, lambda: None)
        threads.add("listener", Listener(parts.conninfo, wakes).run, lambda: None)
        threads.run()
    parts.measurements.flush()
    log.info("stopped")
    return FAILED if threads.failed else OK


class _Threads:
    """Threads that run until `end` is called. One that ends before that ends all: half a process is none."""

    def __init__(self) -> None:
        self.failed = False
        self.end_asked = False
        self._ends: SimpleQueue[None] = SimpleQueue()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._wake: list[Callable[[], object]] = []

    def end(self) -> None:
        """Also from a signal's handler, which may interrupt the main thread anywhere: an event's lock could be the very
        one that it holds, the queue takes none that Python sees."""
        self.end_asked = True
        self._ends.put(None)

    def add(self, name: str, run: Callable[[threading.Event], object], wake: Callable[[], object]) -> None:
        """`wake` is called at the end, for a `run` that waits for something else."""

        def run_to_the_end() -> None:
            try:
                run(self._stop)
            finally:
                if not self.end_asked:
                    self.failed = True
                    self.end()
                    log.error("thread_ended", thread=name)

        self._threads.append(threading.Thread(target=run_to_the_end, name=name, daemon=True))
        self._wake.append(wake)

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        self._ends.get()
        self._stop.set()
        for wake in self._wake:
            wake()
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("thread_left_behind", thread=thread.name)


def _add_worker(threads: _Threads, parts: Parts) -> Sequence[Callable[[], object]]:
    """What to call when the history has grown."""
    wakes = []
    parts.todo.hasten(janitor.NAME)  # how the last process ended is not known
    for process, slots in parts.processes:
        wake = threading.Event()
        threads.add(process.name, Worker(parts.todo, process, slots, wake).run, wake.set)
        wakes.append(wake.set)
    history = threading.Event()
    threads.add("responses", parts.services.responses.run, lambda: None)
    threads.add("followers", Followers(parts.pool, parts.followers, history).run, history.set)
    return [*wakes, history.set]


def _add_api(threads: _Threads, parts: Parts, *, works: bool) -> None:
    server = _api(parts, works=works)
    threads.add("idempotency", parts.services.idempotency.run, lambda: None)

    def end() -> None:
        parts.services.long_polls.close()
        parts.services.changes.close()
        server.should_exit = True

    threads.add("api", lambda _: server.run(), end)


def _api(parts: Parts, *, works: bool) -> uvicorn.Server:
    settings = parts.settings
    host, port = settings.bind
    config = uvicorn.Config(
        build_app(replace(parts.services, works=works), handler_threads=HANDLER_THREADS),
        host=host,
        port=port,
        http="h11",  # it bounds a request's head; the faster parser does not
        ws="none",
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who connects is who asks: tokens may be limited to networks, and the audit log names them
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)
