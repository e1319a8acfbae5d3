"""The demo ends well, twice in a row, and leaves nothing behind whenever it is interrupted."""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.system.service import PROGRAM

FOLDER = re.compile(r"/tmp/scaivault-demo-[a-z0-9_]+")


def start_demo() -> subprocess.Popen[str]:
    return subprocess.Popen([PROGRAM, "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def demo_folder(demo: subprocess.Popen[str]) -> Path | None:
    """Where the demo keeps its things, as its children's command lines and working folders tell."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(demo.pid).children(recursive=True):
            with suppress(psutil.Error):
                found = FOLDER.search(" ".join([child.cwd(), *child.cmdline()]))
                if found:
                    return Path(found[0])
    return None


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = " ".join([process.cwd(), *process.cmdline()])
            if str(folder) in words:
                found.append(words)
    return found


def test_it_shows_the_renewed_chain_and_works_again() -> None:
    for _ in range(2):
        with start_demo() as demo:
            output, _ = demo.communicate(timeout=90)
        assert demo.returncode == 0, output
        assert output.count("-----BEGIN CERTIFICATE-----") == 2
        assert "the private key fits, and the chain leads to the CA's root" in output


@pytest.mark.parametrize("line", [1, 2, 4, 7, 11])
def test_interrupted_after_any_line_it_leaves_no_process_and_no_folder(line: int) -> None:
    with start_demo() as demo:
        assert demo.stdout is not None
        for _ in range(line):
            demo.stdout.readline()
        folder = demo_folder(demo)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    if folder is not None:
        assert processes_in(folder) == []
        assert not folder.exists()
