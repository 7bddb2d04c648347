"""Destinations that are dead: who finds that out, who tries again, and what becomes of the mail that waits.

A nexthop none of whose servers could be spoken to is *dead* from then on. Its
recipients stay as they are, due or not, and cost nothing: instead of all of
them one is tried, the *probe*, under a lease of its own. When the probe's
session comes about, the nexthop lives again and everything that is due flows;
until then probes come at the intervals of a retry schedule that counts from
its death. A session that was held all along and did well revives it, too, and
so does a person's order to retry.

Waiting mail still expires and is still told to be late: after every probe that
failed, :func:`waiting_page` finds those whose time has come, and only they are touched.

Invariants:
    A dead nexthop always has a ring and a probe ahead; nothing waits for an event that may not come.
    A destination row is locked after recipients, never before, except by who skips locked recipients.

Source: smtp-delivery Q-13, Q-35 to Q-37, Q-39, differently: one probe, and no rewriting of what waits.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, null, or_, select, tuple_, update

from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, UtcDateTime, seconds_from_now
from mailq.queue.states import State
from mailq.queue.tables import delay, destination, in_state, lease, message, recipient
from mailq.queue.upsert import DIALECTS, insert_into
from mailq.status import Failure

SUSPENDED = "delivery temporarily suspended: "
"""Begins the reason of what was not tried because its destination is dead. Source: smtp-delivery Q-35."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadSite:
    """What is known of a dead nexthop.

    Attributes:
        since: When it was first found dead.
        probe_at: When one recipient is tried again; in the past when that is due or happening.
        status: Of the last failure.
        reason: Of the last failure.
    """

    since: datetime
    probe_at: datetime
    status: str
    reason: str


_site = select(
    destination.c.dead_since, destination.c.probe_at, destination.c.dead_status, destination.c.dead_reason
).where(destination.c.nexthop == bindparam("nexthop"), destination.c.dead_since.is_not(None))
_is_dead = (
    select(destination.c.nexthop)
    .where(destination.c.nexthop == bindparam("nexthop"), destination.c.dead_since.is_not(None))
    .add_columns((destination.c.probe_at <= DatabaseNow()).label("probe_due"))
)
probe_is_due = (
    select(destination.c.probe_at <= DatabaseNow())
    .where(destination.c.nexthop == bindparam("nexthop"), destination.c.dead_since.is_not(None))
    .scalar_subquery()
)
"""Whether a dead nexthop may be probed; null: it is not dead."""
_probing = exists().where(lease.c.id == destination.c.probe_lease_id, lease.c.expires_at > DatabaseNow())
# The probe of a worker that dies leaves a lease that runs out, and this time after which somebody else may begin.
_begin_probe = (
    update(destination)
    .where(
        destination.c.nexthop == bindparam("site"),
        destination.c.dead_since.is_not(None),
        destination.c.probe_at <= DatabaseNow(),
        ~_probing,
    )
    .values(probe_at=seconds_from_now("seconds"), probe_lease_id=bindparam("token"))
)
_postpone_probe = (
    update(destination)
    .where(
        destination.c.nexthop == bindparam("site"),
        destination.c.dead_since.is_not(None),
        destination.c.probe_at <= DatabaseNow(),
    )
    .values(probe_at=seconds_from_now("seconds"))
)


def _lock(dialect: str) -> Any:
    statement = insert_into(destination, dialect).values(touched_at=DatabaseNow())
    return statement.on_conflict_do_update(
        index_elements=[destination.c.nexthop], set_={"touched_at": DatabaseNow()}
    ).returning(destination.c.dead_since, DatabaseNow().label("now"))


_lock_by_dialect = {dialect: _lock(dialect) for dialect in DIALECTS}
_bury = (
    update(destination)
    .where(destination.c.nexthop == bindparam("site"))
    .values(
        dead_since=bindparam("since", type_=UtcDateTime()),
        probe_at=bindparam("at", type_=UtcDateTime()),
        next_ring_at=bindparam("at", type_=UtcDateTime()),
        dead_status=bindparam("status"),
        dead_reason=bindparam("reason"),
    )
)
_dead_among = select(destination.c.nexthop).where(
    destination.c.nexthop.in_(bindparam("nexthops", expanding=True)), destination.c.dead_since.is_not(None)
)
_revive = (
    update(destination)
    .where(destination.c.nexthop == bindparam("site"), destination.c.dead_since.is_not(None))
    .values(
        dead_since=null(),
        probe_at=null(),
        dead_status="",
        dead_reason="",
        next_ring_at=DatabaseNow(),
    )
)


def dead_site(database: Database, nexthop: str) -> DeadSite | None:
    """Return what is known of *nexthop*; None when it is not dead."""
    with database.read() as connection:
        return dead_site_of(connection, nexthop)


def dead_among(database: Database, nexthops: Collection[str]) -> frozenset[str]:
    """Return those of *nexthops* that are dead."""
    with database.read() as connection:
        return frozenset(connection.execute(_dead_among, {"nexthops": list(nexthops)}).scalars())


def dead_site_of(connection: Connection, nexthop: str) -> DeadSite | None:
    """Return what is known of *nexthop*; None when it is not dead."""
    row = connection.execute(_site, {"nexthop": nexthop}).one_or_none()
    if row is None:
        return None
    return DeadSite(since=row.dead_since, probe_at=row.probe_at, status=row.dead_status, reason=row.dead_reason)


def note_dead(
    database: Database, nexthop: str, failure: Failure, *, least: timedelta, most: timedelta, jitter: float
) -> datetime:
    """Note that no server of *nexthop* could be spoken to; return when it is tried again.

    Args:
        database: The queue.
        nexthop: As stored.
        failure: The latest evidence.
        least: Shortest wait before the next probe; the wait is the time the nexthop has been dead, within bounds.
        most: Longest wait.
        jitter: Share of the wait that is added, 0 to 1.
    """
    with database.write() as connection:
        row = connection.execute(_lock_by_dialect[connection.dialect.name], {"nexthop": nexthop}).one()
        since = row.dead_since or row.now
        probe_at: datetime = row.now + min(max(row.now - since, least), most) * (1 + jitter)
        parameters = {"site": nexthop, "since": since, "at": probe_at}
        connection.execute(_bury, parameters | {"status": str(failure.status), "reason": failure.reason})
    return probe_at


def note_alive(database: Database, nexthop: str) -> bool:
    """Let everything flow to *nexthop* again; True when it was dead."""
    with database.write() as connection:
        return revive(connection, [nexthop]) > 0


def revive(connection: Connection, nexthops: Iterable[str]) -> int:
    """End the death of *nexthops*, whoever says so; return how many were dead."""
    return sum(connection.execute(_revive, {"site": nexthop}).rowcount for nexthop in sorted(set(nexthops)))


def may_be_claimed(connection: Connection, nexthop: str) -> bool | None:
    """Tell whether *nexthop* may be claimed now: True as usual, None for a probe only, False not now."""
    row = connection.execute(_is_dead, {"nexthop": nexthop}).one_or_none()
    if row is None:
        return True
    return None if row.probe_due else False


def begin_probe(connection: Connection, nexthop: str, token: int, *, hold: timedelta) -> bool:
    """Have the lease *token* be the one probe of *nexthop*; False when there is another; then ask after *hold* again.

    Args:
        connection: In the transaction of the claim.
        nexthop: A dead one.
        token: The lease.
        hold: No other probe begins for this long, whatever becomes of this one.
    """
    parameters = {"site": nexthop, "token": token, "seconds": hold.total_seconds()}
    if connection.execute(_begin_probe, parameters).rowcount:
        return True
    connection.execute(_postpone_probe, {"site": nexthop, "seconds": hold.total_seconds()})
    return False


_warned = exists().where(delay.c.message_id == message.c.id)
_unwarned = and_(bindparam("warning") > 0, message.c.arrived_at <= seconds_from_now("before_warning"), ~_warned)
_over = or_(
    message.c.expires_at <= DatabaseNow(),
    and_(message.c.expires_at.is_(None), message.c.arrived_at <= seconds_from_now("before_end")),
)
_waiting = (
    select(recipient.c.id, recipient.c.due_at, recipient.c.attempts, recipient.c.message_id)
    .add_columns(message.c.sender, message.c.arrived_at, message.c.expires_at, message.c.mail_class, message.c.tenant)
    .add_columns(_warned.label("warned"), DatabaseNow().label("now"))
    .join_from(recipient, message, message.c.id == recipient.c.message_id)
    .where(
        in_state(State.QUEUED),
        recipient.c.nexthop == bindparam("wanted_nexthop"),
        recipient.c.priority == bindparam("wanted_priority"),
        recipient.c.due_at <= DatabaseNow(),
        tuple_(recipient.c.due_at, recipient.c.id)
        > tuple_(bindparam("after_at", type_=UtcDateTime()), bindparam("after_id")),
        or_(_over, _unwarned),
    )
    .order_by(recipient.c.due_at, recipient.c.id)
    .limit(bindparam("page"))
)
_LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def waiting_page(
    database: Database,
    nexthop: str,
    *,
    priority: int,
    after: tuple[datetime, int] = (_LONG_AGO, 0),
    lifetime: timedelta,
    warning: timedelta,
    page: int,
) -> Sequence[Row[Any]]:
    """Return waiting recipients whose time may have come: over, or late and nobody told; by due time, then id.

    Args:
        database: The queue.
        nexthop: A dead one, so that what is due is not being tried.
        priority: Theirs.
        after: Due time and id of the last one of the page before.
        lifetime: No message ends sooner by its schedule.
        warning: No message is late sooner; zero: none ever is.
        page: Most of them.
    """
    parameters = {
        "wanted_nexthop": nexthop,
        "wanted_priority": priority,
        "after_at": after[0],
        "after_id": after[1],
        "warning": warning.total_seconds(),
        "before_warning": -warning.total_seconds(),
        "before_end": -lifetime.total_seconds(),
        "page": page,
    }
    with database.read() as connection:
        return connection.execute(_waiting, parameters).all()
