"""Writing down what became of recipients, with patience.

A server that answered the final dot has the message, whatever happens to our
database afterwards. So an outcome that cannot be recorded is tried again until
it is, until the lease turns out to be lost, or until patience ends; then the
log says so, and those recipients are as uncertain as if the worker had died.

The record of one message's outcome says in the same transaction what comes
next, so naming what is at work costs no transaction of its own. Where the
server is faster than the database, several messages are named at a time, and
the session does not wait for each record, see :mod:`mailq.worker.ahead`.

Invariant: nothing is sent that the lease does not name for sure.

Source: celery.md §2.3, §6 pitfall 6.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest, Notify, Recipient
from mailq.queue.backoff import Done, RetryAt, dispose
from mailq.queue.certainty import CertaintyRules, Ruling, UncertainPolicy, after_attempt, is_uncertain
from mailq.queue.messages import AtWork, Entry, Known, Lease, RecipientResult
from mailq.queue.schedules import Labels, Schedules
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Deferred, Delivered, Failure, Outcome, RecipientId
from mailq.worker.ahead import Ahead, Part, named_at_first, named_from
from mailq.worker.committer import PATIENCE_LEASE_TIMES, Direct, Receipt, Writer
from mailq.worker.listener import Listener, tell_no_application, tell_outcome
from mailq.worker.outcome_log import is_logged, log_outcomes

log = logging.getLogger(__name__)

_RULES: Final = CertaintyRules()
_DONE: Final = Done()
_NO_LABELS: Final = Labels()
# A session names more of its batch when less than this share of what it may have named is left.
_ENOUGH_NAMED: Final = 0.75


@dataclass(slots=True)
class _Job:
    """An entry on its way."""

    receipt: Receipt
    request: DeliveryRequest | None = None
    results: Sequence[RecipientResult] = ()
    ends: bool = False


class Recorder:
    """Records the outcomes of one lease.

    Args:
        lease: Every write names it.
        store: The queue.
        ports: Of these, the clock and the chance.
        settings: Retry schedule and lease time.
        rules: What follows from doubt and from stumbling.
        on_recorded: Gets what was written.
        listener: The application's own; told of each outcome.
        monotonic: Seconds that never go backwards.
        parts: What is to be sent under the lease, in this order; empty: :meth:`begin` is not called.
        writer: Writes for all sessions of this process; None: each outcome is written at once, by itself.
        ahead: How far this task may run ahead; None: each record is waited for.

    Attributes:
        unrecorded: An outcome could not be written: whether its message was sent is known to nobody else.
        ended: All that the lease covers was sent and is recorded, and it ended with that.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        store: Store,
        ports: Ports,
        settings: Settings,
        rules: CertaintyRules = _RULES,
        on_recorded: Callable[[Sequence[RecipientResult]], None] = lambda _: None,
        listener: Listener = tell_no_application,
        monotonic: Callable[[], float] = time.monotonic,
        parts: Sequence[Part] = (),
        writer: Writer | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self._lease = lease
        self._ports = ports
        self._settings = settings
        self._rules = rules
        self.unrecorded = False
        self.ended = False
        self._may_end = writer is not None and not lease.probe
        self._sent = 0
        self._covered = len(lease.attempts)
        self._schedules = Schedules.of(settings)
        self._confirms = settings.confirm_delay_cleared
        self._on_recorded = on_recorded
        self._listener = listener
        self._monotonic = monotonic
        patience = PATIENCE_LEASE_TIMES * settings.lease_time.total_seconds()
        self._writer: Writer = writer or Direct(store, patience_seconds=patience, monotonic=monotonic)
        self._ahead = ahead or Ahead(1)
        self._parts = parts
        self._jobs: deque[_Job] = deque()
        # The claim has named the first message, or several.
        self._named = self._named_for_sure = named_at_first(
            parts, [one.queue_id for one in lease.requests[: lease.named]]
        )
        self._namings: deque[tuple[int, Receipt]] = deque()
        self._number = 0
        self._began_at = monotonic()

    def begin(self, number: int) -> None:
        """Make sure that the lease names what is about to be sent: the part of this *number*.

        Raises:
            LeaseLostError: Somebody else owns a recipient of an earlier part now.
            DatabaseUnavailableError: It could not be noted, so nothing may be sent.
        """
        asked_at = self._monotonic()
        self._number = number
        if number >= self._named or (number == 0 and self._named < min(self._ahead.now, len(self._parts))):
            self._submit((), None, self._name_from(number))
        if self._parts[number].alone:
            self.flush()
        while self._named_for_sure <= number and self._namings:
            upto, receipt = self._namings.popleft()
            receipt.wait()
            if receipt.error is None:
                self._named_for_sure = upto
        self._harvest()
        now = self._monotonic()
        self._ahead.note(work_seconds=asked_at - self._began_at, wait_seconds=now - asked_at)
        self._began_at = now

    @property
    def named(self) -> int:
        """The number of the first part that the lease does not name yet."""
        return self._named

    def keep(self, parts: int) -> None:
        """Name no more than so many of the parts from now on."""
        self._parts = self._parts[:parts]

    def note_given(self, recipients: int) -> None:
        """Note that the lease covers so many recipients less."""
        self._covered -= recipients

    def flush(self) -> None:
        """Wait until all that was given is written.

        Raises:
            LeaseLostError: Somebody else owns a recipient now; its outcome was not written.
            DatabaseUnavailableError: The database did not come back in time; something was not written.
        """
        for job in self._jobs:
            job.receipt.wait()
        self._harvest()

    def doubt_settles(self, request: DeliveryRequest) -> bool:
        """Whether a server that does not answer the final dot is the last that is asked."""
        return self._rules.policy_for(self._labels_of(request).mail_class) is not UncertainPolicy.RETRY

    def record(
        self,
        request: DeliveryRequest,
        outcomes: Mapping[RecipientId, Outcome],
        *,
        started_at: datetime,
        complete: bool = True,
    ) -> None:
        """Have recorded what an attempt that began at *started_at* made of some of *request*'s recipients.

        Returns before it is written where a writer was given; :meth:`begin` and :meth:`flush` tell of what failed.

        Args:
            request: What was attempted.
            outcomes: Not recorded before.
            started_at: By the worker's clock.
            complete: These are the last ones of the part that was begun.

        Raises:
            LeaseLostError: Somebody else owns a recipient now; something was not written.
            DatabaseUnavailableError: The database did not come back in time; something was not written.
        """
        if not outcomes:
            return
        now = self._ports.clock.now()
        recipients = {one.id: one for one in request.recipients}
        results = [
            self._result(request, recipients[one], outcome, started_at, now) for one, outcome in outcomes.items()
        ]
        following = self._number + 1
        is_next = complete and following < len(self._parts)
        self._sent += sum(isinstance(outcome, Delivered) for outcome in outcomes.values())
        ends = self._may_end and self._sent == self._covered
        at_work = self._name_from(following) if is_next and not self._names_enough(following) else None
        self._submit(results, request, at_work, ends=ends)
        self._harvest()

    def _names_enough(self, number: int) -> bool:
        """Whether the lease names so much from *number* on, or all there is, that it need not be told more yet.

        What it names and is recorded meanwhile is in no doubt, since it is no longer leased.
        """
        left = self._named - number
        return left > 0 and (self._named == len(self._parts) or left > self._ahead.now * _ENOUGH_NAMED)

    def _name_from(self, number: int) -> AtWork:
        # What was named once stays named until it is recorded, so whichever note is the last one holds.
        at_work, self._named = named_from(self._parts, number, most=max(self._ahead.now, self._named - number))
        return at_work

    def _submit(
        self,
        results: Sequence[RecipientResult],
        request: DeliveryRequest | None,
        at_work: AtWork | None,
        *,
        ends: bool = False,
    ) -> None:
        receipt = self._writer.submit(Entry(self._lease.id, tuple(results), at_work, ends=ends))
        self._jobs.append(_Job(receipt, request, results, ends=ends))
        if at_work is not None:
            self._namings.append((self._named, receipt))

    def _harvest(self) -> None:
        """Tell everybody what is written by now, and what could not be."""
        failed: Exception | None = None
        while self._jobs and self._jobs[0].receipt.done:
            job = self._jobs.popleft()
            error = job.receipt.error
            self.ended = job.ends and error is None
            if error is not None:
                self._may_end = False
                self._note_unrecorded(job, error)
                failed = failed or error
            elif job.request is not None:
                self._on_recorded(job.results)
                self._tell(job.request, job.results)
        if failed is not None:
            raise failed

    def _note_unrecorded(self, job: _Job, error: Exception) -> None:
        self.unrecorded |= any(isinstance(one.outcome, Delivered) or is_uncertain(one.outcome) for one in job.results)
        if job.request is not None:
            _tell_unrecorded(job.request, job.results, error)

    def record_waiting(self, request: DeliveryRequest, failure: Failure) -> None:
        """Record for all of *request*'s recipients that *failure* keeps them waiting; whose time is over expires.

        The others stay due, for as soon as the destination is back.

        Raises:
            LeaseLostError: Somebody else owns a recipient now; nothing was written.
            DatabaseUnavailableError: The database did not come back in time; nothing was written.
        """
        now = self._ports.clock.now()
        results = [self._result(request, one, Deferred(failure), now, now) for one in request.recipients]
        still_due = [
            replace(each, disposition=replace(each.disposition, due_at=each.finished_at))
            if isinstance(each.disposition, RetryAt)
            else each
            for each in results
        ]
        self._submit(still_due, request, None)
        self._harvest()

    def _tell(self, request: DeliveryRequest, results: Sequence[RecipientResult]) -> None:
        """Tell the log and the application what is recorded."""
        listened = self._listener is not tell_no_application
        if not listened and not is_logged():
            return
        by_id = {recipient.id: recipient for recipient in request.recipients}
        log_outcomes(request.queue_id, self._lease.nexthop, results, by_id, lease_id=self._lease.id)
        if listened:
            for result in results:
                recipient = by_id[result.recipient_id]
                tell_outcome(self._listener, request.queue_id, self._lease.nexthop, recipient, result)

    def _result(
        self, request: DeliveryRequest, recipient: Recipient, outcome: Outcome, started_at: datetime, now: datetime
    ) -> RecipientResult:
        return RecipientResult(
            recipient_id=recipient.id,
            outcome=outcome,
            disposition=_DONE
            if isinstance(outcome, Delivered)
            else self._ruling(request, recipient.id, outcome, now=now),
            started_at=started_at,
            finished_at=now,
            confirm_delay=self._confirms,
            known=self._known(request, recipient),
        )

    def _known(self, request: DeliveryRequest, recipient: Recipient) -> Known | None:
        """Return what is known of a recipient; None where somebody may have to be told of its delivery."""
        due_at = self._lease.due.get(recipient.id)
        if due_at is None or self._confirms:
            return None
        if recipient.notify and Notify.SUCCESS in recipient.notify:
            return None
        return Known(
            message_id=request.queue_id,
            lease_id=self._lease.id,
            owner=self._lease.owner,
            attempts=self._lease.attempts[recipient.id],
            address=recipient.address,
            due_at=due_at,
        )

    def _ruling(
        self, request: DeliveryRequest, recipient_id: RecipientId, outcome: Outcome, *, now: datetime
    ) -> Ruling:
        labels = self._labels_of(request)
        schedule = self._schedules.schedule_for(sender=request.sender, nexthop=self._lease.nexthop, labels=labels)
        disposition = dispose(
            outcome,
            schedule,
            arrived_at=request.arrived_at,
            expires_at=self._lease.expires.get(request.queue_id),
            now=now,
            jitter=self._ports.rng.random() * schedule.jitter,
            attempts=self._lease.attempts.get(recipient_id, 1),
        )
        return after_attempt(
            outcome,
            disposition,
            mail_class=labels.mail_class,
            stumbles=self._lease.stumbles.get(recipient_id, 0),
            rules=self._rules,
        )

    def _labels_of(self, request: DeliveryRequest) -> Labels:
        return self._lease.labels.get(request.queue_id, _NO_LABELS)


def _tell_unrecorded(request: DeliveryRequest, results: Sequence[RecipientResult], error: Exception) -> None:
    """Log which recipients have the message although the queue does not know: they may get it twice."""
    delivered = {result.recipient_id for result in results if isinstance(result.outcome, Delivered)}
    for recipient in request.recipients:
        if recipient.id in delivered:
            log.error(
                "%s was accepted for <%s> but that could not be recorded (%s): it may be sent again",
                request.queue_id,
                recipient.address,
                error,
                extra={
                    "event": "unrecorded",
                    "queue_id": request.queue_id,
                    "recipient": recipient.address,
                    "reason": str(error),
                },
            )
