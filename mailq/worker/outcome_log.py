"""One log event for every outcome of every recipient, for people and for log shippers.

The event's name is the outcome; its fields stand in the record as well
(``extra``), so a formatter can write JSON. ``queue_id`` leads to the message,
``lease`` to its attempts in the history and to what else was done under the
same lease, ``session`` to what else was sent over the same connection by this
worker; ``earlier`` says what the servers asked before said, in the same attempt.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mailq.envelope import Recipient
from mailq.queue.backoff import RetryAt
from mailq.queue.messages import RecipientResult
from mailq.queue.record import outcome_word
from mailq.status import Delivered, RecipientId

log = logging.getLogger("mailq.outcome")
_TEXT: Final = "%s %s to=<%s> relay=%s status=%s%s: %s"


def is_logged() -> bool:
    """Whether anybody reads these events."""
    return log.isEnabledFor(logging.INFO)


def log_outcomes(
    queue_id: str,
    nexthop: str,
    results: Iterable[RecipientResult],
    recipients: Mapping[RecipientId, Recipient],
    *,
    lease_id: int,
) -> None:
    """Write the event of each recipient's outcome, found under a lease.

    What is equal for the recipients of a transaction is worked out for the first of them.
    """
    if not is_logged():
        return
    alike: dict[tuple[object, ...], logging.LogRecord] = {}
    for result in results:
        key = (id(result.outcome), id(result.disposition), result.started_at, result.finished_at)
        record = alike.get(key)
        if record is None:
            record = alike[key] = _record(queue_id, nexthop, result, lease_id)
        log.handle(_about(record, recipients[result.recipient_id].address))


def _record(queue_id: str, nexthop: str, result: RecipientResult, lease_id: int) -> logging.LogRecord:
    """Return the event for a recipient whose address is still to be filled in."""
    fields = _fields(queue_id, nexthop, result, lease_id)
    due_at = fields["due_at"]
    until = f" until {due_at}" if due_at else ""
    args = (fields["event"], queue_id, "", fields["relay"], fields["status"], until, fields["reason"])
    path, line, function, _ = log.findCaller()
    return log.makeRecord(log.name, logging.INFO, path, line, _TEXT, args, None, function, fields)


def _about(record: logging.LogRecord, address: str) -> logging.LogRecord:
    """Return a copy of *record* that is about the recipient of this *address*."""
    made = object.__new__(type(record))
    event, queue_id, _, *others = record.args or ()
    # A record is made of what it was called with and of where and when that was, which costs more than all else here.
    made.__dict__ = record.__dict__ | {"args": (event, queue_id, address, *others), "recipient": address}
    return made


def _fields(queue_id: str, nexthop: str, result: RecipientResult, lease_id: int) -> dict[str, Any]:
    outcome, disposition = result.outcome, result.disposition
    if isinstance(outcome, Delivered):
        relay, status, reason = str(outcome.endpoint), outcome.reply.status, outcome.reply.text
        facts = outcome.facts
    else:
        failure = outcome.failure
        relay, status, reason = str(failure.relay or "none"), failure.status, failure.reason
        facts = failure.facts
    return {
        "event": outcome_word(result),
        "queue_id": queue_id,
        "recipient": "",
        "nexthop": nexthop,
        "lease": lease_id,
        "session": 0 if facts is None else facts.number,
        "relay": relay,
        "status": str(status),
        "reason": reason,
        "seconds": round((result.finished_at - result.started_at).total_seconds(), 3),
        "due_at": disposition.due_at.isoformat() if isinstance(disposition, RetryAt) else "",
        "earlier": [failure.reason for failure in outcome.earlier],
    }
