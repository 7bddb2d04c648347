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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mailq.delivery.deliver import OnSettled, deliver
from mailq.delivery.ports import Ports
from mailq.delivery.session_cache import SessionCache
from mailq.envelope import DeliveryRequest
from mailq.errors import InfrastructureError
from mailq.limits.slots import Slots
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings import Settings
from mailq.status import DeliveryReport
from mailq.worker.heartbeat import Heartbeat
from mailq.worker.trouble import OnTrouble, tell_nobody

log = logging.getLogger(__name__)


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


@dataclass(slots=True, kw_only=True)
class Runtime:
    """Everything that tasks of one process share; safe to use from many threads.

    Attributes:
        settings: In force for this process.
        owner: Names the process in leases: host, process id, something random.
        store: The queue.
        slots: Where sessions are counted, over all workers.
        ports: The world, for the routine.
        sessions: Kept sessions.
        ringer: Publishes rings.
        heartbeat: Renews what tasks hold.
        routine: The delivery routine.
        on_trouble: Gets what the routine reports of troubled sessions.
        monotonic: Seconds that never go backwards.
        stopping: Set once: take nothing new, finish, hand back.
    """

    settings: Settings
    owner: str
    store: Store
    slots: Slots
    ports: Ports
    sessions: SessionCache
    ringer: Ringer
    heartbeat: Heartbeat
    routine: Routine = deliver
    on_trouble: OnTrouble = tell_nobody
    monotonic: Callable[[], float] = time.monotonic
    stopping: threading.Event = field(default_factory=threading.Event)
    _tasks: int = 0
    _quiet: threading.Condition = field(default_factory=threading.Condition)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Count a running task for the time of a ``with`` block."""
        with self._quiet:
            self._tasks += 1
        try:
            yield
        finally:
            with self._quiet:
                self._tasks -= 1
                self._quiet.notify_all()

    def has_room(self, nexthop: str) -> bool:
        """Tell whether *nexthop* has a free slot; False while nobody can count."""
        limit = self.settings.destination_concurrency_limit
        if not limit:
            return True
        try:
            return self.slots.held(nexthop) < limit
        except InfrastructureError:
            return False

    def settle(self, nexthop: str) -> None:
        """Have the dispatcher ring *nexthop* when its next recipient is due; an unreachable database is not waited for.

        The dispatcher rings after ``ring_timeout`` where this failed.
        """
        try:
            self.store.settle(nexthop)
        except InfrastructureError as error:
            log.warning("The next ring of %s could not be set: %s", nexthop, error)

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
        self.heartbeat.stop()
        self.sessions.close()
        self.ringer.close()
        self.slots.close()
        self.store.close()
