"""Whose recipients go into a lease: the most urgent first, and the tenants of one priority in turn.

Tenants are found by skipping through an index, one probe each, so neither the
backlog nor the size of anybody's share of it matters. A claim looks at
``MOST_LOOKED_AT`` tenants and serves ``MOST_SERVED`` of them at most; the next
claim of this process begins behind the last one served, so everyone who has
mail due is served after a bounded number of claims. Within a lease the tenants
alternate, because a lease may end early.

Invariant: where a recipient is due and nobody else holds it, a claim takes something.

Source: smtp-delivery Q-25, Q-60, Q-64, differently: turns among tenants, not jobs.
"""

import threading
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Text, bindparam, cast, literal, select, update

from mailq.queue.claimable import CLAIMABLE, IS_DUE
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import Event, target
from mailq.queue.tables import recipient, stored

MOST_LOOKED_AT: Final = 100
"""Most tenants a claim asks whether they have mail due."""
MOST_SERVED: Final = 10
"""Most tenants that share a lease."""
_MOST_REMEMBERED: Final = 10_000

_here = (
    CLAIMABLE,
    recipient.c.nexthop == bindparam("wanted_nexthop"),
    recipient.c.priority == bindparam("wanted_priority"),
)


def _tenants(*first: Any) -> Select[Any]:
    """Build the walk over at most ``most`` tenants that have mail waiting, each with its earliest time."""
    begin = select(recipient.c.tenant).where(*_here, *first).order_by(recipient.c.tenant).limit(1).scalar_subquery()
    walk = select(cast(begin, Text).label("tenant"), literal(1).label("step")).cte("walk", recursive=True)
    following = (
        select(recipient.c.tenant)
        .where(*_here, recipient.c.tenant > walk.c.tenant)
        .order_by(recipient.c.tenant)
        .limit(1)
        .correlate(walk)
        .scalar_subquery()
    )
    walk = walk.union_all(
        select(cast(following, Text), walk.c.step + 1).where(
            walk.c.tenant.is_not(None), walk.c.step < bindparam("most_tenants")
        )
    )
    earliest = (
        select(recipient.c.due_at)
        .where(*_here, recipient.c.tenant == walk.c.tenant)
        .order_by(recipient.c.due_at)
        .limit(1)
        .correlate(walk)
        .scalar_subquery()
    )
    return (
        select(walk.c.tenant, earliest.label("due_at"), DatabaseNow().label("now"))
        .where(walk.c.tenant.is_not(None))
        .order_by(walk.c.step)
    )


def _take(*whose: Any) -> Any:
    """Build the statement that puts at most ``wanted_count`` due recipients under the lease ``token``."""
    due = (
        select(recipient.c.id)
        .where(*_here, *whose, IS_DUE)
        .order_by(recipient.c.due_at, recipient.c.id)
        .limit(bindparam("wanted_count"))
        .with_for_update(skip_locked=True)
        .cte("due_recipient")
    )
    return taking().where(recipient.c.id.in_(select(due.c.id)))


TAKEN: Final = (
    recipient.c.id,
    recipient.c.message_id,
    recipient.c.address,
    recipient.c.orcpt,
    recipient.c.notify,
    recipient.c.due_at,
    recipient.c.attempts,
    recipient.c.stumbles,
)
"""What is told of a recipient that was leased."""


def taking() -> Any:
    """Return the update that leases recipients to ``token``; the caller says which."""
    return (
        update(recipient)
        .where(CLAIMABLE)
        .values(
            state=stored(target(Event.CLAIM)),
            lease_id=bindparam("token"),
            attempts=recipient.c.attempts + 1,
            fresh=False,
        )
        .returning(*TAKEN)
    )


_from_start = _tenants()
_from_behind = _tenants(recipient.c.tenant > bindparam("behind"))
_head = select(recipient.c.tenant).where(*_here, IS_DUE).order_by(recipient.c.due_at, recipient.c.id).limit(1)
# Two statements, since only the tenant's own condition makes the planner use the tenants' index.
_take_any = _take()
_take_of_tenant = _take(recipient.c.tenant == bindparam("wanted_tenant"))


class Rotation:
    """Which tenant of a nexthop and priority was served last in this process; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], str] = {}

    def last(self, nexthop: str, priority: int) -> str | None:
        """Return the tenant served last; None: begin with the first."""
        with self._lock:
            return self._last.get((nexthop, priority))

    def served(self, nexthop: str, priority: int, tenant: str) -> None:
        """Note who was served last."""
        with self._lock:
            if len(self._last) >= _MOST_REMEMBERED:
                # Whoever is forgotten begins with the first tenant again, which is merely less fair for a moment.
                self._last.clear()
            self._last[nexthop, priority] = tenant


def take_due(
    connection: Connection, nexthop: str, token: int, *, priorities: Sequence[int], limit: int, rotation: Rotation
) -> list[Row[Any]]:
    """Put at most *limit* due recipients of *nexthop* under the lease *token*; return them in the order of delivery.

    Args:
        connection: In the transaction of the claim.
        nexthop: As stored.
        token: The lease.
        priorities: Those that have mail due, the most urgent first.
        limit: Most recipients.
        rotation: Of this process.
    """
    taken: list[Row[Any]] = []
    for priority in priorities:
        here = {"wanted_nexthop": nexthop, "wanted_priority": priority, "token": token}
        taken += _take_turns(connection, here, limit - len(taken), rotation)
        if len(taken) >= limit:
            break
    return taken


def _take_turns(connection: Connection, here: dict[str, Any], limit: int, rotation: Rotation) -> list[Row[Any]]:
    nexthop, priority = here["wanted_nexthop"], here["wanted_priority"]
    tenants = _tenants_in_turn(connection, here, rotation.last(nexthop, priority))
    if len(tenants) <= 1:
        return _rows(connection, _take_any, here | {"wanted_count": limit})
    due = [tenant for tenant, is_due in tenants if is_due][:MOST_SERVED]
    if not due:
        rotation.served(nexthop, priority, tenants[-1][0])
        due = list(connection.execute(_head, here).scalars())
    share = -(-limit // max(len(due), 1))
    shares: dict[str, list[Row[Any]]] = {}
    left = limit
    for tenant in due:
        rows = _rows(connection, _take_of_tenant, here | {"wanted_tenant": tenant, "wanted_count": min(share, left)})
        shares[tenant] = rows
        left -= len(rows)
        rotation.served(nexthop, priority, tenant)
        if not left:
            break
    for tenant in [one for one, rows in shares.items() if len(rows) == share]:
        if left:
            # What others did not need of their share.
            more = _rows(connection, _take_of_tenant, here | {"wanted_tenant": tenant, "wanted_count": left})
            shares[tenant] += more
            left -= len(more)
    return alternated(shares.values())


def _tenants_in_turn(connection: Connection, here: dict[str, Any], last: str | None) -> list[tuple[str, bool]]:
    """Return the tenants with mail waiting, beginning behind *last*, and whether each has mail due."""
    walk = here | {"most_tenants": MOST_LOOKED_AT}
    rows = [] if last is None else list(connection.execute(_from_behind, walk | {"behind": last}))
    if len(rows) < MOST_LOOKED_AT:
        rows += connection.execute(_from_start, walk)
    tenants = {row.tenant: row.due_at is not None and row.due_at <= row.now for row in rows}
    return list(tenants.items())[:MOST_LOOKED_AT]


def alternated(shares: Iterable[Sequence[Any]]) -> list[Any]:
    """Return the first of each share, then the second of each, and so on."""
    return [one for turn in zip_longest(*shares) for one in turn if one is not None]


def _rows(connection: Connection, statement: Any, parameters: dict[str, Any]) -> list[Row[Any]]:
    return sorted(connection.execute(statement, parameters).all(), key=lambda row: (row.due_at, row.id))
