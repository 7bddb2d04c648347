"""A private Redis server on loopback: nothing persists, nothing else is touched.

The program is ``redis-server`` of the PATH, or the one that the environment
variable MAILQ_TEST_REDIS names.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis

_START_SECONDS: Final = 10.0
_ATTEMPTS: Final = 5


def find_redis_server() -> str | None:
    """Return the path of the server program; None when this machine has none."""
    return shutil.which(os.environ.get("MAILQ_TEST_REDIS", "redis-server"))


class RedisServer:
    """A Redis server for the time of a ``with`` block.

    Attributes:
        port: Chosen by the system at first start, then kept over :meth:`stop` and :meth:`start`.
    """

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise RuntimeError("the Redis server is not running")
        return self._process.pid

    def client(self) -> "redis.Redis":
        """Return a client with short timeouts; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=2, socket_connect_timeout=2)

    def start(self) -> None:
        """Start the server, empty, on the port it had before.

        Raises:
            RuntimeError: There is no server program, or it does not come up.
        """
        program = find_redis_server()
        if program is None:
            raise RuntimeError("no redis-server program: install the package redis-server, or set MAILQ_TEST_REDIS")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mailq-redis-")
        # Somebody else may take a free port before the server does; a first start can choose another.
        attempts = 1 if self.port else _ATTEMPTS
        for attempt in range(1, attempts + 1):
            port = self.port or _free_port()
            if self._launch(program, port):
                self.port = port
                return
            if attempt == attempts:
                log = Path(self._folder.name, "redis.log").read_text(errors="replace")
                raise RuntimeError(f"the Redis server does not start on port {port}: {log[-500:]}")

    def stop(self) -> None:
        """Kill the server; what it held is gone. Harmless when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self, program: str, port: int) -> bool:
        assert self._folder is not None  # noqa: S101 - start() made it
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": self._folder.name,
            "logfile": str(Path(self._folder.name, "redis.log")),
            "daemonize": "no",
            "maxmemory-policy": "noeviction",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own arguments
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if _is_ours(port, process.pid):
                self._process = process
                return True
            time.sleep(0.02)
        process.kill()
        process.wait()
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ours(port: int, pid: int) -> bool:
    """Tell whether the server that answers on *port* is the process *pid*."""
    with (
        contextlib.suppress(redis.RedisError),
        contextlib.closing(redis.Redis(host="127.0.0.1", port=port, socket_timeout=1)) as client,
    ):
        return int(client.info("server")["process_id"]) == pid
    return False
