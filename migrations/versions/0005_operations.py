"""Suspended destinations, and who did what."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_instant = sa.DateTime(timezone=True)
_json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Create both tables, and let a recipient name the order that touched it last."""
    op.create_table(
        "mailq_suspension",
        sa.Column("pattern", sa.Text(), nullable=False),
        sa.Column("since_at", _instant, nullable=False),
        sa.Column("until_at", _instant),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pattern", name="pk_mailq_suspension"),
    )
    op.create_table(
        "mailq_audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("at", _instant, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("selector", _json, nullable=False),
        sa.Column("arguments", _json, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("counted", sa.BigInteger()),
        sa.Column("touched", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", _instant),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_mailq_audit_at", "mailq_audit", ["at"])
    op.add_column("mailq_recipient", sa.Column("audit_id", sa.BigInteger()))
    held = sa.text("state = 'held'")
    op.create_index(
        "ix_mailq_recipient_audit", "mailq_recipient", ["audit_id"], postgresql_where=held, sqlite_where=held
    )


def downgrade() -> None:
    """Forget them; what was suspended is delivered again."""
    op.drop_index("ix_mailq_recipient_audit", "mailq_recipient")
    op.drop_column("mailq_recipient", "audit_id")
    op.drop_table("mailq_audit")
    op.drop_table("mailq_suspension")
