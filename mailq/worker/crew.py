"""Several worker processes under one command: each as by itself, and begun anew when it dies.

An interpreter runs one thread at a time, so a process is worth one processor.
The command's own process does nothing but look after the others. They are
forked from it, so what is loaded by then is in memory once.

Invariants:
    The command ends when all its processes have ended, and they end when it does, however that comes about.
    A signal to stop reaches each process that is there, also one that is begun in that moment.

Source: celery.md §2.1; sysexits(3)
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Final

from mailq.errors import ConfigError, MailqError

log = logging.getLogger(__name__)

Work = Callable[[int], int]
"""Is the work of one process, given its number from 0 on; returns its exit code."""

_FORK: Final = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
# Celery's: the last ends tasks at once, and so does the second Ctrl-C.
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_FAILED: Final = 1
_NOT_BEGUN: Final = 71  # EX_OSERR
_UNUSABLE: Final = 78  # EX_CONFIG
_SHELLS: Final = 128
"""A shell adds this to the number of the signal that a process died of."""
_LOOK_SECONDS: Final = 0.5
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 60.0
"""Who has lived for so long is begun anew after the first pause again."""


def next_pause(pause_seconds: float, *, lived_seconds: float) -> float:
    """Return how long to wait before a process is begun anew.

    Args:
        pause_seconds: The pause before; 0: none yet.
        lived_seconds: From its begin to its death.
    """
    if lived_seconds >= _STEADY_SECONDS or pause_seconds == 0:
        return _FIRST_PAUSE_SECONDS
    return min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


@dataclass(slots=True)
class _Member:
    """One process, or the place of one that has ended.

    Attributes:
        process: None while there is none.
        begun_at: By the monotonic clock.
        begins_at: When the next one begins, likewise; inf: never.
        pause_seconds: Before it was begun the last time.
    """

    process: ForkProcess | None = None
    begun_at: float = 0.0
    begins_at: float = 0.0
    pause_seconds: float = 0.0


class Crew:
    """Runs *work* in *count* processes; to be used once, in the main thread of a process that has no other.

    Args:
        work: Called in each.
        count: At least 1.

    Raises:
        ConfigError: This system cannot fork.
    """

    def __init__(self, work: Work, count: int) -> None:
        if _FORK is None:
            raise ConfigError("several processes need a system that forks; set worker_processes to 1")
        self._fork = _FORK
        self._work = work
        self._members = tuple(_Member() for _ in range(count))
        self._received: deque[int] = deque()
        self._lifeline, self._held = os.pipe()

    def run(self) -> int:
        """Run until told to stop by a signal, or until all have ended by themselves; return the exit code.

        Raises:
            ConfigError: One of them cannot work with these settings; its log says why.
        """
        with self._signals_received():
            try:
                while self._begin_due() and not self._received and self._look():
                    pass
            finally:
                codes = self._end()
        if _UNUSABLE in codes:
            raise ConfigError("a worker process cannot work with these settings; its log says why")
        return max(codes, default=0)

    def _begin_due(self) -> bool:
        """Begin those whose time has come; return whether any is there or to come."""
        now = time.monotonic()
        for number, member in enumerate(self._members):
            if member.process is None and member.begins_at <= now:
                member.begun_at = now
                try:
                    member.process = self._begun(number)
                except OSError as error:
                    # No memory or no process left, which may pass.
                    log.warning("Worker process %d cannot be begun: %s", number + 1, error.strerror)
                    self._put_off(number, code=_NOT_BEGUN)
        return any(member.process is not None or member.begins_at < inf for member in self._members)

    def _begun(self, number: int) -> ForkProcess:
        process = self._fork.Process(target=self._be_member, args=(number,), name=f"mailq-worker-{number + 1}")
        # A signal that comes before the new process has handlers of its own would end in a copy of ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def _be_member(self, number: int) -> None:
        """Be a process of the crew until it ends; runs in the new process."""
        for each in _STOPPING:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        # A terminal sends Ctrl-C to a whole group; from the command it would come a second time.
        os.setpgid(0, 0)
        os.close(self._held)
        threading.Thread(target=_end_with, args=(self._lifeline,), name="mailq-lifeline", daemon=True).start()
        try:
            code = self._work(number)
        except MailqError as error:
            log.critical("%s", error)
            code = _UNUSABLE if isinstance(error, ConfigError) else _FAILED
        raise SystemExit(code)

    def _look(self) -> bool:
        """Wait for a moment, or until a process ends; False: one cannot work with these settings."""
        wait([process.sentinel for process in self._there()], _LOOK_SECONDS)
        for number, member in enumerate(self._members):
            process = member.process
            if process is None or process.is_alive():
                continue
            code = process.exitcode or 0
            if code == _UNUSABLE:
                return False
            process.close()
            member.process = None
            if code == 0:
                # Somebody told this one to end, from Flower for example.
                log.info("Worker process %d has ended", number + 1)
                member.begins_at = inf
            else:
                self._put_off(number, code=code)
        return True

    def _put_off(self, number: int, *, code: int) -> None:
        """Have the process with *number*, which ended with *code*, begun anew after a pause."""
        member, now = self._members[number], time.monotonic()
        member.pause_seconds = next_pause(member.pause_seconds, lived_seconds=now - member.begun_at)
        member.begins_at = now + member.pause_seconds
        fields = {"event": "worker_died", "exit_code": code}
        text = "Worker process %d ended with %d; another takes its place in %.0f s"
        log.error(text, number + 1, code, member.pause_seconds, extra=fields)

    def _end(self) -> list[int]:
        """Wait until all have ended, as long as that takes, telling them what we are told; return their exit codes."""
        ending = self._there()
        if not self._received:
            self._received.append(signal.SIGTERM)
        while there := [process for process in ending if process.is_alive()]:
            while self._received:
                number = self._received.popleft()
                for pid in (process.pid for process in there):
                    # Until we have looked at how a process ended, its id is nobody else's.
                    if pid is not None:
                        os.kill(pid, number)
            wait([process.sentinel for process in there], _LOOK_SECONDS)
        os.close(self._held)
        os.close(self._lifeline)
        return [_exit_code(process.exitcode or 0) for process in ending]

    def _there(self) -> Sequence[ForkProcess]:
        return [member.process for member in self._members if member.process is not None]

    @contextmanager
    def _signals_received(self) -> Iterator[None]:
        before = {each: signal.signal(each, self._on_signal) for each in _STOPPING}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # It may come between any two steps, so it is only noted here.
        self._received.append(number)


def _end_with(lifeline: int) -> None:
    """End this process, as TERM does, when the command is gone: nobody holds the other end then."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(code: int) -> int:
    """Return what the command makes of the exit *code* of a process that was told to end."""
    if -code in _STOPPING:
        # It had not begun yet, so there was nothing to finish.
        return 0
    return _SHELLS - code if code < 0 else code
