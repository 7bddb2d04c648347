"""Ringing the doorbell: tell the workers that a nexthop has mail due.

A ring may be lost without harm, since the dispatcher rings again what nobody
answered. So ringing never raises and never holds its caller up for longer
than ``publish_timeout``: a thread of its own does the publishing, and callers
wait for it for that long at most. After a failure, rings are free for a few
seconds, and for as long as the thread still hangs in a broker that is mute.

A nexthop rung a moment ago by this process is not rung again, and nothing is
published while very many rings wait unanswered: they would only fill the
broker's memory while no worker runs.

Source: celery.md §2.5, §2.8, §2.12, §6 pitfalls 10 and 43.
"""

import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from kombu import Connection

from mailq.broker import DELIVER_QUEUE, DELIVER_TASK, ORDINARY_RING, RING_VERSION, URGENT_RING, make_celery
from mailq.settings import Settings

log = logging.getLogger(__name__)

COALESCE_SECONDS: Final = 0.5
BREAKER_SECONDS: Final = 5.0
MOST_UNANSWERED: Final = 2000
_DEPTH_CHECK_SECONDS: Final = 1.0
_MOST_REMEMBERED: Final = 10_000


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


class Publisher:
    """Publishes rings over one kept connection; for one thread.

    Args:
        app: Its configuration names the broker and the queues.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, app: Celery, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._connection: Connection | None = None
        self._producer: Any = None
        self._depth_checked_at = float("-inf")
        self._crowded = False

    def publish(self, nexthop: str, *, urgent: bool = False) -> bool:
        """Publish one ring; False when too many wait unanswered already. Raises what the transport raises."""
        try:
            return self._publish(nexthop, urgent=urgent)
        except Exception:
            # An idle connection may have been closed by the broker; that costs one retry, not a ring.
            fresh = self._connection is None
            self.disconnect()
            if fresh:
                raise
        try:
            return self._publish(nexthop, urgent=urgent)
        except Exception:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Forget the connection."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _publish(self, nexthop: str, *, urgent: bool) -> bool:
        producer = self._producer
        if producer is None:
            connection = self._app.connection_for_write()
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            producer = self._producer = self._app.amqp.Producer(connection, auto_declare=False)
            self._connection = connection
        if not urgent and self._is_crowded():
            return False
        self._app.send_task(
            DELIVER_TASK,
            kwargs={"nexthop": nexthop, "v": RING_VERSION},
            producer=producer,
            queue=DELIVER_QUEUE,
            priority=URGENT_RING if urgent else ORDINARY_RING,
            retry=False,
            ignore_result=True,
            argsrepr=nexthop,
            kwargsrepr="",
        )
        return True

    def _is_crowded(self) -> bool:
        now = self._monotonic()
        if now - self._depth_checked_at >= _DEPTH_CHECK_SECONDS:
            channel = self._producer.channel
            self._app.amqp.queues[DELIVER_QUEUE].bind(channel).declare()
            answer = channel.queue_declare(queue=DELIVER_QUEUE, durable=True, auto_delete=False)
            self._crowded = answer.message_count >= MOST_UNANSWERED
            self._depth_checked_at = now
        return self._crowded


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

    def _wait(self, state: _State, job: _Job, patience: timedelta) -> None:
        answered = job.done.wait(patience.total_seconds())
        with self._lock:
            if not answered and not job.done.is_set():
                job.abandoned = True
                state.stuck = job
            for name in frozenset(job.nexthops) - job.rung:
                state.rung_at.pop(name, None)
        if not answered:
            self._trip(state, "it did not answer in time")

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
        if self._app is None:
            self._app = make_celery(self._settings)
        publisher = Publisher(self._app, monotonic=self._monotonic)
        # A daemon: a mute broker must not keep the process from ending.
        state.thread = threading.Thread(target=self._run, args=(state, publisher), name="mailq-ring", daemon=True)
        state.thread.start()

    def _run(self, state: _State, publisher: Publisher) -> None:
        while (job := state.jobs.get()) is not None:
            try:
                _publish_all(job, publisher)
            except Exception as error:  # noqa: BLE001 - transports raise types of their own; a lost ring is harmless
                self._trip(state, f"{type(error).__name__}: {error}")
            finally:
                with self._lock:
                    job.done.set()
                    if state.stuck is job:
                        state.stuck = None
        publisher.disconnect()


_ringers: "weakref.WeakSet[Ringer]" = weakref.WeakSet()


def _after_fork() -> None:
    for ringer in list(_ringers):
        ringer._start_over()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)


def _is_recent(state: _State, nexthop: str, now: float) -> bool:
    return now - state.rung_at.get(nexthop, float("-inf")) < COALESCE_SECONDS


def _note(state: _State, nexthops: Iterable[str], now: float) -> None:
    if len(state.rung_at) > _MOST_REMEMBERED:
        state.rung_at = {name: at for name, at in state.rung_at.items() if now - at < COALESCE_SECONDS}
    state.rung_at.update(dict.fromkeys(nexthops, now))


def _publish_all(job: _Job, publisher: Publisher) -> None:
    for nexthop in job.nexthops:
        if job.abandoned:
            return
        if publisher.publish(nexthop, urgent=job.urgent):
            job.rung.add(nexthop)
