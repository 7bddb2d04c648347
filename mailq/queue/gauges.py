"""How the queue is at this moment, in numbers for monitoring.

What waits is counted by one scan of the partial index of waiting mail, grouped
by destination as the index is sorted; everything else by small partial
indexes. No table is scanned, finished mail costs nothing, and nothing is
locked. The scan grows with what waits: whoever asks regularly spaces his
questions by what the last answer cost, see :mod:`mailq.worker.metrics_queue`.

Source: smtp-delivery Q-13, Q-35.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Integer, Row, bindparam, func, literal, or_, select, text, union_all

from mailq.queue.dispatch import DISPATCHER
from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, UtcDateTime
from mailq.queue.states import State
from mailq.queue.tables import IS_FRESH, destination, in_state, leader, lease, recipient, suspension

FRESH_COUNTED: Final = 10_000
"""More fresh recipients than these are not counted: that many are trouble already."""
SCAN_SECONDS: Final = 20
"""PostgreSQL ends a statement of these after so long: a database that is this slow has better things to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteGauge:
    """What waits for one destination.

    Attributes:
        nexthop: As stored; empty: all that have no gauge of their own.
        due: Recipients that a worker may take now.
        blocked: Recipients whose time has come, but the destination is dead.
        later: Recipients whose time has not come.
        oldest: For how long the first of those due has been so; zero where none is.
    """

    nexthop: str
    due: int = 0
    blocked: int = 0
    later: int = 0
    oldest: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGauge:
    """How many nexthops wait for room under one key."""

    key: str
    waiting: int
    oldest: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueGauges:
    """The numbers.

    Attributes:
        total: What waits, all destinations together.
        sites: The same of those where most waits.
        active: Recipients that are being worked on.
        held: Recipients that people, or doubt, hold.
        quarantined: Recipients in quarantine.
        uncertain: Recipients of whose last attempt nobody knows whether it sent the message.
        fresh: New recipients that no dispatcher has noticed in writing yet; not counted above :data:`FRESH_COUNTED`.
        leases: Not ended.
        leases_expired: Of these, those that ran out and were not swept yet.
        owners: Processes that have leases.
        dispatcher: Whoever is elected, as ``host:pid:random``; empty: nobody is.
        lag: For how long the first ring has been overdue.
        dead: Destinations that are dead.
        dead_for: The longest such.
        suspensions: In force.
        suspended_for: The longest such.
        parked: Nexthops that wait for room, by key: where most wait.
        parked_total: All that wait for room.
    """

    total: SiteGauge
    sites: Sequence[SiteGauge]
    active: int
    held: int
    quarantined: int
    uncertain: int
    fresh: int
    leases: int
    leases_expired: int
    owners: int
    dispatcher: str
    lag: timedelta
    dead: int
    dead_for: timedelta
    suspensions: int
    suspended_for: timedelta
    parked: Sequence[KeyGauge]
    parked_total: int


_is_due = recipient.c.due_at <= DatabaseNow()
_waiting = (
    select(
        recipient.c.nexthop,
        func.count().label("waiting"),
        func.count().filter(_is_due).label("ready"),
        func.min(recipient.c.due_at).label("earliest"),
    )
    .where(in_state(State.QUEUED))
    .group_by(recipient.c.nexthop)
    .cte("waiting")
)
_dead = select(destination.c.nexthop).where(destination.c.dead_since.is_not(None)).cte("dead")
_per_site = (
    select(
        _waiting.c.nexthop,
        func.coalesce(_waiting.c.ready, 0).label("ready"),
        (_waiting.c.waiting - _waiting.c.ready).label("later"),
        _waiting.c.earliest,
        _dead.c.nexthop.label("dead"),
    )
    .select_from(_waiting.outerjoin(_dead, _dead.c.nexthop == _waiting.c.nexthop))
    .cte("per_site")
)
_top = (
    select(_per_site.c.nexthop, _per_site.c.ready, _per_site.c.later, _per_site.c.earliest, _per_site.c.dead)
    .order_by((_per_site.c.ready + _per_site.c.later).desc(), _per_site.c.nexthop)
    .limit(bindparam("sites", type_=Integer()))
    .subquery("top")
)


def _columns(source: Any) -> list[Any]:
    """Return what a gauge needs of rows with ready, later, earliest and dead."""
    alive = source.c.dead.is_(None)
    return [
        func.coalesce(func.sum(source.c.ready).filter(alive), 0).label("due"),
        func.coalesce(func.sum(source.c.ready).filter(~alive), 0).label("blocked"),
        func.coalesce(func.sum(source.c.later), 0).label("later"),
        func.min(source.c.earliest, type_=UtcDateTime()).filter(alive).label("earliest"),
        DatabaseNow().label("now"),
    ]


_depth = union_all(
    select(literal("").label("nexthop"), *_columns(_per_site)),
    select(_top.c.nexthop, *_columns(_top)).group_by(_top.c.nexthop),
)
_aside = (
    select(recipient.c.state, func.count().label("rows"))
    .where(in_state(State.HELD, State.QUARANTINED))
    .group_by(recipient.c.state)
)
_fresh = select(recipient.c.id).where(IS_FRESH, in_state(State.QUEUED)).limit(FRESH_COUNTED).subquery("fresh_recipient")
_in_force = or_(suspension.c.until_at.is_(None), suspension.c.until_at > DatabaseNow())
_numbers = select(
    select(func.count()).where(recipient.c.lease_id.is_not(None)).scalar_subquery().label("active"),
    select(func.count()).where(recipient.c.uncertain_at.is_not(None)).scalar_subquery().label("uncertain"),
    select(func.count()).select_from(_fresh).scalar_subquery().label("fresh"),
    select(func.count()).select_from(lease).scalar_subquery().label("leases"),
    select(func.count()).where(lease.c.expires_at <= DatabaseNow()).scalar_subquery().label("leases_expired"),
    select(func.count(lease.c.owner.distinct())).scalar_subquery().label("owners"),
    select(leader.c.owner)
    .where(leader.c.role == DISPATCHER, leader.c.expires_at > DatabaseNow())
    .scalar_subquery()
    .label("dispatcher"),
    select(func.min(destination.c.next_ring_at, type_=UtcDateTime()))
    .where(destination.c.next_ring_at.is_not(None), destination.c.next_ring_at <= DatabaseNow())
    .scalar_subquery()
    .label("overdue"),
    select(func.count()).where(destination.c.dead_since.is_not(None)).scalar_subquery().label("dead"),
    select(func.min(destination.c.dead_since, type_=UtcDateTime()))
    .where(destination.c.dead_since.is_not(None))
    .scalar_subquery()
    .label("dead_since"),
    select(func.count()).select_from(suspension).where(_in_force).scalar_subquery().label("suspensions"),
    select(func.min(suspension.c.since_at, type_=UtcDateTime())).where(_in_force).scalar_subquery().label("stopped_at"),
    select(func.count()).where(destination.c.waits_for.is_not(None)).scalar_subquery().label("parked"),
    DatabaseNow().label("now"),
)
_parked = (
    select(
        destination.c.waits_for,
        func.count().label("waiting"),
        func.min(destination.c.waits_since, type_=UtcDateTime()).label("oldest"),
        DatabaseNow().label("now"),
    )
    .where(destination.c.waits_for.is_not(None))
    .group_by(destination.c.waits_for)
    .order_by(func.count().desc(), destination.c.waits_for)
    .limit(bindparam("keys", type_=Integer()))
)


def read_gauges(database: Database, *, most: int) -> QueueGauges:
    """Return how the queue is now.

    Args:
        database: The queue.
        most: Most destinations, and most keys, that are told of by name.

    Raises:
        DatabaseUnavailableError: The database is down, or a statement took longer than :data:`SCAN_SECONDS`.
    """
    with _reading(database) as connection:
        depth = connection.execute(_depth, {"sites": most}).all()
        aside = {row.state: row.rows for row in connection.execute(_aside)}
        numbers = connection.execute(_numbers).one()
        parked = connection.execute(_parked, {"keys": most}).all()
    total = next(row for row in depth if not row.nexthop)
    return QueueGauges(
        total=_site(total),
        sites=sorted((_site(row) for row in depth if row.nexthop), key=lambda one: one.nexthop),
        held=aside.get(State.HELD, 0),
        quarantined=aside.get(State.QUARANTINED, 0),
        dispatcher=numbers.dispatcher or "",
        lag=_since(numbers.overdue, numbers.now),
        dead=numbers.dead,
        dead_for=_since(numbers.dead_since, numbers.now),
        suspensions=numbers.suspensions,
        suspended_for=_since(numbers.stopped_at, numbers.now),
        parked=[KeyGauge(key=row.waits_for, waiting=row.waiting, oldest=_since(row.oldest, row.now)) for row in parked],
        parked_total=numbers.parked,
        **{name: getattr(numbers, name) for name in _SAME},
    )


# Where most of the table waits PostgreSQL would rather read all of it, in several processes at once, and push what
# deliveries need out of its memory.
_PLANNING: Final = (("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("max_parallel_workers_per_gather", "0"))
_SAME: Final = ("active", "uncertain", "fresh", "leases", "leases_expired", "owners")


@contextmanager
def _reading(database: Database) -> Iterator[Connection]:
    """Give a connection whose statements have an end."""
    if database.dialect == "sqlite":
        with database.read() as connection:
            yield connection
        return
    with database.write() as connection:
        for name, value in (("statement_timeout", f"'{SCAN_SECONDS}s'"), *_PLANNING):
            connection.execute(text(f"SET LOCAL {name} = {value}"))
        yield connection


def _site(row: Row[Any]) -> SiteGauge:
    return SiteGauge(
        nexthop=row.nexthop,
        due=int(row.due),
        blocked=int(row.blocked),
        later=int(row.later),
        oldest=_since(row.earliest, row.now),
    )


def _since(instant: datetime | None, now: datetime) -> timedelta:
    return max(timedelta(0), now - instant) if instant is not None else timedelta(0)


def plans(database: Database) -> tuple[list[str], list[str]]:
    """Return PostgreSQL's plans of the count of what waits, and of all other statements, for tests and benchmarks."""
    with _reading(database) as connection:
        return _plans(connection)


def _plans(connection: Connection) -> tuple[list[str], list[str]]:
    def plan(statement: Any) -> list[str]:
        compiled = statement.params(sites=1, keys=1).compile(connection, compile_kwargs={"literal_binds": True})
        return list(connection.execute(text(f"EXPLAIN {compiled}")).scalars())

    return plan(_depth), [line for statement in (_aside, _numbers, _parked) for line in plan(statement)]
