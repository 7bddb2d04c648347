"""What makes a recipient one that a worker may take: each condition once, for all who ask.

The claim takes what these let through, the sweep frees what they call lost,
and the explanation asks the same of the database; so they cannot disagree.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, literal, or_, select

from mailq.queue.dispatch import each_priority, earliest_due
from mailq.queue.sites import may_be_claimed, probe_is_due
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.states import Event, sources
from mailq.queue.suspend import is_stopped, patterns_of, suspension_of
from mailq.queue.tables import in_state, lease, recipient
from mailq.queue.upsert import DIALECTS

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


def _due(dialect: str) -> Any:
    return select(
        each_priority.c.priority, is_stopped(dialect).label("stopped"), probe_is_due.label("probe_due")
    ).where(earliest_due <= DatabaseNow())


_due_by_dialect = {dialect: _due(dialect) for dialect in DIALECTS}


def due_through_gate(connection: Connection, nexthop: str) -> tuple[bool | None, list[int]]:
    """Return what :func:`gate_of` does, and the priorities that *nexthop* has mail due of, the most urgent first.

    In one question. Where nothing is due, the first answer says nothing.
    """
    parameters = {"nexthop": nexthop, "patterns": list(patterns_of(nexthop))}
    rows = connection.execute(_due_by_dialect[connection.dialect.name], parameters).all()
    if not rows or rows[0].stopped:
        return False, []
    probe_due = rows[0].probe_due
    if probe_due is not None and not probe_due:
        return False, []
    return (True if probe_due is None else None), sorted(row.priority for row in rows)
