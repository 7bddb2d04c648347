"""Worker processes for tests and benchmarks: real ones, with settings of their own.

What a worker logs goes to a file, so that a test can show it and nobody's pipe
fills up.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from mailq.settings import Settings

_READY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment variables that give a program *settings*; defaults are left out."""
    plain = Settings()
    return {
        f"MAILQ_{one.name.upper()}": _written(getattr(settings, one.name))
        for one in fields(Settings)
        if getattr(settings, one.name) != getattr(plain, one.name)
    }


class WorkerProcess:
    """A worker for the time of a ``with`` block, ready when entered, killed when still there at the end.

    Args:
        settings: Its own; the environment's are not passed on.
        folder: Where its log goes.
        name: Of the worker and its log.
        concurrency: Threads.
        environment: More variables, which change nothing about its settings: a faked clock, for example.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: Path,
        name: str = "worker",
        concurrency: int = 20,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._log_path = folder / f"{name}.log"
        self._name = name
        self._concurrency = concurrency
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """Of the worker and its log."""
        return self._name

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process."""
        if self._process is None:
            raise RuntimeError("the worker was not started")
        return self._process

    def start(self) -> None:
        """Start it; returns at once."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAILQ_")}
        options = {"--concurrency": str(self._concurrency), "--hostname": f"{self._name}@%h", "--loglevel": "INFO"}
        words = [f"{option}={value}" for option, value in options.items()]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [
                    *(sys.executable, "-m", "celery", "-A", "mailq.worker.app", "worker"),
                    *("--without-gossip", "--without-mingle", *words),
                ],
                env={**inherited, **self._environment, **environment_of(self._settings)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """Wait until it consumes.

        Raises:
            RuntimeError: It ended, or took too long.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while " ready." not in self.log:
            if self.running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker {self._name} does not start:\n{self.log}")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """End it without a chance to do anything more."""
        self.running.kill()
        self.running.wait()

    def terminate(self, *, timeout_seconds: float = 30.0) -> int:
        """Ask it to stop, wait until it has, and return its exit code.

        Raises:
            TimeoutExpired: It is still there.
        """
        self.running.terminate()
        return self.running.wait(timeout_seconds)

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.running.poll() is None:
            self.kill()


def _written(value: Any) -> str:
    """Return *value* as the environment spells it."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():f}s"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
