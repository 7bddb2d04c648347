"""What people do to the queue: hold, release, retry, cancel, purge.

An action touches only recipients in a state that it may start from; the
others, such as those being delivered right now, are left alone and not
counted. Large selections are worked through in batches of their own
transactions, so that delivery is never held up for long.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, literal, not_, select, update

from mailq.queue.dispatch import earliest_of, ring_no_later
from mailq.queue.engine import Database
from mailq.queue.queue_ids import queue_id
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import FINAL, Event, ShownState, sources, target
from mailq.queue.tables import attempt, content, delay, destination, in_state, message, recipient, stored
from mailq.queue.views import is_shown_as_any

_BATCH = 500
_CLOCK_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Recipients for which everything that is given holds; nothing given selects all.

    Attributes:
        queue_ids: Of any of these messages.
        sender: Envelope sender; empty is the null sender, None any.
        recipient: Address.
        domain: Part of the address after the ``@``.
        nexthop: As stored.
        states: In any of these states.
    """

    queue_ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    nexthop: str | None = None
    states: tuple[ShownState, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the same as SQL, about the recipient table."""
        found: list[ColumnElement[bool]] = []
        if self.queue_ids:
            found.append(recipient.c.message_id.in_(self.queue_ids))
        if self.sender is not None:
            found.append(recipient.c.message_id.in_(select(message.c.id).where(message.c.sender == self.sender)))
        if self.recipient is not None:
            found.append(recipient.c.address == self.recipient)
        if self.domain is not None:
            found.append(func.lower(recipient.c.address).endswith(f"@{self.domain.lower()}", autoescape=True))
        if self.nexthop is not None:
            found.append(recipient.c.nexthop == self.nexthop)
        if self.states:
            found.append(is_shown_as_any(self.states))
        return found


def hold(database: Database, selector: Selector) -> int:
    """Keep waiting recipients from being tried; return how many."""
    return _act(database, selector, Event.HOLD)


def release_held(database: Database, selector: Selector) -> int:
    """Let held recipients wait for their time again; return how many."""
    return _act(database, selector, Event.RELEASE_HELD, rings=True)


def retry(database: Database, selector: Selector) -> int:
    """Make waiting recipients due now; return how many."""
    return _act(database, selector, Event.RETRY, rings=True, due_at=DatabaseNow())


def cancel(database: Database, selector: Selector) -> int:
    """End waiting and held recipients without a report; return how many."""
    return _act(database, selector, Event.CANCEL, finished_at=DatabaseNow())


def _act(database: Database, selector: Selector, event: Event, *, rings: bool = False, **values: Any) -> int:
    chosen = (
        select(recipient.c.id)
        .where(recipient.c.id > bindparam("above"), in_state(*sources(event)), *selector.conditions())
        .order_by(recipient.c.id)
        .limit(_BATCH)
        .with_for_update(of=recipient)
        .cte("chosen_recipient")
    )
    statement = (
        update(recipient)
        .where(recipient.c.id.in_(select(chosen.c.id)), in_state(*sources(event)))
        .values(state=stored(target(event)), **values)
        .returning(recipient.c.id, recipient.c.nexthop, recipient.c.due_at)
    )
    touched, above = 0, 0
    while True:
        with database.write() as connection:
            rows = connection.execute(statement, {"above": above}).all()
            if rings:
                ring_no_later(connection, earliest_of((row.nexthop, row.due_at) for row in rows))
        if not rows:
            return touched
        touched += len(rows)
        above = max(row.id for row in rows)


_unfinished = exists().where(
    recipient.c.message_id == message.c.id,
    not_(in_state(*sorted(FINAL)))
    | (recipient.c.notice == literal("wanted"))
    | (recipient.c.finished_at > seconds_from_now("seconds")),
)
_finished_messages = (
    select(message.c.id)
    .where(message.c.id < bindparam("created_before"), not_(_unfinished))
    .order_by(message.c.id)
    .limit(bindparam("limit"))
    .with_for_update(of=message, skip_locked=True)
)
_DELETES = [
    delete(table).where(column.in_(bindparam("ids", expanding=True)))
    for table, column in (
        (attempt, attempt.c.message_id),
        (recipient, recipient.c.message_id),
        (content, content.c.message_id),
        (delay, delay.c.message_id),
        (message, message.c.id),
    )
]
_idle_destinations = (
    select(destination.c.nexthop)
    .where(destination.c.next_ring_at.is_(None), destination.c.touched_at < seconds_from_now("seconds"))
    .order_by(destination.c.nexthop)
    .limit(_BATCH)
    .with_for_update(skip_locked=True)
    .cte("idle_destination")
)
_delete_idle = delete(destination).where(
    destination.c.nexthop.in_(select(_idle_destinations.c.nexthop)), destination.c.next_ring_at.is_(None)
)


def purge(database: Database, *, older_than: timedelta, limit: int) -> int:
    """Delete at most *limit* messages whose recipients all ended longer than *older_than* ago; return how many.

    A message that still owes its sender a report stays. Its idempotency key
    is free again once it is gone.
    """
    # The ids sort by time, so younger messages need not be looked at; the exact test is by the database's clock.
    newest = queue_id(datetime.now(UTC) - older_than + _CLOCK_SLACK, 0)
    seconds = -older_than.total_seconds()
    purged = 0
    while purged < limit:
        parameters = {"created_before": newest, "seconds": seconds, "limit": min(_BATCH, limit - purged)}
        with database.write() as connection:
            ids = connection.execute(_finished_messages, parameters).scalars().all()
            for statement in _DELETES if ids else ():
                connection.execute(statement, {"ids": ids})
        purged += len(ids)
        if len(ids) < _BATCH:
            break
    with database.write() as connection:
        connection.execute(_delete_idle, {"seconds": seconds})
    return purged
