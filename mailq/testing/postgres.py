"""A private PostgreSQL server in a temporary directory, for tests and demonstrations.

It listens on a free loopback port and on nothing else, and is gone when the
context ends or this process does. PostgreSQL refuses to run as root; then it runs as the system
user ``postgres``, or ``nobody``.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from mailq.errors import InfrastructureError

_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_SYSTEM_BINARIES = Path("/usr/lib/postgresql")
# Reads until the end of its input, which comes when the process that wrote to it is gone, however it went.
_WATCH = (
    'read -r _; test -s "$1/data/postmaster.pid" && kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")"; rm -rf "$1"'
)


class ServerProgramsMissingError(InfrastructureError):
    """The server programs are not installed."""


class StopMode(Enum):
    """How the server ends: in good order, or as in a crash, with recovery at the next start."""

    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT


def find_binaries() -> Path:
    """Return the directory of ``initdb`` and ``postgres``: on the PATH, or the newest that Debian installed.

    Raises:
        ServerProgramsMissingError: There is none; the text names the package.
    """
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres") is not None:
        return Path(found).parent
    installed = [path.parent for path in _SYSTEM_BINARIES.glob("*/bin/initdb")]
    if not installed:
        raise ServerProgramsMissingError("PostgreSQL's server programs are missing; install the package postgresql")
    return max(installed, key=lambda path: float(path.parent.name))


class PostgresServer:
    """A server from ``with`` to its end; :meth:`stop` and :meth:`start` in between keep the data and the port.

    Args:
        fsync: False is faster, and loses committed data when the machine stops.
    """

    def __init__(self, *, fsync: bool = True) -> None:
        self._fsync = fsync
        self._binaries = find_binaries()
        self._home = Path(tempfile.mkdtemp(prefix="mailq-postgres-"))
        self._user = _unprivileged_user()
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._watch = self._start_watch()
            self._initialise()
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean_up()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise InfrastructureError("the server is not running")
        return self._process.pid

    def url(self, name: str = "postgres") -> str:
        """Return the SQLAlchemy URL of the database *name*."""
        return f"postgresql://mailq@127.0.0.1:{self._port}/{name}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database and return its URL; it starts as a copy of *template*, which nobody may be using."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, disconnecting whoever uses it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, *, name: str = "postgres") -> None:
        """Run one statement outside any transaction."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            InfrastructureError: It ended, or did not answer in time; the text holds its log.
        """
        self._port = self._port or _free_port()
        arguments = [str(self._binaries / "postgres"), "-D", str(self._home / "data"), "-p", str(self._port)]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program found in a system directory, fixed arguments
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **self._as_user()
            )
        self._wait_until_up(self._process)

    def stop(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop the server; harmless when it is not running."""
        if self._process is not None:
            self._process.send_signal(mode.value)
            self._process.wait(timeout=_START_SECONDS)
            self._process = None

    def restart(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop and start: every connection is lost."""
        self.stop(mode)
        self.start()

    def _initialise(self) -> None:
        if self._user is not None:
            os.chown(self._home, self._user.pw_uid, self._user.pw_gid)
        arguments = [str(self._binaries / "initdb"), "-D", str(self._home / "data"), "-U", "mailq", "-A", "trust"]
        arguments += ["-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(  # noqa: S603 - a program found in a system directory, fixed arguments
            arguments, check=False, capture_output=True, text=True, cwd="/", timeout=_START_SECONDS, **self._as_user()
        )
        if done.returncode != 0:
            raise InfrastructureError(f"initdb failed: {done.stderr}")
        lines = ["listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "max_connections = 200"]
        if not self._fsync:
            lines += ["fsync = off", "synchronous_commit = off", "full_page_writes = off"]
        with (self._home / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write("\n".join(["", *lines, ""]))

    def _start_watch(self) -> subprocess.Popen[bytes]:
        """Start what ends the server and removes its files if this process is killed."""
        return subprocess.Popen(  # noqa: S603 - fixed arguments
            ["/bin/sh", "-c", _WATCH, "watch", str(self._home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _as_user(self) -> dict[str, Any]:
        """Return the arguments of a process of its own session, unprivileged."""
        if self._user is None:
            return {"start_new_session": True}
        return {"start_new_session": True, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(_POLL_SECONDS)
            else:
                return
        log = (self._home / "log").read_text(errors="replace")
        raise InfrastructureError(f"PostgreSQL did not start: {log[-2000:]}")

    def _clean_up(self) -> None:
        self.stop(StopMode.IMMEDIATE)
        shutil.rmtree(self._home, ignore_errors=True)
        if self._watch is not None:
            self._watch.communicate(timeout=_START_SECONDS)


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise InfrastructureError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
