"""Servers in child processes: found, started, waited for and ended by their pid.

Every server of the tests listens on 127.0.0.1 alone, keeps its configuration, state and log in the folder it is given,
and dies with the tests.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
START_DEADLINE_SECONDS = 20.0
STOP_DEADLINE_SECONDS = 5.0
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 30

# Below Linux's and macOS's ephemeral ports: no outgoing connection takes one between the look and the server's own bind.
FIRST_PORT = 20_000
PORT_COUNT = 12_000


class PeerMissing(RuntimeError):
    """A server's program is not installed. ``package`` names what brings it."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed: it comes with {package}")
        self.program = program
        self.package = package


class ServerFailed(RuntimeError):
    """A server ended or did not serve in time. The message ends with the tail of its log."""


def peer_path(program: str, package: str) -> str:
    """The path of a program, also of those in sbin, which an ordinary user's PATH leaves out. Raises PeerMissing."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(program, path=places)
    if found is None:
        raise PeerMissing(program, package)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 on which neither TCP nor UDP is in use."""
    for _ in range(PORT_COUNT):
        # Not `random`: pytest-randomly seeds it alike in every worker, and two would draw the same ports.
        port = FIRST_PORT + secrets.randbelow(PORT_COUNT)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind((LOOPBACK, port))
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port of {LOOPBACK} from {FIRST_PORT} on")


def wait_until(is_true: Callable[[], bool], *, what: str, deadline_seconds: float = START_DEADLINE_SECONDS) -> None:
    """Ask until the answer is yes. The only poll of the test servers. Raises TimeoutError, which says ``what`` was due."""
    deadline = time.monotonic() + deadline_seconds
    while not is_true():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {deadline_seconds} seconds")
        time.sleep(POLL_SECONDS)


class ServerProcess(ABC):
    """A server in a child process, which a ``with`` block starts and ends.

    ``start`` after ``stop`` or ``kill`` brings it back at the same addresses; what it remembers then is its own affair.
    It must be started in a thread that lives on: the kernel's parent-death signal means the thread, not the process.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log_path = folder / "server.log"
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments, run in the folder. Raises PeerMissing."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves by now; a refused connection is a no."""

    def environment(self) -> dict[str, str]:
        """Variables beside PATH and HOME; the tests' own environment (proxies, trust stores) is not handed down."""
        return {}

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the server and wait until it serves. Raises PeerMissing, ServerFailed."""
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                [*_dying_with_its_parent(), *self.command()],
                cwd=self.folder,
                env={"PATH": os.defpath, "HOME": str(self.folder), **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the tests alone: they end their servers in order
            )
        try:
            wait_until(self._serves, what=f"{type(self).__name__} serves")
        except BaseException as failure:
            self.kill()
            if isinstance(failure, TimeoutError):
                raise ServerFailed(f"{failure}\n{self._log_tail()}") from failure
            raise

    def stop(self) -> None:
        """End the server by SIGTERM, or by SIGKILL when it has not gone in time. A stopped server stays so."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._child = None

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        self._child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise ServerFailed(f"{type(self).__name__} does not run")
        return self._child

    def _serves(self) -> bool:
        code = self._running().poll()
        if code is not None:
            raise ServerFailed(f"{type(self).__name__} ended with {code}\n{self._log_tail()}")
        return self.is_ready()

    def _log_tail(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def _dying_with_its_parent() -> list[str]:
    """The command before the command (util-linux): it sets PR_SET_PDEATHSIG and becomes the server, pid and all."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
