"""What was recorded of a message and of some of its recipients, as a report tells it.

What is said of a recipient is taken from the record of its last attempt, never
from what the settings would make of it today.

Source: smtp-delivery B-16, B-26, B-28, B-33; RFC 8689 §5
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select

from mailq.dsn.values import Original, ReportedRecipient
from mailq.envelope import Ret
from mailq.errors import ContentUnavailableError
from mailq.queue.backoff import RetrySchedule
from mailq.queue.bodies import StoredBodies
from mailq.queue.enqueue import parse_notify
from mailq.queue.reports import Concerned, ReportRules
from mailq.queue.schedules import Labels
from mailq.queue.states import State
from mailq.queue.tables import attempt

log = logging.getLogger(__name__)

# More parameters than this no database takes at once.
_AT_ONCE: Final = 5000

_attempts = (
    select(
        attempt.c.recipient_id,
        attempt.c.relay,
        attempt.c.relay_host,
        attempt.c.reply_text,
        attempt.c.action,
    )
    .where(attempt.c.message_id == bindparam("queue_id"), attempt.c.recipient_id.in_(bindparam("ids", expanding=True)))
    .order_by(attempt.c.id)
)


def is_returned_whole(found: Row[Any], rules: ReportRules) -> bool:
    """Whether a failure report may return all of the message, so that all of it must be read."""
    # What the null sender said of RET does not bind the postmaster, who gets the report.
    wanted = not found.sender or found.ret != Ret.HDRS.value
    fits = not rules.size_limit_bytes or found.size_bytes <= rules.size_limit_bytes
    return bool(wanted and fits and not found.require_tls)


def original_of(found: Row[Any], nexthop: str, bodies: StoredBodies, rules: ReportRules, *, whole: bool) -> Original:
    """Return a message, read whole or as far as its header.

    Raises:
        ContentUnavailableError: It cannot be read now.
    """
    schedule = _schedule(found, nexthop, rules)
    return Original(
        queue_id=found.id,
        sender=found.sender,
        envid=found.envid,
        # Source: RFC 8689 §5
        ret=Ret.HDRS if found.require_tls else None if found.ret is None else Ret(found.ret),
        arrived_at=found.arrived_at,
        content=_read(found, bodies, whole=whole),
        size_bytes=found.size_bytes,
        smtputf8=found.smtputf8,
        require_tls=found.require_tls,
        tls_optional=found.tls_optional,
        verp=found.verp,
        lifetime=schedule.lifetime,
        warned_after=schedule.warning,
    )


def concerned_by(
    connection: Connection, found: Row[Any], rows: Sequence[Row[Any]], rules: ReportRules
) -> list[Concerned]:
    """Return the recipients *rows* of the message *found*, with what was said of them last."""
    ids = iter([row.id for row in rows])
    last: dict[int, Any] = {}
    while some := list(islice(ids, _AT_ONCE)):
        for row in connection.execute(_attempts, {"queue_id": found.id, "ids": some}):
            last[row.recipient_id] = row
    return [Concerned(_reported(found, row, last.get(row.id), rules), parse_notify(row.notify)) for row in rows]


def _reported(found: Row[Any], row: Row[Any], last: Row[Any] | None, rules: ReportRules) -> ReportedRecipient:
    is_sent = row.state == State.SENT
    reply = "" if last is None else last.reply_text
    return ReportedRecipient(
        address=row.address,
        orcpt=row.orcpt,
        status=row.last_status,
        reason=f"delivery via {row.last_relay}: {reply}" if is_sent else row.last_reason,
        remote_host="" if last is None else last.relay_host,
        remote_reply=reply,
        action=("" if last is None else last.action) if is_sent else "",
        last_attempt_at=row.last_attempt_at,
        retry_until=_end(found, row, rules) if row.state in {State.QUEUED, State.LEASED} else None,
    )


def _end(found: Row[Any], row: Row[Any], rules: ReportRules) -> datetime | None:
    schedule = _schedule(found, row.nexthop, rules)
    if not schedule.gives_up:
        return None
    end: datetime = found.arrived_at + schedule.lifetime if found.expires_at is None else found.expires_at
    return end


def _schedule(found: Row[Any], nexthop: str, rules: ReportRules) -> RetrySchedule:
    labels = Labels(found.mail_class, found.tenant)
    return rules.schedules.schedule_for(sender=found.sender, nexthop=nexthop, labels=labels)


def _read(found: Row[Any], bodies: StoredBodies, *, whole: bool) -> bytes | None:
    """Return the content or its head; None where it is gone, since the sender is to be told all the same."""
    try:
        if not whole:
            return bodies.read_head(found.id)
        with bodies.open(found.id) as stream:
            return stream.read()
    except ContentUnavailableError as error:
        if not error.gone:
            raise
        log.warning("%s is reported on without its content: %s", found.id, error)
        return None
