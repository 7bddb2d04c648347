"""Taking recipients to work on, keeping them, handing them back.

A lease is one row, so renewing costs one row however many recipients it
covers. Its id is the fencing token: recipients point at it, and whoever
writes must find them still pointing at it. A worker that comes back after a
sweep finds nothing and cannot write. Whoever locks both locks the lease first
and its recipients after it.

``attempts`` is raised when a recipient is taken, and lowered again when it is
handed back untried. The lease names the message that its owner is at work on,
so that a message which kills its worker is seen to have been tried; see
:mod:`mailq.queue.sweep`.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, delete, exists, insert, null, select, update

from mailq.envelope import DeliveryRequest
from mailq.errors import InfrastructureError
from mailq.queue import one_claim, sites
from mailq.queue.claimable import due_through_gate
from mailq.queue.dispatch import earliest_by_priority, earliest_of, ring_no_later
from mailq.queue.engine import Database
from mailq.queue.messages import AtWork, Lease
from mailq.queue.record import at_work_row, begin_statement, quarantine_unreadable
from mailq.queue.requests import messages_of, requests_of
from mailq.queue.schedules import Labels
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import Event, sources, target
from mailq.queue.tables import in_state, lease, recipient, stored
from mailq.queue.turns import Rotation, take_due, taking
from mailq.status import RecipientId

_insert_lease = (
    insert(lease)
    .values(taken_at=DatabaseNow(), expires_at=seconds_from_now("seconds"))
    .returning(lease.c.id, lease.c.taken_at)
)
_drop_lease = delete(lease).where(lease.c.id == bindparam("token"))
_drop_leases = delete(lease).where(lease.c.id.in_(bindparam("tokens", expanding=True)))
# One that somebody else has locked, to renew or to sweep it, is left to run out: whoever writes outcomes has locked
# recipients already, and may wait for no lease.
_drop_finished = delete(lease).where(
    lease.c.id.in_(
        select(lease.c.id)
        .where(lease.c.id.in_(bindparam("tokens", expanding=True)), ~exists().where(recipient.c.lease_id == lease.c.id))
        .with_for_update(skip_locked=True)
    )
)
_take_these = taking().where(recipient.c.id.in_(bindparam("ids", expanding=True)))
_renew = (
    update(lease)
    .where(lease.c.id.in_(bindparam("tokens", expanding=True)))
    .values(expires_at=seconds_from_now("seconds"))
    .returning(lease.c.id)
)


def _hand_back() -> Update:
    """Build the statement that makes the recipients of some leases due at once, as if nobody had touched them."""
    held = (
        select(recipient.c.id)
        .where(recipient.c.lease_id.in_(bindparam("tokens", expanding=True)), in_state(*sources(Event.HAND_BACK)))
        .order_by(recipient.c.id)
        .with_for_update()
        .cte("leased_recipient")
    )
    return (
        update(recipient)
        .where(recipient.c.id.in_(select(held.c.id)), in_state(*sources(Event.HAND_BACK)))
        .values(
            state=stored(target(Event.HAND_BACK)),
            lease_id=null(),
            # The due time stays: whoever was first in line is so again.
            attempts=recipient.c.attempts - 1,
        )
        .returning(recipient.c.nexthop, recipient.c.due_at)
    )


_give_back = _hand_back()


def claim(
    database: Database,
    nexthop: str,
    *,
    owner: str,
    limit: int,
    lease_time: timedelta,
    rotation: Rotation | None = None,
    last_priority: int = 9,
) -> Lease | None:
    """Lease at most *limit* due recipients of *nexthop*, the most urgent first; None when nothing may be tried now.

    Args:
        database: The queue.
        nexthop: As stored. Of a dead one, a single recipient is leased, as the probe.
        owner: Whose lease it is.
        limit: Most recipients.
        lease_time: The lease runs out after this.
        rotation: Which tenants were served last; None: begin with the first.
        last_priority: Nothing less urgent than this.
    """
    with database.read() as connection:
        alive, due = due_through_gate(connection, nexthop)
    due = [one for one in due if one <= last_priority]
    if not due:
        return None
    if not alive:
        limit = 1
    elif len(due) == 1 and database.dialect == one_claim.DIALECT:
        at_once = _claim_at_once(database, nexthop, due[0], owner=owner, limit=limit, lease_time=lease_time)
        if at_once is not None:
            return at_once
    with database.write() as connection:
        parameters = {"nexthop": nexthop, "owner": owner, "seconds": lease_time.total_seconds()}
        token, taken_at = connection.execute(_insert_lease, parameters).one()
        taken: Sequence[Row[Any]] = ()
        if alive or sites.begin_probe(connection, nexthop, token, hold=lease_time):
            turns = rotation or Rotation()
            taken = take_due(connection, nexthop, token, priorities=due, limit=limit, rotation=turns)
        if not taken:
            connection.execute(_drop_lease, {"token": token})
            return None
        made = _lease_of(connection, nexthop, token, taken, owner=owner, taken_at=taken_at)
    if made is None:
        # Nothing of this could be read; what is behind it can.
        return claim(
            database,
            nexthop,
            owner=owner,
            limit=limit,
            lease_time=lease_time,
            rotation=rotation,
            last_priority=last_priority,
        )
    return replace(made, full=len(taken) >= limit, probe=not alive)


def _claim_at_once(
    database: Database, nexthop: str, priority: int, *, owner: str, limit: int, lease_time: timedelta
) -> Lease | None:
    """Claim in one statement; None where that takes nothing, or nothing that can be read."""
    token = None
    try:
        with database.write_at_once() as connection:
            taken = one_claim.take_at_once(
                connection, nexthop, priority=priority, owner=owner, limit=limit, lease_time=lease_time
            )
            if not taken:
                return None
            token, taken_at = taken[0].token, taken[0].taken_at
            found = messages_of(connection, (row.message_id for row in taken))
        requests, unreadable = requests_of(nexthop, taken, found, taken_at)
        if unreadable:
            with database.write() as connection:
                quarantine_unreadable(connection, token, unreadable, now=taken_at)
                if requests:
                    connection.execute(begin_statement, at_work_row(token, AtWork(requests[0].queue_id)))
                else:
                    connection.execute(_drop_lease, {"token": token})
    except InfrastructureError:
        if token is not None:
            # Nothing was sent: without this the first message would count as uncertain when the lease has run out.
            with suppress(InfrastructureError):
                release(database, token)
        raise
    if not requests:
        return None
    made = _lease(token, nexthop, requests, owner=owner, taken_at=taken_at, taken=taken, found=found)
    return replace(made, full=len(taken) >= limit)


def claim_these(
    database: Database, nexthop: str, ids: Collection[int], *, owner: str, lease_time: timedelta
) -> Lease | None:
    """Lease those of the recipients *ids* of *nexthop* that wait; None when none does, or none can be read."""
    with database.write() as connection:
        parameters = {"nexthop": nexthop, "owner": owner, "seconds": lease_time.total_seconds()}
        token, taken_at = connection.execute(_insert_lease, parameters).one()
        taken = connection.execute(_take_these, {"ids": sorted(ids), "token": token}).all()
        if not taken:
            connection.execute(_drop_lease, {"token": token})
            return None
        return _lease_of(connection, nexthop, token, taken, owner=owner, taken_at=taken_at)


def due_priorities(connection: Connection, nexthop: str) -> list[int]:
    """Return the priorities of which *nexthop* has mail due, the most urgent first."""
    rows = connection.execute(earliest_by_priority, {"nexthop": nexthop}).all()
    return sorted(row.priority for row in rows if row.due_at is not None and row.due_at <= row.now)


def _lease_of(
    connection: Connection, nexthop: str, token: int, taken: Sequence[Row[Any]], *, owner: str, taken_at: datetime
) -> Lease | None:
    """Return the lease on what was taken, whose owner begins with the first message; None where none can be read."""
    found = messages_of(connection, (row.message_id for row in taken))
    requests, unreadable = requests_of(nexthop, taken, found, taken_at)
    quarantine_unreadable(connection, token, unreadable, now=taken_at)
    if not requests:
        connection.execute(_drop_lease, {"token": token})
        return None
    connection.execute(begin_statement, at_work_row(token, AtWork(requests[0].queue_id)))
    return _lease(token, nexthop, requests, owner=owner, taken_at=taken_at, taken=taken, found=found)


def _lease(
    token: int,
    nexthop: str,
    requests: Sequence[DeliveryRequest],
    *,
    owner: str,
    taken_at: datetime,
    taken: Sequence[Row[Any]],
    found: Mapping[str, Row[Any]],
) -> Lease:
    return Lease(
        id=token,
        nexthop=nexthop,
        owner=owner,
        taken_at=taken_at,
        requests=tuple(requests),
        attempts={RecipientId(row.id): row.attempts for row in taken},
        expires={queue_id: row.expires_at for queue_id, row in found.items()},
        full=False,
        labels={queue_id: Labels(row.mail_class, row.tenant) for queue_id, row in found.items()},
        stumbles={RecipientId(row.id): row.stumbles for row in taken if row.stumbles},
        due={RecipientId(row.id): row.due_at for row in taken},
        priority=max(row.priority for row in found.values()),
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
        free(connection, [lease_id])


def end_finished(connection: Connection, lease_ids: Collection[int]) -> None:
    """End those of the leases that cover nothing any more."""
    connection.execute(_drop_finished, {"tokens": sorted(lease_ids)})


def begin(database: Database, lease_id: int, at_work: AtWork) -> None:
    """Note what the owner of the lease is about to send; a lease that is gone is left alone."""
    with database.write() as connection:
        connection.execute(begin_statement, at_work_row(lease_id, at_work))


def free(connection: Connection, tokens: Sequence[int]) -> int:
    """End leases; what they still cover is due at once and counts as not tried. Return how many recipients that is."""
    rows = connection.execute(_give_back, {"tokens": list(tokens)}).all()
    ring_no_later(connection, earliest_of((row.nexthop, row.due_at) for row in rows))
    connection.execute(_drop_leases, {"tokens": list(tokens)})
    return len(rows)
