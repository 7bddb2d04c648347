"""What makes a recipient one that a worker may take: each condition once, for all who ask.

The claim takes what these let through, the sweep frees what they call lost,
and the explanation asks the same of the database; so they cannot disagree.
"""

from sqlalchemy import ColumnElement, Connection, and_, literal, or_

from mailq.queue.sites import may_be_claimed
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import Event, sources
from mailq.queue.suspend import suspension_of
from mailq.queue.tables import in_state, lease, recipient

CLAIMABLE: ColumnElement[bool] = in_state(*sources(Event.CLAIM))
"""It is in a state that a claim starts from."""

IS_DUE: ColumnElement[bool] = recipient.c.due_at <= DatabaseNow()
"""Its time has come, by the database's clock."""

LEASE_IS_OVER: ColumnElement[bool] = lease.c.expires_at <= DatabaseNow()
"""The lease's owner is lost."""

IS_AT_WORK: ColumnElement[bool] = or_(
    and_(
        lease.c.message_id == recipient.c.message_id,
        or_(lease.c.last_recipient_id.is_(None), recipient.c.id <= lease.c.last_recipient_id),
    ),
    # Queue ids hold no space, and nothing that LIKE takes for more than itself.
    (literal(" ") + lease.c.also_at_work + literal(" ")).like(literal("% ") + recipient.c.message_id + literal(" %")),
)
"""The lease's owner may be sending it at this moment, or may have sent it."""


def gate_of(connection: Connection, nexthop: str) -> bool | None:
    """Tell whether *nexthop* may be claimed now: True as usual, None for a probe only, False not now."""
    if suspension_of(connection, nexthop) is not None:
        return False
    return may_be_claimed(connection, nexthop)
