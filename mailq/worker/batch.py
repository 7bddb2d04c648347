"""One leased batch: message after message through the routine, each outcome recorded before the next.

One message that makes the routine stumble is deferred, and the others go on.

Source: smtp-delivery D-03, R-20; postconf(5) smtp_connection_cache_on_demand, smtp_destination_recipient_limit.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from mailq.delivery.deliver import OnSettled
from mailq.envelope import CacheRule, DeliveryRequest
from mailq.errors import ConfigError, InfrastructureError, LeaseLostError
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
from mailq.worker.heartbeat import Watch
from mailq.worker.record import Recorder
from mailq.worker.runtime import Runtime

log = logging.getLogger(__name__)

INTERNAL_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 0)
CONFIG_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 5)


def deliver_batch(lease: Lease, runtime: Runtime, watch: Watch, *, more: bool) -> int:
    """Deliver the messages of *lease* until done, told to stop, or the lease may be lost; return how many were tried.

    Args:
        lease: Watched over by *watch*.
        runtime: This process's.
        watch: Asked before every transaction.
        more: This task had a batch before, so sessions may be waiting to be reused.

    Raises:
        LeaseLostError: Somebody else owns a recipient of the lease.
        InfrastructureError: The database did not come back in time.
    """
    parts = list(_transactions(lease, runtime.settings))
    rule = cache_rule(runtime.settings, lease.nexthop, busy=more or lease.full or len(parts) > 1)
    recorder = Recorder(
        lease, store=runtime.store, ports=runtime.ports, settings=runtime.settings, monotonic=runtime.monotonic
    )
    for done, request in enumerate(parts):
        if runtime.stopping.is_set() or watch.lost:
            return done
        _deliver(replace(request, cache=rule), runtime, recorder)
        watch.progress()
    return len(parts)


def cache_rule(settings: Settings, nexthop: str, *, busy: bool) -> CacheRule:
    """Return whether sessions with *nexthop* are kept: when mail is waiting, or always for those listed."""
    keep = nexthop in settings.connection_cache_destinations or (busy and settings.connection_cache_on_demand)
    return CacheRule(load=keep, store=keep)


def _transactions(lease: Lease, settings: Settings) -> Iterator[DeliveryRequest]:
    """Split messages with more recipients than one transaction may have."""
    for request in lease.requests:
        size = settings.destination_recipient_limit or len(request.recipients)
        for start in range(0, len(request.recipients), size):
            yield replace(request, recipients=request.recipients[start : start + size])


def _deliver(request: DeliveryRequest, runtime: Runtime, recorder: Recorder) -> None:
    started_at = runtime.ports.clock.now()
    recorded: set[RecipientId] = set()

    def record(outcomes: Mapping[RecipientId, Outcome]) -> None:
        fresh = {one: outcome for one, outcome in outcomes.items() if one not in recorded}
        recorder.record(request, fresh, started_at=started_at)
        recorded.update(fresh)

    report = _attempt(request, runtime, record)
    record(report.outcomes)
    if report.troubles:
        runtime.on_trouble(request, report.troubles)


def _attempt(request: DeliveryRequest, runtime: Runtime, on_settled: OnSettled) -> DeliveryReport:
    """Run the routine; whatever it raises about this message alone becomes a reason to try again."""
    try:
        return runtime.routine(
            request,
            ports=runtime.ports,
            settings=runtime.settings,
            sessions=runtime.sessions,
            on_settled=on_settled,
        )
    except (LeaseLostError, InfrastructureError):
        raise
    except ConfigError as error:
        log.error("%s cannot be delivered to %s: %s", request.queue_id, request.nexthop, error)  # noqa: TRY400 - the text says what to do; a traceback would not
        failure = _trouble(CONFIG_ERROR, f"mail system configuration error: {error}")
    except Exception:
        log.exception("%s made delivery to %s stumble; it is deferred", request.queue_id, request.nexthop)
        failure = _trouble(INTERNAL_ERROR, "mail system internal error; the log of the worker says more")
    return DeliveryReport(outcomes={recipient.id: Deferred(failure) for recipient in request.recipients})


def _trouble(status: EnhancedStatus, reason: str) -> Failure:
    return Failure(status=status, reason=reason, stage=Stage.POLICY, scope=Scope.MESSAGE)
