"""PostgreSQL no longer looks up the message of a content or recipient, which the same statement has just written."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
# The oldest revision whose release works on this schema; see docs/upgrading.md.
serves = "0009"

_TABLES = ("mailq_content", "mailq_recipient")


def upgrade() -> None:
    """Drop the foreign keys; what they looked after is written, and deleted, by one transaction."""
    if op.get_context().dialect.name == "postgresql":
        for table in _TABLES:
            op.drop_constraint(f"fk_{table}_message_id", table, type_="foreignkey")


def downgrade() -> None:
    """Have them again."""
    if op.get_context().dialect.name == "postgresql":
        for table in _TABLES:
            op.create_foreign_key(f"fk_{table}_message_id", table, "mailq_message", ["message_id"], ["id"])
