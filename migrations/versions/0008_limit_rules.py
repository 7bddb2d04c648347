"""Limits that are set at run time, and the number that changes with them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables; nothing is set, so nothing changes."""
    op.create_table(
        "mailq_limit",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", "field", name="pk_mailq_limit"),
    )
    op.create_table(
        "mailq_limit_stamp",
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("what", name="pk_mailq_limit_stamp"),
    )


def downgrade() -> None:
    """Forget what was set; the settings apply again."""
    op.drop_table("mailq_limit_stamp")
    op.drop_table("mailq_limit")
