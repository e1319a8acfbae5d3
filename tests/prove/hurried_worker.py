"""`scaivault worker` in a hurry: the command line itself, with the times of delivery scaled down.

Thirteen attempts take more than three days. Here the delays between them are a 43,200th, the longest two seconds, and no
retry comes sooner than 0.1 s. A receiver's time to answer and the breaker's times are a fifteenth, 1 s instead of 15 s. The
lease, which holds back what a killed worker had in hand, is 2 s instead of 15 s. Nothing else differs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from application.process import breaker, worker
from domain import delivery
from interfaces import main
from interfaces.webhooks.sender import HttpWebhookSender
from tests.system.service import Process

ROOT = Path(__file__).parents[2]
RETRIES_SCALE = 43_200
SHORTEST_RETRY = timedelta(seconds=0.1)
TIMES_SCALE = 15
ANSWER_SECONDS = 1.0
LEASE = timedelta(seconds=2)
HEARTBEAT_SECONDS = 0.5

FIRST, *LATER = delivery.RETRY_DELAYS
RETRY_DELAYS = (FIRST, *(max(SHORTEST_RETRY, delay / RETRIES_SCALE) for delay in LATER))


def hurry() -> None:
    delivery.RETRY_DELAYS = RETRY_DELAYS
    HttpWebhookSender.__init__.__defaults__ = (ANSWER_SECONDS,)
    breaker.WASTED_SECONDS /= TIMES_SCALE
    breaker.FIRST_PAUSE_SECONDS /= TIMES_SCALE
    breaker.LONGEST_PAUSE_SECONDS /= TIMES_SCALE
    worker.LEASE = LEASE
    worker.HEARTBEAT_SECONDS = HEARTBEAT_SECONDS


class HurriedWorker(Process):
    """`scaivault worker` with its times scaled; ready each time that it says so anew."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder, "worker", settings)
        self._said_before = 0

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.prove.hurried_worker", "worker"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(ROOT)}

    def start(self) -> None:
        self._said_before = self.log_path.stat().st_size if self.log_path.exists() else 0
        super().start()

    def is_ready(self) -> bool:
        with self.log_path.open("rb") as log:
            log.seek(self._said_before)
            return b'"working"' in log.read()


if __name__ == "__main__":
    hurry()
    sys.exit(main.main())
