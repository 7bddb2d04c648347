"""A server program with a temporary home, from ``with`` to its end.

Invariants: the program listens on loopback or below its home only; it gets
the configuration written here and no other; when the context ends, its
process group is gone and its home removed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mailq.errors import InfrastructureError

START_SECONDS = 30.0
RUN_SECONDS = 30.0
_POLL_SECONDS = 0.02
_PROBE_SECONDS = 5.0


class ReceiverMissingError(InfrastructureError):
    """The program, or the right to run it, is missing."""


def servers_root() -> Path:
    """Return where the programs of unpacked packages are; a package that is installed needs none of it."""
    return Path(sys.prefix) / "servers"


def find_program(path: str, *, package: str, as_root: bool = True) -> Path:
    """Return the program at *path*, such as ``usr/sbin/exim4``, of the system or else of an unpacked package.

    Args:
        path: Without the slash in front.
        package: Debian's name for what it is in.
        as_root: It starts as root only, as all these mail servers do.

    Raises:
        ReceiverMissingError: It is in neither place, or we are not root where it must be.
    """
    for root in (Path("/"), servers_root()):
        if (root / path).exists():
            break
    else:
        raise ReceiverMissingError(f"/{path} is missing; scripts/servers gets it from the Debian package {package}")
    if as_root and os.geteuid() != 0:
        raise ReceiverMissingError(f"{package} starts as root only")
    return root / path


class Daemon(ABC):
    """What the starters have in common."""

    package = ""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"mailq-{self.package}-"))
        # mkdtemp keeps others out; the servers' unprivileged halves must come in.
        self.home.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> Sequence[str]:
        """Write configuration and directories, and return the command that starts the server in the foreground."""

    @abstractmethod
    def _listens_at(self) -> tuple[str, int] | str:
        """Return a loopback address and port, or the path of a UNIX-domain socket."""

    def _environment(self) -> Mapping[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def __enter__(self) -> Self:
        try:
            command = self._prepare()
            with (self.home / "output").open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603 - a program of a fixed path, arguments made here
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=dict(self._environment()),
                    start_new_session=True,
                )
            self._wait_until_up(self._process)
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean_up()

    def run(self, *command: str) -> str:
        """Return what one of the server's own commands prints.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        done = subprocess.run(  # noqa: S603 - as above
            command, check=True, capture_output=True, cwd="/", env=dict(self._environment()), timeout=RUN_SECONDS
        )
        return done.stdout.decode(errors="surrogateescape")

    def log(self) -> str:
        """Return what the server wrote about itself."""
        texts = [path.read_text(errors="replace") for path in sorted(self.home.glob("*log")) if path.is_file()]
        return "".join([(self.home / "output").read_text(errors="replace"), *texts])

    def _wait_until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self._greets():
                return
            time.sleep(_POLL_SECONDS)
        raise InfrastructureError(f"{self.package} did not start: {self.log()[-2000:]}")

    def _greets(self) -> bool:
        where = self._listens_at()
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_SECONDS)
            try:
                probe.connect(where)
                return probe.recv(3) == b"220"
            except OSError:
                return False

    def _clean_up(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout=RUN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=RUN_SECONDS)
            _end_group(process.pid)
        shutil.rmtree(self.home, ignore_errors=True)


def _end_group(group: int) -> None:
    """End what the server left behind, such as a child that still serves a connection."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def free_port(address: str) -> int:
    """Return a TCP port that is free at *address*."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
