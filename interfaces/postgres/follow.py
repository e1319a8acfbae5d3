"""Hearing that the store has grown, and following it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import psycopg
import structlog

from application.errors import StoreUnavailable
from interfaces.postgres.pool import SESSION, Pool
from projections.catch_up import Follower, Read, catch_up

CHANNEL = "scaivault"
LISTEN_SECONDS = 1.0
RECONNECT_SECONDS = 1.0

log = structlog.get_logger()


class Listener:
    """A thread with a connection of its own that wakes everybody at each append, and after each lost connection."""

    def __init__(self, conninfo: str, wake: Sequence[Callable[[], object]]) -> None:
        self._conninfo = conninfo
        self._wake = wake

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._listen(stop)
            except psycopg.Error as problem:
                log.warning("listener_lost", problem=type(problem).__name__)
                stop.wait(RECONNECT_SECONDS)

    def _listen(self, stop: threading.Event) -> None:
        with psycopg.connect(
            self._conninfo, autocommit=True, options=SESSION, application_name="scaivault listener", connect_timeout=5
        ) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._wake_all()
            while not stop.is_set():
                for _ in connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                    self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._wake:
            wake()


class Followers:
    """Keeps everybody who follows the history up to date. One that fails stands still, alarms, and is tried again."""

    def __init__(self, pool: Pool, followers: Sequence[tuple[Follower, Read]], wake: threading.Event) -> None:
        self._pool = pool
        self._followers = followers
        self._wake = wake

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._wake.clear()
            for follower, read in self._followers:
                self._follow(follower, read)
            if not stop.is_set():
                self._wake.wait(LISTEN_SECONDS)

    def _follow(self, follower: Follower, read: Read) -> None:
        try:
            catch_up(self._pool, follower, read)
        except StoreUnavailable as failure:
            log.warning("store_unavailable", detail=failure.detail)
        except Exception:
            log.exception("follower_parked", follower=follower.name)
