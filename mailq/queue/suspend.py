"""Destinations that people have stopped: nothing is claimed for them or rung, until they are resumed.

A pattern is ``nexthop:`` and a nexthop as it is stored, or ``site:`` and the
host of one of its destinations: ``site:mx.example.com``, ``site:*.example.com``
for every host below a domain, ``site:*`` for all mail. What a nexthop is
stopped by is therefore a handful of exact texts, looked up by key, however
many patterns there are.

Mail goes on being queued; sessions under way finish their message. A stopped
nexthop that is due is looked at again when its suspension ends, and at least
every :data:`LOOK_AGAIN`: so nothing waits for a resumption that was cut off.

Invariant: the claim, the dispatcher, the worker between two messages and the
explanation all ask the functions of this module.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, exists, func, or_, select, update

from mailq.errors import DestinationSyntaxError, OrderError
from mailq.queue import audit
from mailq.queue.audit import By
from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, EarlierOf, UtcDateTime, among, seconds_from_now
from mailq.queue.tables import destination, suspension
from mailq.queue.upsert import DIALECTS, insert_into
from mailq.routing.destination import parse_destination, split_nexthops
from mailq.routing.host_patterns import host_pattern, patterns_of_host
from mailq.routing.transport import NextHop

LOOK_AGAIN: Final = timedelta(minutes=5)
"""A stopped nexthop with mail that is due is looked at again after this."""

_BATCH = 500
_IN_FORCE = or_(suspension.c.until_at.is_(None), suspension.c.until_at > DatabaseNow())
_of_patterns = (
    select(suspension)
    .where(suspension.c.pattern.in_(bindparam("patterns", expanding=True)), _IN_FORCE)
    .order_by(suspension.c.pattern)
)
_all = select(suspension).where(_IN_FORCE).order_by(suspension.c.pattern)
_lift = delete(suspension).where(suspension.c.pattern == bindparam("wanted")).returning(suspension.c.pattern)
_forget_ended = delete(suspension).where(suspension.c.until_at <= DatabaseNow())
_look_again = seconds_from_now("seconds")
_park = (
    update(destination)
    .where(destination.c.nexthop == bindparam("parked"))
    .values(next_ring_at=EarlierOf(func.coalesce(bindparam("until", type_=UtcDateTime()), _look_again), _look_again))
)
_waiting_destinations = (
    select(destination.c.nexthop)
    .where(destination.c.nexthop > bindparam("above"), destination.c.next_ring_at.is_not(None))
    .order_by(destination.c.nexthop)
    .limit(_BATCH)
)
_ring_now = (
    update(destination)
    .where(destination.c.nexthop == bindparam("resumed"), destination.c.next_ring_at.is_not(None))
    .values(next_ring_at=DatabaseNow())
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """One pattern that is stopped.

    Attributes:
        pattern: ``nexthop:…`` or ``site:…``.
        since_at: By the database's clock.
        until_at: None: until somebody resumes it.
        actor: Who stopped it.
        reason: Why, in the actor's words.
    """

    pattern: str
    since_at: datetime
    until_at: datetime | None
    actor: str
    reason: str


def parse_pattern(text: str) -> str:
    """Return *text* as patterns are stored; a bare nexthop is one.

    Raises:
        OrderError: It is neither a nexthop nor a site.
    """
    kind, colon, rest = text.strip().partition(":")
    if colon and kind.lower() == "site":
        return f"site:{_parse_site(text, rest)}"
    nexthop = rest if colon and kind.lower() == "nexthop" else text.strip()
    try:
        return f"nexthop:{NextHop.parse(nexthop)}"
    except DestinationSyntaxError as error:
        raise OrderError(f"bad pattern {text!r}: {error}; or write site:HOST or site:*.DOMAIN") from None


@lru_cache(maxsize=4096)
def patterns_of(nexthop: str) -> tuple[str, ...]:
    """Return every pattern that stops *nexthop*, the narrowest first."""
    sites = [f"site:{pattern}" for host in _hosts(nexthop) for pattern in patterns_of_host(host)]
    return tuple(dict.fromkeys([f"nexthop:{nexthop}", *sites, "site:*"]))


def covers(patterns: Collection[str], nexthop: str) -> bool:
    """Whether one of *patterns* stops *nexthop*."""
    return bool(patterns) and any(pattern in patterns for pattern in patterns_of(nexthop))


def is_stopped(dialect: str) -> ColumnElement[bool]:
    """Return the condition that one of the ``patterns``, those of a nexthop, is in force."""
    return exists().where(among(suspension.c.pattern, "patterns", dialect), _IN_FORCE)


def suspension_of(connection: Connection, nexthop: str) -> Suspension | None:
    """Return what stops *nexthop* now, the narrowest; None where nothing does."""
    patterns = patterns_of(nexthop)
    found = {row.pattern: row for row in connection.execute(_of_patterns, {"patterns": patterns})}
    return next((_suspension(found[pattern]) for pattern in patterns if pattern in found), None)


def in_force(connection: Connection) -> Sequence[Suspension]:
    """Return all that is stopped now, by pattern."""
    return [_suspension(row) for row in connection.execute(_all)]


def suspensions(database: Database) -> Sequence[Suspension]:
    """Return all that is stopped now, by pattern."""
    with database.read() as connection:
        return in_force(connection)


def park(connection: Connection, nexthops: Iterable[str]) -> frozenset[str]:
    """Set the next look at those of *nexthops* that are stopped, and return them; their rows are locked already."""
    stopped = {one.pattern: one for one in in_force(connection)}
    if not stopped:
        return frozenset()
    parked = sorted(nexthop for nexthop in nexthops if covers(stopped.keys(), nexthop))
    seconds = LOOK_AGAIN.total_seconds()
    rows = [{"parked": one, "until": _ends(stopped, one), "seconds": seconds} for one in parked]
    if rows:
        connection.execute(_park, rows)
    return frozenset(parked)


def suspend(database: Database, pattern: str, *, until_at: datetime | None, by: By) -> Suspension:
    """Stop what *pattern* names; one that is stopped already gets the new end and reason.

    Args:
        database: The queue.
        pattern: As :func:`parse_pattern` takes it.
        until_at: It resumes by itself then; None: when somebody says so.
        by: Who, and why.

    Raises:
        OrderError: The pattern does not parse, or the end is past or has no time zone.
    """
    wanted = parse_pattern(pattern)
    if until_at is not None and until_at.tzinfo is None:
        raise OrderError(f"the end {until_at!r} of a suspension has no time zone")
    arguments = {"pattern": wanted, "until_at": None if until_at is None else until_at.isoformat()}
    with database.write() as connection:
        order = audit.begin(connection, "suspend", by=by, selector={}, arguments=arguments, counted=None)
        connection.execute(_forget_ended)
        values = {"pattern": wanted, "until_at": until_at, "actor": by.actor, "reason": by.reason}
        connection.execute(_upserts[connection.dialect.name], values)
        audit.finish(connection, order)
        row = connection.execute(_of_patterns, {"patterns": [wanted]}).one_or_none()
        if row is None:
            raise OrderError(f"{wanted} cannot be suspended until {until_at}: that is past; name a later instant")
    return _suspension(row)


def resume(database: Database, pattern: str, *, by: By) -> bool:
    """Let mail flow again that *pattern* stopped; False where it stopped nothing.

    What is due is rung with the dispatcher's next round.

    Raises:
        OrderError: The pattern does not parse.
    """
    wanted = parse_pattern(pattern)
    with database.write() as connection:
        lifted = connection.execute(_lift, {"wanted": wanted}).first() is not None
        order = audit.begin(connection, "resume", by=by, selector={}, arguments={"pattern": wanted}, counted=None)
        audit.finish(connection, order)
    if lifted:
        _unpark(database, wanted)
    return lifted


def _unpark(database: Database, pattern: str) -> None:
    """Have what *pattern* stopped looked at now; one that is looked at in vain costs a ring, not mail."""
    kind, _, text = pattern.partition(":")
    if kind == "nexthop":
        with database.write() as connection:
            connection.execute(_ring_now, {"resumed": text})
        return
    above = ""
    while True:
        with database.read() as connection:
            found = connection.execute(_waiting_destinations, {"above": above}).scalars().all()
        if not found:
            return
        resumed = [{"resumed": nexthop} for nexthop in found if covers({pattern}, nexthop)]
        if resumed:
            with database.write() as connection:
                connection.execute(_ring_now, resumed)
        above = found[-1]


def _upsert(dialect: str) -> Any:
    statement = insert_into(suspension, dialect).values(since_at=DatabaseNow())
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[suspension.c.pattern],
        set_={"until_at": new.until_at, "actor": new.actor, "reason": new.reason},
    )


_upserts = {dialect: _upsert(dialect) for dialect in DIALECTS}


def _ends(stopped: Mapping[str, Suspension], nexthop: str) -> datetime | None:
    """Return when the last of what stops *nexthop* ends; None: never by itself."""
    ends = [stopped[pattern].until_at for pattern in patterns_of(nexthop) if pattern in stopped]
    return None if None in ends else max(end for end in ends if end is not None)


def _hosts(nexthop: str) -> list[str]:
    """Return the hosts of a nexthop's destinations; a socket has none, nor what does not parse."""
    hosts = []
    with suppress(DestinationSyntaxError):
        hop = NextHop.parse(nexthop)
        if hop.socket_path is None:
            hosts = [parse_destination(site, default_service="smtp").host for site in split_nexthops(hop.text)]
    return [host.lower().rstrip(".") for host in hosts]


def _parse_site(text: str, site: str) -> str:
    name = site.strip().lower()
    if name == "*":
        return name
    try:
        return host_pattern(name)
    except ValueError as error:
        raise OrderError(f"bad pattern {text!r}: {error}; expected site:HOST, site:*.DOMAIN or site:*") from None


def _suspension(row: Row[Any]) -> Suspension:
    return Suspension(
        pattern=row.pattern, since_at=row.since_at, until_at=row.until_at, actor=row.actor, reason=row.reason
    )
