"""Claiming: leasing what is due, of one nexthop or of many at once.

On PostgreSQL everything is one statement where that is simple, see
:mod:`mailq.queue.one_claim`; what is not, and all on SQLite, goes the longer
way: what is due, and does anything stop or slow this nexthop? then a
transaction in which tenants take turns and dead destinations are probed.

Source: smtp-delivery Q-25, Q-35, Q-60, Q-64
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert

from mailq.envelope import DeliveryRequest
from mailq.errors import InfrastructureError
from mailq.queue import one_claim, sites
from mailq.queue.claimable import due_through_gate
from mailq.queue.engine import Database
from mailq.queue.leases import drop_lease, release
from mailq.queue.messages import AtWork, Lease, Wish
from mailq.queue.record import at_work_row, begin_statement, quarantine_unreadable
from mailq.queue.requests import Instant, as_it_is, messages_of, requests_of
from mailq.queue.schedules import Labels
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.tables import lease, recipient
from mailq.queue.turns import Rotation, take_due, taking
from mailq.status import RecipientId

_insert_lease = (
    insert(lease)
    .values(taken_at=DatabaseNow(), expires_at=seconds_from_now("seconds"))
    .returning(lease.c.id, lease.c.taken_at)
)
_take_these = taking().where(recipient.c.id.in_(bindparam("ids", expanding=True)))


def claim(
    database: Database, wish: Wish, *, owner: str, lease_time: timedelta, rotation: Rotation | None = None
) -> Lease | None:
    """Lease due recipients as wished, the most urgent first; None when nothing may be tried now.

    Args:
        database: The queue.
        wish: Of a dead nexthop, a single recipient is leased, as the probe.
        owner: Whose lease it is.
        lease_time: The lease runs out after this.
        rotation: Which tenants were served last; None: begin with the first.
    """
    if database.dialect == one_claim.DIALECT:
        return claim_many(database, [wish], owner=owner, lease_time=lease_time, rotation=rotation).get(wish.nexthop)
    with database.read() as connection:
        alive, due = due_through_gate(connection, wish.nexthop)
    due = [one for one in due if one <= wish.last_priority]
    if not due:
        return None
    return _claim_alone(
        database, wish, due, alive=bool(alive), owner=owner, lease_time=lease_time, rotation=rotation or Rotation()
    )


def claim_many(
    database: Database,
    wishes: Collection[Wish],
    *,
    owner: str,
    lease_time: timedelta,
    rotation: Rotation | None = None,
) -> Mapping[str, Lease]:
    """Do the same for several nexthops; return the leases by nexthop.

    Where that fails halfway, whatever was leased is due again.

    Args:
        database: The queue.
        wishes: At most one a nexthop.
        owner: Whose leases they are.
        lease_time: They run out after this.
        rotation: Which tenants were served last; None: begin with the first.

    Raises:
        ValueError: There are two wishes for one nexthop.
    """
    if len({wish.nexthop for wish in wishes}) < len(wishes):
        raise ValueError("more than one wish for a nexthop")
    made: dict[str, Lease] = {}
    try:
        if database.dialect == one_claim.DIALECT:
            _claim_at_once(database, list(wishes), made, owner=owner, lease_time=lease_time, rotation=rotation)
        else:
            for wish in wishes:
                found = claim(database, wish, owner=owner, lease_time=lease_time, rotation=rotation)
                if found is not None:
                    made[wish.nexthop] = found
    except InfrastructureError:
        # Nothing was sent: without this the first messages would count as uncertain when the leases have run out.
        for one in made.values():
            with suppress(InfrastructureError):
                release(database, one.id)
        raise
    return made


def claim_these(
    database: Database, nexthop: str, ids: Collection[int], *, owner: str, lease_time: timedelta
) -> Lease | None:
    """Lease those of the recipients *ids* of *nexthop* that wait; None when none does, or none can be read."""
    with database.write() as connection:
        token, taken_at = _begin_lease(connection, nexthop, owner=owner, lease_time=lease_time)
        taken = connection.execute(_take_these, {"ids": sorted(ids), "token": token}).all()
        if not taken:
            drop_lease(connection, token)
            return None
        return _lease_of(connection, nexthop, token, taken, owner=owner, taken_at=taken_at)


def _claim_at_once(
    database: Database,
    wishes: Sequence[Wish],
    made: dict[str, Lease],
    *,
    owner: str,
    lease_time: timedelta,
    rotation: Rotation | None,
) -> None:
    """Fill *made* by one statement, and in the longer way for those of which that takes nothing."""
    if not wishes:
        return
    found = list(one_claim.take_at_once(database, wishes, owner=owner, lease_time=lease_time))
    left: list[tuple[Wish, Any]] = []
    for wish, rows in found:
        one = None if rows[0].id is None else _read(database, wish, rows, owner=owner)
        if one is None:
            left.append((wish, rows[0]))
        else:
            made[wish.nexthop] = one
    for wish, row in left:
        if row.id is None:
            alive = row.probe_due is None
            alone = _claim_alone(
                database,
                wish,
                row.due,
                alive=alive,
                owner=owner,
                lease_time=lease_time,
                rotation=rotation or Rotation(),
            )
        else:
            # Nothing of this could be read; what is behind it can.
            alone = claim(database, wish, owner=owner, lease_time=lease_time, rotation=rotation)
        if alone is not None:
            made[wish.nexthop] = alone


def _read(database: Database, wish: Wish, rows: Sequence[Any], *, owner: str) -> Lease | None:
    """Return the lease that one statement made; None, and no lease, where nothing of it can be read."""
    token, taken_at = rows[0].token, one_claim.instant(rows[0].taken_at)
    # The first row of a message has its columns.
    messages = {row.message_id: row for row in reversed(rows)}
    requests, unreadable = requests_of(wish.nexthop, rows, messages, taken_at, instant=one_claim.instant)
    if unreadable:
        try:
            with database.write() as connection:
                quarantine_unreadable(connection, token, unreadable, now=taken_at)
                if requests:
                    connection.execute(begin_statement, at_work_row(token, AtWork(requests[0].queue_id)))
                else:
                    drop_lease(connection, token)
        except InfrastructureError:
            with suppress(InfrastructureError):
                release(database, token)
            raise
    if not requests:
        return None
    made = _lease(
        token, wish.nexthop, requests, owner=owner, taken_at=taken_at, taken=rows, found=messages,
        instant=one_claim.instant,
    )  # fmt: skip
    contents = {row.message_id: row.content for row in rows if row.content is not None}
    named = 1 if unreadable else rows[0].named
    return replace(made, full=len(rows) >= wish.limit, contents=contents, named=named)


def _claim_alone(
    database: Database,
    wish: Wish,
    due: Sequence[int],
    *,
    alive: bool,
    owner: str,
    lease_time: timedelta,
    rotation: Rotation,
) -> Lease | None:
    """Claim in a transaction of several statements, where mail of the priorities *due* is."""
    nexthop, limit = wish.nexthop, wish.limit if alive else 1
    with database.write() as connection:
        token, taken_at = _begin_lease(connection, nexthop, owner=owner, lease_time=lease_time)
        taken: Sequence[Row[Any]] = ()
        if alive or sites.begin_probe(connection, nexthop, token, hold=lease_time):
            taken = take_due(connection, nexthop, token, priorities=due, limit=limit, rotation=rotation)
        if not taken:
            drop_lease(connection, token)
            return None
        made = _lease_of(connection, nexthop, token, taken, owner=owner, taken_at=taken_at)
    if made is None:
        # Nothing of this could be read; what is behind it can.
        return claim(database, wish, owner=owner, lease_time=lease_time, rotation=rotation)
    return replace(made, full=len(taken) >= limit, probe=not alive)


def _begin_lease(connection: Connection, nexthop: str, *, owner: str, lease_time: timedelta) -> tuple[int, datetime]:
    parameters = {"nexthop": nexthop, "owner": owner, "seconds": lease_time.total_seconds()}
    token, taken_at = connection.execute(_insert_lease, parameters).one()
    return token, taken_at


def _lease_of(
    connection: Connection, nexthop: str, token: int, taken: Sequence[Row[Any]], *, owner: str, taken_at: datetime
) -> Lease | None:
    """Return the lease on what was taken, whose owner begins with the first message; None where none can be read."""
    found = messages_of(connection, (row.message_id for row in taken))
    requests, unreadable = requests_of(nexthop, taken, found, taken_at)
    quarantine_unreadable(connection, token, unreadable, now=taken_at)
    if not requests:
        drop_lease(connection, token)
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
    instant: Instant = as_it_is,
) -> Lease:
    return Lease(
        id=token,
        nexthop=nexthop,
        owner=owner,
        taken_at=taken_at,
        requests=tuple(requests),
        attempts={RecipientId(row.id): row.attempts for row in taken},
        expires={queue_id: row.expires_at and instant(row.expires_at) for queue_id, row in found.items()},
        full=False,
        labels={queue_id: Labels(row.mail_class, row.tenant) for queue_id, row in found.items()},
        stumbles={RecipientId(row.id): row.stumbles for row in taken if row.stumbles},
        due={RecipientId(row.id): instant(row.due_at) for row in taken},
        priority=max(row.priority for row in found.values()),
    )
