"""The tables.

``message`` and ``content`` never change. ``recipient`` is the state of the
queue: one row a recipient, see :mod:`mailq.queue.states`. ``delay`` has a row
for each message whose sender is to be told, or was, that it is late. ``attempt`` is
history and only grows. ``lease`` says who works on what until when; its id is
the fencing token. ``destination`` tells the dispatcher when a nexthop has
something due, and is never touched by an application's transaction: a long
one would hold up everybody else's. ``leader`` elects the dispatcher.

Invariant: whatever is due is found through a partial index that holds waiting
rows only, so finished mail costs nothing. Such an index is chosen only for a
state written as a literal; see :func:`in_state`.

All names start with ``mailq_``: the tables live in the application's database.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from mailq.queue.sqltypes import UtcDateTime
from mailq.queue.states import State

_Key = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON().with_variant(JSONB, "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

message = Table(
    "mailq_message",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sender", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("encoding", Text),
    Column("smtputf8", Boolean, nullable=False),
    Column("utf8_header", Boolean, nullable=False),
    Column("envid", Text, nullable=False),
    Column("ret", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("priority", SmallInteger, nullable=False),
    Column("tags", _Json, nullable=False),
    Column("idempotency_key", Text, unique=True),
    Column("digest", Text),
    Column("notice_of", Text),
    Column("notice_kind", Text),
)

content = Table(
    "mailq_content",
    metadata,
    Column("message_id", Text, ForeignKey("mailq_message.id"), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# An id that was ever given to a lease may not come back: a late worker would take the new owner's lease for its own.
lease = Table(
    "mailq_lease",
    metadata,
    Column("id", _Key, Identity(), primary_key=True),
    Column("nexthop", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("taken_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    sqlite_autoincrement=True,
)

recipient = Table(
    "mailq_recipient",
    metadata,
    Column("id", _Key, Identity(), primary_key=True),
    Column("message_id", Text, ForeignKey("mailq_message.id"), nullable=False, index=True),
    Column("address", Text, nullable=False),
    Column("orcpt", Text, nullable=False),
    Column("notify", Text, nullable=False),
    Column("nexthop", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("fresh", Boolean, nullable=False),
    Column("lease_id", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("last_status", Text, nullable=False, server_default=""),
    Column("last_reason", Text, nullable=False, server_default=""),
    Column("last_relay", Text, nullable=False, server_default=""),
    Column("last_attempt_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("notice", Text, nullable=False, server_default=""),
    CheckConstraint(
        "state IN ('queued', 'leased', 'held', 'sent', 'bounced', 'expired', 'cancelled')", name="known_state"
    ),
    CheckConstraint("(state = 'leased') = (lease_id IS NOT NULL)", name="leased_has_lease"),
    CheckConstraint("notice IN ('', 'wanted', 'sent')", name="known_notice"),
    sqlite_autoincrement=True,
)


def _partial(name: str, *columns: Column[object], where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


_partial(
    "ix_mailq_recipient_due",
    recipient.c.nexthop,
    recipient.c.priority,
    recipient.c.due_at,
    recipient.c.id,
    where="state = 'queued'",
)
_partial("ix_mailq_recipient_fresh", recipient.c.id, where="fresh AND state = 'queued'")
_partial("ix_mailq_recipient_lease", recipient.c.lease_id, where="lease_id IS NOT NULL")
_partial("ix_mailq_recipient_notice", recipient.c.message_id, where="notice = 'wanted'")

delay = Table(
    "mailq_delay",
    metadata,
    Column("message_id", Text, ForeignKey("mailq_message.id"), primary_key=True),
    Column("noticed_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
)
_partial("ix_mailq_delay_unsettled", delay.c.message_id, where="settled_at IS NULL")

attempt = Table(
    "mailq_attempt",
    metadata,
    Column("id", _Key, Identity(), primary_key=True),
    Column("recipient_id", BigInteger, nullable=False),
    Column("message_id", Text, ForeignKey("mailq_message.id"), nullable=False, index=True),
    Column("lease_id", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("relay", Text, nullable=False),
    Column("relay_host", Text, nullable=False),
    Column("reply_code", SmallInteger),
    Column("reply_text", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("earlier", _Json, nullable=False),
    sqlite_autoincrement=True,
)

destination = Table(
    "mailq_destination",
    metadata,
    Column("nexthop", Text, primary_key=True),
    Column("next_ring_at", UtcDateTime),
    Column("touched_at", UtcDateTime, nullable=False),
)
_partial("ix_mailq_destination_next_ring_at", destination.c.next_ring_at, where="next_ring_at IS NOT NULL")

leader = Table(
    "mailq_leader",
    metadata,
    Column("role", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)


def stored(state: State) -> ColumnElement[str]:
    """Return *state* as an SQL literal."""
    return literal_column(f"'{state.value}'", Text)


def in_state(*states: State) -> ColumnElement[bool]:
    """Return the condition that a recipient is in one of *states*, in a form that partial indexes recognise."""
    if len(states) == 1:
        return recipient.c.state == stored(states[0])
    return recipient.c.state.in_([stored(state) for state in states])


# Without a type, because a boolean one is compiled to "fresh = 1" on SQLite, which the partial index does not match.
IS_FRESH: ColumnElement[bool] = literal_column("mailq_recipient.fresh")
