"""The course of one batch: message after message, until all is done or something says that it is enough.

What is about to be sent stands in the lease, so that a loss of this worker is known to concern it.

Source: smtp-delivery Q-04, R-20
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest
from mailq.errors import InfrastructureError, NoRoomError
from mailq.queue.messages import Lease
from mailq.status import DeliveryReport, Failure
from mailq.worker.attempt import attempt
from mailq.worker.batch_time import BatchTime
from mailq.worker.evidence import death_in, is_well, news_of
from mailq.worker.heartbeat import Watch
from mailq.worker.parts import tenant_of
from mailq.worker.proven import SLOW_SECONDS
from mailq.worker.record import Recorder
from mailq.worker.runtime import Runtime
from mailq.worker.sharing import Sharing, kept_of
from mailq.worker.tenants import Barred

log = logging.getLogger(__name__)


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


@dataclass(slots=True)
class Course:
    """One batch on its way; for one thread.

    Attributes:
        lease: Watched over by *watch*.
        runtime: This process's.
        watch: Asked before every part.
        recorder: Of the lease.
        parts: What is left of the lease's transactions, with those that are done.
        ports: Of the routine.
        alone: Which of the parts are sent only while nothing before them is unrecorded.
        time: When it gives way.
        sharing: When it gives some of itself away.
        on_well: Called after each message that leaves the nexthop looking well, while the rest will last for a while.
        on_shared: Called when some of it was given back for others to send.
        batch: What became of it.
        barred: What has to wait.
        number: Of the part whose turn it is.
        promised: The server was told of this one already.
        pace_seconds: What the last part took.
    """

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

    def put_off(self, seconds: float) -> None:
        """Have its time begin so much later."""
        self.time.put_off(seconds)
        self.sharing.looked_at += seconds

    def run(self) -> None:
        """Deliver one part after the other, until something says that it is enough."""
        ports, self.ports = self.ports, replace(self.ports, following=self.following)
        try:
            while self.number < len(self.parts) and self._take_turn(self.parts[self.number]):
                self.number += 1
        finally:
            # What holds itself, and all of a lease with it, would stay until a collection.
            self.ports = ports

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
        report = attempt(request, self.ports, runtime, recorder)
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
