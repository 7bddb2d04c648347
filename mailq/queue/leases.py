"""Taking recipients to work on, keeping them, handing them back.

A lease is one row, so renewing costs one row however many recipients it
covers. Its id is the fencing token: recipients point at it, and whoever
writes must find them still pointing at it. A worker that comes back after a
sweep finds nothing and cannot write.

``attempts`` is raised when a recipient is taken, not when it is tried, so that
a message which kills its worker is seen to have been tried.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, delete, insert, null, select, update

from mailq.envelope import DeliveryRequest, Encoding, Protocol, Recipient, Ret
from mailq.errors import DestinationSyntaxError
from mailq.queue.dispatch import earliest_by_priority, earliest_of, ring_no_later
from mailq.queue.engine import Database
from mailq.queue.enqueue import parse_notify
from mailq.queue.messages import Lease
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import Event, sources, target
from mailq.queue.tables import in_state, lease, message, recipient, stored
from mailq.routing.transport import NextHop
from mailq.status import RecipientId

_SWEEP_LEASES = 100

_insert_lease = (
    insert(lease)
    .values(taken_at=DatabaseNow(), expires_at=seconds_from_now("seconds"))
    .returning(lease.c.id, lease.c.taken_at)
)
_due = (
    select(recipient.c.id)
    .where(
        in_state(*sources(Event.CLAIM)),
        recipient.c.nexthop == bindparam("wanted_nexthop"),
        recipient.c.priority == bindparam("wanted_priority"),
        recipient.c.due_at <= DatabaseNow(),
    )
    .order_by(recipient.c.due_at, recipient.c.id)
    .limit(bindparam("wanted_count"))
    .with_for_update(skip_locked=True)
    .cte("due_recipient")
)
_take = (
    update(recipient)
    .where(recipient.c.id.in_(select(_due.c.id)), in_state(*sources(Event.CLAIM)))
    .values(
        state=stored(target(Event.CLAIM)),
        lease_id=bindparam("token"),
        attempts=recipient.c.attempts + 1,
        fresh=False,
    )
    .returning(
        recipient.c.id,
        recipient.c.message_id,
        recipient.c.address,
        recipient.c.orcpt,
        recipient.c.notify,
        recipient.c.due_at,
        recipient.c.attempts,
    )
)
_messages = select(message).where(message.c.id.in_(bindparam("ids", expanding=True)))
_drop_lease = delete(lease).where(lease.c.id == bindparam("token"))
_drop_leases = delete(lease).where(lease.c.id.in_(bindparam("tokens", expanding=True)))
_renew = (
    update(lease)
    .where(lease.c.id.in_(bindparam("tokens", expanding=True)))
    .values(expires_at=seconds_from_now("seconds"))
    .returning(lease.c.id)
)
_expired = (
    select(lease.c.id)
    .where(lease.c.expires_at <= DatabaseNow())
    .order_by(lease.c.expires_at)
    .limit(_SWEEP_LEASES)
    .with_for_update(skip_locked=True)
)


def _hand_back(*, untried: bool) -> Update:
    """Build the statement that makes the recipients of some leases due at once."""
    held = (
        select(recipient.c.id)
        .where(recipient.c.lease_id.in_(bindparam("tokens", expanding=True)), in_state(*sources(Event.HAND_BACK)))
        .order_by(recipient.c.id)
        .with_for_update()
        .cte("leased_recipient")
    )
    values: dict[str, Any] = {
        "state": stored(target(Event.HAND_BACK)),
        "lease_id": null(),
        "due_at": DatabaseNow(),
    }
    if untried:
        values["attempts"] = recipient.c.attempts - 1
    return (
        update(recipient)
        .where(recipient.c.id.in_(select(held.c.id)), in_state(*sources(Event.HAND_BACK)))
        .values(values)
        .returning(recipient.c.nexthop, recipient.c.due_at)
    )


_give_back = _hand_back(untried=True)
_take_back = _hand_back(untried=False)


def claim(database: Database, nexthop: str, *, owner: str, limit: int, lease_time: timedelta) -> Lease | None:
    """Lease at most *limit* due recipients of *nexthop*, the most urgent first; None when nothing is due."""
    with database.read() as connection:
        rows = connection.execute(earliest_by_priority, {"nexthop": nexthop}).all()
    urgent = sorted(row.priority for row in rows if row.due_at is not None and row.due_at <= row.now)
    if not urgent:
        return None
    with database.write() as connection:
        parameters = {"nexthop": nexthop, "owner": owner, "seconds": lease_time.total_seconds()}
        token, taken_at = connection.execute(_insert_lease, parameters).one()
        taken = _take_urgent(connection, nexthop, token, urgent, limit)
        if not taken:
            connection.execute(_drop_lease, {"token": token})
            return None
        found = connection.execute(_messages, {"ids": sorted({row.message_id for row in taken})}).all()
    return Lease(
        id=token,
        nexthop=nexthop,
        owner=owner,
        taken_at=taken_at,
        requests=_requests(nexthop, taken, {row.id: row for row in found}, taken_at),
        attempts={RecipientId(row.id): row.attempts for row in taken},
        expires={row.id: row.expires_at for row in found},
        full=len(taken) >= limit,
    )


def renew(database: Database, leases: Collection[int], *, lease_time: timedelta) -> set[int]:
    """Extend *leases* from now on; return those that still exist."""
    if not leases:
        return set()
    with database.write() as connection:
        parameters = {"tokens": sorted(leases), "seconds": lease_time.total_seconds()}
        return set(connection.execute(_renew, parameters).scalars())


def release(database: Database, lease_id: int) -> None:
    """End the lease; what was not recorded is due at once and counts as not tried. Harmless when repeated."""
    with database.write() as connection:
        _free(connection, _give_back, [lease_id])


def sweep(database: Database) -> int:
    """Free the recipients of leases that ran out; return how many."""
    freed = 0
    while True:
        with database.write() as connection:
            expired = connection.execute(_expired).scalars().all()
            if expired:
                freed += _free(connection, _take_back, expired)
        if len(expired) < _SWEEP_LEASES:
            return freed


def _take_urgent(connection: Connection, nexthop: str, token: int, urgent: Sequence[int], limit: int) -> list[Row[Any]]:
    taken: list[Row[Any]] = []
    for priority in urgent:
        parameters = {
            "wanted_nexthop": nexthop,
            "wanted_priority": priority,
            "wanted_count": limit - len(taken),
            "token": token,
        }
        taken += sorted(connection.execute(_take, parameters), key=lambda row: (row.due_at, row.id))
        if len(taken) >= limit:
            break
    return taken


def _free(connection: Connection, statement: Update, tokens: Sequence[int]) -> int:
    rows = connection.execute(statement, {"tokens": list(tokens)}).all()
    ring_no_later(connection, earliest_of((row.nexthop, row.due_at) for row in rows))
    connection.execute(_drop_leases, {"tokens": list(tokens)})
    return len(rows)


def _destination(nexthop: str) -> NextHop:
    try:
        return NextHop.parse(nexthop)
    except DestinationSyntaxError:
        # The routine refuses it with an outcome for each recipient; an exception here would leave them leased.
        return NextHop(Protocol.SMTP, nexthop)


def _requests(
    nexthop: str, taken: Sequence[Row[Any]], messages: dict[str, Row[Any]], active_at: datetime
) -> tuple[DeliveryRequest, ...]:
    grouped: dict[str, list[Recipient]] = {}
    for row in taken:
        one = Recipient(RecipientId(row.id), row.address, row.orcpt, parse_notify(row.notify))
        grouped.setdefault(row.message_id, []).append(one)
    where = _destination(nexthop)
    return tuple(
        DeliveryRequest(
            queue_id=queue_id,
            nexthop=where.text,
            protocol=where.protocol,
            sender=messages[queue_id].sender,
            recipients=tuple(recipients),
            size_bytes=messages[queue_id].size_bytes,
            arrived_at=messages[queue_id].arrived_at,
            active_at=active_at,
            encoding=None if messages[queue_id].encoding is None else Encoding(messages[queue_id].encoding),
            smtputf8=messages[queue_id].smtputf8,
            utf8_header=messages[queue_id].utf8_header,
            envid=messages[queue_id].envid,
            ret=None if messages[queue_id].ret is None else Ret(messages[queue_id].ret),
        )
        for queue_id, recipients in grouped.items()
    )
