"""PostgreSQL makes contents smaller by LZ4, which takes a fraction of the time, where it was built with that."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
# The oldest revision whose release works on this schema; see docs/upgrading.md.
serves = "0009"

_TABLES = ("mailq_content", "mailq_content_part")
_HAS_LZ4 = "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"


def upgrade() -> None:
    """Have what is written from now on compressed so; what is there stays as it is, and is read as before."""
    _compress("lz4")


def downgrade() -> None:
    """Compress as the server does by default."""
    _compress("default")


def _compress(method: str) -> None:
    if op.get_context().dialect.name == "postgresql" and op.get_bind().scalar(sa.text(_HAS_LZ4)):
        for table in _TABLES:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET COMPRESSION {method}")
