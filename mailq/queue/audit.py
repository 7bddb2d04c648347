"""Who did what to the queue, and why.

An order is written down in the transaction that first carries it out, so
nothing is done that is not on record, and nothing is on record that was not
begun. While a large one is worked through, ``touched`` grows with it; an
order without an end was cut off there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update

from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import State
from mailq.queue.tables import audit, in_state, recipient

_begin = insert(audit).values(at=DatabaseNow()).returning(audit.c.id)
_touch = update(audit).where(audit.c.id == bindparam("order_id")).values(touched=audit.c.touched + bindparam("more"))
_finish = update(audit).where(audit.c.id == bindparam("order_id")).values(finished_at=DatabaseNow())
# Held mail says by whom it is held, so its order stays as long as it does.
_old = (
    select(audit.c.id)
    .where(
        audit.c.at < seconds_from_now("seconds"),
        ~exists().where(recipient.c.audit_id == audit.c.id, in_state(State.HELD)),
    )
    .order_by(audit.c.at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("old_order")
)
_forget = delete(audit).where(audit.c.id.in_(select(_old.c.id)))


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who gives an order, and why.

    Attributes:
        actor: ``user@host``, or whatever the application knows the person by.
        reason: In the actor's own words; may be empty.
    """

    actor: str = "application"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One order.

    Attributes:
        at: When it began, by the database's clock.
        action: The verb, such as ``hold``.
        selector: What was given to choose by; empty: everything.
        arguments: What else was given, such as the new nexthop.
        counted: How many recipients a preview had found; None: there was none.
        touched: How many were changed.
        finished_at: None while it is carried out, and for ever where it was cut off.
    """

    id: int
    at: datetime
    actor: str
    action: str
    selector: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reason: str
    counted: int | None
    touched: int
    finished_at: datetime | None


def begin(
    connection: Connection,
    action: str,
    *,
    by: By,
    selector: Mapping[str, Any],
    arguments: Mapping[str, Any],
    counted: int | None,
) -> int:
    """Write an order down, and return its number."""
    values = {
        "actor": by.actor,
        "action": action,
        "selector": dict(selector),
        "arguments": dict(arguments),
        "reason": by.reason,
        "counted": counted,
        "touched": 0,
    }
    return int(connection.execute(_begin, values).scalar_one())


def touch(connection: Connection, order_id: int, more: int) -> None:
    """Note that *more* recipients were changed."""
    connection.execute(_touch, {"order_id": order_id, "more": more})


def finish(connection: Connection, order_id: int) -> None:
    """Note that the order was carried out."""
    connection.execute(_finish, {"order_id": order_id})


def entries(database: Database, *, since: datetime | None, limit: int) -> Sequence[AuditEntry]:
    """Return at most *limit* orders given at *since* or later, the latest first; None is from the beginning."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if since is not None:
        statement = statement.where(audit.c.at >= since)
    with database.read() as connection:
        return [_entry(row) for row in connection.execute(statement)]


def forget(connection: Connection, *, older_than: timedelta, limit: int) -> int:
    """Delete at most *limit* orders given longer than *older_than* ago that hold no recipient; return how many."""
    return connection.execute(_forget, {"seconds": -older_than.total_seconds(), "limit": limit}).rowcount


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**{name: getattr(row, name) for name in AuditEntry.__dataclass_fields__})
