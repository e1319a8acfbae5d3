"""The scripts, and the composition for more than one machine: what they do where no service is needed to see it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from interfaces.cli.arguments import arguments

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").iterdir())


def run(program: Path, environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.name))
def test_a_script_is_well_formed_and_begins_by_saying_what_it_is(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    shebang, first_line, *_ = script.read_text().splitlines()
    assert shebang == "#!/usr/bin/env bash"
    assert re.match(r"# [A-Z].{20}", first_line)


def test_prove_without_a_name_lists_the_claims_that_the_readme_makes() -> None:
    listed = run(ROOT / "scripts/prove", {})
    assert listed.returncode == 2
    claims = dict(re.findall(r"^  (\w+): (.+)$", listed.stderr, re.MULTILINE))
    section = (ROOT / "README.md").read_text().partition("\n## Claims\n")[2].partition("\n## ")[0]
    assert set(claims) == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_prove_with_an_unknown_name_lists_them_too() -> None:
    assert run(ROOT / "scripts/prove", {}, "nothing").returncode == 2


def test_check_runs_every_gate_and_shows_the_report_of_the_failed_one(tmp_path: Path) -> None:
    write_program(tmp_path / "scripts/check", (ROOT / "scripts/check").read_text())
    write_program(tmp_path / "scripts/setup", "exit 0")
    for gate in ("ruff", "mypy", "deptry"):
        write_program(tmp_path / ".venv/bin" / gate, "echo 'nothing to say'")
    write_program(tmp_path / ".venv/bin/lint-imports", "echo 'domain imports os'; exit 1")
    checked = run(tmp_path / "scripts/check", {})
    assert (checked.returncode, checked.stdout) == (1, "domain imports os\n")
    assert "check: deptry" in checked.stderr


PYTHON = """\
# Stands for Python, of which `-m venv` makes a copy, and writes down what it was asked for.
echo "$*" >> "$ASKED"
case "$*" in
  "-m venv"*) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; [ "${BREAK:-}" != venv ] ;;
  "-m pip"*" -r "*) [ "${BREAK:-}" != pip ] ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `scripts/setup` needs of one."""
    write_program(tmp_path / "scripts/setup", (ROOT / "scripts/setup").read_text())
    write_program(tmp_path / "python", PYTHON)
    (tmp_path / "requirements").mkdir()
    for file in ("pyproject.toml", "requirements/service.txt", "requirements/dev.txt"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def set_up(clone: Path, breaks: str = "") -> tuple[int, list[str]]:
    """The exit code, and what was made: `venv`, the dependencies (`-r`), the project (`-e`)."""
    asked = clone / "asked"
    asked.write_text("")
    environment = {"PYTHON": str(clone / "python"), "ASKED": str(asked), "BREAK": breaks, "HOME": ""}
    done = run(clone / "scripts/setup", environment, "service")
    return done.returncode, re.findall(r"venv(?= )|-r(?= )|-e(?= )", asked.read_text())


@pytest.mark.parametrize(
    ("breaks", "made", "made_next"), [("venv", ["venv"], ["venv", "-r", "-e"]), ("pip", ["venv", "-r"], ["-r", "-e"])]
)
def test_setup_takes_up_what_was_interrupted(clone: Path, breaks: str, made: list[str], made_next: list[str]) -> None:
    for _ in range(2):
        code, found = set_up(clone, breaks)
        assert code != 0
        assert found == made
        made = ["-r"] if breaks == "pip" else made
    assert set_up(clone) == (0, made_next)
    assert set_up(clone) == (0, [])


def test_setup_makes_an_environment_anew_whose_python_is_gone(clone: Path) -> None:
    set_up(clone)
    (clone / ".venv/bin/python").unlink()
    assert set_up(clone) == (0, ["venv", "-r", "-e"])


def test_two_setups_at_once_install_once(clone: Path) -> None:
    asked = clone / "asked"
    environment = {"PYTHON": str(clone / "python"), "ASKED": str(asked)}
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run(clone / "scripts/setup", environment, "service"), range(4)))
    assert [each.returncode for each in done] == [0] * 4
    assert asked.read_text().count("-m venv") == asked.read_text().count(" -r ") == 1


class Vault(ThreadingTCPServer):
    """The two routes that an edge asks, of a certificate at the version given."""

    def __init__(self) -> None:
        self.version = 1
        self.key_reads = 0
        super().__init__(("127.0.0.1", 0), Routes)


class Routes(BaseHTTPRequestHandler):
    server: Vault

    def do_GET(self) -> None:
        version = self.server.version
        answer = {"version": version, "fingerprint_sha256": "ab" * 32, "certificate_pem": f"chain {version}"}
        self._answer(answer)

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["version"]
        self.server.key_reads += 1
        self._answer({"private_key_pem": f"key {wanted}"})

    def _answer(self, body: Mapping[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's own name
        """Nothing."""


@pytest.fixture
def vault() -> Iterator[Vault]:
    with Vault() as vault:
        thread = Thread(target=vault.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield vault
        finally:
            vault.shutdown()
            thread.join()


def fetch(vault: Vault, folder: Path, reload: str) -> int:
    """The exit code."""
    environment = {
        "SCAIVAULT_URL": f"http://127.0.0.1:{vault.server_address[1]}",
        "SCAIVAULT_TOKEN": "skt_edge",
        "CERT_ID": "cert_1",
        "CERT_DIR": str(folder / "tls"),
        "RELOAD": reload,
    }
    return run(ROOT / "scripts/fetch-cert.sh", environment).returncode


def test_an_edge_repeats_a_failed_reload_until_it_succeeds_and_then_no_more(vault: Vault, tmp_path: Path) -> None:
    reloads = tmp_path / "reloads"
    for version in (1, 2):
        vault.version = version
        reloads.write_text("")
        assert fetch(vault, tmp_path, f"echo failed >> {reloads}; exit 3") == 3
        assert (tmp_path / "tls/fullchain.pem").read_text() == f"chain {version}\n"
        assert fetch(vault, tmp_path, f"echo failed >> {reloads}; exit 3") == 3
        assert fetch(vault, tmp_path, f"echo done >> {reloads}") == 0
        assert fetch(vault, tmp_path, f"echo again >> {reloads}") == 0
        assert reloads.read_text() == "failed\nfailed\ndone\n"
        assert vault.key_reads == version


def test_an_edge_keeps_the_version_before_and_no_older_one(vault: Vault, tmp_path: Path) -> None:
    for vault.version in (1, 2, 3):
        assert fetch(vault, tmp_path, "") == 0
    assert sorted(path.name[:2] for path in (tmp_path / "tls").glob("v*")) == ["v2", "v3"]


def test_a_server_that_the_reload_starts_does_not_keep_the_edges_lock(vault: Vault, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    try:
        assert fetch(vault, tmp_path, f"sleep 100 >/dev/null 2>&1 & echo $! > {pid}") == 0
        assert fetch(vault, tmp_path, "") == 0
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def services() -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_the_composition_runs_commands_that_there_are_each_after_the_migration(services: Any) -> None:
    assert set(services) == {"postgres", "migrate", "api", "worker"}
    for name in ("migrate", "api", "worker"):
        assert arguments(services[name]["command"]).command == name
    for name in ("api", "worker"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["restart"] == "on-failure"
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "127.0.0.1" in services["postgres"]["healthcheck"]["test"], "its socket answers too early"


def test_the_composition_writes_the_password_into_no_url(services: Any) -> None:
    """It may hold any character."""
    for name in ("migrate", "api", "worker"):
        settings = services[name]["environment"]
        assert "password" not in conninfo_to_dict(settings["DATABASE_URL"])
        assert settings["PGPASSWORD"] == services["postgres"]["environment"]["POSTGRES_PASSWORD"]


def test_every_setting_of_the_composition_is_explained_in_the_readme(services: Any) -> None:
    readme = (ROOT / "README.md").read_text()
    names = {name for service in services.values() for name in service["environment"] if name.startswith("SCAIVAULT_")}
    assert [name for name in sorted(names) if f"`{name}`" not in readme] == []
