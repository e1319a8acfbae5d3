"""Many threads meet our types for the first time at the same moment, as after each start. Each try takes a process of its own,
because a type is learnt once; and it may take the process with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ_ALL = """
import json, sys, threading
from pathlib import Path
from eventsourcing.persistence import StoredEvent
import application.mapper
sys.setswitchinterval(1e-6)
if {forget}:
    application.mapper.prepare_types = lambda: None
mapper = application.mapper.EventMapper()
documents = [json.loads(file.read_text()) for file in Path("tests/golden/events").glob("*.json")]
events = [StoredEvent(**{{**each, "state": json.dumps(each["state"]).encode()}}) for each in documents]
together = threading.Barrier(6)
def read():
    for event in events:
        together.wait()
        mapper.to_domain_event(event)
threads = [threading.Thread(target=read) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("read", len(events))
"""


def read_all(*, forget: bool) -> subprocess.CompletedProcess[str]:
    code = READ_ALL.format(forget=forget)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_threads_that_read_the_same_events_for_the_first_time_do_not_crash() -> None:
    for _ in range(3):
        done = read_all(forget=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("read ")


@pytest.mark.xfail(reason="msgspec learns a type in time", strict=True)
def test_types_that_were_not_learnt_before_are_safe_too() -> None:
    """When this passes, there is nothing left to prepare."""
    assert all(read_all(forget=True).returncode != -signal.SIGSEGV for _ in range(8))
