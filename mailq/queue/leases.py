"""Keeping recipients that were claimed, handing them back.

A lease is one row, so renewing costs one row however many recipients it
covers. Its id is the fencing token: recipients point at it, and whoever
writes must find them still pointing at it. A worker that comes back after a
sweep finds nothing and cannot write. Whoever locks both locks the lease first
and its recipients after it.

``attempts`` is raised when a recipient is taken, and lowered again when it is
handed back untried: see :mod:`mailq.queue.claims`. The lease names the message that its owner is at work on,
so that a message which kills its worker is seen to have been tried; see
:mod:`mailq.queue.sweep`.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Update, bindparam, delete, exists, null, select, update

from mailq.queue.engine import Database
from mailq.queue.messages import AtWork
from mailq.queue.record import Sequel, at_work_row, begin_statement, write_sequels
from mailq.queue.sqltypes import seconds_from_now
from mailq.queue.states import Event, sources, target
from mailq.queue.tables import in_state, lease, recipient, stored
from mailq.status import RecipientId

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
_renew = (
    update(lease)
    .where(lease.c.id.in_(bindparam("tokens", expanding=True)))
    .values(expires_at=seconds_from_now("seconds"))
    .returning(lease.c.id)
)


def _hand_back(*which: ColumnElement[bool]) -> Update:
    """Build the statement that makes recipients of some leases due at once, as if nobody had touched them."""
    held = (
        select(recipient.c.id)
        .where(recipient.c.lease_id.in_(bindparam("tokens", expanding=True)), in_state(*sources(Event.HAND_BACK)))
        .where(*which)
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
_give_some_back = _hand_back(recipient.c.id.in_(bindparam("ids", expanding=True)))


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


def give_back(database: Database, lease_id: int, recipients: Iterable[RecipientId]) -> None:
    """Make some recipients of a lease due at once, as if nobody had touched them; it goes on for the others."""
    with database.write() as connection:
        rows = connection.execute(_give_some_back, {"tokens": [lease_id], "ids": sorted(recipients)}).all()
        write_sequels(connection, (), due=[(row.nexthop, row.due_at) for row in rows])


def drop_lease(connection: Connection, token: int) -> None:
    """End a lease that covers nothing."""
    connection.execute(_drop_lease, {"token": token})


def end_finished(connection: Connection, lease_ids: Collection[int]) -> None:
    """End those of the leases that cover nothing any more."""
    connection.execute(_drop_finished, {"tokens": sorted(lease_ids)})


def begin(database: Database, lease_id: int, at_work: AtWork) -> None:
    """Note what the owner of the lease is about to send; a lease that is gone is left alone."""
    with database.write() as connection:
        connection.execute(begin_statement, at_work_row(lease_id, at_work))


def free(connection: Connection, tokens: Sequence[int], *, sequels: Iterable[Sequel] = ()) -> int:
    """End leases; what they still cover is due at once and counts as not tried. Return how many recipients that is.

    Args:
        connection: In a transaction that does nothing behind this.
        tokens: Of the leases.
        sequels: Of what the transaction has recorded before.
    """
    rows = connection.execute(_give_back, {"tokens": list(tokens)}).all()
    write_sequels(connection, sequels, due=[(row.nexthop, row.due_at) for row in rows])
    connection.execute(_drop_leases, {"tokens": list(tokens)})
    return len(rows)
