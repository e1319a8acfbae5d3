"""The loop that performs one process manager's part of the to-do list, many steps at a time.

One thread hands out claims, one keeps their leases alive, the rest work. Nothing here knows what the steps are. Each
process manager has a worker of its own, so that none can take the slots of another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic

import structlog

from application.errors import StoreUnavailable
from application.process.todo import Claim, LeaseLost, Process, TodoList
from domain.errors import VersionConflict

LEASE = timedelta(seconds=15)
HEARTBEAT_SECONDS = 5.0
LONGEST_IDLE_SECONDS = 1.0  # a notification may be lost with its connection
CRASHED_RETRY = timedelta(seconds=2)
LONGEST_CRASHED_RETRY = timedelta(minutes=5)
NOW = timedelta()
MOST_CRASHES = 20  # by then more than an hour has gone by, and a fault of ours will not mend itself

log = structlog.get_logger()


class Worker:
    """`wake` is set by whoever learns that the list has grown; `slots` is how many steps are in flight at most."""

    def __init__(self, todo: TodoList, process: Process, slots: int, wake: threading.Event) -> None:
        self._todo = todo
        self._process = process
        self._slots = slots
        self._wake = wake
        self._held: dict[int, Claim] = {}
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then waits for the steps in flight, whose leases are kept to the end."""
        finished = threading.Event()
        heart = threading.Thread(target=self._beat, args=[finished], name="heartbeat", daemon=True)
        heart.start()
        with ThreadPoolExecutor(self._slots, thread_name_prefix=self._process.name) as pool:
            while not stop.is_set():
                self._wake.clear()
                idle_seconds = self._hand_out(pool.submit)
                if not stop.is_set():
                    self._wake.wait(idle_seconds)
        finished.set()
        heart.join()

    def _hand_out(self, submit: Callable[[Callable[[Claim], None], Claim], object]) -> float:
        """Claims what is due for the free slots, and says how long there is nothing more to do."""
        with self._lock:
            free = self._slots - len(self._held)
        if free == 0:
            return LONGEST_IDLE_SECONDS
        try:
            claimed = self._todo.claim(self._process.name, free, LEASE, self._process.lane_limits())
            for claim in claimed.claims:
                with self._lock:
                    self._held[claim.fence] = claim
                submit(self._work, claim)
        except StoreUnavailable as failure:
            log.warning("store_unavailable", detail=failure.detail)
            return LONGEST_IDLE_SECONDS
        except Exception:
            log.exception("claiming_crashed")
            return LONGEST_IDLE_SECONDS
        if claimed.next_due_in is None or len(claimed.claims) == free:
            return LONGEST_IDLE_SECONDS  # where every slot is taken, the first to be free wakes us
        return min(LONGEST_IDLE_SECONDS, max(0.01, claimed.next_due_in.total_seconds()))

    def _work(self, claim: Claim) -> None:
        retry_in, has_crashed = LONGEST_CRASHED_RETRY, True
        try:
            retry_in, has_crashed = self._perform(claim)
        finally:  # also when not even the log can be written: a claim that is held for nothing is never given up
            self._give_back(claim, retry_in, has_crashed=has_crashed)

    def _perform(self, claim: Claim) -> tuple[timedelta, bool]:
        """After how long the row may be claimed again, if it is still there, and whether this counts as a crash."""
        started = monotonic()
        outcome, retry_in = "done", NOW
        with structlog.contextvars.bound_contextvars(process=claim.process, subject=claim.subject):
            try:
                retry_in = self._process.perform(claim) or NOW
            except LeaseLost:
                outcome = "lease_lost"
            except VersionConflict:
                outcome = "changed_meanwhile"
            except StoreUnavailable as failure:
                outcome, retry_in = "store_unavailable", CRASHED_RETRY
                log.warning("store_unavailable", detail=failure.detail)
            except Exception:
                outcome = "crashed"
                retry_in = min(LONGEST_CRASHED_RETRY, CRASHED_RETRY * 2 ** min(claim.attempts, 8))
                log.exception("step_crashed", attempts=claim.attempts)
                if claim.attempts >= MOST_CRASHES:
                    self._give_up(claim)
            duration_ms = round((monotonic() - started) * 1000)
            log.debug("claim_worked_off", outcome=outcome, attempts=claim.attempts, duration_ms=duration_ms)
        return retry_in, outcome == "crashed"

    def _give_up(self, claim: Claim) -> None:
        try:
            self._process.give_up(claim)
        except Exception:
            log.exception("giving_up_crashed", attempts=claim.attempts)

    def _give_back(self, claim: Claim, retry_in: timedelta, *, has_crashed: bool) -> None:
        try:
            self._todo.release(claim, retry_in, counted=has_crashed)
        except StoreUnavailable as failure:
            log.warning("store_unavailable", detail=failure.detail)
        except Exception:
            log.exception("release_crashed")
        with self._lock:
            self._held.pop(claim.fence, None)  # without heartbeats the lease runs out by itself
        self._wake.set()

    def _beat(self, finished: threading.Event) -> None:
        while not finished.wait(HEARTBEAT_SECONDS):
            with self._lock:
                held = list(self._held.values())
            if held:
                try:
                    self._todo.extend(held, LEASE)
                except StoreUnavailable as failure:
                    log.warning("store_unavailable", detail=failure.detail)
                except Exception:
                    log.exception("heartbeat_crashed")
