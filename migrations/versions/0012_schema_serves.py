"""Which releases may work on the schema, so that those of one release before know that they still can."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
# The oldest revision whose release works on this schema; see docs/upgrading.md.
serves = "0009"


def upgrade() -> None:
    """Add the table; migrations/env.py fills it."""
    op.create_table(
        "mailq_schema_serves",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_mailq_schema_serves"),
    )


def downgrade() -> None:
    """Drop it: releases before it work on their own schema alone."""
    op.drop_table("mailq_schema_serves")
