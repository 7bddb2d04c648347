"""Telling senders what could not be delivered, and what is late.

A recipient that is given up *wants* a notice. A message's wanting recipients
are told of in one report, once its other recipients have been tried or after
a while. A message that is late has a row in ``delay`` that is not settled;
its sender is told once, of the recipients that are deferred by then. A report
is queued and its cause marked in one transaction, so each is reported exactly
once, however many dispatchers run.

Invariant: what is looked at is what somebody is to be told of, not the backlog.

Source: smtp-delivery Q-54, B-01, B-02, B-10, B-13, B-14, B-17, B-30, B-31, B-33
"""

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, literal_column, not_, or_, select, update
from sqlalchemy.sql import ColumnElement

from mailq.dsn.values import Original, ReportedRecipient
from mailq.envelope import Notify, Ret
from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.engine import Database
from mailq.queue.enqueue import insert_messages, parse_notify
from mailq.queue.reports import Concerned, ReportRules, delay_reports, failure_reports
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import State
from mailq.queue.tables import attempt, content, delay, in_state, message, recipient

log = logging.getLogger(__name__)

_WANTED: ColumnElement[bool] = recipient.c.notice == literal_column("'wanted'")
_other = recipient.alias("other")
_being_tried = or_(
    _other.c.state == literal_column("'leased'"),
    and_(_other.c.state == literal_column("'queued'"), _other.c.attempts == 0),
)
_due = (
    select(recipient.c.message_id)
    .where(
        _WANTED,
        or_(
            not_(exists().where(_other.c.message_id == recipient.c.message_id, _being_tried)),
            recipient.c.finished_at <= seconds_from_now("seconds"),
        ),
    )
    .distinct()
    .order_by(recipient.c.message_id)
    .limit(bindparam("limit"))
)
_wanting = (
    select(recipient, DatabaseNow().label("now"))
    .where(recipient.c.message_id == bindparam("queue_id"), _WANTED)
    .order_by(recipient.c.id)
    .with_for_update(skip_locked=True)
)
_original = (
    select(message, content.c.data)
    .join_from(message, content, content.c.message_id == message.c.id)
    .where(message.c.id == bindparam("queue_id"))
)
_attempts = (
    select(attempt)
    .where(attempt.c.message_id == bindparam("queue_id"), attempt.c.recipient_id.in_(bindparam("ids", expanding=True)))
    .order_by(attempt.c.id)
)
_mark = (
    update(recipient)
    .where(recipient.c.id.in_(bindparam("ids", expanding=True)), _WANTED, in_state(State.BOUNCED, State.EXPIRED))
    .values(notice=bindparam("mark"))
)
_late = (
    select(delay.c.message_id)
    .where(
        delay.c.settled_at.is_(None),
        or_(
            not_(exists().where(_other.c.message_id == delay.c.message_id, _being_tried)),
            delay.c.noticed_at <= seconds_from_now("seconds"),
        ),
    )
    .order_by(delay.c.message_id)
    .limit(bindparam("limit"))
)
_lock_delay = (
    select(delay.c.message_id, DatabaseNow().label("now"))
    .where(delay.c.message_id == bindparam("queue_id"), delay.c.settled_at.is_(None))
    .with_for_update(skip_locked=True)
)
_deferred = (
    select(recipient)
    .where(
        recipient.c.message_id == bindparam("queue_id"),
        in_state(State.QUEUED, State.LEASED),
        recipient.c.last_attempt_at.is_not(None),
    )
    .order_by(recipient.c.id)
)
_settle_delay = (
    update(delay).where(delay.c.message_id == bindparam("queue_id_settled")).values(settled_at=DatabaseNow())
)


def due_reports(database: Database, *, limit: int, wait: timedelta) -> list[str]:
    """Return the queue ids of at most *limit* messages whose sender is to be told of a failure now.

    Args:
        database: The queue.
        limit: Most messages.
        wait: A report waits at most this long for the first attempt at the message's other recipients.
    """
    with database.read() as connection:
        return list(connection.execute(_due, {"limit": limit, "seconds": -wait.total_seconds()}).scalars())


def send_reports(database: Database, rules: ReportRules, *, limit: int, wait: timedelta) -> list[str]:
    """Queue the failure and delay reports that are due, about at most *limit* messages; return their queue ids.

    A message whose report cannot be made is logged and tried again the next
    time; it does not keep others from being reported.
    """
    failed = due_reports(database, limit=limit, wait=wait)
    queued = _report_each(database, failed, lambda connection, queue_id: _report_failure(connection, rules, queue_id))
    late = _late_messages(database, limit=limit - len(failed), wait=wait)
    return queued + _report_each(
        database, late, lambda connection, queue_id: _report_delay(connection, rules, queue_id)
    )


def _late_messages(database: Database, *, limit: int, wait: timedelta) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(_late, {"limit": limit, "seconds": -wait.total_seconds()}).scalars())


def _report_each(
    database: Database, queue_ids: Collection[str], report: Callable[[Connection, str], list[str]]
) -> list[str]:
    queued: list[str] = []
    for queue_id in queue_ids:
        try:
            with database.write() as connection:
                queued += report(connection, queue_id)
        except (InfrastructureError, SchemaError):
            raise
        except Exception:
            log.exception("%s: the report could not be made; it is tried again", queue_id)
    return queued


def _report_failure(connection: Connection, rules: ReportRules, queue_id: str) -> list[str]:
    """Report one message; nothing happens where another dispatcher is at it."""
    wanting = connection.execute(_wanting, {"queue_id": queue_id}).all()
    if not wanting:
        return []
    original = connection.execute(_original, {"queue_id": queue_id}).one()
    concerned = _concerned(connection, queue_id, wanting)
    reports = failure_reports(_as_original(original), concerned, rules, now=wanting[0].now)
    told = {row.id for row in wanting if reports and _may_be_told(original, row)}
    for mark, ids in (("sent", told), ("", {row.id for row in wanting} - told)):
        if ids:
            connection.execute(_mark, {"ids": sorted(ids), "mark": mark})
    return insert_messages(connection, reports)


def _report_delay(connection: Connection, rules: ReportRules, queue_id: str) -> list[str]:
    """Tell of one late message; nothing happens where another dispatcher is at it.

    What was settled while the report waited is not told of; when that is everything, there is no report.
    """
    noticed = connection.execute(_lock_delay, {"queue_id": queue_id}).one_or_none()
    if noticed is None:
        return []
    original = connection.execute(_original, {"queue_id": queue_id}).one()
    concerned = _concerned(connection, queue_id, connection.execute(_deferred, {"queue_id": queue_id}).all())
    reports = delay_reports(_as_original(original), concerned, rules, now=noticed.now, expires_at=original.expires_at)
    connection.execute(_settle_delay, {"queue_id_settled": queue_id})
    return insert_messages(connection, reports)


def _may_be_told(original: Row[Any], row: Row[Any]) -> bool:
    wishes = parse_notify(row.notify)
    return not original.sender or not wishes or Notify.FAILURE in wishes


def _concerned(connection: Connection, queue_id: str, rows: Sequence[Row[Any]]) -> list[Concerned]:
    ids = [row.id for row in rows]
    history = connection.execute(_attempts, {"queue_id": queue_id, "ids": ids}).all()
    last_attempts = {row.recipient_id: row for row in history}
    return [Concerned(_reported(row, last_attempts.get(row.id)), parse_notify(row.notify)) for row in rows]


def _as_original(row: Row[Any]) -> Original:
    return Original(
        queue_id=row.id,
        sender=row.sender,
        envid=row.envid,
        ret=None if row.ret is None else Ret(row.ret),
        arrived_at=row.arrived_at,
        content=row.data,
        smtputf8=row.smtputf8,
    )


def _reported(row: Row[Any], last_attempt: Row[Any] | None) -> ReportedRecipient:
    return ReportedRecipient(
        address=row.address,
        orcpt=row.orcpt,
        status=row.last_status,
        reason=row.last_reason,
        remote_host="" if last_attempt is None else last_attempt.relay_host,
        remote_reply="" if last_attempt is None else last_attempt.reply_text,
    )
