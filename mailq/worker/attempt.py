"""One run of the routine for one message, and the record of what it makes of the recipients.

A message that makes the routine stumble is deferred, and the others go on; after a few stumbles in a row it is put in
quarantine.

Source: smtp-delivery D-03
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from mailq.delivery.deliver import OnSettled
from mailq.delivery.ports import Ports
from mailq.envelope import DeliveryRequest
from mailq.errors import ConfigError, ContentUnavailableError, InfrastructureError, LeaseLostError, NoRoomError
from mailq.faults import describe_fault
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
from mailq.worker.record import Recorder
from mailq.worker.runtime import Runtime

log = logging.getLogger(__name__)

INTERNAL_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 0)
CONTENT_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 0)
CONFIG_ERROR: Final = EnhancedStatus(Severity.TRANSIENT, 3, 5)


def attempt(request: DeliveryRequest, ports: Ports, runtime: Runtime, recorder: Recorder) -> DeliveryReport:
    """Try to deliver *request*, have recorded what became of each recipient as soon as it is known, and report it.

    Raises:
        LeaseLostError: Somebody else owns a recipient of the lease.
        InfrastructureError: The database, or whoever counts sessions, cannot be reached.
        NoRoomError: A limit is reached.
    """
    started_at = ports.clock.now()
    recorded: set[RecipientId] = set()

    def record(outcomes: Mapping[RecipientId, Outcome]) -> None:
        fresh = {one: outcome for one, outcome in outcomes.items() if one not in recorded}
        is_all = len(recorded) + len(fresh) == len(request.recipients)
        recorder.record(request, fresh, started_at=started_at, complete=is_all)
        recorded.update(fresh)

    report = _run(request, ports, runtime, record)
    record(report.outcomes)
    runtime.metrics.attempted(report, waited_seconds=(ports.clock.now() - request.arrived_at).total_seconds())
    if report.troubles:
        runtime.on_trouble(request, report.troubles)
    return report


def _run(request: DeliveryRequest, ports: Ports, runtime: Runtime, on_settled: OnSettled) -> DeliveryReport:
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
