"""What a message is called by people: its subject and its Message-ID, to be listed and searched by."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both; of mail that was queued before, neither is known here."""
    for name in ("subject", "header_id"):
        op.add_column("mailq_message", sa.Column(name, sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Forget both; the content still has them."""
    for name in ("header_id", "subject"):
        op.drop_column("mailq_message", name)
