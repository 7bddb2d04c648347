"""What else the owner of a lease may be sending, so that it need not wait for each record before the next message."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
# The oldest revision whose release works on this schema; see docs/upgrading.md.
serves = "0009"


def upgrade() -> None:
    """Add it; leases from before name one message, as they did."""
    op.add_column("mailq_lease", sa.Column("also_at_work", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Forget it."""
    op.drop_column("mailq_lease", "also_at_work")
