"""What a delivery means to a sender who asked to be told, and messages with an envelope sender for each recipient."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; what is queued already keeps its one sender."""
    op.add_column("mailq_message", _text("verp"))
    op.add_column("mailq_attempt", _text("action"))


def downgrade() -> None:
    """Forget both: bounces of messages that are still queued then come to the plain sender."""
    op.drop_column("mailq_attempt", "action")
    op.drop_column("mailq_message", "verp")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default="")
