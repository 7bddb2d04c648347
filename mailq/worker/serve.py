"""The body of a task: serve one nexthop until it is drained, or the task's time is up.

A slot first; a full destination ends the task at once, because those who hold
its slots will take the mail. Then batch after batch: every full one rings
again, so a busy nexthop gets more tasks, one by one, up to its limit.

Invariant: the slot is given back before the next ring is set, so whoever was
refused meanwhile is made up for: what is due then is seen by that.

Source: celery.md §2.2, §2.8.
"""

import logging
from dataclasses import dataclass
from typing import Final

from mailq.errors import InfrastructureError, LeaseLostError, SchemaError
from mailq.queue.messages import Lease
from mailq.worker.batch import deliver_batch
from mailq.worker.heartbeat import Watch
from mailq.worker.runtime import Runtime

log = logging.getLogger(__name__)
_RING_AGAIN_SECONDS: Final = 1.0
# A nexthop with a single message is not worth a thread that waits for more.
_LINGER_AFTER_MESSAGES: Final = 2


def serve_nexthop(nexthop: str, runtime: Runtime) -> int:
    """Deliver what is due to *nexthop*; return how many messages were tried.

    Never raises for mail, nor for a database or broker that is down: what could not be done is rung for again.
    """
    with runtime.serving():
        if runtime.stopping.is_set():
            # This ring was taken from a worker that would have answered it.
            runtime.settle(nexthop)
            return 0
        try:
            token = _take_slot(nexthop, runtime)
        except InfrastructureError as error:
            log.warning("%s is not served now: %s", nexthop, error)
            return 0
        if token is None:
            return 0
        with runtime.heartbeat.watch(nexthop, token) as watch:
            service = _Service(nexthop, runtime, watch, ends_at=_end_of_task(runtime))
            more = service.run()
        runtime.settle(nexthop)
        if more:
            runtime.ringer.ring(nexthop, again=True)
        return service.messages


def _take_slot(nexthop: str, runtime: Runtime) -> str | None:
    settings = runtime.settings
    return runtime.slots.take(nexthop, limit=settings.destination_concurrency_limit, hold_for=settings.lease_time)


def _end_of_task(runtime: Runtime) -> float:
    return runtime.monotonic() + runtime.settings.task_time.total_seconds()


@dataclass(slots=True)
class _Service:
    """One task's run through the batches of one nexthop."""

    nexthop: str
    runtime: Runtime
    watch: Watch
    ends_at: float
    messages: int = 0
    rung_at: float = float("-inf")

    def run(self) -> bool:
        """Work until drained, out of time or told to stop; return whether work may be left."""
        lingered = False
        while not self.runtime.stopping.is_set() and self.runtime.monotonic() < self.ends_at:
            try:
                lease = self._claim()
                if lease is not None:
                    lingered = False
                    self._work(lease)
                    continue
            except LeaseLostError:
                log.warning("The lease on %s was lost; others have its mail", self.nexthop)
                return True
            except (InfrastructureError, SchemaError) as error:
                # No ring: it would find the same. The dispatcher rings when the database is back.
                log.warning("%s is not served any further: %s", self.nexthop, error)
                return False
            if lingered or self.messages < _LINGER_AFTER_MESSAGES:
                return False
            lingered = True
            self.runtime.stopping.wait(self.runtime.settings.linger_time.total_seconds())
        return True

    def _claim(self) -> Lease | None:
        settings = self.runtime.settings
        asked_at = self.runtime.monotonic()
        lease = self.runtime.store.claim(
            self.nexthop,
            owner=self.runtime.owner,
            limit=settings.lease_recipients,
            lease_time=settings.lease_time,
        )
        if lease is not None:
            self.watch.begin(lease.id, asked_at=asked_at)
        return lease

    def _work(self, lease: Lease) -> None:
        try:
            if lease.full:
                self._call_help()
            self.messages += deliver_batch(lease, self.runtime, self.watch, more=self.messages > 0)
        finally:
            self.watch.end()
            self._hand_back(lease)

    def _call_help(self) -> None:
        """Ring for one more session, unless there is no room or this task rang a moment ago."""
        now = self.runtime.monotonic()
        if now - self.rung_at >= _RING_AGAIN_SECONDS and self.runtime.has_room(self.nexthop):
            self.rung_at = now
            self.runtime.ringer.ring(self.nexthop, again=True)

    def _hand_back(self, lease: Lease) -> None:
        try:
            self.runtime.store.release(lease.id)
        except InfrastructureError as error:
            log.warning("The lease on %s could not be handed back and will run out: %s", self.nexthop, error)
