"""The service as a process: starting, being interrupted, being killed, and being told nonsense."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from tests.servers.process import wait_until
from tests.system.service import PROGRAM, Client, Process, running_database, running_service


def test_interrupted_it_stops_in_order_and_leaves_no_process(folder: Path) -> None:
    with running_service(folder) as service:
        children = psutil.Process(service.pid).children(recursive=True)
        assert service.interrupt() == 0
        assert psutil.wait_procs(children, timeout=10)[1] == []
    assert '"stopped"' in service.log_path.read_text()


def test_terminated_while_it_starts_it_leaves_no_process(folder: Path) -> None:
    service = Process(folder, "serve", {"SCAIVAULT_DATA_DIR": str(folder / "data")})
    started = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" serve', PROGRAM],  # as a shell starts what it puts into the background
        env={"PATH": os.defpath, "HOME": str(folder), **service.settings},
        stderr=subprocess.DEVNULL,
    )
    wait_until((folder / "data/postgres").is_dir, what="PostgreSQL is being started")
    started.terminate()
    assert started.wait(timeout=30) in {0, 130}
    left = [process for process in psutil.process_iter() if str(folder) in " ".join(_words(process))]
    assert left == []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_killed_and_started_again_it_knows_everything(folder: Path) -> None:
    with running_service(folder) as service:
        token = service.token("secrets:read secrets:write")
        with Client(service.url, token) as client:
            client.put("/v1/secrets/a/b", {"data": {"v": 1}, "secret_type": "json"})
        service.kill()
        service.start()
        with Client(service.url, token) as client:
            assert client.get("/v1/secrets/a/b")["data"] == {"v": 1}


def test_without_a_master_key_a_named_database_is_refused(folder: Path) -> None:
    refused = Process(folder, "serve", {"DATABASE_URL": "postgresql://127.0.0.1:9/none"}).run("serve")
    assert refused.returncode == 78
    assert "SCAIVAULT_MASTER_KEY_FILE" in refused.stderr


def test_without_migrations_it_does_not_serve(folder: Path) -> None:
    with running_database(folder) as settings:
        database = settings["DATABASE_URL"].replace("dbname=scaivault", "dbname=postgres")
        refused = Process(folder / "service", "api", {**settings, "DATABASE_URL": database}).run("api")
    assert refused.returncode == 1
    assert "scaivault migrate" in refused.stderr


def test_readiness_tells_when_the_database_is_gone(folder: Path) -> None:
    with running_database(folder) as settings:
        service = Process(folder / "service", "api", settings)
        service.start()
    try:
        assert httpx.get(f"{service.url}/v1/health", trust_env=False).status_code == 200
        unready = httpx.get(f"{service.url}/v1/health/ready", trust_env=False, timeout=40)
        assert (unready.status_code, unready.json()["error"]["code"]) == (503, "service_unavailable")
    finally:
        service.stop()


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_setting_that_makes_no_sense_is_named(folder: Path, command: str) -> None:
    refused = Process(folder, command, {"SCAIVAULT_WORKERS": "many"}).run(command)
    assert refused.returncode == 78
    assert "SCAIVAULT_WORKERS" in refused.stderr
