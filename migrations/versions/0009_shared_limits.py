"""Nexthops that wait for what they share with others, and a place to count sessions in."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_WAITING = "waits_for IS NOT NULL"


def upgrade() -> None:
    """Add both; the servers of a nexthop are noted when it is next routed."""
    op.add_column("mailq_destination", sa.Column("hosts", sa.Text(), nullable=False, server_default=""))
    op.add_column("mailq_destination", sa.Column("waits_for", sa.Text()))
    op.add_column("mailq_destination", sa.Column("waits_since", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_mailq_destination_waits_for",
        "mailq_destination",
        ["waits_for", "waits_since"],
        postgresql_where=sa.text(_WAITING),
        sqlite_where=sa.text(_WAITING),
    )
    op.create_table(
        "mailq_limit_book",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_mailq_limit_book"),
    )


def downgrade() -> None:
    """Forget both; whoever waits has a ring ahead all the same."""
    op.drop_table("mailq_limit_book")
    op.drop_index("ix_mailq_destination_waits_for", "mailq_destination")
    for column in ("waits_since", "waits_for", "hosts"):
        op.drop_column("mailq_destination", column)
