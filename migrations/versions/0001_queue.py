"""The queue: messages, recipients, attempts, leases, destinations, the leader."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_instant = sa.DateTime(timezone=True)
_json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Create everything."""
    _create_message()
    _create_recipient()
    _create_delay()
    _create_attempt()
    _create_lease()
    _create_dispatch()


def downgrade() -> None:
    """Drop everything."""
    for table in ("leader", "destination", "lease", "attempt", "delay", "recipient", "content", "message"):
        op.drop_table(f"mailq_{table}")


def _key() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False)


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))


def _create_message() -> None:
    op.create_table(
        "mailq_message",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("encoding", sa.Text()),
        sa.Column("smtputf8", sa.Boolean(), nullable=False),
        sa.Column("utf8_header", sa.Boolean(), nullable=False),
        sa.Column("envid", sa.Text(), nullable=False),
        sa.Column("ret", sa.Text()),
        sa.Column("created_at", _instant, nullable=False),
        sa.Column("arrived_at", _instant, nullable=False),
        sa.Column("expires_at", _instant),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("tags", _json, nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("digest", sa.Text()),
        sa.Column("notice_of", sa.Text()),
        sa.Column("notice_kind", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_message"),
        sa.UniqueConstraint("idempotency_key", name="uq_mailq_message_idempotency_key"),
    )
    op.create_table(
        "mailq_content",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["mailq_message.id"], name="fk_mailq_content_message_id"),
        sa.PrimaryKeyConstraint("message_id", name="pk_mailq_content"),
    )


def _create_recipient() -> None:
    op.create_table(
        "mailq_recipient",
        _key(),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("orcpt", sa.Text(), nullable=False),
        sa.Column("notify", sa.Text(), nullable=False),
        sa.Column("nexthop", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("due_at", _instant, nullable=False),
        sa.Column("fresh", sa.Boolean(), nullable=False),
        sa.Column("lease_id", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status", sa.Text(), server_default="", nullable=False),
        sa.Column("last_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("last_relay", sa.Text(), server_default="", nullable=False),
        sa.Column("last_attempt_at", _instant),
        sa.Column("finished_at", _instant),
        sa.Column("notice", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_recipient"),
        sa.ForeignKeyConstraint(["message_id"], ["mailq_message.id"], name="fk_mailq_recipient_message_id"),
        sa.CheckConstraint(
            "state IN ('queued', 'leased', 'held', 'sent', 'bounced', 'expired', 'cancelled')",
            name=op.f("ck_mailq_recipient_known_state"),
        ),
        sa.CheckConstraint(
            "(state = 'leased') = (lease_id IS NOT NULL)", name=op.f("ck_mailq_recipient_leased_has_lease")
        ),
        sa.CheckConstraint("notice IN ('', 'wanted', 'sent')", name=op.f("ck_mailq_recipient_known_notice")),
        sqlite_autoincrement=True,
    )
    table = "mailq_recipient"
    op.create_index("ix_mailq_recipient_message_id", table, ["message_id"])
    _partial_index("ix_mailq_recipient_due", table, ["nexthop", "priority", "due_at", "id"], "state = 'queued'")
    _partial_index("ix_mailq_recipient_fresh", table, ["id"], "fresh AND state = 'queued'")
    _partial_index("ix_mailq_recipient_lease", table, ["lease_id"], "lease_id IS NOT NULL")
    _partial_index("ix_mailq_recipient_notice", table, ["message_id"], "notice = 'wanted'")


def _create_delay() -> None:
    op.create_table(
        "mailq_delay",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("noticed_at", _instant, nullable=False),
        sa.Column("settled_at", _instant),
        sa.ForeignKeyConstraint(["message_id"], ["mailq_message.id"], name="fk_mailq_delay_message_id"),
        sa.PrimaryKeyConstraint("message_id", name="pk_mailq_delay"),
    )
    _partial_index("ix_mailq_delay_unsettled", "mailq_delay", ["message_id"], "settled_at IS NULL")


def _create_attempt() -> None:
    op.create_table(
        "mailq_attempt",
        _key(),
        sa.Column("recipient_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("lease_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", _instant, nullable=False),
        sa.Column("finished_at", _instant, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("relay", sa.Text(), nullable=False),
        sa.Column("relay_host", sa.Text(), nullable=False),
        sa.Column("reply_code", sa.SmallInteger()),
        sa.Column("reply_text", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("earlier", _json, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_attempt"),
        sa.ForeignKeyConstraint(["message_id"], ["mailq_message.id"], name="fk_mailq_attempt_message_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_mailq_attempt_message_id", "mailq_attempt", ["message_id"])


def _create_lease() -> None:
    op.create_table(
        "mailq_lease",
        _key(),
        sa.Column("nexthop", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("taken_at", _instant, nullable=False),
        sa.Column("expires_at", _instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_lease"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_mailq_lease_expires_at", "mailq_lease", ["expires_at"])


def _create_dispatch() -> None:
    op.create_table(
        "mailq_destination",
        sa.Column("nexthop", sa.Text(), nullable=False),
        sa.Column("next_ring_at", _instant),
        sa.Column("touched_at", _instant, nullable=False),
        sa.PrimaryKeyConstraint("nexthop", name="pk_mailq_destination"),
    )
    _partial_index(
        "ix_mailq_destination_next_ring_at", "mailq_destination", ["next_ring_at"], "next_ring_at IS NOT NULL"
    )
    op.create_table(
        "mailq_leader",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("expires_at", _instant, nullable=False),
        sa.PrimaryKeyConstraint("role", name="pk_mailq_leader"),
    )
