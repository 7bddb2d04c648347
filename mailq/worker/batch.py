"""One leased batch: what it is sent by, and what is left to do when it is over.

Source: smtp-delivery Q-15, R-20, B-42; postconf(5) smtp_connection_cache_on_demand, smtp_destination_recipient_limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from mailq.delivery.ports import MessageBodies
from mailq.envelope import CacheRule, DeliveryRequest
from mailq.queue.messages import Lease
from mailq.settings import Settings
from mailq.status import Failure
from mailq.worker.ahead import Ahead
from mailq.worker.batch_course import Batch, Course
from mailq.worker.batch_time import time_of
from mailq.worker.desk import is_own
from mailq.worker.heartbeat import Watch
from mailq.worker.parts import parts_of, transactions_of
from mailq.worker.read_ahead import ReadAhead
from mailq.worker.record import Recorder
from mailq.worker.runtime import Runtime
from mailq.worker.sharing import Sharing
from mailq.worker.tickets import Ticket


def deliver_batch(
    lease: Lease,
    runtime: Runtime,
    watch: Watch,
    *,
    more: bool,
    ends_at: float = float("inf"),
    is_wanted: Callable[[], bool] = lambda: False,
    ahead: Ahead | None = None,
    on_well: Callable[[], None] = lambda: None,
    on_shared: Callable[[], None] = lambda: None,
) -> Batch:
    """Deliver the messages of *lease* until done, dead, out of time or told to stop, or the lease may be lost.

    Args:
        lease: Watched over by *watch*.
        runtime: This process's.
        watch: Asked before every transaction.
        more: This task had a batch before, so sessions may be waiting to be reused.
        ends_at: By the monotonic clock; no message is begun after it but the first, unless nothing else is to be done.
        is_wanted: Whether the task has to end then.
        ahead: How far this task may run ahead of the record; None: not at all.
        on_well: Called after each message that leaves the nexthop looking well, while the rest will last for a while.
        on_shared: Called when some of the batch was given back for others to send.

    Raises:
        LeaseLostError: Somebody else owns a recipient of the lease.
        InfrastructureError: The database did not come back in time.
    """
    parts = tuple(
        transactions_of(lease, lambda tenant: runtime.desk.recipients_per_transaction(lease.nexthop, tenant=tenant))
    )
    work = tuple(parts_of(lease, parts, runtime.certainty))
    recorder = Recorder(
        lease,
        store=runtime.store,
        ports=runtime.ports,
        settings=runtime.settings,
        rules=runtime.certainty,
        on_recorded=runtime.metrics.recorded,
        listener=runtime.listener,
        monotonic=runtime.monotonic,
        parts=work,
        writer=runtime.committer,
        ahead=ahead,
    )
    rule = cache_rule(runtime.settings, lease.nexthop, busy=more or lease.full or len(parts) > 1)
    course = Course(
        lease,
        runtime,
        watch,
        recorder,
        parts=_as_tried(parts, rule, recorder),
        ports=replace(runtime.ports, fence=watch.fence, gate=watch.ticket, bodies=_bodies(lease, parts, runtime)),
        alone=tuple(part.alone for part in work),
        time=time_of(lease, len(parts), runtime, ends_at=ends_at, is_wanted=is_wanted),
        sharing=_sharing_of(lease, runtime),
        on_well=on_well,
        on_shared=on_shared,
    )
    try:
        came_at = runtime.monotonic()
        with runtime.turnstile.passed():
            course.put_off(runtime.monotonic() - came_at)
            course.run()
    finally:
        try:
            recorder.flush()
        finally:
            watch.unrecorded = recorder.unrecorded
            watch.ended = recorder.ended and not recorder.unrecorded
    batch = course.batch
    course.barred.postpone(lease, runtime.store)
    if batch.death is None:
        batch.death = _killed_by_feedback(watch.ticket, batch)
    return batch


def _sharing_of(lease: Lease, runtime: Runtime) -> Sharing:
    """Return when a batch gives some of itself away."""
    return Sharing(
        looked_at=runtime.monotonic(),
        monotonic=runtime.monotonic,
        is_waited_for=lambda: runtime.claims.is_waited_for(lease.nexthop),
        is_free=lambda: runtime.free,
        has_room=lambda: runtime.desk.has_room(lease.nexthop),
    )


def _as_tried(parts: Sequence[DeliveryRequest], rule: CacheRule, recorder: Recorder) -> tuple[DeliveryRequest, ...]:
    """Return the requests as the routine gets them."""
    return tuple(replace(one, cache=rule, doubt_settles=recorder.doubt_settles(one)) for one in parts)


def _bodies(lease: Lease, parts: Sequence[DeliveryRequest], runtime: Runtime) -> MessageBodies:
    stored = runtime.store.bodies
    if runtime.ports.bodies is not stored:
        return runtime.ports.bodies
    return ReadAhead(stored, {request.queue_id: request.size_bytes for request in parts}, lease.contents)


def _killed_by_feedback(ticket: Ticket, batch: Batch) -> Failure | None:
    """Return why the nexthop is dead by the failures of many sessions; None where it is not. Source: Q-31, Q-35."""
    if batch.trouble is not None:
        ticket.tell()
    died, ticket.died = ticket.died, []
    return batch.trouble if any(is_own(change.key, ticket.nexthop) for change in died) else None


def cache_rule(settings: Settings, nexthop: str, *, busy: bool) -> CacheRule:
    """Return whether sessions with *nexthop* are kept: when mail is waiting, or always for those listed."""
    keep = nexthop in settings.connection_cache_destinations or (busy and settings.connection_cache_on_demand)
    return CacheRule(load=keep, store=keep)
