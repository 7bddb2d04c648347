"""Keeping what running tasks hold: their leases in SQL and their tickets.

One thread a process renews for all tasks, three times a lease time. A task
that finishes no message for ``stall_time`` is renewed no longer: somebody else
takes its mail up. Whoever lost a lease learns it before the next transaction
and before the final dot, also when this thread itself hangs or the whole
process was stopped: a lease counts as lost once it could not be renewed for a
lease time.

Source: celery.md §2.3, §6 pitfalls 8 and 15.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Final, Protocol

from mailq.errors import InfrastructureError, LeaseLostError
from mailq.worker.tickets import Ticket

log = logging.getLogger(__name__)
_SHARES: Final = 3
_TICK_SECONDS: Final = 1.0
# A message of a slow server takes a second or two, and longer where the process is late.
_MOVING_SECONDS: Final = 5.0


class Leases(Protocol):
    """Where leases are renewed."""

    def renew(self, leases: Collection[int], *, lease_time: timedelta) -> set[int]:
        """Renew *leases*; return those still ours."""


class Tickets(Protocol):
    """Where tickets are kept valid."""

    def renew(self, *, stalled: Collection[Ticket]) -> None:
        """Renew all of this process but those *stalled*."""


class Watch:
    """What one running task holds.

    Attributes:
        name: Of the nexthop, for people.
        unrecorded: An outcome could not be written: whether its message was sent is known to nobody else.
        ended: The lease ended with the record of its last outcome.

    Args:
        name: Of the nexthop.
        ticket: The task's.
        lease_seconds: How long a lease lives without being renewed.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, name: str, ticket: Ticket, *, lease_seconds: float, monotonic: Callable[[], float]) -> None:
        self.name = name
        self.ticket = ticket
        self.lease_id: int | None = None
        self.stall_told = False
        self.unrecorded = False
        self.ended = False
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._renewed_at = 0.0
        self._taken_away = False
        self.progress_at = monotonic()

    @property
    def lost(self) -> bool:
        """Whether the lease may be somebody else's by now: write nothing more, send nothing more."""
        return self._taken_away or self._monotonic() - self._renewed_at >= self._lease_seconds

    def fence(self) -> None:
        """Do nothing while the lease is ours.

        Raises:
            LeaseLostError: It may be somebody else's.
        """
        if self.lost:
            raise LeaseLostError(f"lease {self.lease_id} may be somebody else's by now; nothing more is sent under it")

    def begin(self, lease_id: int, *, asked_at: float) -> None:
        """Watch over a lease that was asked for at *asked_at*, by the monotonic clock."""
        self._taken_away = False
        self.unrecorded = False
        self.ended = False
        self._renewed_at = asked_at
        self.lease_id = lease_id
        self.progress()

    def end(self) -> None:
        """Stop watching over the lease."""
        self.lease_id = None

    def progress(self) -> None:
        """Note that the task is getting on."""
        self.progress_at = self._monotonic()
        self.stall_told = False

    def renewed(self, lease_id: int, *, asked_at: float) -> None:
        """Note that the lease was renewed by a request made at *asked_at*."""
        if self.lease_id == lease_id:
            self._renewed_at = asked_at

    def taken_away(self, lease_id: int) -> None:
        """Note that the lease is no longer ours."""
        if self.lease_id == lease_id:
            self._taken_away = True


class Heartbeat:
    """Renews for all tasks of this process.

    Args:
        leases: The store.
        tickets: Where tickets are kept valid.
        lease_time: Life of leases and tickets.
        stall_time: A task without progress for this long is given up.
        on_tick: Called every second or so, for whatever else a process keeps tidy.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        *,
        leases: Leases,
        tickets: Tickets,
        lease_time: timedelta,
        stall_time: timedelta,
        on_tick: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._tickets = tickets
        self._lease_time = lease_time
        self._stall_seconds = stall_time.total_seconds()
        self._on_tick = on_tick
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._down = False

    @contextlib.contextmanager
    def watch(self, name: str, ticket: Ticket) -> Iterator[Watch]:
        """Keep the leases begun in a ``with`` block while its task gets on; where it does not, its ticket runs out."""
        watch = Watch(name, ticket, lease_seconds=self._lease_time.total_seconds(), monotonic=self._monotonic)
        with self._lock:
            self._watches.add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches.discard(watch)

    def moving(self) -> frozenset[str]:
        """Return the nexthops for which a task that takes any mail has got on within the last moments."""
        since = self._monotonic() - _MOVING_SECONDS
        with self._lock:
            return frozenset(
                watch.name for watch in self._watches if watch.progress_at >= since and not watch.ticket.urgent
            )

    def beat(self) -> None:
        """Renew everything once."""
        now = self._monotonic()
        with self._lock:
            stalled = {watch for watch in self._watches if self._is_stalled(watch, now)}
            watches = list(self._watches - stalled)
        try:
            self._renew_leases(watches, asked_at=now)
            self._tickets.renew(stalled={watch.ticket for watch in stalled})
        except InfrastructureError as error:
            if not self._down:
                log.warning(
                    "Leases cannot be renewed: %s; trying on",
                    error,
                    extra={"event": "leases_wait", "reason": str(error)},
                )
            self._down = True
        else:
            self._down = False

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mailq-heartbeat", daemon=True)
                self._thread.start()

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """End the thread; a last renewal under way may outlive *timeout_seconds*."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        pause = self._lease_time.total_seconds() / _SHARES
        next_beat = self._monotonic() + pause
        while not self._stop.wait(min(_TICK_SECONDS, pause)):
            try:
                self._on_tick()
                if self._monotonic() >= next_beat:
                    next_beat = self._monotonic() + pause
                    self.beat()
            except Exception:
                # Without this thread every lease of the process would run out: it outlives any bug.
                log.exception("The heartbeat stumbled; it goes on")

    def _is_stalled(self, watch: Watch, now: float) -> bool:
        if now - watch.progress_at < self._stall_seconds:
            return False
        if not watch.stall_told:
            fields = {"event": "task_stalled", "nexthop": watch.name}
            log.error(
                "A task of %s finished no message for too long; its mail is given to others", watch.name, extra=fields
            )
            watch.stall_told = True
        return True

    def _renew_leases(self, watches: list[Watch], *, asked_at: float) -> None:
        wanted = {watch.lease_id: watch for watch in watches if watch.lease_id is not None}
        if not wanted:
            return
        ours = self._leases.renew(wanted.keys(), lease_time=self._lease_time)
        for lease_id, watch in wanted.items():
            if lease_id in ours:
                watch.renewed(lease_id, asked_at=asked_at)
            else:
                watch.taken_away(lease_id)
