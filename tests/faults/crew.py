"""Workers that are started again when they end, as an init system does."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mailq.settings import Settings
from mailq.testing.workers import WorkerProcess

_LOOK_SECONDS = 0.05
_LOG_TAIL = 3000
_STOP_SECONDS = 60.0
# On SIGABRT it tells what each thread is doing.
_TALKATIVE = {"PYTHONFAULTHANDLER": "1"}


class Crew:
    """A number of worker processes, each with one successor after another.

    Args:
        settings: Of all.
        folder: Where their logs go.
        threads: Of each.
        environments: One entry a worker: what it finds in its environment besides.
    """

    def __init__(
        self, settings: Settings, folder: Path, *, threads: int, environments: Sequence[Mapping[str, str]]
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._threads = threads
        self._environments = environments
        self._lock = threading.Lock()
        self._lives: list[list[WorkerProcess]] = [[] for _ in environments]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crew", daemon=True)

    def __enter__(self) -> Self:
        for number in range(len(self._environments)):
            self._start(number)
        self._thread.start()
        try:
            for number in range(len(self._environments)):
                self.now(number).wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def numbers(self) -> range:
        """Of the workers."""
        return range(len(self._environments))

    @property
    def ended(self) -> int:
        """How many have ended and have successors."""
        with self._lock:
            return sum(len(lives) - 1 for lives in self._lives)

    def now(self, number: int) -> WorkerProcess:
        """Return the latest of the line."""
        with self._lock:
            return self._lives[number][-1]

    def kill(self, number: int) -> None:
        """End one without a chance to do anything more."""
        self.now(number).kill()

    @contextlib.contextmanager
    def frozen(self, number: int) -> Iterator[None]:
        """Stop one from running for the time of the block."""
        pid = self.now(number).running.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def replace(self, number: int) -> None:
        """Ask one to stop, and return when its successor works.

        Raises:
            TimeoutError: It does not stop; the text says what its threads are doing.
        """
        old = self.now(number)
        try:
            old.terminate(timeout_seconds=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            old.running.send_signal(signal.SIGABRT)
            old.running.wait()
            raise TimeoutError(f"{old.name} does not stop within {_STOP_SECONDS} s:\n{old.log}") from None
        while self.now(number) is old:
            self._done.wait(_LOOK_SECONDS)
        self.now(number).wait_until_ready()

    def logs(self) -> str:
        """Return the end of each log."""
        with self._lock:
            lives = [one for line in self._lives for one in line]
        return "\n".join(f"--- {one.name}\n{one.log[-_LOG_TAIL:]}" for one in lives)

    def _start(self, number: int) -> None:
        worker = WorkerProcess(
            self._settings,
            folder=self._folder,
            name=f"worker{number}-{len(self._lives[number])}",
            concurrency=self._threads,
            environment={**_TALKATIVE, **self._environments[number]},
        )
        worker.start()
        with self._lock:
            self._lives[number].append(worker)

    def _run(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            for number in self.numbers:
                if self.now(number).running.poll() is not None and not self._done.is_set():
                    self._start(number)

    def _end(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        for number in self.numbers:
            self.now(number).kill()
        for line in self._lives:
            for worker in line:
                _remove_traces(worker.running.pid)


def _remove_traces(pid: int) -> None:
    """Remove what the library that fakes the clock leaves behind when its process is killed."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)
