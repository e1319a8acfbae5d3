"""The processes that stay: the API, the worker, or both."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import structlog
import uvicorn

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
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with ExitStack() as stack:
        threads = _Threads(stop)
        if worker:
            if parts.dns is not None:
                stack.enter_context(parts.dns)
                log.info("dns_listening", host=parts.dns.host, port=parts.dns.port)
            _add_worker(threads, parts)
        if api:
            server = _api(parts)
            threads.add("api", lambda _: server.run(), lambda: setattr(server, "should_exit", True))
            log.info("listening", url=parts.settings.base_url)
        else:
            log.info("working", slots=parts.settings.workers)
        threads.run()
    log.info("stopped")
    return FAILED if threads.failed else OK


class _Threads:
    """Threads that run until `stop` is set. One that ends before that ends all: half a process is none."""

    def __init__(self, stop: threading.Event) -> None:
        self.failed = False
        self._stop = stop
        self._threads: list[threading.Thread] = []
        self._wake: list[Callable[[], object]] = []

    def add(self, name: str, run: Callable[[threading.Event], object], wake: Callable[[], object]) -> None:
        """`wake` is called after `stop` was set, for a `run` that waits for something else."""

        def run_to_the_end() -> None:
            try:
                run(self._stop)
            finally:
                if not self._stop.is_set():
                    self.failed = True
                    self._stop.set()
                    log.error("thread_ended", thread=name)

        self._threads.append(threading.Thread(target=run_to_the_end, name=name, daemon=True))
        self._wake.append(wake)

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        self._stop.wait()
        for wake in self._wake:
            wake()
        deadline = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("thread_left_behind", thread=thread.name)


def _add_worker(threads: _Threads, parts: Parts) -> None:
    steps, history = threading.Event(), threading.Event()
    worker = Worker(parts.todo, parts.processes, parts.settings.workers, steps)
    followers = Followers(parts.pool, parts.followers, parts.history.read, history)
    listener = Listener(parts.conninfo, [steps.set, history.set])
    threads.add("worker", worker.run, steps.set)
    threads.add("followers", followers.run, history.set)
    threads.add("listener", listener.run, lambda: None)


def _api(parts: Parts) -> uvicorn.Server:
    settings = parts.settings
    host, port = settings.bind
    config = uvicorn.Config(
        build_app(parts.services, handler_threads=HANDLER_THREADS),
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
