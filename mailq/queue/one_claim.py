"""A lease and its recipients in one statement of PostgreSQL, for mail that comes one by one.

A transaction of five statements is seven round trips, which a lease on a few
messages does not earn back. Here it is one statement, which is a transaction
by itself, where nothing has to be shared out: the mail of one priority and of
one tenant. In every other case it takes nothing, and the longer way does.

Invariants:
    What it writes is what :mod:`mailq.queue.leases` writes in several statements.
    The lease names the first message from the beginning.

Source: smtp-delivery Q-25, Q-60
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Row, column, text

from mailq.queue.sqltypes import UtcDateTime
from mailq.queue.turns import TAKEN

DIALECT: Final = "postgresql"
"""Where it can be used."""

_WAITING: Final = "state = 'queued' AND nexthop = :nexthop AND priority = :priority"
_TENANT: Final = f"SELECT tenant FROM mailq_recipient WHERE {_WAITING} ORDER BY tenant"  # noqa: S608 - of the constant above
# The columns of a table that is updated are named with it: the lease has some of the same names.
_claim = text(f"""WITH due AS (
    SELECT id, message_id, due_at FROM mailq_recipient
    WHERE {_WAITING} AND due_at <= statement_timestamp()
        AND ({_TENANT} LIMIT 1) = ({_TENANT} DESC LIMIT 1)
    ORDER BY due_at, id
    LIMIT :most
    FOR UPDATE SKIP LOCKED
), new_lease AS (
    INSERT INTO mailq_lease (nexthop, owner, taken_at, expires_at, message_id)
    SELECT :nexthop, :owner, statement_timestamp(), statement_timestamp() + make_interval(secs => :seconds),
        (SELECT message_id FROM due ORDER BY due_at, id LIMIT 1)
    WHERE EXISTS (SELECT FROM due)
    RETURNING id, taken_at
)
UPDATE mailq_recipient AS taken
SET state = 'leased', lease_id = new_lease.id, attempts = taken.attempts + 1, fresh = false
FROM new_lease
WHERE taken.id IN (SELECT id FROM due) AND taken.state = 'queued'
RETURNING {", ".join(f"taken.{each.name}" for each in TAKEN)}, new_lease.id AS token, new_lease.taken_at
""").columns(  # noqa: S608 - of the table's own columns
    *(column(each.name, each.type) for each in TAKEN),
    column("token", BigInteger()),
    column("taken_at", UtcDateTime()),
)


def take_at_once(
    connection: Connection, nexthop: str, *, priority: int, owner: str, limit: int, lease_time: timedelta
) -> Sequence[Row[Any]]:
    """Lease at most *limit* due recipients, in the order of delivery; none where tenants have to take turns.

    Args:
        connection: Each statement is a transaction by itself.
        nexthop: As stored; one that is neither dead nor stopped.
        priority: Of what is taken.
        owner: Whose lease it is.
        limit: Most recipients.
        lease_time: The lease runs out after this.

    Returns:
        The recipients' rows, each with ``token``, the lease, and ``taken_at``.
    """
    parameters = {
        "nexthop": nexthop,
        "priority": priority,
        "owner": owner,
        "most": limit,
        "seconds": lease_time.total_seconds(),
    }
    # Of more columns than the type of a row can count.
    rows: Any = connection.execute(_claim, parameters).all()
    return sorted(rows, key=lambda row: (row.due_at, row.id))
