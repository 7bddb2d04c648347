"""Indexes by which monitoring counts what is set aside and what is dead without reading a table."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
# The oldest revision whose release works on this schema; see docs/upgrading.md.
serves = "0009"


def upgrade() -> None:
    """Add them; both hold few rows and are rarely written."""
    aside = sa.text("state IN ('held', 'quarantined')")
    op.create_index(
        "ix_mailq_recipient_aside", "mailq_recipient", ["state"], postgresql_where=aside, sqlite_where=aside
    )
    dead = sa.text("dead_since IS NOT NULL")
    op.create_index(
        "ix_mailq_destination_dead",
        "mailq_destination",
        ["nexthop", "dead_since"],
        postgresql_where=dead,
        sqlite_where=dead,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_mailq_destination_dead", "mailq_destination")
    op.drop_index("ix_mailq_recipient_aside", "mailq_recipient")
