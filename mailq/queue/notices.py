"""Telling senders what could not be delivered.

A recipient that is given up *wants* a notice. A message's wanting recipients
are told of in one report, once its other recipients have been tried or after
a while. The report is queued and the recipients are marked in one
transaction, so each is reported exactly once, however many dispatchers run.

No report goes to the null sender, and so there is never one about a report;
none about a recipient whose NOTIFY leaves failures out.

Source: smtp-delivery B-01, B-10, B-13, B-14, B-17, B-31, B-33
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, literal_column, not_, or_, select, update
from sqlalchemy.sql import ColumnElement

from mailq.dsn.compose import Letterhead, Original, Report, ReportedRecipient, compose_failure_report
from mailq.envelope import Encoding, Notify, Ret
from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.engine import Database
from mailq.queue.enqueue import insert_messages, parse_notify
from mailq.queue.messages import NewMessage, NewRecipient
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import State
from mailq.queue.tables import attempt, content, in_state, message, recipient

log = logging.getLogger(__name__)

_WANTED: ColumnElement[bool] = recipient.c.notice == literal_column("'wanted'")
_other = recipient.alias("other")
_unsettled = exists().where(
    _other.c.message_id == recipient.c.message_id,
    or_(
        _other.c.state == literal_column("'leased'"),
        and_(_other.c.state == literal_column("'queued'"), _other.c.attempts == 0),
    ),
)
_due = (
    select(recipient.c.message_id)
    .where(_WANTED, or_(not_(_unsettled), recipient.c.finished_at <= seconds_from_now("seconds")))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRules:
    """How reports are made.

    Attributes:
        hostname: Own name.
        size_limit_bytes: Larger originals are returned as header only; 0 is no limit.
        nexthop_for: Says where mail for an address goes.
    """

    hostname: str
    size_limit_bytes: int
    nexthop_for: Callable[[str], str]


def due_reports(database: Database, *, limit: int, wait: timedelta) -> list[str]:
    """Return the queue ids of at most *limit* messages whose sender is to be told now.

    Args:
        database: The queue.
        limit: Most messages.
        wait: A report waits at most this long for the first attempt at the message's other recipients.
    """
    with database.read() as connection:
        return list(connection.execute(_due, {"limit": limit, "seconds": -wait.total_seconds()}).scalars())


def send_reports(database: Database, rules: ReportRules, *, limit: int, wait: timedelta) -> list[str]:
    """Queue the reports of :func:`due_reports`; return their queue ids.

    A message whose report cannot be made is logged and tried again the next
    time; it does not keep others from being reported.
    """
    queued: list[str] = []
    for queue_id in due_reports(database, limit=limit, wait=wait):
        try:
            with database.write() as connection:
                queued += _report(connection, rules, queue_id)
        except (InfrastructureError, SchemaError):
            raise
        except Exception:
            log.exception("%s: the failure report could not be made; it is tried again", queue_id)
    return queued


def _report(connection: Connection, rules: ReportRules, queue_id: str) -> list[str]:
    """Report one message; nothing happens where another dispatcher is at it."""
    wanting = connection.execute(_wanting, {"queue_id": queue_id}).all()
    if not wanting:
        return []
    original = connection.execute(_original, {"queue_id": queue_id}).one()
    told = [row for row in wanting if original.sender and _wants_failures(row.notify)]
    ids = [row.id for row in told]
    untold = [row.id for row in wanting if row.id not in set(ids)]
    if untold:
        connection.execute(_mark, {"ids": untold, "mark": ""})
    if not told:
        return []
    history = connection.execute(_attempts, {"queue_id": queue_id, "ids": ids}).all()
    report = _compose(original, told, {row.recipient_id: row for row in history}, rules, told[0].now)
    queued = insert_messages(connection, [_message(original, report, rules)])
    connection.execute(_mark, {"ids": ids, "mark": "sent"})
    return queued


def _wants_failures(notify: str) -> bool:
    wishes = parse_notify(notify)
    return not wishes or Notify.FAILURE in wishes


def _compose(
    original: Row[Any],
    told: Sequence[Row[Any]],
    last_attempts: dict[int, Row[Any]],
    rules: ReportRules,
    now: datetime,
) -> Report:
    return compose_failure_report(
        Original(
            queue_id=original.id,
            sender=original.sender,
            envid=original.envid,
            ret=None if original.ret is None else Ret(original.ret),
            arrived_at=original.arrived_at,
            content=original.data,
            smtputf8=original.smtputf8,
        ),
        [_reported(row, last_attempts.get(row.id)) for row in told],
        Letterhead(
            hostname=rules.hostname,
            message_id=f"{original.id}.{secrets.token_hex(5)}@{rules.hostname}",
            written_at=now,
            size_limit_bytes=rules.size_limit_bytes,
        ),
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


def _message(original: Row[Any], report: Report, rules: ReportRules) -> NewMessage:
    sender: str = original.sender
    return NewMessage(
        sender="",
        recipients=(NewRecipient(address=sender, nexthop=rules.nexthop_for(sender)),),
        content=report.content,
        encoding=Encoding.EIGHT_BIT if report.eight_bit else Encoding.SEVEN_BIT,
        smtputf8=report.smtputf8,
        utf8_header=report.utf8_header,
        notice_of=original.id,
        notice_kind="failure",
    )
