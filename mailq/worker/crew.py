"""Several worker processes under one command: each as by itself, and begun anew when it dies.

An interpreter runs one thread at a time, so a process is worth one processor.
The command's own process does nothing but look after the others. They are
forked from it, so what is loaded by then is in memory once.

Invariants:
    The command ends when all its processes have ended, and they end when it does, however that comes about.
    A signal to stop is passed on to each process once.

Source: celery.md §2.1; sysexits(3)
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import Final

from mailq.errors import ConfigError

log = logging.getLogger(__name__)

Work = Callable[[int], int]
"""Is the work of one process, given its number from 0 on; returns its exit code."""

_FORK: Final = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT)
_UNUSABLE: Final = 78  # EX_CONFIG
_LOOK_SECONDS: Final = 0.5
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 60.0
"""Who has lived for so long is begun anew without a longer pause than the first."""


def next_pause(pause_seconds: float, *, lived_seconds: float) -> float:
    """Return how long to wait before a process is begun anew that died after *lived_seconds*; 0 was no pause yet."""
    if lived_seconds >= _STEADY_SECONDS or pause_seconds == 0:
        return _FIRST_PAUSE_SECONDS
    return min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


@dataclass(slots=True)
class _Member:
    """One process, or the place of one that died.

    Attributes:
        process: None until it is begun anew.
        begun_at: By the monotonic clock.
        begins_at: When it is begun anew, likewise.
        pause_seconds: Before it was begun the last time.
    """

    process: ForkProcess | None = None
    begun_at: float = 0.0
    begins_at: float = 0.0
    pause_seconds: float = 0.0


class Crew:
    """Runs *work* in *count* processes; to be used in the main thread of a process that has no other.

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
        self._members: Mapping[int, _Member] = {number: _Member() for number in range(count)}
        self._told = False
        self._lifeline, self._held = os.pipe()

    def run(self) -> int:
        """Run until told to stop by TERM or Ctrl-C, or until all have ended by themselves; return the exit code.

        Raises:
            ConfigError: One of them cannot work with these settings; its log says why.
        """
        with self._signals():
            try:
                while not self._told and self._begin_due():
                    if not self._look():
                        break
            finally:
                if not self._told:
                    self._pass_on(signal.SIGTERM)
                codes = self._join()
        if _UNUSABLE in codes:
            raise ConfigError("a worker process cannot work with these settings; its log says why")
        return max(codes, default=0)

    def _begin_due(self) -> bool:
        """Begin those whose time has come; return whether any is there or to come."""
        now = time.monotonic()
        for number, member in self._members.items():
            if member.process is None and member.begins_at <= now:
                member.begun_at = now
                self._begin(number, member)
        return any(member.begins_at < float("inf") for member in self._members.values())

    def _begin(self, number: int, member: _Member) -> None:
        process = self._fork.Process(target=self._be_member, args=(number,), name=f"mailq-worker-{number + 1}")
        # Whoever is told to stop meanwhile tells this one, too; and in there, our handlers would be called.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        try:
            process.start()
            member.process = process
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)

    def _be_member(self, number: int) -> None:
        """Be a process of the crew until it ends; runs in the new process."""
        for each in _PASSED_ON:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        # What a terminal sends to all of its foreground comes by way of the command alone.
        os.setpgid(0, 0)
        os.close(self._held)
        threading.Thread(target=_end_with, args=(self._lifeline,), name="mailq-lifeline", daemon=True).start()
        try:
            code = self._work(number)
        except ConfigError as error:
            log.critical("%s", error)
            code = _UNUSABLE
        raise SystemExit(code)

    def _look(self) -> bool:
        """Wait for a moment, or until a process ends; False: one cannot work with these settings."""
        wait([one.process.sentinel for one in self._members.values() if one.process is not None], _LOOK_SECONDS)
        for number, member in self._members.items():
            if member.process is None or member.process.is_alive():
                continue
            code = member.process.exitcode
            if code == _UNUSABLE:
                return False
            member.process = None
            if code == 0:
                # Somebody told this one to end, from Flower for example.
                log.info("Worker process %d has ended", number + 1)
                member.begins_at = float("inf")
                continue
            now = time.monotonic()
            member.pause_seconds = next_pause(member.pause_seconds, lived_seconds=now - member.begun_at)
            member.begins_at = now + member.pause_seconds
            fields = {"event": "worker_died", "exit_code": code}
            text = "Worker process %d ended with %d; another takes its place in %.0f s"
            log.error(text, number + 1, code, member.pause_seconds, extra=fields)
        return True

    def _join(self) -> list[int]:
        """Wait until all have ended, as long as that takes; return their exit codes."""
        codes = []
        for member in self._members.values():
            if member.process is not None:
                member.process.join()
                codes.append(abs(member.process.exitcode or 0))
        os.close(self._held)
        os.close(self._lifeline)
        return codes

    @contextmanager
    def _signals(self) -> Iterator[None]:
        before = {each: signal.signal(each, self._on_signal) for each in _PASSED_ON}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._told = True
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        for member in self._members.values():
            process = member.process
            if process is not None and process.pid is not None and process.is_alive():
                os.kill(process.pid, number)


def _end_with(lifeline: int) -> None:
    """End this process, as TERM does, when the command is gone: nobody holds the other end then."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
