"""Writing down what became of recipients, with patience.

A server that answered the final dot has the message, whatever happens to our
database afterwards. So an outcome that cannot be recorded is tried again until
it is, until the lease turns out to be lost, or until patience ends; then the
log says so, and those recipients are as uncertain as if the worker had died.

The record of one message's outcome says in the same transaction which message
comes next, so naming what is at work costs no transaction of its own.

Source: celery.md §2.3, §6 pitfall 6.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest
from mailq.errors import DatabaseUnavailableError, LeaseLostError
from mailq.queue.backoff import RetryAt, dispose
from mailq.queue.certainty import CertaintyRules, UncertainPolicy, after_attempt, is_uncertain
from mailq.queue.messages import AtWork, Lease, RecipientResult
from mailq.queue.schedules import Labels, Schedules
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Deferred, Delivered, Failure, Outcome, RecipientId
from mailq.worker.outcome_log import log_outcome

log = logging.getLogger(__name__)

PATIENCE_LEASE_TIMES: Final = 5
"""So many lease times an outcome is tried to be written: nobody can take the mail over while the database is down."""
_RULES: Final = CertaintyRules()
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


class Recorder:
    """Records the outcomes of one lease.

    Args:
        lease: Every write names it.
        store: The queue.
        ports: Of these, the clock and the chance.
        settings: Retry schedule and lease time.
        rules: What follows from doubt and from stumbling.
        on_recorded: Gets what was written.
        monotonic: Seconds that never go backwards.
        sleep: Waits for some seconds.
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
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = _sleep,
    ) -> None:
        self._lease = lease
        self._store = store
        self._ports = ports
        self._settings = settings
        self._rules = rules
        # The claim has noted this.
        self._at_work = AtWork(lease.requests[0].queue_id)
        self.unrecorded = False
        self._schedules = Schedules.of(settings)
        self._on_recorded = on_recorded
        self._monotonic = monotonic
        self._sleep = sleep

    def begin(self, at_work: AtWork) -> None:
        """Make sure that the lease says what is about to be sent.

        Raises:
            DatabaseUnavailableError: It could not be noted, so nothing may be sent.
        """
        if at_work != self._at_work:
            self._store.begin(self._lease.id, at_work)
            self._at_work = at_work

    def doubt_settles(self, request: DeliveryRequest) -> bool:
        """Whether a server that does not answer the final dot is the last that is asked."""
        return self._rules.policy_for(self._labels_of(request).mail_class) is not UncertainPolicy.RETRY

    def record(
        self,
        request: DeliveryRequest,
        outcomes: Mapping[RecipientId, Outcome],
        *,
        started_at: datetime,
        following: AtWork | None = None,
    ) -> None:
        """Record what an attempt that began at *started_at* made of some of *request*'s recipients.

        Args:
            request: What was attempted.
            outcomes: Not recorded before.
            started_at: By the worker's clock.
            following: What comes next, where this was the last of *request*; else None.

        Raises:
            LeaseLostError: Somebody else owns a recipient now; nothing was written.
            DatabaseUnavailableError: The database did not come back in time; nothing was written.
        """
        if not outcomes:
            return
        results = [self._result(request, one, outcome, started_at) for one, outcome in outcomes.items()]
        try:
            self._write(results, following)
        except (LeaseLostError, DatabaseUnavailableError) as error:
            self.unrecorded = any(isinstance(one.outcome, Delivered) or is_uncertain(one.outcome) for one in results)
            _tell_unrecorded(request, results, error)
            raise
        self._at_work = following or self._at_work
        self._on_recorded(results)
        by_id = {recipient.id: recipient for recipient in request.recipients}
        for result in results:
            log_outcome(request.queue_id, self._lease.nexthop, by_id[result.recipient_id], result)

    def record_waiting(self, request: DeliveryRequest, failure: Failure) -> None:
        """Record for all of *request*'s recipients that *failure* keeps them waiting; whose time is over expires.

        The others stay due, for as soon as the destination is back.

        Raises:
            LeaseLostError: Somebody else owns a recipient now; nothing was written.
            DatabaseUnavailableError: The database did not come back in time; nothing was written.
        """
        now = self._ports.clock.now()
        results = [self._result(request, one.id, Deferred(failure), now) for one in request.recipients]
        self._write(
            [
                replace(each, disposition=replace(each.disposition, due_at=each.finished_at))
                if isinstance(each.disposition, RetryAt)
                else each
                for each in results
            ]
        )
        self._on_recorded(results)
        for recipient, result in zip(request.recipients, results, strict=True):
            log_outcome(request.queue_id, self._lease.nexthop, recipient, result)

    def _result(
        self, request: DeliveryRequest, recipient_id: RecipientId, outcome: Outcome, started_at: datetime
    ) -> RecipientResult:
        now = self._ports.clock.now()
        labels = self._labels_of(request)
        schedule = self._schedules.schedule_for(
            sender=request.sender,
            nexthop=self._lease.nexthop,
            labels=labels,
        )
        disposition = dispose(
            outcome,
            schedule,
            arrived_at=request.arrived_at,
            expires_at=self._lease.expires.get(request.queue_id),
            now=now,
            jitter=self._ports.rng.random() * schedule.jitter,
            attempts=self._lease.attempts.get(recipient_id, 1),
        )
        return RecipientResult(
            recipient_id=recipient_id,
            outcome=outcome,
            disposition=after_attempt(
                outcome,
                disposition,
                mail_class=labels.mail_class,
                stumbles=self._lease.stumbles.get(recipient_id, 0),
                rules=self._rules,
            ),
            started_at=started_at,
            finished_at=now,
            confirm_delay=self._settings.confirm_delay_cleared,
        )

    def _labels_of(self, request: DeliveryRequest) -> Labels:
        return self._lease.labels.get(request.queue_id, Labels())

    def _write(self, results: list[RecipientResult], at_work: AtWork | None = None) -> None:
        deadline = self._monotonic() + PATIENCE_LEASE_TIMES * self._settings.lease_time.total_seconds()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._store.record(self._lease.id, results, at_work=at_work)
            except DatabaseUnavailableError:
                if self._monotonic() >= deadline:
                    raise
            else:
                return
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _tell_unrecorded(request: DeliveryRequest, results: list[RecipientResult], error: Exception) -> None:
    """Log which recipients have the message although the queue does not know: they may get it twice."""
    delivered = {result.recipient_id for result in results if isinstance(result.outcome, Delivered)}
    for recipient in request.recipients:
        if recipient.id in delivered:
            log.error(
                "%s was accepted for <%s> but that could not be recorded (%s): it may be sent again",
                request.queue_id,
                recipient.address,
                error,
                extra={"event": "unrecorded", "queue_id": request.queue_id, "recipient": recipient.address},
            )
