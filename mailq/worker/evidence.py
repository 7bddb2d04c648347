"""What a run of the routine says about a nexthop as a whole: dead, well, or neither. Pure.

Dead means that no conversation came about with any of its servers, so the next
message would fare no better. What fails later, in TLS, at a log-in or in a
transaction, may be about the message or the session, and one poisonous message
must not keep all others waiting.

Source: smtp-delivery T-22, Q-32, Q-35, Q-37
"""

from typing import Final

from mailq.limits.gates import Feedback, Verdict
from mailq.status import Deferred, Delivered, DeliveryReport, Failure, Stage

_NO_CONVERSATION: Final = frozenset({Stage.RESOLVE, Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.HELO, Stage.LHLO})


def death_in(report: DeliveryReport) -> Failure | None:
    """Return why no server of the nexthop could be spoken to; None where one could, or nobody can tell."""
    failure = report.destination_failure
    return failure if failure is not None and failure.stage in _NO_CONVERSATION else None


def is_well(report: DeliveryReport) -> bool:
    """Tell whether a server of the nexthop carried a conversation through, whatever it said about the recipients."""
    if report.destination_failure is not None:
        return False
    return any(
        isinstance(outcome, Delivered) or outcome.failure.relay is not None for outcome in report.outcomes.values()
    )


def news_of(report: DeliveryReport) -> Feedback:
    """Return what a delivery says of how many sessions the nexthop bears; nothing where our own code stumbled."""
    outcomes = report.outcomes.values()
    if any(not isinstance(one, Delivered) and one.failure.fault for one in outcomes):
        return Feedback(verdict=Verdict.NONE)
    deferred = any(isinstance(one, Deferred) for one in outcomes)
    return Feedback.of(deferred=deferred, destination_failure=report.destination_failure)
