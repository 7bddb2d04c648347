"""Telling senders what could not be delivered, what is late, and what arrived where they asked.

A recipient that is given up *wants* a notice, and so does one whose delivery
the sender is to be told of. A message's wanting recipients are told of in one
report of each kind, once its other recipients have been tried or after
a while. A message that is late has a row in ``delay`` that is not settled;
its sender is told once, of the recipients that are deferred by then. A report
is queued and its cause marked in one transaction, so each is reported exactly
once, however many dispatchers run and wherever one of them dies.

With ``soft_bounce`` failures are not told of, and wait until it is off.

Invariant: what is looked at is what somebody is to be told of, not the backlog.

Source: smtp-delivery Q-50, Q-52, Q-54, B-01 to B-03, B-10, B-13 to B-15, B-17, B-30, B-31, B-33, B-42
"""

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, bindparam, exists, literal_column, not_, or_, select, update
from sqlalchemy.sql import ColumnElement

from mailq.envelope import Notify
from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.bodies import StoredBodies
from mailq.queue.concerned import concerned_by, is_returned_whole, original_of
from mailq.queue.engine import Database
from mailq.queue.enqueue import insert_messages, parse_notify
from mailq.queue.messages import NewMessage
from mailq.queue.reports import ReportRules, delay_reports, failure_reports, success_reports
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import State
from mailq.queue.tables import delay, in_state, message, recipient

log = logging.getLogger(__name__)

MOST_TOLD: Final = 10_000
"""Most recipients told of in one report; the others come in the next."""
MOST_REPORTS: Final = 100
"""Most reports made in one transaction, where each recipient has its own."""
MOST_RETURNED_BYTES: Final = 10_000_000
"""Most content returned by them together, one report excepted."""
_MARKED_AT_ONCE: Final = 5000

_WANTED: ColumnElement[bool] = recipient.c.notice == literal_column("'wanted'")
_other = recipient.alias("other")
_being_tried = or_(
    _other.c.state == literal_column("'leased'"),
    and_(_other.c.state == literal_column("'queued'"), _other.c.attempts == 0),
)


def _due(*more: ColumnElement[bool]) -> Any:
    return (
        select(recipient.c.message_id)
        .where(
            _WANTED,
            *more,
            or_(
                not_(exists().where(_other.c.message_id == recipient.c.message_id, _being_tried)),
                recipient.c.finished_at <= seconds_from_now("seconds"),
            ),
        )
        .distinct()
        .order_by(recipient.c.message_id)
        .limit(bindparam("limit"))
    )


def _wanting(*more: ColumnElement[bool]) -> Any:
    return (
        select(recipient, DatabaseNow().label("now"))
        .where(recipient.c.message_id == bindparam("queue_id"), _WANTED, *more)
        .order_by(recipient.c.id)
        .limit(MOST_TOLD)
        .with_for_update(skip_locked=True)
    )


# By whether failures are told of as well.
_due_reports = {True: _due(), False: _due(in_state(State.SENT))}
_all_wanting = {True: _wanting(), False: _wanting(in_state(State.SENT))}
_original = select(message).where(message.c.id == bindparam("queue_id"))
_mark = (
    update(recipient)
    .where(
        recipient.c.id.in_(bindparam("ids", expanding=True)),
        _WANTED,
        in_state(State.BOUNCED, State.EXPIRED, State.SENT),
    )
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


def due_reports(database: Database, *, limit: int, wait: timedelta, failures: bool = True) -> list[str]:
    """Return the queue ids of at most *limit* messages whose sender is to be told of a failure or success now.

    Args:
        database: The queue.
        limit: Most messages.
        wait: A report waits at most this long for the first attempt at the message's other recipients.
        failures: Otherwise of a success only.
    """
    with database.read() as connection:
        return list(
            connection.execute(_due_reports[failures], {"limit": limit, "seconds": -wait.total_seconds()}).scalars()
        )


def send_reports(
    database: Database, bodies: StoredBodies, rules: ReportRules, *, limit: int, wait: timedelta
) -> list[str]:
    """Queue the reports that are due, about at most *limit* messages; return their queue ids.

    A message whose report cannot be made is logged and tried again the next
    time; it does not keep others from being reported.
    """
    final = due_reports(database, limit=limit, wait=wait, failures=not rules.soft_bounce)
    queued = _report_each(
        database, final, lambda connection, queue_id: _report_final(connection, bodies, rules, queue_id)
    )
    late = _late_messages(database, limit=limit - len(final), wait=wait)
    return queued + _report_each(
        database, late, lambda connection, queue_id: _report_delay(connection, bodies, rules, queue_id)
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


def _report_final(connection: Connection, bodies: StoredBodies, rules: ReportRules, queue_id: str) -> list[str]:
    """Report one message's ends; nothing happens where another dispatcher is at it."""
    wanting = connection.execute(_all_wanting[not rules.soft_bounce], {"queue_id": queue_id}).all()
    if not wanting:
        return []
    found = connection.execute(_original, {"queue_id": queue_id}).one()
    wanting = wanting[: _most_told(found, rules)]
    failed = [row for row in wanting if row.state != State.SENT]
    taken = [row for row in wanting if row.state == State.SENT]
    whole = bool(failed) and is_returned_whole(found, rules)
    returned = original_of(found, wanting[0].nexthop, bodies, rules, whole=whole)
    now = wanting[0].now
    about_failed = failure_reports(returned, concerned_by(connection, found, failed, rules), rules, now=now)
    about_taken = success_reports(returned, concerned_by(connection, found, taken, rules), rules, now=now)
    told = {row.id for row in failed if about_failed and _may_be_told(found, row)}
    told |= {row.id for row in taken if about_taken}
    _mark_all(connection, wanting, told)
    return insert_messages(connection, [*about_failed, *about_taken])


def _most_told(found: Row[Any], rules: ReportRules) -> int:
    """Return of how many recipients one transaction tells: with a report for each, their content adds up."""
    if not (found.verp and found.sender and rules.verp_bounces):
        return MOST_TOLD
    size = found.size_bytes if is_returned_whole(found, rules) else 1
    return max(1, min(MOST_REPORTS, MOST_RETURNED_BYTES // max(size, 1)))


def _mark_all(connection: Connection, rows: Iterable[Row[Any]], told: Collection[int]) -> None:
    for is_told, mark in ((True, "sent"), (False, "")):
        ids = iter([row.id for row in rows if (row.id in told) is is_told])
        while some := list(islice(ids, _MARKED_AT_ONCE)):
            connection.execute(_mark, {"ids": some, "mark": mark})


def _report_delay(connection: Connection, bodies: StoredBodies, rules: ReportRules, queue_id: str) -> list[str]:
    """Tell of one late message; nothing happens where another dispatcher is at it.

    What was settled while the report waited is not told of; when that is everything, there is no report.
    """
    noticed = connection.execute(_lock_delay, {"queue_id": queue_id}).one_or_none()
    if noticed is None:
        return []
    found = connection.execute(_original, {"queue_id": queue_id}).one()
    deferred = connection.execute(_deferred, {"queue_id": queue_id}).all()
    reports: list[NewMessage] = []
    if deferred:
        late = original_of(found, deferred[0].nexthop, bodies, rules, whole=False)
        reports = delay_reports(late, concerned_by(connection, found, deferred, rules), rules, now=noticed.now)
    connection.execute(_settle_delay, {"queue_id_settled": queue_id})
    return insert_messages(connection, reports)


def _may_be_told(found: Row[Any], row: Row[Any]) -> bool:
    wishes = parse_notify(row.notify)
    return not found.sender or not wishes or Notify.FAILURE in wishes
