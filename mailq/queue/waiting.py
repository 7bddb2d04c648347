"""Nexthops that wait for a session of something they share with others: a site, a provider, a relay account.

A nexthop that is due and finds a gate full is *parked* under that gate's key.
Whoever ends a session there calls the next one, the longest wait first, and
goes on with it at once; what nobody calls is found by the dispatcher when
there is room, and is rung again after a while in any case.

So many nexthops that share a few sessions take turns, and none of them is
looked at over and over meanwhile. The names of a nexthop's servers are kept
from when it was last routed, so that what it shares is known before it is
routed again.

Invariant: a parked nexthop has a ring ahead; being called costs no mail when it comes to nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, func, null, select, update

from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.states import Event, sources, target
from mailq.queue.tables import destination, in_state, recipient, stored
from mailq.status import RecipientId


@dataclass(frozen=True, slots=True)
class Parked:
    """A nexthop that waits.

    Attributes:
        nexthop: As stored.
        key: What it waits for.
    """

    nexthop: str
    key: str


_park = (
    update(destination)
    .where(destination.c.nexthop == bindparam("parked"), destination.c.next_ring_at.is_not(None))
    .values(
        waits_for=bindparam("key"),
        waits_since=func.coalesce(destination.c.waits_since, DatabaseNow()),
        next_ring_at=seconds_from_now("seconds"),
        touched_at=DatabaseNow(),
    )
)
_first = (
    select(destination.c.nexthop)
    .where(destination.c.waits_for == bindparam("key"), destination.c.waits_since.is_not(None))
    .order_by(destination.c.waits_since)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_taken = {"waits_for": null(), "waits_since": null(), "next_ring_at": seconds_from_now("seconds")}
_call_first = update(destination).where(destination.c.nexthop == _first).values(_taken).returning(destination.c.nexthop)
_call_these = (
    update(destination)
    .where(destination.c.nexthop.in_(bindparam("called", expanding=True)), destination.c.waits_for.is_not(None))
    .values(_taken)
    .returning(destination.c.nexthop)
)
_rank = func.row_number().over(partition_by=destination.c.waits_for, order_by=destination.c.waits_since)
_ranked = (
    select(destination.c.nexthop, destination.c.waits_for, destination.c.waits_since, _rank.label("place"))
    .where(destination.c.waits_for.is_not(None))
    .subquery("parked_destination")
)
_front = (
    select(_ranked.c.nexthop, _ranked.c.waits_for)
    .where(_ranked.c.place <= bindparam("most"))
    .order_by(_ranked.c.waits_since, _ranked.c.nexthop)
)
_hosts = select(destination.c.nexthop, destination.c.hosts).where(
    destination.c.nexthop.in_(bindparam("nexthops", expanding=True)), destination.c.hosts != ""
)
_proven = select(destination.c.nexthop).where(
    destination.c.nexthop.in_(bindparam("nexthops", expanding=True)),
    destination.c.well_at > seconds_from_now("seconds"),
    destination.c.dead_since.is_(None),
)
_note_hosts = (
    update(destination)
    .where(destination.c.nexthop == bindparam("routed"), destination.c.hosts != bindparam("names"))
    .values(hosts=bindparam("names"))
)
_not_before = (
    update(destination)
    .where(destination.c.nexthop == bindparam("later"), destination.c.next_ring_at < seconds_from_now("seconds"))
    .values(next_ring_at=seconds_from_now("seconds"))
)
_postpone = (
    update(recipient)
    .where(
        recipient.c.id == bindparam("recipient"),
        recipient.c.lease_id == bindparam("token"),
        in_state(*sources(Event.HAND_BACK)),
    )
    .values(
        state=stored(target(Event.HAND_BACK)),
        lease_id=null(),
        attempts=recipient.c.attempts - 1,
        due_at=seconds_from_now("seconds"),
    )
)
_ring_no_later_than = (
    update(destination)
    .where(
        destination.c.nexthop == bindparam("later"),
        func.coalesce(destination.c.next_ring_at, seconds_from_now("seconds")) >= seconds_from_now("seconds"),
    )
    .values(next_ring_at=seconds_from_now("seconds"))
)


def park(database: Database, keys: Mapping[str, str], *, look_again: timedelta) -> None:
    """Have nexthops wait until what they need has room; one that nothing is due to does not wait.

    Args:
        database: The queue.
        keys: By nexthop, the key of the gate that is full.
        look_again: They are rung after this, called or not.
    """
    seconds = look_again.total_seconds()
    rows = [{"parked": one, "key": keys[one], "seconds": seconds} for one in sorted(keys)]
    if rows:
        with database.write() as connection:
            connection.execute(_park, rows)


def call_first(database: Database, keys: Sequence[str], *, ring_timeout: timedelta) -> str | None:
    """Take the nexthop off the list that waits longest for one of *keys*, the first that has any; None: none does."""
    for key in keys:
        with database.write_at_once() as connection:
            row = connection.execute(_call_first, {"key": key, "seconds": ring_timeout.total_seconds()}).first()
        if row is not None:
            return str(row.nexthop)
    return None


def front(database: Database, *, most: int) -> list[Parked]:
    """Return the nexthops that wait longest, at most so many a key, the longest wait first."""
    with database.read() as connection:
        return [Parked(row.nexthop, row.waits_for) for row in connection.execute(_front, {"most": most})]


def call(database: Database, nexthops: Collection[str], *, ring_timeout: timedelta) -> list[str]:
    """Take *nexthops* off the list; return those that were on it."""
    if not nexthops:
        return []
    parameters = {"called": sorted(nexthops), "seconds": ring_timeout.total_seconds()}
    with database.write() as connection:
        return sorted(connection.execute(_call_these, parameters).scalars())


def hosts_of(database: Database, nexthops: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the servers that *nexthops* last had; one that was never routed is left out."""
    if not nexthops:
        return {}
    with database.read() as connection:
        rows = connection.execute(_hosts, {"nexthops": sorted(nexthops)}).all()
    return {row.nexthop: tuple(row.hosts.split(",")) for row in rows}


def proven(database: Database, nexthops: Collection[str], *, within: timedelta) -> frozenset[str]:
    """Return those of *nexthops* that did well within so long and are not dead."""
    if not nexthops:
        return frozenset()
    with database.read() as connection:
        parameters = {"nexthops": sorted(nexthops), "seconds": -within.total_seconds()}
        return frozenset(connection.execute(_proven, parameters).scalars())


def note_hosts(database: Database, nexthop: str, hosts: Iterable[str]) -> None:
    """Keep the names of the servers that *nexthop* has."""
    with database.write() as connection:
        connection.execute(_note_hosts, {"routed": nexthop, "names": ",".join(sorted(set(hosts)))})


def ring_not_before(database: Database, nexthop: str, wait: timedelta) -> None:
    """Have *nexthop* rung no sooner than after *wait*, unless new mail comes."""
    with database.write() as connection:
        connection.execute(_not_before, {"later": nexthop, "seconds": wait.total_seconds()})


def postpone(
    database: Database, lease_id: int, nexthop: str, recipients: Iterable[RecipientId], wait: timedelta
) -> None:
    """Hand some recipients of a lease back, due after *wait* and as if nobody had touched them."""
    seconds = wait.total_seconds()
    rows: list[dict[str, Any]] = [{"recipient": one, "token": lease_id, "seconds": seconds} for one in recipients]
    if not rows:
        return
    with database.write() as connection:
        connection.execute(_postpone, rows)
        connection.execute(_ring_no_later_than, {"later": nexthop, "seconds": seconds})
