"""What transport security needs to remember: wishes of messages, policies of domains, sessions to report on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_instant = sa.DateTime(timezone=True)
_json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Add the columns and tables."""
    op.add_column("mailq_message", sa.Column("require_tls", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("mailq_message", sa.Column("tls_optional", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("mailq_attempt", sa.Column("tls", _json))
    _create_sts_policy()
    _create_tls_reports()
    _create_auth_failure()


def downgrade() -> None:
    """Drop them."""
    for table in ("auth_failure", "tls_report", "tls_count", "sts_policy"):
        op.drop_table(f"mailq_{table}")
    op.drop_column("mailq_attempt", "tls")
    op.drop_column("mailq_message", "tls_optional")
    op.drop_column("mailq_message", "require_tls")


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))


def _create_sts_policy() -> None:
    op.create_table(
        "mailq_sts_policy",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text()),
        sa.Column("mx", _json, nullable=False),
        sa.Column("max_age_seconds", sa.Integer(), nullable=False),
        sa.Column("fetched_at", _instant),
        sa.Column("expires_at", _instant, nullable=False),
        sa.Column("refresh_at", _instant),
        sa.Column("checked_at", _instant, nullable=False),
        sa.Column("used_at", _instant, nullable=False),
        sa.Column("failed_at", _instant),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("domain", name="pk_mailq_sts_policy"),
    )
    op.create_index("ix_mailq_sts_policy_expires_at", "mailq_sts_policy", ["expires_at"])
    _partial_index("ix_mailq_sts_policy_refresh_at", "mailq_sts_policy", ["refresh_at"], "refresh_at IS NOT NULL")


def _create_tls_reports() -> None:
    op.create_table(
        "mailq_tls_count",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("policy_type", sa.Text(), nullable=False),
        sa.Column("policy", _json, nullable=False),
        sa.Column("result_type", sa.Text(), nullable=False),
        sa.Column("receiving_host", sa.Text(), nullable=False),
        sa.Column("receiving_ip", sa.Text(), nullable=False),
        sa.Column("sending_ip", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sessions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_tls_count"),
    )
    op.create_index("ix_mailq_tls_count_day", "mailq_tls_count", ["day", "domain"])
    op.create_table(
        "mailq_tls_report",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("due_at", _instant),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("settled_at", _instant),
        sa.PrimaryKeyConstraint("day", "domain", name="pk_mailq_tls_report"),
    )
    _partial_index("ix_mailq_tls_report_due_at", "mailq_tls_report", ["due_at"], "due_at IS NOT NULL")


def _create_auth_failure() -> None:
    op.create_table(
        "mailq_auth_failure",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("reply_code", sa.SmallInteger(), nullable=False),
        sa.Column("reply_text", sa.Text(), nullable=False),
        sa.Column("noted_at", _instant, nullable=False),
        sa.PrimaryKeyConstraint("host", "account", name="pk_mailq_auth_failure"),
    )
    op.create_index("ix_mailq_auth_failure_noted_at", "mailq_auth_failure", ["noted_at"])
