"""One log event for every outcome of every recipient, for people and for log shippers.

The event's name is the outcome; its fields stand in the record as well
(``extra``), so a formatter can write JSON. ``queue_id`` leads to the message,
``lease`` to its attempts in the history and to what else was done under the
same lease, ``session`` to what else was sent over the same connection by this
worker; ``earlier`` says what the servers asked before said, in the same attempt.
"""

import logging

from mailq.envelope import Recipient
from mailq.queue.backoff import RetryAt
from mailq.queue.messages import RecipientResult
from mailq.queue.record import outcome_word
from mailq.status import Delivered

log = logging.getLogger("mailq.outcome")


def is_logged() -> bool:
    """Whether anybody reads these events."""
    return log.isEnabledFor(logging.INFO)


def log_outcome(queue_id: str, nexthop: str, recipient: Recipient, result: RecipientResult, *, lease_id: int) -> None:
    """Write the event of one recipient's outcome, found under a lease."""
    outcome, disposition = result.outcome, result.disposition
    if isinstance(outcome, Delivered):
        relay, status, reason = str(outcome.endpoint), outcome.reply.status, outcome.reply.text
        facts = outcome.facts
    else:
        failure = outcome.failure
        relay, status, reason = str(failure.relay or "none"), failure.status, failure.reason
        facts = failure.facts
    event = outcome_word(result)
    due_at = disposition.due_at.isoformat() if isinstance(disposition, RetryAt) else ""
    fields = {
        "event": event,
        "queue_id": queue_id,
        "recipient": recipient.address,
        "nexthop": nexthop,
        "lease": lease_id,
        "session": 0 if facts is None else facts.number,
        "relay": relay,
        "status": str(status),
        "reason": reason,
        "seconds": round((result.finished_at - result.started_at).total_seconds(), 3),
        "due_at": due_at,
        "earlier": [failure.reason for failure in outcome.earlier],
    }
    log.info(
        "%s %s to=<%s> relay=%s status=%s%s: %s",
        event,
        queue_id,
        recipient.address,
        relay,
        status,
        f" until {due_at}" if due_at else "",
        reason,
        extra=fields,
    )
