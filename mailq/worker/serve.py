"""The body of a task: serve one nexthop until it is drained, or the task's time is up.

A ticket first; a full destination ends the task at once, because those who hold
its sessions will take the mail; where urgent mail is due, one of those kept free
for it is taken, and nothing else is sent there. Then batch after batch, each
short in time so that what is more urgent goes next: whoever has a full one that
went well rings, and now and then in the middle of a long one while more is due;
so a busy nexthop gets more tasks, up to its limit. When no server can be spoken to, the rest is left for later, see
:mod:`mailq.queue.sites`. A task that is done goes on with the nexthop that
waits longest for what it shares with it, on the same session where it can.

Invariant: the ticket is given back before the next ring is set, so whoever was
refused meanwhile is made up for: what is due then is seen by that.

Source: celery.md §2.2, §2.8.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from mailq.errors import InfrastructureError, LeaseLostError, NoRoomError, SchemaError
from mailq.limits.gates import Bar, Refused
from mailq.queue.messages import LAST_PRIORITY, Lease, Wish
from mailq.worker.ahead import Ahead
from mailq.worker.batch import deliver_batch
from mailq.worker.batch_course import Batch
from mailq.worker.claims import Claimed
from mailq.worker.dead_sites import call_the_roll, note_death, note_life
from mailq.worker.heartbeat import Watch
from mailq.worker.lanes import BatchSize
from mailq.worker.proven import SLOW_SECONDS
from mailq.worker.runtime import Runtime
from mailq.worker.tickets import Ticket

log = logging.getLogger(__name__)
_RING_AGAIN_SECONDS: Final = 1.0
# Asking whether there is room is a question to Redis; a batch may take no longer than a few of them.
_ASK_AGAIN_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 8.0
# A nexthop with a single message is not worth a thread that waits for more, unless threads are idle anyway.
_LINGER_AFTER_MESSAGES: Final = 2
# What was due when a batch began says nothing of now.
_LONG_AGO_SECONDS: Final = 1.0
# Where every thread has a task, bulk mail would keep urgent mail of others waiting for as long as tasks last.
_CROWDED_TASK_SECONDS: Final = 5.0
_NO_TIME: Final = timedelta(0)
_SHARED_LINGER: Final = timedelta(seconds=0.2)
_TURNS: Final = 10
"""A task serves nexthops that wait for what it holds for so many times ``task_time``, each for one at most."""


def serve_nexthop(nexthop: str, runtime: Runtime) -> int:
    """Deliver what is due to *nexthop*; return how many messages were tried.

    Never raises for mail, nor for a database or broker that is down: what could not be done is rung for again.
    """
    # Whoever waits for this nexthop's mail on an open session does what another task would have to begin with.
    if runtime.claims.nudge(nexthop):
        return 0
    with runtime.serving(nexthop):
        if runtime.stopping.is_set():
            # This ring was taken from a worker that would have answered it.
            runtime.settle(nexthop)
            return 0
        if runtime.has_enough_for(nexthop) or runtime.has_better_use_than(nexthop):
            return 0
        try:
            ticket, last_priority = _enter(nexthop, runtime)
        except (InfrastructureError, SchemaError) as error:
            log.warning("%s is not served now: %s", nexthop, error)
            return 0
        if isinstance(ticket, Refused):
            runtime.turn_away(nexthop, ticket.key, ticket.wait_seconds)
            return 0
        size = BatchSize(runtime.settings.lease_recipients)
        with runtime.heartbeat.watch(nexthop, ticket) as watch:
            service = _Service(runtime, watch, size, ends_at=_end_of_task(runtime))
            service.last_priority = last_priority
            more = False
            try:
                more = service.run()
            finally:
                ticket.end(drained=not more and service.shut is None)
        runtime.settle(ticket.nexthop, well=service.proved)
        if service.shut is not None:
            runtime.turn_away(ticket.nexthop, service.shut.key, service.shut.wait_seconds)
        if more and not service.is_spare:
            runtime.ringer.ring(ticket.nexthop, again=True)
        return service.total


def _enter(nexthop: str, runtime: Runtime) -> tuple[Ticket | Refused, int]:
    """Return a ticket, or why there is none, and the least urgent mail that may use it."""
    settings = runtime.settings
    answer = runtime.desk.enter(nexthop)
    urgent = settings.urgent_priority
    if isinstance(answer, Ticket) or answer.bar is not Bar.FULL or urgent < 0:
        return answer, LAST_PRIORITY
    if not runtime.is_due(nexthop, last_priority=urgent):
        return answer, urgent
    return runtime.desk.enter(nexthop, urgent=True), urgent


def _end_of_task(runtime: Runtime) -> float:
    return runtime.monotonic() + runtime.settings.task_time.total_seconds()


@dataclass(slots=True)
class _Service:
    """One task's run through the batches of one nexthop, and then of others that wait for what it shares with them.

    Attributes:
        messages: Tried for the present nexthop.
        total: Tried for all.
        proved: The present nexthop did well; False: it is slow; None: neither was seen.
        shut: Why it had to end before all was done; None: it had not.
        ends_at: The present nexthop's time is over, by the monotonic clock.
        last_at: The task's is, likewise.
        began_at: When the task began, likewise.
        is_called_off: It ends when its time is up.
        had_others: Others here served the nexthop, too, when that was looked at last.
        ahead: How far it may run ahead of the record.
    """

    runtime: Runtime
    watch: Watch
    size: BatchSize
    ends_at: float
    last_priority: int = LAST_PRIORITY
    messages: int = 0
    total: int = 0
    shut: NoRoomError | None = None
    well: bool = False
    proved: bool | None = None
    rung_at: float = float("-inf")
    asked_at: float = float("-inf")
    helps_at: float = float("-inf")
    pause: float = _ASK_AGAIN_SECONDS
    last_at: float = 0.0
    began_at: float = 0.0
    is_called_off: bool = False
    had_others: bool = False
    ahead: Ahead = field(init=False)

    def __post_init__(self) -> None:
        self.began_at = self.runtime.monotonic()
        self.ahead = Ahead(self.runtime.settings.unrecorded_limit if self.runtime.committer is not None else 1)
        self.last_at = self.ends_at + (_TURNS - 1) * self.runtime.settings.task_time.total_seconds()

    @property
    def nexthop(self) -> str:
        """Whom it serves."""
        return self.watch.ticket.nexthop

    @property
    def is_spare(self) -> bool:
        """Whether it made room for others, and those who go on with its nexthop take what it left."""
        runtime = self.runtime
        return self.is_called_off and runtime.others_with(self.nexthop) > 0 and not runtime.stopping.is_set()

    def run(self) -> bool:
        """Work until drained, out of time or told to stop; return whether work may be left."""
        try:
            return self._run()
        except LeaseLostError:
            fields = {"event": "lease_lost", "nexthop": self.nexthop}
            log.warning("The lease on %s was lost; others have its mail", self.nexthop, extra=fields)
            return True
        except (InfrastructureError, SchemaError) as error:
            # No ring: it would find the same. The dispatcher rings when the database is back.
            log.warning("%s is not served any further: %s", self.nexthop, error)
            return False

    def _run(self) -> bool:
        hopeful = True
        while not self.runtime.stopping.is_set():
            if self._gives_way() or (self._is_time_up() and not (self._goes_on_elsewhere() or self._stays_on())):
                self._make_room()
                return True
            lease = self._claim() if hopeful else self._wait_for_more()
            if lease is not None:
                left = self._work(lease)
                if self.shut is not None:
                    return False
                # What is not full is all there was a moment ago, and the next mail comes when it comes.
                hopeful = left or self._goes_on_elsewhere()
            elif self._is_back() or (hopeful and self._goes_on_elsewhere()):
                hopeful = True
            elif hopeful and self._may_wait():
                hopeful = False
            else:
                return False
        return True

    def _may_wait(self) -> bool:
        """Whether a thread can be spared that waits for more mail."""
        return self.messages >= (1 if self.runtime.roomy else _LINGER_AFTER_MESSAGES)

    def _gives_way(self) -> bool:
        """Whether this thread is wanted: all are taken, and urgent mail that is rung for goes before our next ring."""
        return self.total > 0 and self._is_in_the_way()

    def _is_in_the_way(self) -> bool:
        runtime = self.runtime
        if not runtime.crowded:
            return False
        has_worked = runtime.monotonic() - self.began_at >= _CROWDED_TASK_SECONDS
        return (has_worked or runtime.others_with(self.nexthop) > 0) and self._is_wanted_elsewhere()

    def _leaves_its_batch(self) -> bool:
        """Whether what is leased is better left to others: in the middle of it, where they serve the nexthop now."""
        if self._is_time_up():
            return self._has_to_end()
        return self.runtime.others_with(self.nexthop) > 0 and self._is_in_the_way()

    def _is_time_up(self) -> bool:
        return self.runtime.monotonic() >= self.ends_at

    def _stays_on(self) -> bool:
        """Take as much time again, where nobody gains by this task's end."""
        if self._has_to_end():
            return False
        self.ends_at = _end_of_task(self.runtime)
        self.last_at = max(self.last_at, self.ends_at)
        return True

    def _has_to_end(self) -> bool:
        """Whether somebody may wait for what this task holds, or for its thread, when its time is up."""
        return bool(self.watch.ticket.shared_keys) or self._is_wanted_elsewhere()

    def _is_wanted_elsewhere(self) -> bool:
        others = self.runtime.others_with(self.nexthop)
        # Who was told once is counted on, unless nobody is left that would go on with its nexthop.
        self.is_called_off &= others > 0 or not self.had_others
        self.had_others = others > 0
        self.is_called_off = self.is_called_off or self.runtime.is_wanted(others)
        return self.is_called_off

    def _goes_on_elsewhere(self) -> bool:
        """Turn to the nexthop that waits longest for what this task holds; False: none does, or it may not."""
        runtime, ticket = self.runtime, self.watch.ticket
        # A ticket for urgent mail is no other nexthop's; and a thread is not kept from all other mail for ever.
        if self.last_priority != LAST_PRIORITY or runtime.monotonic() >= self.last_at:
            return False
        nexthop = self._next_in_line()
        if nexthop is None:
            return False
        before = ticket.nexthop
        refused = runtime.desk.move(ticket, nexthop)
        if refused is not None:
            runtime.turn_away(nexthop, refused.key, refused.wait_seconds)
            return False
        runtime.settle(before, well=self.proved)
        self.watch.name = nexthop
        self.ends_at = min(_end_of_task(runtime), self.last_at)
        self.size, self.messages = BatchSize(runtime.settings.lease_recipients), 0
        self.well, self.proved = False, None
        self._call_another()
        return True

    def _call_another(self) -> None:
        """Ring for one more who waits for what this task shares, where there is room: a lost worker's, for example."""
        now, runtime = self.runtime.monotonic(), self.runtime
        if now - self.rung_at < _RING_AGAIN_SECONDS:
            return
        self.rung_at = now
        keys = self.watch.ticket.shared_keys
        waiting = next((one.nexthop for one in runtime.store.parked(most=1) if one.key in keys), None)
        if waiting is not None and runtime.desk.has_room(waiting):
            for nexthop in runtime.store.call([waiting], ring_timeout=runtime.settings.ring_timeout):
                runtime.ringer.ring(nexthop, again=True)

    def _make_room(self) -> None:
        """Let somebody who waits for what this task holds have it: the task's time is over."""
        nexthop = self._next_in_line()
        if nexthop is not None:
            # The idle session would keep what is wanted.
            self.watch.ticket.part()
            self.runtime.ringer.ring(nexthop, again=True)

    def _next_in_line(self) -> str | None:
        keys = self.watch.ticket.shared_keys
        return self.runtime.store.call_first(keys, ring_timeout=self.runtime.settings.ring_timeout) if keys else None

    def _claim(self) -> Lease | None:
        return self._begin(self.runtime.claims.claim(self._wish()))

    def _wait_for_more(self) -> Lease | None:
        runtime = self.runtime
        patience = runtime.settings.linger_time if self._may_wait() else _NO_TIME
        if self.watch.ticket.shared_keys:
            # Others may wait for what this task holds.
            patience = min(patience, _SHARED_LINGER)
        return self._begin(runtime.claims.wait_for(self._wish(), patience=patience, give_up=self._is_wanted))

    def _is_wanted(self) -> bool:
        """Whether this thread is, elsewhere or nowhere."""
        return self.runtime.stopping.is_set() or self.runtime.crowded

    def _wish(self) -> Wish:
        # Where some mail goes alone, only the session knows which: it names what it is about to send.
        named = self.ahead.now if self.runtime.certainty.is_the_same_for_all else 1
        return Wish(nexthop=self.nexthop, limit=self.size.now, last_priority=self.last_priority, named=named)

    def _begin(self, claimed: Claimed | None) -> Lease | None:
        self.runtime.metrics.claimed(0 if claimed is None else len(claimed.lease.attempts))
        if claimed is None:
            return None
        self.watch.begin(claimed.lease.id, asked_at=claimed.asked_at)
        return claimed.lease

    def _work(self, lease: Lease) -> bool:
        """Deliver what is leased; return whether there may be more, as far as one can tell from it."""
        batch, began_at = Batch(), self.runtime.monotonic()
        try:
            # In here, since asking whether it is proven may find the database gone, and the lease is to be handed back.
            if lease.full and (self.well or self.runtime.desk.proven.holds_for(self.nexthop)):
                self._call_help()
            batch = self._deliver(lease)
            # Before the lease ends: what is handed back to a dead nexthop is not rung for.
            if batch.death is not None and batch.last is not None:
                note_death(lease, batch.death, batch.last, self.runtime)
        finally:
            self.watch.end()
            if not self.watch.ended:
                self._hand_back(lease, unrecorded=self.watch.unrecorded)
        self.shut = batch.shut
        if batch.death is not None:
            call_the_roll(self.nexthop, batch.death, self.runtime, self.watch)
        elif lease.probe and batch.well:
            note_life(self.nexthop, self.runtime)
        elif lease.full and batch.well:
            self._call_help()
        if lease.full or lease.probe or batch.recipients < len(lease.attempts):
            return True
        return self.runtime.monotonic() - began_at >= _LONG_AGO_SECONDS

    def _deliver(self, lease: Lease) -> Batch:
        began_at = self.runtime.monotonic()
        ends_at = began_at + self.runtime.settings.batch_time.total_seconds()
        batch = deliver_batch(
            lease,
            self.runtime,
            self.watch,
            more=self.total > 0,
            ends_at=ends_at,
            is_wanted=self._leaves_its_batch,
            ahead=self.ahead,
            on_well=_do_nothing if lease.probe else self._help_along,
            on_shared=self._share_out,
        )
        seconds = self.runtime.monotonic() - began_at
        self.messages += batch.messages
        self.total += batch.messages
        self.well = batch.well
        if batch.well:
            self._prove(lease, seconds <= SLOW_SECONDS * batch.messages)
        if not lease.probe and batch.shut is None:
            self.size.note(batch.recipients, of=len(lease.attempts), seconds=seconds)
        return batch

    def _prove(self, lease: Lease, quick: bool) -> None:  # noqa: FBT001 - read where it is measured
        """Note whether the nexthop did well; one with more mail makes room among those that did not yet."""
        proven = self.runtime.desk.proven
        if quick is not self.proved:
            self.proved = quick
            (proven.note_well if quick else proven.note_unwell)(self.nexthop)
        if quick and lease.full:
            self.watch.ticket.prove()

    def _is_back(self) -> bool:
        """Whether there is mail after all: somebody found the nexthop dead that this task has just found well."""
        well, self.well = self.well, False
        return well and note_life(self.nexthop, self.runtime)

    def _help_along(self) -> None:
        """Call for help in the middle of a batch that goes well, while more is due; in vain less and less often."""
        now, runtime = self.runtime.monotonic(), self.runtime
        # Where threads are scarce, nexthops that have none yet go first.
        if now < self.helps_at or not runtime.roomy or runtime.pulse.busy or runtime.pulse.late:
            return
        called = False
        with suppress(InfrastructureError):
            called = runtime.is_due(self.nexthop, last_priority=self.last_priority) and self._call_help()
        self.pause = _ASK_AGAIN_SECONDS if called else min(2 * self.pause, _LONGEST_PAUSE_SECONDS)
        self.helps_at = now + self.pause

    def _share_out(self) -> None:
        """Have others take what was given back: whoever waits on an open session, or one more."""
        if not self.runtime.claims.nudge(self.nexthop):
            self._call_help()

    def _call_help(self) -> bool:
        """Ring for one more session, unless there is no room, no use for it, or this task asked a moment ago."""
        now = self.runtime.monotonic()
        if now - self.asked_at < _ASK_AGAIN_SECONDS or self.runtime.has_enough_for(self.nexthop):
            return False
        self.asked_at = now
        if not (self.runtime.may_call() and self.runtime.desk.has_room(self.nexthop)):
            return False
        self.rung_at = now
        return self.runtime.ringer.ring(self.nexthop, again=True)

    def _hand_back(self, lease: Lease, *, unrecorded: bool) -> None:
        store = self.runtime.store
        try:
            if unrecorded:
                store.abandon(lease.id, self.runtime.certainty)
            else:
                store.release(lease.id)
        except InfrastructureError as error:
            log.warning("The lease on %s could not be handed back and will run out: %s", self.nexthop, error)


def _do_nothing() -> None:
    """Need no help."""
