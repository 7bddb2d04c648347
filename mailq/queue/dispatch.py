"""Which nexthops to ring, and who decides.

``destination.next_ring_at`` is the earliest time at which a nexthop may have
something due; null means nothing waits. It may be too early, which costs one
useless ring, and is never too late: every write that makes a recipient
waiting either leaves it *fresh*, to be noticed here, or lowers
``next_ring_at`` in the same transaction. A dead nexthop is not rung before its
next probe, see :mod:`mailq.queue.sites`.

Invariant: nothing here costs more than what is due; the backlog is not
scanned. Destination rows are locked in the order of their names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, literal, null, select, union_all, update

from mailq.queue import one_settlement
from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, EarlierOf, LaterOf, UtcDateTime, seconds_from_now
from mailq.queue.states import State
from mailq.queue.suspend import park
from mailq.queue.tables import IS_FRESH, destination, in_state, leader, recipient
from mailq.queue.upsert import DIALECTS, insert_into

DISPATCHER: Final = "dispatcher"
"""The role of whoever runs the rounds."""

LAST_ID: Final = 2**63 - 1
"""No recipient has a larger id."""

WELL_TO_THE: Final = timedelta(hours=1)
"""When a destination last did well is kept as exactly as this."""

_PRIORITIES = range(10)

each_priority = union_all(*(select(literal(number).label("priority")) for number in _PRIORITIES)).subquery("priorities")
# A scalar subquery, because it is always answered by one index probe; a join could become a scan of the nexthop.
earliest_due = (
    select(recipient.c.due_at)
    .where(
        in_state(State.QUEUED),
        recipient.c.nexthop == bindparam("nexthop"),
        recipient.c.priority == each_priority.c.priority,
    )
    .order_by(recipient.c.due_at)
    .limit(1)
    .correlate(each_priority)
    .scalar_subquery()
)
earliest_by_priority = select(each_priority.c.priority, earliest_due.label("due_at"), DatabaseNow().label("now"))

_newcomers = (
    select(recipient.c.id, recipient.c.nexthop, recipient.c.due_at, recipient.c.priority)
    .where(IS_FRESH, in_state(State.QUEUED), recipient.c.id > bindparam("after"))
    .order_by(recipient.c.id)
    .limit(bindparam("limit"))
)
_fresh = (
    select(recipient.c.id)
    .where(IS_FRESH, in_state(State.QUEUED), recipient.c.id <= bindparam("upto"))
    .order_by(recipient.c.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("fresh_recipient")
)
_notice = (
    update(recipient)
    .where(recipient.c.id.in_(select(_fresh.c.id)))
    .values(fresh=False)
    .returning(recipient.c.nexthop, recipient.c.due_at, recipient.c.priority)
)


def _not_before_probe(instant: Any) -> Any:
    """Return *instant*, or the time of the next probe where the destination is dead and that is later."""
    return LaterOf(instant, func.coalesce(destination.c.probe_at, instant))


def _ring_no_later(dialect: str) -> Any:
    statement = insert_into(destination, dialect).values(touched_at=DatabaseNow())
    wanted = _not_before_probe(statement.excluded.next_ring_at)
    earlier = EarlierOf(func.coalesce(destination.c.next_ring_at, wanted), wanted)
    return statement.on_conflict_do_update(
        index_elements=[destination.c.nexthop], set_={"next_ring_at": earlier, "touched_at": DatabaseNow()}
    )


def _lock(dialect: str) -> Any:
    statement = insert_into(destination, dialect).values(touched_at=DatabaseNow())
    return statement.on_conflict_do_update(index_elements=[destination.c.nexthop], set_={"touched_at": DatabaseNow()})


def _elect(dialect: str) -> Any:
    statement = insert_into(leader, dialect).values(expires_at=seconds_from_now("seconds"))
    return statement.on_conflict_do_update(
        index_elements=[leader.c.role],
        set_={"owner": statement.excluded.owner, "expires_at": statement.excluded.expires_at},
        where=(leader.c.owner == statement.excluded.owner) | (leader.c.expires_at <= DatabaseNow()),
    ).returning(leader.c.owner)


_ring_no_later_by_dialect = {dialect: _ring_no_later(dialect) for dialect in DIALECTS}
_lock_by_dialect = {dialect: _lock(dialect) for dialect in DIALECTS}
_elect_by_dialect = {dialect: _elect(dialect) for dialect in DIALECTS}
_resign = delete(leader).where(leader.c.role == bindparam("role"), leader.c.owner == bindparam("owner"))
_set_ring = (
    update(destination)
    .where(destination.c.nexthop == bindparam("locked"))
    .values(
        next_ring_at=_not_before_probe(bindparam("earliest", type_=UtcDateTime())), waits_for=null(), waits_since=null()
    )
)
_note_well = (
    update(destination)
    .where(
        destination.c.nexthop == bindparam("locked"),
        func.coalesce(destination.c.well_at, seconds_from_now("seconds")) <= seconds_from_now("seconds"),
    )
    .values(well_at=DatabaseNow())
)
_forget_well = (
    update(destination)
    .where(destination.c.nexthop == bindparam("locked"), destination.c.well_at.is_not(None))
    .values(well_at=null())
)
_set_never = (
    update(destination)
    .where(destination.c.nexthop == bindparam("locked"))
    .values(next_ring_at=null(), waits_for=null(), waits_since=null())
)
_due = (
    select(destination.c.nexthop)
    .where(destination.c.next_ring_at <= DatabaseNow())
    .order_by(destination.c.next_ring_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("due_destination")
)
_ring_due = (
    update(destination)
    .where(destination.c.nexthop.in_(select(_due.c.nexthop)))
    .values(next_ring_at=seconds_from_now("seconds"), touched_at=DatabaseNow())
    .returning(destination.c.nexthop)
)


def due_priorities(connection: Connection, nexthop: str) -> list[int]:
    """Return the priorities of which *nexthop* has mail due, the most urgent first."""
    rows = connection.execute(earliest_by_priority, {"nexthop": nexthop}).all()
    return sorted(row.priority for row in rows if row.due_at is not None and row.due_at <= row.now)


def earliest_of(rows: Iterable[tuple[str, datetime]]) -> dict[str, datetime]:
    """Return the earliest instant of each nexthop."""
    earliest: dict[str, datetime] = {}
    for nexthop, due_at in rows:
        earliest[nexthop] = min(due_at, earliest.get(nexthop, due_at))
    return earliest


def ring_no_later(connection: Connection, due: Mapping[str, datetime]) -> None:
    """Have each nexthop rung at its instant at the latest."""
    if due:
        rows = [{"nexthop": nexthop, "next_ring_at": due[nexthop]} for nexthop in sorted(due)]
        connection.execute(_ring_no_later_by_dialect[connection.dialect.name], rows)


@dataclass(frozen=True, slots=True)
class Noticed:
    """Fresh recipients whose destinations were told.

    Attributes:
        recipients: How many.
        urgent: Nexthops of those that are urgent.
    """

    recipients: int
    urgent: frozenset[str]


class Newcomer(NamedTuple):
    """A fresh recipient as somebody saw it."""

    id: int
    nexthop: str
    due_at: datetime
    priority: int


def newcomers(database: Database, *, after: int, limit: int) -> list[Newcomer]:
    """Return the first *limit* fresh recipients with ids above *after*. They stay fresh: nothing is written."""
    with database.read() as connection:
        rows = connection.execute(_newcomers, {"after": after, "limit": limit})
        return list(map(Newcomer._make, rows))


def ring_for(database: Database, due: Mapping[str, datetime]) -> None:
    """Have each nexthop rung at its instant at the latest."""
    with database.write() as connection:
        ring_no_later(connection, due)


def notice_new(database: Database, *, limit: int, urgent_priority: int = -1, upto: int = LAST_ID) -> Noticed:
    """Tell the destinations of at most *limit* fresh recipients, which are fresh no longer.

    Args:
        database: The queue.
        limit: Most recipients.
        urgent_priority: Those of this priority and before are urgent.
        upto: Those with ids up to this one.
    """
    with database.write() as connection:
        rows = connection.execute(_notice, {"limit": limit, "upto": upto}).all()
        ring_no_later(connection, earliest_of((row.nexthop, row.due_at) for row in rows))
    return Noticed(len(rows), frozenset(row.nexthop for row in rows if row.priority <= urgent_priority))


def due_nexthops(database: Database, *, limit: int, ring_timeout: timedelta) -> list[str]:
    """Return nexthops to ring now; they come again after *ring_timeout* unless :func:`settle` says otherwise.

    Those that are suspended are looked at again when that ends.
    """
    with database.write() as connection:
        parameters = {"limit": limit, "seconds": ring_timeout.total_seconds()}
        due = sorted(connection.execute(_ring_due, parameters).scalars())
        parked = park(connection, due)
    return [nexthop for nexthop in due if nexthop not in parked]


def settle(database: Database, nexthop: str, *, well: bool | None = None) -> None:
    """Set the next ring of *nexthop* to its earliest waiting recipient, or to never.

    Args:
        database: The queue.
        nexthop: As stored.
        well: It did well, which is kept, or it did not, which has what was kept forgotten; None: nobody knows.
    """
    settle_many(database, {nexthop: well})


def settle_many(database: Database, nexthops: Mapping[str, bool | None]) -> None:
    """Do the same for several nexthops, each with whether it did well."""
    settled: frozenset[str] = frozenset()
    if nexthops and database.dialect == one_settlement.DIALECT:
        settled = one_settlement.settle_at_once(database, nexthops, well_kept_seconds=WELL_TO_THE.total_seconds())
    for nexthop in sorted(nexthops.keys() - settled):
        settle_alone(database, nexthop, well=nexthops[nexthop])


def settle_alone(database: Database, nexthop: str, *, well: bool | None = None) -> None:
    """Settle a nexthop in a transaction that has its destination locked from the beginning."""
    with database.write() as connection:
        # Locked first, read in a statement of its own: a deferral that is being recorded comes after the lock is gone
        # and lowers the time again, one recorded before is seen.
        connection.execute(_lock_by_dialect[connection.dialect.name], {"nexthop": nexthop})
        if well:
            connection.execute(_note_well, {"locked": nexthop, "seconds": -WELL_TO_THE.total_seconds()})
        elif well is False:
            connection.execute(_forget_well, {"locked": nexthop})
        rows = connection.execute(earliest_by_priority, {"nexthop": nexthop}).all()
        earliest = min((row.due_at for row in rows if row.due_at is not None), default=None)
        if earliest is None:
            connection.execute(_set_never, {"locked": nexthop})
        else:
            connection.execute(_set_ring, {"locked": nexthop, "earliest": earliest})


def elect(database: Database, owner: str, *, role: str, lease_time: timedelta) -> bool:
    """Become or stay the holder of *role* for *lease_time*; False while somebody else is."""
    parameters = {"role": role, "owner": owner, "seconds": lease_time.total_seconds()}
    with database.write() as connection:
        return connection.execute(_elect_by_dialect[connection.dialect.name], parameters).first() is not None


def resign(database: Database, owner: str, *, role: str) -> None:
    """Give *role* up, so that another owner need not wait; harmless for one who does not hold it."""
    with database.write() as connection:
        connection.execute(_resign, {"role": role, "owner": owner})
