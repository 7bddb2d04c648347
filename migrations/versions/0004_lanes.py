"""Classes and tenants of mail, the order of claims, and destinations that are dead."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TENANT_INDEX = "ix_mailq_recipient_tenant"
_instant = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Let mail say whose and of which kind it is, and remember which destinations are dead."""
    for table, column in (("message", "mail_class"), ("message", "tenant"), ("recipient", "tenant")):
        op.add_column(f"mailq_{table}", _text(column))
    op.create_index(
        _TENANT_INDEX,
        "mailq_recipient",
        ["nexthop", "priority", "tenant", "due_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    for added in (
        sa.Column("dead_since", _instant),
        sa.Column("probe_at", _instant),
        sa.Column("probe_lease_id", sa.BigInteger()),
        _text("dead_status"),
        _text("dead_reason"),
    ):
        op.add_column("mailq_destination", added)


def downgrade() -> None:
    """Forget both; what waits is claimed by its priority and time alone."""
    for column in ("dead_reason", "dead_status", "probe_lease_id", "probe_at", "dead_since"):
        op.drop_column("mailq_destination", column)
    op.drop_index(_TENANT_INDEX, "mailq_recipient")
    for table, column in (("recipient", "tenant"), ("message", "tenant"), ("message", "mail_class")):
        op.drop_column(f"mailq_{table}", column)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default="")
