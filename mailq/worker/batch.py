"""One leased batch: message after message through the routine, each outcome recorded before the next.

One message that makes the routine stumble is deferred, and the others go on; after a few stumbles in a row it is put in
quarantine. What is about to be sent stands in the lease, so that a loss of this worker is known to concern it.

Source: smtp-delivery D-03, Q-04, Q-15, R-20, B-42; postconf(5) smtp_connection_cache_on_demand,
smtp_destination_recipient_limit.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mailq.delivery.deliver import OnSettled
from mailq.delivery.ports import MessageBodies, Ports
from mailq.envelope import CacheRule, DeliveryRequest
from mailq.errors import ConfigError, ContentUnavailableError, InfrastructureError, LeaseLostError, NoRoomError
from mailq.faults import describe_fault
from mailq.queue.messages import Lease
from mailq.settings import Settings
from mailq.status import (
    Deferred,
    DeliveryReport,
    EnhancedStatus,
    Failure,
    Outcome,
    RecipientId,
    Scope,
    Severity,
    Stage,
)
from mailq.worker.ahead import Ahead
from mailq.worker.batch_time import BatchTime, time_of
from mailq.worker.desk import is_own
from mailq.worker.evidence import death_in, is_well, news_of
from mailq.worker.heartbeat import Watch
from mailq.worker.parts import parts_of, tenant_of, transactions_of
from mailq.worker.proven import SLOW_SECONDS
from mailq.worker.read_ahead import ReadAhead
from mailq.worker.record import Recorder
from mailq.worker.runtime import Runtime
from mailq.worker.sharing import Sharing, kept_of
from mailq.worker.tenants import Barred
from mailq.worker.tickets import Ticket
from mailq.worker.wanted import always

log = logging.getLogger(__name__)

INTERNAL_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 0)
CONTENT_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 0)
CONFIG_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 5)


@dataclass(slots=True)
class Batch:
    """What became of one lease.

    Attributes:
        messages: How many were tried; a message with many recipients counts for each transaction.
        recipients: How many were tried.
        death: Why no server of the nexthop could be spoken to; None when one could, or nobody can tell.
        last: What was tried last; None before anything was.
        trouble: Why the nexthop looked sick when it was tried last; None where it looked well.
        well: A server carried a conversation through, and none failed to after it.
        shut: Why no more could be sent for now; None: nothing was in the way.
    """

    messages: int = 0
    recipients: int = 0
    death: Failure | None = None
    last: DeliveryRequest | None = None
    trouble: Failure | None = None
    well: bool = False
    shut: NoRoomError | None = None

    def note(self, request: DeliveryRequest, report: DeliveryReport) -> None:
        """Note what one run of the routine reported."""
        self.messages += 1
        self.last = request
        self.recipients += len(request.recipients)
        self.death = death_in(report)
        self.trouble = report.destination_failure
        self.well = self.death is None and (self.well or is_well(report))


def deliver_batch(
    lease: Lease,
    runtime: Runtime,
    watch: Watch,
    *,
    more: bool,
    ends_at: float = float("inf"),
    last_at: float = float("inf"),
    is_wanted: Callable[[], bool] = always,
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
        last_at: No message is begun after it where the task has to end, but the first.
        is_wanted: Whether it has to.
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
    course = _Course(
        lease,
        runtime,
        watch,
        recorder,
        parts=_as_tried(parts, rule, recorder),
        ports=replace(runtime.ports, fence=watch.fence, gate=watch.ticket, bodies=_bodies(lease, parts, runtime)),
        alone=tuple(part.alone for part in work),
        time=time_of(lease, len(parts), runtime, ends_at=ends_at, last_at=last_at, is_wanted=is_wanted),
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


@dataclass(slots=True)
class _Course:
    """One batch on its way."""

    lease: Lease
    runtime: Runtime
    watch: Watch
    recorder: Recorder
    parts: Sequence[DeliveryRequest]
    ports: Ports
    alone: Sequence[bool]
    time: BatchTime
    sharing: Sharing
    on_well: Callable[[], None]
    on_shared: Callable[[], None]
    batch: Batch = field(default_factory=Batch)
    barred: Barred = field(default_factory=Barred)
    number: int = 0
    promised: DeliveryRequest | None = None
    pace_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.ports = replace(self.ports, following=self.following)

    def put_off(self, seconds: float) -> None:
        """Have its time begin so much later."""
        self.time.put_off(seconds)
        self.sharing.looked_at += seconds

    def run(self) -> None:
        """Deliver one part after the other, until something says that it is enough."""
        while self.number < len(self.parts) and self._take_turn(self.parts[self.number]):
            self.number += 1

    def _take_turn(self, request: DeliveryRequest) -> bool:
        """Deliver a part, unless it has to wait; False: that is enough."""
        if self._is_over(request):
            return False
        if self._is_for_others():
            self._give_some_back()
        self.promised = None
        tenant = tenant_of(request, self.lease)
        if self.barred.holds(tenant, request):
            return True
        try:
            return self._deliver(request, tenant)
        except NoRoomError as error:
            if not self.barred.is_about(tenant, error):
                self.batch.shut = error
                return False
            self.barred.note(tenant, request, error)
            return True

    def _left(self, start: int) -> int:
        return len(self.parts) - start

    def _is_for_others(self) -> bool:
        """Whether others should have some of what is left: not of a destination that nobody knows to be well."""
        if not self.batch.well or self.lease.probe:
            return False
        return self.sharing.is_due(self._left(self.number), pace_seconds=self.pace_seconds)

    def _give_some_back(self) -> None:
        """Let others have half of what was neither begun nor named."""
        kept = kept_of(self.parts, first=max(self.number + 1, self.recorder.named))
        given = [one.id for part in self.parts[kept:] for one in part.recipients]
        if not given:
            return
        # Not ours from here on, whatever comes of it: who gets no answer from a database may have given it away.
        self.parts = self.parts[:kept]
        self.recorder.keep(kept)
        try:
            self.runtime.store.give_back(self.lease.id, given)
        except InfrastructureError as error:
            log.warning("What others could send of the lease on %s waits for its end: %s", self.lease.nexthop, error)
            return
        self.recorder.note_given(len(given))
        self.on_shared()

    def following(self) -> DeliveryRequest | None:
        """Return the request that is next, if nothing can keep it: its commands may go out with the end of this one."""
        following = self.number + 1
        if following >= len(self.parts) or self.alone[following] or self.watch.ticket.is_limited:
            return None
        runtime, request = self.runtime, self.parts[following]
        if runtime.stopping.is_set() or self._tenant_of(request) != self._tenant_of(self.parts[self.number]):
            return None
        if self._gives_way(following):
            return None
        self.promised = request
        return request

    def _tenant_of(self, request: DeliveryRequest) -> str:
        return tenant_of(request, self.lease)

    def _is_over(self, request: DeliveryRequest) -> bool:
        runtime, batch = self.runtime, self.batch
        if runtime.stopping.is_set() or self.watch.lost or batch.death is not None:
            return True
        # The server was told of the next message already. And the claim has asked whether the destination is suspended.
        if batch.messages == 0 or request is self.promised:
            return False
        return self._gives_way(self.number) or runtime.suspended(self.lease.nexthop)

    def _gives_way(self, following: int) -> bool:
        """Whether the time is up, and something else is to be done than what is left from *following* on."""
        return self.time.is_over(self._left(following))

    def _deliver(self, request: DeliveryRequest, tenant: str) -> bool:
        """Deliver a part when its turn under the limits has come; False when the worker is told to stop before."""
        ticket, recorder, runtime = self.watch.ticket, self.recorder, self.runtime
        ticket.turn_to(tenant)
        wait = ticket.spend(len(request.recipients))
        if wait and runtime.stopping.wait(wait):
            return False
        recorder.begin(self.number)
        began_at = runtime.monotonic()
        report = _deliver(request, self.ports, runtime, recorder)
        self.batch.note(request, report)
        self.pace_seconds = runtime.monotonic() - began_at
        if self.number == 0 and self.batch.well and self.pace_seconds <= SLOW_SECONDS:
            # As soon as something good is known of the nexthop: a long batch would keep others out of that lane.
            ticket.prove()
        ticket.note(news_of(report))
        self.watch.progress()
        if self.batch.well and self._left(self.number + 1) * self.pace_seconds >= self.time.seconds:
            self.on_well()
        return True


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


def _deliver(request: DeliveryRequest, ports: Ports, runtime: Runtime, recorder: Recorder) -> DeliveryReport:
    started_at = ports.clock.now()
    recorded: set[RecipientId] = set()

    def record(outcomes: Mapping[RecipientId, Outcome]) -> None:
        fresh = {one: outcome for one, outcome in outcomes.items() if one not in recorded}
        is_all = len(recorded) + len(fresh) == len(request.recipients)
        recorder.record(request, fresh, started_at=started_at, complete=is_all)
        recorded.update(fresh)

    report = _attempt(request, ports, runtime, record)
    record(report.outcomes)
    runtime.metrics.attempted(report, waited_seconds=(ports.clock.now() - request.arrived_at).total_seconds())
    if report.troubles:
        runtime.on_trouble(request, report.troubles)
    return report


def _attempt(request: DeliveryRequest, ports: Ports, runtime: Runtime, on_settled: OnSettled) -> DeliveryReport:
    """Run the routine; whatever it raises about this message alone becomes a reason to try again."""
    try:
        return runtime.routine(
            request,
            ports=ports,
            settings=runtime.settings,
            sessions=runtime.sessions,
            on_settled=on_settled,
        )
    except (LeaseLostError, InfrastructureError, NoRoomError):
        raise
    except ConfigError as error:
        log.error("%s cannot be delivered to %s: %s", request.queue_id, request.nexthop, error)  # noqa: TRY400 - the text says what to do; a traceback would not
        failure = _trouble(CONFIG_ERROR, f"mail system configuration error: {error}")
    except ContentUnavailableError as error:
        log.error("%s is deferred: %s", request.queue_id, error)  # noqa: TRY400 - as above
        failure = _trouble(CONTENT_ERROR, f"mail system content error: {error}")
    except Exception as error:
        log.exception("%s made delivery to %s stumble; it is deferred", request.queue_id, request.nexthop)
        failure = _trouble(INTERNAL_ERROR, "mail system internal error; the log of the worker says more")
        failure = replace(failure, fault=describe_fault(error))
    return DeliveryReport(outcomes={recipient.id: Deferred(failure) for recipient in request.recipients})


def _trouble(status: EnhancedStatus, reason: str) -> Failure:
    return Failure(status=status, reason=reason, stage=Stage.POLICY, scope=Scope.MESSAGE)
