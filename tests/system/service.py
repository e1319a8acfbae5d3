"""The service itself in child processes, as an operator runs it."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx

from interfaces.postgres.embedded import EmbeddedPostgres
from tests.servers.process import LOOPBACK, ServerProcess, free_port, wait_until

PROGRAM = str(Path(sys.executable).with_name("scaivault"))
TUTORIAL = Path(__file__).with_name("tutorial.sh")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the embedded PostgreSQL's account can reach, with a short name, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="scaivault-", dir="/tmp")).resolve()
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Process(ServerProcess):
    """`scaivault serve`, `api` or `worker`, with the settings given and nothing else of the environment."""

    def __init__(self, folder: Path, command: str, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._command = command
        self.settings = {"SCAIVAULT_EGRESS_ALLOW": "127.0.0.0/8", "SCAIVAULT_LOG_FORMAT": "json", **settings}
        self.url = ""
        if command != "worker":
            address = f"{LOOPBACK}:{free_port()}"
            self.settings["SCAIVAULT_BIND"] = address
            self.url = f"http://{address}"

    def command(self) -> list[str]:
        return [PROGRAM, self._command]

    def environment(self) -> dict[str, str]:
        return dict(self.settings)

    def is_ready(self) -> bool:
        if not self.url:
            return '"working"' in self.log_path.read_text()
        try:
            return httpx.get(f"{self.url}/v1/health/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        child = self._running()
        child.send_signal(2)
        return child.wait(timeout=20)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command with the same settings."""
        environment = {"PATH": os.defpath, "HOME": str(self.folder), **self.settings}
        return subprocess.run(
            [PROGRAM, *words], env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def token(self, scopes: str, *options: str) -> str:
        made = self.run("token", "create", "--scopes", scopes, *options)
        made.check_returncode()
        return made.stdout.strip()


class Client:
    """The HTTP API, with a token. Answers that are no success raise."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        return self._http.get(path, params=query).raise_for_status().json()

    def try_get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def post(self, path: str, body: Any = None) -> Any:
        return self.try_post(path, body).raise_for_status().json()

    def patch(self, path: str, body: Any) -> Any:
        return self._http.patch(path, json=body).raise_for_status().json()

    def put(self, path: str, body: Any) -> Any:
        return self._http.put(path, json=body).raise_for_status().json()

    def try_post(self, path: str, body: Any = None) -> httpx.Response:
        return self._http.post(path, json=body) if body is not None else self._http.post(path)

    def try_delete(self, path: str) -> httpx.Response:
        return self._http.delete(path)

    def ended(self, order_id: str, deadline_seconds: float = 60) -> Any:
        """The order once it has ended and cleaned up. Raises TimeoutError."""
        found: list[Any] = []

        def is_done() -> bool:
            found[:] = [self.get(f"/v1/pki/acme/orders/{order_id}")]
            return bool(found[0]["phase"] == "done")

        wait_until(is_done, what=f"{order_id} is done", deadline_seconds=deadline_seconds)
        return found[0]


@contextmanager
def running_service(folder: Path, *, dns_address: str | None = None) -> Iterator[Process]:
    """`scaivault serve` with the embedded PostgreSQL, and the embedded DNS at the address given."""
    settings = {"SCAIVAULT_DATA_DIR": str(folder / "data")}
    if dns_address is not None:
        settings["SCAIVAULT_DNS_BIND"] = dns_address
    with Process(folder, "serve", settings) as service:
        yield service


@contextmanager
def running_database(folder: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL of our own, migrated, and the settings with which any number of processes share it."""
    with EmbeddedPostgres(folder / "postgres", durable=False) as server:
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        settings = {"DATABASE_URL": server.dsn, "SCAIVAULT_MASTER_KEY": f"test:{key}"}
        migration = Process(folder / "migrate", "migrate", settings).run("migrate")
        migration.check_returncode()
        yield settings


def run_tutorial(service: Process, variables: Mapping[str, str], out: Path, *, quiet: bool = False) -> int:
    """The tutorial as a user types it; its exit code."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "BASE": service.url,
        "TOKEN": service.token("pki:issue pki:admin"),
        "OUT": str(out),
        **variables,
    }
    output = subprocess.PIPE if quiet else None
    done = subprocess.run(
        ["bash", str(TUTORIAL)], env=environment, check=False, timeout=200, stdout=output, stderr=output
    )
    if quiet and done.returncode:
        with suppress(UnicodeDecodeError):
            print((done.stdout or b"").decode(), (done.stderr or b"").decode(), file=sys.stderr)
    return done.returncode
