"""Tell an application what became of its mail, once that is recorded.

The setting ``on_outcome`` names a function of the application's. It is called
after the commit, in the thread that delivers, once for each recipient and
attempt. It is told what happens, not asked: what it raises is logged, and
harms nothing. A worker that dies between the commit and the call has told
nobody, and orders given by people are not told here; the truth stands in SQL.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mailq.envelope import Recipient
from mailq.errors import ConfigError
from mailq.queue.backoff import RetryAt
from mailq.queue.messages import RecipientResult
from mailq.queue.record import outcome_word
from mailq.status import Delivered
from mailq.worker.plugins import named

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeEvent:
    """What became of one recipient in one attempt.

    Attributes:
        word: ``sent``, ``deferred``, ``bounced``, ``expired``, ``quarantined`` or ``uncertain``.
        queue_id: Names the message.
        recipient: Envelope address.
        nexthop: Where it was to go.
        relay: The server that a session was held with; empty: none.
        status: Enhanced status code, such as ``5.1.1``.
        reason: One line: the server's reply, or why there was none.
        at: When, aware.
        due_at: Of a deferred recipient, when it is tried again; else None.
    """

    word: str
    queue_id: str
    recipient: str
    nexthop: str
    relay: str
    status: str
    reason: str
    at: datetime
    due_at: datetime | None


Listener = Callable[[OutcomeEvent], object]


def tell_no_application(_event: OutcomeEvent) -> None:
    """Tell nobody."""


def load_listener(name: str) -> Listener:
    """Return the function called *name*, ``module:attribute``; one that does nothing for an empty name.

    Raises:
        ConfigError: There is no such module or attribute, or it cannot be called.
    """
    if not name:
        return tell_no_application
    found = named("on_outcome", name)
    if not callable(found):
        raise ConfigError(f"on_outcome {name!r} is a {type(found).__name__}, which cannot be called")
    listener: Listener = found
    return listener


def tell_outcome(
    listener: Listener, queue_id: str, nexthop: str, recipient: Recipient, result: RecipientResult
) -> None:
    """Tell *listener* of one outcome that is recorded."""
    if listener is tell_no_application:
        return
    try:
        listener(_event(queue_id, nexthop, recipient, result))
    except Exception:
        log.exception("on_outcome failed for %s; the outcome is recorded all the same", queue_id)


def _event(queue_id: str, nexthop: str, recipient: Recipient, result: RecipientResult) -> OutcomeEvent:
    outcome, disposition = result.outcome, result.disposition
    if isinstance(outcome, Delivered):
        relay, status, reason = str(outcome.endpoint), outcome.reply.status, outcome.reply.text
    else:
        failure = outcome.failure
        relay, status, reason = str(failure.relay or ""), failure.status, failure.reason
    return OutcomeEvent(
        word=outcome_word(result),
        queue_id=queue_id,
        recipient=recipient.address,
        nexthop=nexthop,
        relay=relay,
        status=str(status),
        reason=reason,
        at=result.finished_at,
        due_at=disposition.due_at if isinstance(disposition, RetryAt) else None,
    )
