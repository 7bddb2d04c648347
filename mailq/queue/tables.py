"""The tables.

``message`` and ``content`` never change. ``recipient`` is the state of the
queue: one row a recipient, see :mod:`mailq.queue.states`. ``delay`` has a row
for each message whose sender is to be told, or was, that it is late. ``attempt`` is
history and only grows. ``lease`` says who works on what until when; its id is
the fencing token. ``destination`` tells the dispatcher when a nexthop has
something due, and is never touched by an application's transaction: a long
one would hold up everybody else's. ``leader`` elects the dispatcher. ``suspension`` names
destinations that people have stopped, ``audit`` what people did.

Invariant: whatever is due is found through a partial index that holds waiting
rows only, so finished mail costs nothing. Such an index is chosen only for a
state written as a literal; see :func:`in_state`.

All names start with ``mailq_``: the tables live in the application's database.
"""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    false,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from mailq.queue.sqltypes import UtcDateTime
from mailq.queue.states import State

_Key = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON().with_variant(JSONB, "postgresql")
_OptionalJson = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
# Sorted octet by octet whatever the language of the database, so that a range of keys is a domain.
_Octets = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _partial(name: str, *columns: Column[object], where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


def _of_message() -> ForeignKeyConstraint:
    """Return the rule that a row belongs to a message, for what is written and deleted with it, by one transaction.

    Only SQLite looks after it, and with it the tests. PostgreSQL would read and lock the message that the same
    statement has just written, once for its content and once for each recipient, and once more for each attempt.
    """
    return ForeignKeyConstraint(["message_id"], ["mailq_message.id"]).ddl_if(dialect="sqlite")


ROW_RULES: Final = {
    "known_state": (
        "{row}state IN ('queued', 'leased', 'held', 'quarantined', 'sent', 'bounced', 'expired', 'cancelled')"
    ),
    "final_is_finished": (
        "({row}state IN ('sent', 'bounced', 'expired', 'cancelled')) = ({row}finished_at IS NOT NULL)"
    ),
    "notice_is_final": "{row}notice = '' OR {row}finished_at IS NOT NULL",
    "counts_from_zero": "{row}attempts >= 0 AND {row}stumbles >= 0",
    "known_notice": "{row}notice IN ('', 'wanted', 'sent')",
}
"""What holds of each recipient, by name: constraints of SQLite, and on PostgreSQL a matter of its guards, since it
reads and plans a constraint anew for each statement. See :mod:`mailq.queue.guards`."""


def _rules_of_rows() -> Iterator[CheckConstraint]:
    for name, rule in ROW_RULES.items():
        yield CheckConstraint(rule.format(row=""), name=name).ddl_if(dialect="sqlite")


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
    Column("mail_class", Text, nullable=False, server_default=""),
    Column("tenant", Text, nullable=False, server_default=""),
    Column("require_tls", Boolean, nullable=False, server_default=false()),
    Column("tls_optional", Boolean, nullable=False, server_default=false()),
    Column("verp", Text, nullable=False, server_default=""),
    # For people to find it by; see mailq.queue.headlines.
    Column("subject", Text, nullable=False, server_default=""),
    Column("header_id", Text, nullable=False, server_default=""),
)

content = Table(
    "mailq_content",
    metadata,
    Column("message_id", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("parts", Integer, nullable=False, server_default="1"),
    Column("location", Text, nullable=False, server_default=""),
    _of_message(),
)

_partial("ix_mailq_content_location", content.c.location, where="location <> ''")

# What is too large for one row: data above is part 0, the rest is here. See mailq.queue.bodies.
content_part = Table(
    "mailq_content_part",
    metadata,
    Column("message_id", Text, ForeignKey("mailq_message.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
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
    # What its owner is at work on: the recipients of this message that it still holds, up to an id where one is given.
    Column("message_id", Text),
    Column("last_recipient_id", BigInteger),
    # More messages of the lease that may be sent before anything else is noted, separated by spaces.
    Column("also_at_work", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

recipient = Table(
    "mailq_recipient",
    metadata,
    Column("id", _Key, Identity(), primary_key=True),
    Column("message_id", Text, nullable=False, index=True),
    Column("address", Text, nullable=False),
    Column("orcpt", Text, nullable=False),
    Column("notify", Text, nullable=False),
    Column("nexthop", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("fresh", Boolean, nullable=False),
    Column("lease_id", BigInteger, ForeignKey("mailq_lease.id")),
    Column("attempts", Integer, nullable=False),
    Column("last_status", Text, nullable=False, server_default=""),
    Column("last_reason", Text, nullable=False, server_default=""),
    Column("last_relay", Text, nullable=False, server_default=""),
    Column("last_attempt_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("notice", Text, nullable=False, server_default=""),
    Column("uncertain_at", UtcDateTime),
    Column("stumbles", Integer, nullable=False, server_default="0"),
    Column("fault", Text, nullable=False, server_default=""),
    Column("fault_told_at", UtcDateTime),
    Column("tenant", Text, nullable=False, server_default=""),
    Column("audit_id", BigInteger),
    _of_message(),
    CheckConstraint("(state = 'leased') = (lease_id IS NOT NULL)", name="leased_has_lease"),
    *_rules_of_rows(),
    sqlite_autoincrement=True,
)


_partial(
    "ix_mailq_recipient_due",
    recipient.c.nexthop,
    recipient.c.priority,
    recipient.c.due_at,
    recipient.c.id,
    where="state = 'queued'",
)
# Beside the one before: tenants take turns by this one, and the earliest of all of them is found by that one.
_partial(
    "ix_mailq_recipient_tenant",
    recipient.c.nexthop,
    recipient.c.priority,
    recipient.c.tenant,
    recipient.c.due_at,
    recipient.c.id,
    where="state = 'queued'",
)
_partial("ix_mailq_recipient_fresh", recipient.c.id, where="fresh AND state = 'queued'")
_partial("ix_mailq_recipient_lease", recipient.c.lease_id, where="lease_id IS NOT NULL")
_partial("ix_mailq_recipient_notice", recipient.c.message_id, where="notice = 'wanted'")
_partial("ix_mailq_recipient_uncertain", recipient.c.id, where="uncertain_at IS NOT NULL")
_partial("ix_mailq_recipient_untold", recipient.c.id, where="state = 'quarantined' AND fault_told_at IS NULL")
_partial("ix_mailq_recipient_audit", recipient.c.audit_id, where="state = 'held'")
_partial("ix_mailq_recipient_aside", recipient.c.state, where="state IN ('held', 'quarantined')")

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
    Column("message_id", Text, nullable=False, index=True),
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
    Column("tls", _OptionalJson),
    Column("recipient_key", _Octets, nullable=False, server_default=""),
    Column("relay_address", Text, nullable=False, server_default=""),
    Column("milliseconds", _Json),
    Column("transcript_id", BigInteger),
    Column("action", Text, nullable=False, server_default=""),
    _of_message(),
    sqlite_autoincrement=True,
)
_partial("ix_mailq_attempt_uncertain", attempt.c.recipient_id, where="outcome = 'uncertain'")
Index("ix_mailq_attempt_recipient_key", attempt.c.recipient_key, attempt.c.id)

# What was said in the sessions of one attempt at a message, for all its recipients: once, however many those are.
transcript = Table(
    "mailq_transcript",
    metadata,
    Column("id", _Key, Identity(), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_autoincrement=True,
)

destination = Table(
    "mailq_destination",
    metadata,
    Column("nexthop", Text, primary_key=True),
    Column("next_ring_at", UtcDateTime),
    Column("touched_at", UtcDateTime, nullable=False),
    Column("dead_since", UtcDateTime),
    Column("probe_at", UtcDateTime),
    Column("probe_lease_id", BigInteger),
    Column("dead_status", Text, nullable=False, server_default=""),
    Column("dead_reason", Text, nullable=False, server_default=""),
    # Names of its servers when it was last routed, and the key of the gate that it waits for.
    Column("hosts", Text, nullable=False, server_default=""),
    Column("waits_for", Text),
    Column("waits_since", UtcDateTime),
    # When a server last carried a conversation through, to the hour.
    Column("well_at", UtcDateTime),
)
_partial("ix_mailq_destination_next_ring_at", destination.c.next_ring_at, where="next_ring_at IS NOT NULL")
_partial("ix_mailq_destination_dead", destination.c.nexthop, destination.c.dead_since, where="dead_since IS NOT NULL")

_partial(
    "ix_mailq_destination_waits_for", destination.c.waits_for, destination.c.waits_since, where="waits_for IS NOT NULL"
)

leader = Table(
    "mailq_leader",
    metadata,
    Column("role", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

# Whoever claims asks for a handful of patterns by name; see mailq.queue.suspend.
suspension = Table(
    "mailq_suspension",
    metadata,
    Column("pattern", Text, primary_key=True),
    Column("since_at", UtcDateTime, nullable=False),
    Column("until_at", UtcDateTime),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

audit = Table(
    "mailq_audit",
    metadata,
    Column("id", _Key, Identity(), primary_key=True),
    Column("at", UtcDateTime, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("selector", _Json, nullable=False),
    Column("arguments", _Json, nullable=False),
    Column("reason", Text, nullable=False),
    Column("counted", BigInteger),
    Column("touched", BigInteger, nullable=False),
    Column("finished_at", UtcDateTime),
    sqlite_autoincrement=True,
)


# What is known of a domain's MTA-STS policy; mode is null where a policy was announced and could not be had.
sts_policy = Table(
    "mailq_sts_policy",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("mode", Text),
    Column("mx", _Json, nullable=False),
    Column("max_age_seconds", Integer, nullable=False),
    Column("fetched_at", UtcDateTime),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
    Column("refresh_at", UtcDateTime),
    Column("checked_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),
    Column("failed_at", UtcDateTime),
    Column("failure", Text, nullable=False),
)
_partial("ix_mailq_sts_policy_refresh_at", sts_policy.c.refresh_at, where="refresh_at IS NOT NULL")

# Sessions of a day, counted by how their encryption went: the raw material of TLS reports.
tls_count = Table(
    "mailq_tls_count",
    metadata,
    Column("id", Text, primary_key=True),
    Column("day", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("policy_type", Text, nullable=False),
    Column("policy", _Json, nullable=False),
    Column("result_type", Text, nullable=False),
    Column("receiving_host", Text, nullable=False),
    Column("receiving_ip", Text, nullable=False),
    Column("sending_ip", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("sessions", BigInteger, nullable=False),
    Index("ix_mailq_tls_count_day", "day", "domain"),
)

# One row a day and domain that a report is owed for, or was sent for.
tls_report = Table(
    "mailq_tls_report",
    metadata,
    Column("day", Text, primary_key=True),
    Column("domain", Text, primary_key=True),
    Column("due_at", UtcDateTime),
    Column("attempts", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("settled_at", UtcDateTime),
)
_partial("ix_mailq_tls_report_due_at", tls_report.c.due_at, where="due_at IS NOT NULL")

# Passwords that servers refused, as salted hashes: one row a server and account.
auth_failure = Table(
    "mailq_auth_failure",
    metadata,
    Column("host", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("reply_code", SmallInteger, nullable=False),
    Column("reply_text", Text, nullable=False),
    Column("noted_at", UtcDateTime, nullable=False, index=True),
)

# What people set at run time; see mailq.limits.rules for what it means. The stamp has one row, and changes with any.
limit_rule = Table(
    "mailq_limit",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_at", UtcDateTime, nullable=False),
)

limit_stamp = Table(
    "mailq_limit_stamp",
    metadata,
    Column("what", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

# What is known of each key that sessions share, while nobody else counts them; see mailq.limits.shelf_limits.
limit_book = Table(
    "mailq_limit_book",
    metadata,
    Column("key", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("touched_at", UtcDateTime, nullable=False),
)

# The revisions whose releases may work on this schema; see mailq.queue.schema.
schema_serves = Table("mailq_schema_serves", metadata, Column("revision", Text, primary_key=True))


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
