"""A private PgBouncer on loopback in front of a PostgreSQL server, pooling by transaction."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from sqlalchemy.engine import make_url

from mailq.errors import InfrastructureError

_START_SECONDS: Final = 20.0
_USERS: Final = ("postgres", "nobody")


def find_pgbouncer() -> str | None:
    """Return the path of the program; None when this machine has none."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class PgBouncer:
    """A pooler for the time of a ``with`` block; it listens on a free port.

    Args:
        url: Of a database on the server behind it.
        connections: To the server, at most; any number of clients share them.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        self._behind = make_url(url)
        self._connections = connections
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the database, by way of the pooler."""
        return f"postgresql://{self._behind.username}@127.0.0.1:{self._port}/{self._behind.database}?pooler=transaction"

    def __enter__(self) -> Self:
        program = find_pgbouncer()
        if program is None:
            raise InfrastructureError("there is no pgbouncer program; install the package pgbouncer")
        self._folder = Path(tempfile.mkdtemp(prefix="mailq-pgbouncer-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._configure()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [program, str(self._folder / "pgbouncer.ini")], stdout=log, stderr=log, **_unprivileged(self._folder)
            )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self) -> None:
        behind = self._behind
        lines = [
            "[databases]",
            f"{behind.database} = host=127.0.0.1 port={behind.port} user={behind.username}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self._port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {self._connections}",
            "max_client_conn = 500",
            "idle_transaction_timeout = 20",
        ]
        (self._folder / "pgbouncer.ini").write_text("\n".join([*lines, ""]), encoding="utf-8")

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        plain = self.url.partition("?")[0]
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(plain, connect_timeout=5, prepare_threshold=None).close()
                return
            time.sleep(0.05)
        log = (self._folder / "log").read_text(errors="replace")
        self.__exit__(None, None, None)
        raise InfrastructureError(f"PgBouncer did not start: {log[-2000:]}")


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return the arguments of a process of another user where this one is root, as which PgBouncer does not run."""
    if os.geteuid() != 0:
        return {}
    for name in _USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return {"user": user.pw_uid, "group": user.pw_gid}
    raise InfrastructureError("PgBouncer does not run as root, and there is no user postgres or nobody")
