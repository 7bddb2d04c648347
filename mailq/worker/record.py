"""Writing down what became of recipients, with patience.

A server that answered the final dot has the message, whatever happens to our
database afterwards. So an outcome that cannot be recorded is tried again until
it is, until the lease turns out to be lost, or until patience ends; then those
recipients will get the message once more, and the log says so.

Source: celery.md §2.3, §6 pitfall 6.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest
from mailq.errors import DatabaseUnavailableError, LeaseLostError
from mailq.queue.backoff import RetrySchedule, dispose
from mailq.queue.messages import Lease, RecipientResult
from mailq.queue.store import Store
from mailq.settings import Settings
from mailq.status import Delivered, Outcome, RecipientId
from mailq.worker.outcome_log import log_outcome

log = logging.getLogger(__name__)

PATIENCE_LEASE_TIMES: Final = 5
"""So many lease times an outcome is tried to be written: nobody can take the mail over while the database is down."""
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
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = _sleep,
    ) -> None:
        self._lease = lease
        self._store = store
        self._ports = ports
        self._settings = settings
        self._monotonic = monotonic
        self._sleep = sleep

    def record(
        self, request: DeliveryRequest, outcomes: Mapping[RecipientId, Outcome], *, started_at: datetime
    ) -> None:
        """Record what an attempt that began at *started_at* made of some of *request*'s recipients.

        Raises:
            LeaseLostError: Somebody else owns a recipient now; nothing was written.
            DatabaseUnavailableError: The database did not come back in time; nothing was written.
        """
        if not outcomes:
            return
        results = [self._result(request, one, outcome, started_at) for one, outcome in outcomes.items()]
        try:
            self._write(results)
        except (LeaseLostError, DatabaseUnavailableError) as error:
            _tell_unrecorded(request, results, error)
            raise
        by_id = {recipient.id: recipient for recipient in request.recipients}
        for result in results:
            log_outcome(request.queue_id, self._lease.nexthop, by_id[result.recipient_id], result)

    def _result(
        self, request: DeliveryRequest, recipient_id: RecipientId, outcome: Outcome, started_at: datetime
    ) -> RecipientResult:
        now = self._ports.clock.now()
        disposition = dispose(
            outcome,
            RetrySchedule.of(self._settings, sender=request.sender),
            arrived_at=request.arrived_at,
            expires_at=self._lease.expires.get(request.queue_id),
            now=now,
            jitter=self._ports.rng.random() * self._settings.backoff_jitter,
        )
        return RecipientResult(
            recipient_id=recipient_id,
            outcome=outcome,
            disposition=disposition,
            started_at=started_at,
            finished_at=now,
        )

    def _write(self, results: list[RecipientResult]) -> None:
        deadline = self._monotonic() + PATIENCE_LEASE_TIMES * self._settings.lease_time.total_seconds()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._store.record(self._lease.id, results)
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
