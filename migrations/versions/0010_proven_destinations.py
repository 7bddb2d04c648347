"""When mail to a destination last did well, so that the many that do not cannot take its turn."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; a destination is unproven until its next delivery."""
    op.add_column("mailq_destination", sa.Column("well_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Forget it."""
    op.drop_column("mailq_destination", "well_at")
