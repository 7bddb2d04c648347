"""PostgreSQL has rules of single rows looked at by its guards, and an attempt's message not looked up.

A check constraint is read and planned anew by each statement that writes a row, which cost as much as all else that
the statement does. What no way that mail usually goes can break is left to the guards, see mailq.queue.guards: they
stand in front of all other ways. That a leased recipient has a lease stays a constraint, and so does its lease a
foreign key: without its lease nobody would ever take it up again. The message of an attempt is that of a recipient
which the same statement writes, and is deleted with it.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
# The oldest revision whose release works on this schema; see docs/upgrading.md.
serves = "0009"

_RULES = {
    "known_state": ("state IN ('queued', 'leased', 'held', 'quarantined', 'sent', 'bounced', 'expired', 'cancelled')"),
    "final_is_finished": "(state IN ('sent', 'bounced', 'expired', 'cancelled')) = (finished_at IS NOT NULL)",
    "notice_is_final": "notice = '' OR finished_at IS NOT NULL",
    "counts_from_zero": "attempts >= 0 AND stumbles >= 0",
    "known_notice": "notice IN ('', 'wanted', 'sent')",
}
_KEY = "fk_mailq_attempt_message_id"


def upgrade() -> None:
    """Drop the constraints, which reads no row; the guards are set up behind the last migration."""
    if op.get_context().dialect.name == "postgresql":
        for name in _RULES:
            op.drop_constraint(op.f(f"ck_mailq_recipient_{name}"), "mailq_recipient", type_="check")
        # In a history that was partitioned it has another name, or is not there.
        op.execute(f"ALTER TABLE mailq_attempt DROP CONSTRAINT IF EXISTS {_KEY}")


def downgrade() -> None:
    """Have them again."""
    if op.get_context().dialect.name == "postgresql":
        for name, rule in _RULES.items():
            op.create_check_constraint(op.f(f"ck_mailq_recipient_{name}"), "mailq_recipient", rule)
        op.create_foreign_key(_KEY, "mailq_attempt", "mailq_message", ["message_id"], ["id"])
