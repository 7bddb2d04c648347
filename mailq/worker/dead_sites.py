"""What a task does about a nexthop that has died, or lives again.

The decision is :mod:`mailq.worker.evidence`, the memory :mod:`mailq.queue.sites`.

Source: smtp-delivery Q-13, Q-35 to Q-37, Q-53, Q-54
"""

import logging
from dataclasses import replace

from mailq.envelope import DeliveryRequest
from mailq.queue.backoff import wait_after
from mailq.queue.messages import Lease
from mailq.queue.rollcall import RollCall
from mailq.queue.schedules import Labels, Schedules
from mailq.queue.sites import SUSPENDED
from mailq.status import Failure
from mailq.worker.heartbeat import Watch
from mailq.worker.record import Recorder
from mailq.worker.runtime import Runtime

log = logging.getLogger(__name__)


def note_death(lease: Lease, failure: Failure, request: DeliveryRequest, runtime: Runtime) -> None:
    """Note that the nexthop of *lease* is dead, as the delivery of *request* has shown.

    It is probed at the intervals of its own schedule, and no later than the message's schedule would try again.

    Raises:
        DatabaseUnavailableError: The database is down; the next message finds out again.
    """
    schedules, now = Schedules.of(runtime.settings), runtime.ports.clock.now()
    site = schedules.schedule_for(sender="anybody", nexthop=lease.nexthop, labels=Labels())
    labels = lease.labels.get(request.queue_id, Labels())
    own = schedules.schedule_for(sender=request.sender, nexthop=lease.nexthop, labels=labels)
    attempts = min((lease.attempts.get(one.id, 1) for one in request.recipients), default=1)
    own_wait = wait_after(now - request.arrived_at, own, jitter=0, attempts=attempts)
    runtime.desk.proven.note_unwell(lease.nexthop)
    probe_at = runtime.store.note_dead(
        lease.nexthop,
        failure,
        least=min(site.steps[0] if site.steps else site.minimal, own_wait),
        most=min(site.longest, own_wait),
        jitter=runtime.ports.rng.random() * site.jitter,
    )
    log.warning(
        "%s is dead: %s; one recipient is tried again at %s", lease.nexthop, failure.reason, probe_at.isoformat()
    )


def note_life(nexthop: str, runtime: Runtime) -> bool:
    """Note that *nexthop* was spoken to; True when it had been dead, so that what waits is due now.

    Raises:
        DatabaseUnavailableError: The database is down.
    """
    # Asked before told: reading is cheap, and nearly always it is not dead.
    if not runtime.is_dead(nexthop) or not runtime.store.note_alive(nexthop):
        return False
    log.info("%s is back", nexthop)
    return True


def call_the_roll(nexthop: str, failure: Failure, runtime: Runtime, watch: Watch) -> None:
    """Expire those who wait for a dead *nexthop* and whose time is over, and have senders of late mail told.

    Raises:
        LeaseLostError: Somebody else took a recipient; the rest is seen to after the next probe.
        DatabaseUnavailableError: The database is down; likewise.
    """
    told = replace(failure, reason=SUSPENDED + failure.reason, endpoint=None, reply=None, facts=None)
    rules = RollCall(told, Schedules.of(runtime.settings))
    settings, store = runtime.settings, runtime.store
    asked_at = runtime.monotonic()
    for lease in store.roll_call(nexthop, rules, owner=runtime.owner, lease_time=settings.lease_time):
        watch.begin(lease.id, asked_at=asked_at)
        try:
            recorder = Recorder(
                lease,
                store=store,
                ports=runtime.ports,
                settings=settings,
                on_recorded=runtime.metrics.recorded,
                monotonic=runtime.monotonic,
            )
            for request in lease.requests:
                recorder.record_waiting(request, told)
                watch.progress()
        finally:
            watch.end()
            store.release(lease.id)
        if runtime.stopping.is_set():
            return
        asked_at = runtime.monotonic()
