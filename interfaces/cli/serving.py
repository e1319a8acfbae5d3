"""The processes that stay: the API, the worker, or both."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack

import structlog
import uvicorn

from application.process.worker import Worker
from interfaces.http.app import build_app
from interfaces.parts import Parts
from interfaces.postgres.follow import Followers, Listener

GRACE_SECONDS = 5
FAILED = 1

log = structlog.get_logger()


def serve(parts: Parts, *, api: bool, worker: bool) -> int:
    """Until SIGINT or SIGTERM; then what is in flight is finished. The exit code."""
    reason = parts.services.is_ready()
    if reason is not None:
        log.error("not_ready", reason=reason)
        return FAILED
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        if worker:
            if parts.dns is not None:
                stack.enter_context(parts.dns)
                log.info("dns_listening", host=parts.dns.host, port=parts.dns.port)
            stack.enter_context(_Background(parts, stop))
        if api:
            _run_api(parts)
        else:
            log.info("working", slots=parts.settings.workers)
            stop.wait()
        stop.set()
    log.info("stopped")
    return 0


class _Background:
    """The worker's threads: they end when `stop` is set, and leaving waits for them."""

    def __init__(self, parts: Parts, stop: threading.Event) -> None:
        steps, history = threading.Event(), threading.Event()
        worker = Worker(parts.todo, parts.processes, parts.settings.workers, steps)
        followers = Followers(parts.pool, parts.followers, parts.history.read, history)
        listener = Listener(parts.conninfo, [steps.set, history.set])
        self._stop = stop
        self._wake = (steps, history)
        runs: dict[str, Callable[[threading.Event], None]] = {
            "listener": listener.run,
            "followers": followers.run,
            "worker": worker.run,
        }
        self._threads = [threading.Thread(target=run, args=[stop], name=name) for name, run in runs.items()]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for wake in self._wake:
            wake.set()
        for thread in self._threads:
            thread.join()


def _run_api(parts: Parts) -> None:
    settings = parts.settings
    host, port = settings.bind
    log.info("listening", url=settings.base_url)
    config = uvicorn.Config(
        build_app(parts.services),
        host=host,
        port=port,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who connects is who asks: tokens may be limited to networks, and the audit log names them
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    uvicorn.Server(config).run()
