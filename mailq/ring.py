"""Ringing the doorbell: tell the workers that a nexthop has mail due.

A ring may be lost without harm, since the dispatcher rings again what nobody
answered. So ringing never raises and never holds its caller up for longer
than ``publish_timeout``: a thread of its own does the publishing, and callers
wait for it for that long at most. After a failure, rings are free for a few
seconds, and for as long as the thread still hangs in a broker that is mute.

Whoever queues mail does not wait at all: :meth:`Ringer.tell` hands over to the
thread, and the end of the process gives that the same time to finish. It is
throttled, too. A ring is worth its price where a worker would otherwise find
the mail later; where there are many, the workers are busy, and the dispatcher,
which looks every second, is soon enough for the rest.

A nexthop rung a moment ago by this process is not rung again.

Source: celery.md §2.5, §2.8, §2.12, §6 pitfalls 10 and 43.
"""

import atexit

# Loaded here, and not by Celery in the thread: that may be when the process ends, and then it can no longer be.
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from celery import Celery

from mailq.broker import make_celery
from mailq.publish import Publisher
from mailq.settings import Settings

log = logging.getLogger(__name__)

COALESCE_SECONDS: Final = 0.5
BREAKER_SECONDS: Final = 5.0
TOLD_AT_ONCE: Final = 10
"""So many nexthops are rung for new mail one after the other by one process,"""
TOLD_PER_SECOND: Final = 2
"""then so many a second: a ring costs as much as delivering several messages, published and consumed."""
_MOST_REMEMBERED: Final = 10_000
_MUTE: Final = "it did not answer in time"


@dataclass(slots=True)
class _Job:
    """Nexthops to ring on behalf of one waiting caller."""

    nexthops: tuple[str, ...]
    urgent: bool = False
    rung: set[str] = field(default_factory=set)
    abandoned: bool = False
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _State:
    """What one process knows: a forked child has neither the thread nor a connection of its own."""

    jobs: "queue.SimpleQueue[_Job | None]" = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None
    rung_at: dict[str, float] = field(default_factory=dict)
    broken_until: float = float("-inf")
    stuck: _Job | None = None
    # Of those whom nobody waits for: the last one and when it was given; how many more are allowed, and as of when.
    told: _Job | None = None
    told_at: float = float("-inf")
    allowed: float = TOLD_AT_ONCE
    allowed_at: float = float("-inf")


class Ringer:
    """Rings nexthops; safe to share between threads and across forks.

    Args:
        settings: Of these, ``broker_url``, ``key_prefix`` and ``publish_timeout``.
        app: None: one that only publishes is built on first use.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self, settings: Settings, *, app: Celery | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._app = app
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._state = _State()
        _ringers.add(self)

    def ring(self, nexthop: str, *, again: bool = False) -> bool:
        """Ring *nexthop*; True when a ring is on its way, now or since a moment ago.

        Args:
            nexthop: Canonical text, as the store has it.
            again: Ring even if it was rung a moment ago: more sessions are wanted, not just one.
        """
        return bool(self.ring_all((nexthop,), again=again))

    def ring_all(
        self,
        nexthops: Iterable[str],
        *,
        again: bool = False,
        urgent: bool = False,
        patience: timedelta | None = None,
    ) -> frozenset[str]:
        """Ring every one of *nexthops*; return those that a ring is on its way to.

        Args:
            nexthops: Canonical texts.
            again: Ring even those rung a moment ago.
            urgent: Ahead of all rings that are not, where the broker can; and however many of them wait unanswered.
            patience: Longest wait; None is ``publish_timeout``.
        """
        wanted = tuple(dict.fromkeys(nexthops))
        with self._lock:
            state = self._state
            now = self._monotonic()
            recent = frozenset(name for name in wanted if not again and _is_recent(state, name, now))
            job = _Job(tuple(name for name in wanted if name not in recent), urgent=urgent)
            if not job.nexthops:
                return recent
            if state.stuck is not None or now < state.broken_until:
                return recent
            # Noted before publishing: callers that come meanwhile need not publish the same.
            _note(state, job.nexthops, now)
            self._ensure_thread(state)
            state.jobs.put(job)
        self._wait(state, job, patience or self._settings.publish_timeout)
        return recent | frozenset(job.rung)

    def tell(self, nexthops: Iterable[str]) -> None:
        """Have *nexthops* rung without waiting for it: those not rung a moment ago, and as many as the rate allows."""
        with self._lock:
            state = self._state
            now = self._monotonic()
            fresh = [name for name in nexthops if not _is_recent(state, name, now)]
            if not fresh or state.stuck is not None or now < state.broken_until:
                return
            mute = self._does_not_answer(state, now)
            if not mute:
                self._hand_over(state, tuple(dict.fromkeys(fresh))[: _allowed(state, now)], now)
        if mute:
            self._trip(state, _MUTE)

    def prepare(self) -> None:
        """Load and connect what the first ring needs, waiting for ``publish_timeout`` at most; never raises."""
        job = _Job(())
        with self._lock:
            state = self._state
            self._ensure_thread(state)
            state.jobs.put(job)
        self._wait(state, job, self._settings.publish_timeout)

    def finish(self) -> None:
        """Wait until what was told is published, for ``publish_timeout`` at most."""
        told = self._state.told
        if told is not None:
            told.done.wait(self._settings.publish_timeout.total_seconds())

    def close(self) -> None:
        """End the publishing thread; a later ring starts another."""
        with self._lock:
            state, self._state = self._state, _State()
            thread = state.thread
            state.jobs.put(None)
        if thread is not None:
            thread.join(self._settings.publish_timeout.total_seconds())

    def _start_over(self) -> None:
        """Forget everything, the lock included: in a forked child, its holder may not exist."""
        self._lock = threading.Lock()
        self._state = _State()

    def _hand_over(self, state: _State, nexthops: tuple[str, ...], now: float) -> None:
        if nexthops:
            state.allowed -= len(nexthops)
            state.told, state.told_at = _Job(nexthops), now
            _note(state, nexthops, now)
            self._ensure_thread(state)
            state.jobs.put(state.told)

    def _does_not_answer(self, state: _State, now: float) -> bool:
        """Tell whether what was handed over last has taken too long; then nothing more is, until it is done."""
        told = state.told
        if told is None or told.done.is_set() or now - state.told_at < self._settings.publish_timeout.total_seconds():
            return False
        told.abandoned = True
        state.stuck = told
        return True

    def _wait(self, state: _State, job: _Job, patience: timedelta) -> None:
        answered = job.done.wait(patience.total_seconds())
        with self._lock:
            if not answered and not job.done.is_set():
                job.abandoned = True
                state.stuck = job
            for name in frozenset(job.nexthops) - job.rung:
                state.rung_at.pop(name, None)
        if not answered:
            self._trip(state, _MUTE)

    def _trip(self, state: _State, reason: str) -> None:
        with self._lock:
            now = self._monotonic()
            first = now >= state.broken_until
            state.broken_until = now + BREAKER_SECONDS
        if first:
            log.warning("The broker cannot be rung (%s); mail is safe and will be rung for again", reason)

    def _ensure_thread(self, state: _State) -> None:
        if state.thread is not None and state.thread.is_alive():
            return
        # A daemon: a mute broker must not keep the process from ending.
        state.thread = threading.Thread(target=self._run, args=(state,), name="mailq-ring", daemon=True)
        state.thread.start()

    def _run(self, state: _State) -> None:
        publisher = Publisher(self._app or make_celery(self._settings), monotonic=self._monotonic)
        while (job := state.jobs.get()) is not None:
            try:
                _publish_all(job, publisher)
            except Exception as error:  # noqa: BLE001 - transports raise types of their own; a lost ring is harmless
                self._trip(state, f"{type(error).__name__}: {error}")
            finally:
                with self._lock:
                    job.done.set()
                    # Nor does what nobody waited for count as rung.
                    for name in frozenset(job.nexthops) - job.rung:
                        state.rung_at.pop(name, None)
                    if state.stuck is job:
                        state.stuck = None
        publisher.disconnect()


_ringers: "weakref.WeakSet[Ringer]" = weakref.WeakSet()


def _after_fork() -> None:
    for ringer in list(_ringers):
        ringer._start_over()  # noqa: SLF001 - of this module


def _at_exit() -> None:
    for ringer in list(_ringers):
        ringer.finish()


os.register_at_fork(after_in_child=_after_fork)
# The threads are daemons, and are still running then.
atexit.register(_at_exit)


def _is_recent(state: _State, nexthop: str, now: float) -> bool:
    return now - state.rung_at.get(nexthop, float("-inf")) < COALESCE_SECONDS


def _allowed(state: _State, now: float) -> int:
    """Return how many nexthops may be rung for new mail now."""
    state.allowed = min(state.allowed + (now - state.allowed_at) * TOLD_PER_SECOND, float(TOLD_AT_ONCE))
    state.allowed_at = now
    return int(state.allowed)


def _note(state: _State, nexthops: Iterable[str], now: float) -> None:
    if len(state.rung_at) > _MOST_REMEMBERED:
        state.rung_at = {name: at for name, at in state.rung_at.items() if now - at < COALESCE_SECONDS}
    state.rung_at.update(dict.fromkeys(nexthops, now))


def _publish_all(job: _Job, publisher: Publisher) -> None:
    publisher.connect()
    for nexthop in job.nexthops:
        if job.abandoned:
            return
        if publisher.publish(nexthop, urgent=job.urgent):
            job.rung.add(nexthop)
