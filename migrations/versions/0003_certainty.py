"""Uncertain and quarantined mail, what a lease is at work on, and stricter rules about states."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_instant = sa.DateTime(timezone=True)
_table = "mailq_recipient"
_older_states = "state IN ('queued', 'leased', 'held', 'sent', 'bounced', 'expired', 'cancelled')"
_states = "state IN ('queued', 'leased', 'held', 'quarantined', 'sent', 'bounced', 'expired', 'cancelled')"
_final = "state IN ('sent', 'bounced', 'expired', 'cancelled')"
_rules = {
    "known_state": _states,
    "final_is_finished": f"({_final}) = (finished_at IS NOT NULL)",
    "notice_is_final": "notice = '' OR finished_at IS NOT NULL",
    "counts_from_zero": "attempts >= 0 AND stumbles >= 0",
}
_columns = (
    ("uncertain_at", _instant, {}),
    ("stumbles", sa.Integer(), {"nullable": False, "server_default": "0"}),
    ("fault", sa.Text(), {"nullable": False, "server_default": ""}),
    ("fault_told_at", _instant, {}),
)
_indexes = {
    "ix_mailq_recipient_uncertain": (_table, "id", "uncertain_at IS NOT NULL"),
    "ix_mailq_recipient_untold": (_table, "id", "state = 'quarantined' AND fault_told_at IS NULL"),
    "ix_mailq_attempt_uncertain": ("mailq_attempt", "recipient_id", "outcome = 'uncertain'"),
}
_foreign_key = "fk_mailq_recipient_lease_id"


def upgrade() -> None:
    """Add the columns, and rules that every row obeys already."""
    op.add_column("mailq_lease", sa.Column("message_id", sa.Text()))
    op.add_column("mailq_lease", sa.Column("last_recipient_id", sa.BigInteger()))
    # A lease that is gone frees its recipients in the same transaction; this is for what was repaired by hand.
    op.execute(
        "UPDATE mailq_recipient SET state = 'queued', lease_id = NULL"
        " WHERE state = 'leased' AND lease_id NOT IN (SELECT id FROM mailq_lease)"
    )
    with op.batch_alter_table(_table, table_kwargs={"sqlite_autoincrement": True}) as batch:
        for name, kind, options in _columns:
            batch.add_column(sa.Column(name, kind, **options))
        batch.drop_constraint(op.f("ck_mailq_recipient_known_state"), type_="check")
        for name, condition in _rules.items():
            batch.create_check_constraint(op.f(f"ck_mailq_recipient_{name}"), condition)
        batch.create_foreign_key(_foreign_key, "mailq_lease", ["lease_id"], ["id"])
    for name, (table, column, condition) in _indexes.items():
        where = sa.text(condition)
        op.create_index(name, table, [column], postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    """Hold what is quarantined: the older release knows no such state."""
    for name, (table, _, _) in _indexes.items():
        op.drop_index(name, table_name=table)
    with op.batch_alter_table(_table, table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_constraint(_foreign_key, type_="foreignkey")
        for name in _rules:
            batch.drop_constraint(op.f(f"ck_mailq_recipient_{name}"), type_="check")
        for name, _, _ in _columns:
            batch.drop_column(name)
    op.execute("UPDATE mailq_recipient SET state = 'held' WHERE state = 'quarantined'")
    with op.batch_alter_table(_table, table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.create_check_constraint(op.f("ck_mailq_recipient_known_state"), _older_states)
    op.drop_column("mailq_lease", "last_recipient_id")
    op.drop_column("mailq_lease", "message_id")
