"""What one worker process works with, in one bundle, and how it stops.

Stopping is cooperative, since threads cannot be killed: tasks finish the
session they are in, hand back what they did not begin, and end. Everything
else goes on until they have: leases are renewed to the last.

Source: celery.md §2.2, §2.4.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from mailq.delivery.deliver import OnSettled, deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest
from mailq.errors import InfrastructureError
from mailq.limits.together import Together
from mailq.queue.certainty import CertaintyRules
from mailq.queue.overtaking import Rest
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings import Settings
from mailq.status import DeliveryReport
from mailq.worker.claims import Claims
from mailq.worker.committer import Committer
from mailq.worker.desk import LOOK_AGAIN, Desk
from mailq.worker.heartbeat import Heartbeat
from mailq.worker.listener import Listener, tell_no_application
from mailq.worker.metrics import Metrics
from mailq.worker.pulse import Pulse
from mailq.worker.suspended import never
from mailq.worker.tls_service import TlsService
from mailq.worker.trouble import OnTrouble, tell_nobody
from mailq.worker.turnstile import Turnstile
from mailq.worker.wanted import always

log = logging.getLogger(__name__)

BUSY_SESSIONS: Final = 2
"""So many sessions with one nexthop keep a busy interpreter busy, while one of them waits for its server."""
_MANY: Final = 10_000
_MOST_TOGETHER: Final = 500
# Their rows are locked at once, and the dispatcher wants to write to them.
_MOST_SETTLED: Final = 100


class Routine(Protocol):
    """The signature of :func:`mailq.delivery.deliver.deliver`."""

    def __call__(
        self,
        request: DeliveryRequest,
        *,
        ports: Ports,
        settings: Settings,
        sessions: SessionCache,
        on_settled: OnSettled,
    ) -> DeliveryReport:
        """Deliver one request."""


def tell_of_no_ring() -> None:
    """Tell nobody."""


@dataclass(slots=True, kw_only=True)
class Runtime:
    """Everything that tasks of one process share; safe to use from many threads.

    Attributes:
        settings: In force for this process.
        owner: Names the process in leases: host, process id, something random.
        store: The queue.
        desk: Lets tasks in, and counts their sessions over all workers.
        ports: The world, for the routine.
        sessions: Kept sessions.
        ringer: Publishes rings.
        heartbeat: Renews what tasks hold.
        claims: Claims for all tasks.
        security: Refreshes policies and reports on TLS; None: nobody does.
        certainty: What follows when nobody knows whether mail was sent, and when it makes us stumble.
        committer: Records for all tasks; None: each outcome is recorded by itself.
        pulse: Whether this process is slow itself.
        turnstile: How many sessions work at a time.
        routine: The delivery routine.
        on_trouble: Gets what the routine reports of troubled sessions.
        suspended: Whether somebody has stopped a nexthop; asked between messages.
        listener: The application's own; told what became of each recipient.
        metrics: Counts what becomes of recipients, and how sessions went.
        is_wanted: Whether a task whose time is up has to end, told how many others here serve its nexthop.
        may_call: Whether a ring for one more session may find a thread.
        on_ring: Told of each ring that this process answers.
        monotonic: Seconds that never go backwards.
        stopping: Set once: take nothing new, finish, hand back.
    """

    settings: Settings
    owner: str
    store: Store
    desk: Desk
    ports: Ports
    sessions: SessionCache
    ringer: Ringer
    heartbeat: Heartbeat
    claims: Claims
    security: TlsService | None = None
    certainty: CertaintyRules = field(default_factory=CertaintyRules)
    committer: Committer | None = None
    pulse: Pulse = field(default_factory=Pulse)
    turnstile: Turnstile = field(default_factory=lambda: Turnstile(_MANY))
    routine: Routine = deliver
    on_trouble: OnTrouble = tell_nobody
    suspended: Callable[[str], bool] = never
    listener: Listener = tell_no_application
    metrics: Metrics = field(default_factory=Metrics)
    is_wanted: Callable[[int], bool] = always
    may_call: Callable[[], bool] = always
    on_ring: Callable[[], None] = tell_of_no_ring
    monotonic: Callable[[], float] = time.monotonic
    stopping: threading.Event = field(default_factory=threading.Event)
    _tasks: int = 0
    _serving: Counter[str] = field(default_factory=Counter)
    _quiet: threading.Condition = field(default_factory=threading.Condition)
    _due: Together[tuple[str, int], bool] = field(init=False)
    _overtaken: Together[Rest, bool] = field(init=False)
    _dead: Together[str, bool] = field(init=False)
    _settled: Together[tuple[str, bool | None], None] = field(init=False)

    def __post_init__(self) -> None:
        # By one thread and connection: hundreds of sessions that each wait for one of a few keep each other waiting.
        self._due = Together(self._are_due, most=_MANY)
        self._overtaken = Together(self._are_overtaken, most=_MOST_TOGETHER)
        self._dead = Together(self._are_dead, most=_MOST_TOGETHER)
        self._settled = Together(self._settle_all, most=_MOST_SETTLED)

    @property
    def running(self) -> int:
        """How many tasks run."""
        return self._tasks

    @property
    def extras(self) -> int:
        """How many of them are not the only one of their nexthop."""
        return self._tasks - len(self._serving)

    def others_with(self, nexthop: str) -> int:
        """How many more serve *nexthop* than the task that asks: they take its mail if that ends."""
        return max(0, self._serving[nexthop] - 1)

    @property
    def crowded(self) -> bool:
        """Whether every thread has a task, so that whatever is rung for next has to wait for one to end."""
        return self._tasks >= self.settings.worker_concurrency

    @property
    def roomy(self) -> bool:
        """Whether no more than half of the threads have a task."""
        return self._tasks * 2 <= self.settings.worker_concurrency

    def takes(self, nexthops: Collection[str]) -> frozenset[str]:
        """Return those whose due mail a task of this process takes without being rung for; one that waits looks now."""
        moving = self.heartbeat.moving()
        return frozenset(one for one in nexthops if one in moving or self.claims.nudge(one))

    def has_enough_for(self, nexthop: str) -> bool:
        """Whether another session with *nexthop* would only be one more to take turns in a busy interpreter."""
        return (self.pulse.busy or self.pulse.late) and self._serving[nexthop] > BUSY_SESSIONS

    def has_better_use_than(self, nexthop: str) -> bool:
        """Whether a thread that one more session with *nexthop* has just taken is waited for by rings for others."""
        others = self.others_with(nexthop) if self.crowded else 0
        return others > 0 and self.is_wanted(others)

    def is_due(self, nexthop: str, *, last_priority: int) -> bool:
        """Tell whether mail to *nexthop* is due that is no less urgent than *last_priority*.

        Raises:
            InfrastructureError: The database is down.
        """
        return self._due((nexthop, last_priority))

    def is_overtaken(self, rest: Rest) -> bool:
        """Tell whether something is due that goes before *rest*, what is left of a batch.

        Raises:
            InfrastructureError: The database is down.
        """
        return self._overtaken(rest)

    def _are_overtaken(self, rests: Sequence[Rest]) -> Sequence[bool]:
        return self.store.overtaken(rests)

    def is_dead(self, nexthop: str) -> bool:
        """Tell whether *nexthop* is dead, as far as all workers know.

        Raises:
            InfrastructureError: The database is down.
        """
        return self._dead(nexthop)

    def _are_dead(self, nexthops: Sequence[str]) -> Sequence[bool]:
        dead = self.store.dead_among(frozenset(nexthops))
        return [one in dead for one in nexthops]

    @property
    def free(self) -> bool:
        """Whether another session would not only take turns with those there are."""
        return self.roomy and not (self.pulse.busy or self.pulse.late)

    def _are_due(self, asked: Sequence[tuple[str, int]]) -> Sequence[bool]:
        return [self.store.is_due(nexthop, last_priority=priority) for nexthop, priority in asked]

    @contextlib.contextmanager
    def serving(self, nexthop: str) -> Iterator[None]:
        """Count a running task that was rung for by *nexthop*, for the time of a ``with`` block."""
        with self._quiet:
            self._tasks += 1
            self._serving[nexthop] += 1
        try:
            yield
        finally:
            with self._quiet:
                self._tasks -= 1
                self._serving[nexthop] -= 1
                if not self._serving[nexthop]:
                    del self._serving[nexthop]
                self._quiet.notify_all()

    def turn_away(self, nexthop: str, key: str, wait_seconds: float | None) -> None:
        """Have *nexthop* wait for room under *key*, and be rung when there may be some.

        Args:
            nexthop: What is due there stays due.
            key: Of the gate that is shut.
            wait_seconds: Until it opens; None: nobody knows, and whoever ends a session there calls.
        """
        if wait_seconds is not None:
            self.settle(nexthop)
        try:
            if wait_seconds is None:
                self.store.park({nexthop: key}, look_again=LOOK_AGAIN)
            else:
                self.store.ring_not_before(nexthop, timedelta(seconds=wait_seconds))
        except InfrastructureError as error:
            log.warning("The next ring of %s could not be set: %s", nexthop, error)

    def settle(self, nexthop: str, *, well: bool | None = None) -> None:
        """Have the dispatcher ring *nexthop* when its next recipient is due; an unreachable database is not waited for.

        The dispatcher rings after ``ring_timeout`` where this failed.
        """
        try:
            self._settled((nexthop, well))
        except InfrastructureError as error:
            log.warning("The next ring of %s could not be set: %s", nexthop, error)

    def _settle_all(self, asked: Sequence[tuple[str, bool | None]]) -> Sequence[None]:
        self.store.settle_many(last_known(asked))
        return [None] * len(asked)

    def stop(self) -> None:
        """Ask every task to end soon; returns at once."""
        self.stopping.set()

    def drain(self, *, timeout_seconds: float | None = None) -> bool:
        """Wait until no task runs; False when some still do after *timeout_seconds*, None being no limit."""
        with self._quiet:
            return self._quiet.wait_for(lambda: self._tasks == 0, timeout_seconds)

    def close(self) -> None:
        """Close everything; no task runs any more."""
        self.stopping.set()
        if self.committer is not None:
            self.committer.close()
        self.pulse.stop()
        self.heartbeat.stop()
        self.sessions.close()
        if self.security is not None:
            self.security.close()
        self.ringer.close()
        self.desk.limits.close()
        self.store.close()


def last_known(told: Iterable[tuple[str, bool | None]]) -> dict[str, bool | None]:
    """Return for each nexthop whether it did well, as was told last; None where only that was told: nobody knows."""
    known: dict[str, bool | None] = {}
    for nexthop, well in told:
        known[nexthop] = known.get(nexthop) if well is None else well
    return known
