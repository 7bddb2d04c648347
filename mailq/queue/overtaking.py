"""Whether something that is due goes before the rest of a batch: more urgent mail, or another tenant's.

A session that has worked on a lease for a while asks this, and goes on with
what it has where the answer is no: another claim would give it the same mail.
Hundreds of sessions with slow servers ask every second, so it is asked for many
at once, and costs each a few probes of an index, whatever the backlog.

Invariant: where a claim would begin with other mail than what is left of a tenant's batch, the answer is yes. It may be
yes in vain: where another tenant's mail only waits for its time.

Source: smtp-delivery Q-60, Q-64, differently: turns among tenants, not jobs.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from mailq.queue import wire
from mailq.queue.dispatch import due_priorities
from mailq.queue.engine import Database
from mailq.queue.fixed import FixedStatement
from mailq.queue.states import State
from mailq.queue.tables import in_state, recipient


class Rest(NamedTuple):
    """What is left of a batch.

    Attributes:
        nexthop: As stored.
        priority: Of the least urgent of it.
        tenant: Whose mail all of it is; None: of several, and only more urgent mail goes before it.
    """

    nexthop: str
    priority: int
    tenant: str | None


_POSTGRESQL: Final = "postgresql"
_WAITING: Final = "FROM mailq_recipient AS mail WHERE mail.state = 'queued' AND mail.nexthop = rest.nexthop"
_ALIKE: Final = f"SELECT mail.tenant {_WAITING} AND mail.priority = rest.priority ORDER BY mail.tenant"
# The count is told as a limit, so that few are expected, and looked up.
_OVERTAKEN: Final = f"""WITH rest AS MATERIALIZED (
    SELECT * FROM unnest(%(nexthops)s, %(priorities)s, %(tenants)s) WITH ORDINALITY
        AS rest (nexthop, priority, tenant, number)
    LIMIT %(count)s
)
SELECT rest.number FROM rest
WHERE ({_ALIKE} LIMIT 1) <> rest.tenant OR ({_ALIKE} DESC LIMIT 1) <> rest.tenant OR EXISTS (
    SELECT FROM generate_series(
        (SELECT mail.priority {_WAITING} ORDER BY mail.priority LIMIT 1)::int, rest.priority - 1) AS level
    WHERE (SELECT mail.due_at {_WAITING} AND mail.priority = level ORDER BY mail.due_at LIMIT 1)
        <= statement_timestamp()
)
"""  # noqa: S608 - of the constants above
_statement: Final = FixedStatement(
    "mailq_overtaken",
    _OVERTAKEN,
    {
        "nexthops": wire.many(wire.TEXT),
        "priorities": wire.many(wire.INTEGER),
        "tenants": wire.many(wire.TEXT),
        "count": wire.BIGINT,
    },
)

_alike = select(recipient.c.tenant).where(
    in_state(State.QUEUED),
    recipient.c.nexthop == bindparam("wanted_nexthop"),
    recipient.c.priority == bindparam("wanted_priority"),
)
_first = _alike.order_by(recipient.c.tenant).limit(1)
_last = _alike.order_by(recipient.c.tenant.desc()).limit(1)


def overtaken(database: Database, rests: Sequence[Rest]) -> list[bool]:
    """Tell for each of *rests* whether something is due that goes before it."""
    if not rests:
        return []
    if database.dialect == _POSTGRESQL:
        found = _ask_at_once(database, rests)
        return [number in found for number in range(1, len(rests) + 1)]
    with database.read() as connection:
        return [_is_overtaken(connection, rest) for rest in rests]


def _ask_at_once(database: Database, rests: Sequence[Rest]) -> frozenset[int]:
    """Return the numbers of those that are, from 1."""
    nexthops, priorities, tenants = zip(*rests, strict=True)
    parameters = {"nexthops": nexthops, "priorities": priorities, "tenants": tenants, "count": len(rests)}
    return frozenset(row.number for row in database.run_fixed(_statement, parameters))


def _is_overtaken(connection: Connection, rest: Rest) -> bool:
    here = {"wanted_nexthop": rest.nexthop, "wanted_priority": rest.priority}
    tenants = {connection.execute(statement, here).scalar() for statement in (_first, _last)}
    if rest.tenant is not None and tenants - {rest.tenant, None}:
        return True
    return any(priority < rest.priority for priority in due_priorities(connection, rest.nexthop))
