"""Longer history, and large content in parts or elsewhere.

Content of more than a part's size is cut into parts, by statements that run
inside the database. What was recorded before is found by recipient, too; where
a local part holds a quoted ``@``, by the domain only if it stands behind the first.
"""

import itertools
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PART_BYTES = 262_144
_json = sa.JSON().with_variant(JSONB(), "postgresql")
_octets = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_split = f"""
    INSERT INTO mailq_content_part (message_id, number, data)
    WITH RECURSIVE piece (message_id, number) AS (
        SELECT message_id, 1 FROM mailq_content WHERE length(data) > {_PART_BYTES}
        UNION ALL
        SELECT piece.message_id, piece.number + 1
        FROM piece JOIN mailq_content ON mailq_content.message_id = piece.message_id
        WHERE length(mailq_content.data) > (piece.number + 1) * {_PART_BYTES}
    )
    SELECT piece.message_id, piece.number, substr(mailq_content.data, piece.number * {_PART_BYTES} + 1, {_PART_BYTES})
    FROM piece JOIN mailq_content ON mailq_content.message_id = piece.message_id
"""  # noqa: S608 - made of constants
_cut = f"""
    UPDATE mailq_content
    SET data = substr(data, 1, {_PART_BYTES}), parts = (length(data) + {_PART_BYTES} - 1) / {_PART_BYTES}
    WHERE length(data) > {_PART_BYTES}
"""  # noqa: S608 - made of constants
_keys = {
    "postgresql": "lower(substring(address from '[^@]*$') || '@' || regexp_replace(address, '@[^@]*$', ''))",
    "sqlite": "lower(substr(address, instr(address, '@') + 1) || '@' || substr(address, 1, instr(address, '@') - 1))",
}


def upgrade() -> None:
    """Add the columns, the parts and the transcripts."""
    dialect = op.get_bind().dialect.name
    _add_parts(dialect)
    _add_history(dialect)


def downgrade() -> None:
    """Put the parts together again, and drop the rest; refused while content lies elsewhere."""
    _refuse_content_elsewhere()
    op.drop_index("ix_mailq_attempt_recipient_key", "mailq_attempt")
    for column in ("transcript_id", "milliseconds", "relay_address", "recipient_key"):
        op.drop_column("mailq_attempt", column)
    op.drop_table("mailq_transcript")
    _join_parts()
    op.drop_table("mailq_content_part")
    op.drop_index("ix_mailq_content_location", "mailq_content")
    op.drop_column("mailq_content", "location")
    op.drop_column("mailq_content", "parts")


def _add_parts(dialect: str) -> None:
    op.add_column("mailq_content", sa.Column("parts", sa.Integer(), server_default="1", nullable=False))
    op.add_column("mailq_content", sa.Column("location", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "mailq_content_part",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["mailq_message.id"], name="fk_mailq_content_part_message_id"),
        sa.PrimaryKeyConstraint("message_id", "number", name="pk_mailq_content_part"),
    )
    elsewhere = sa.text("location <> ''")
    op.create_index(
        "ix_mailq_content_location",
        "mailq_content",
        ["location"],
        postgresql_where=elsewhere,
        sqlite_where=elsewhere,
    )
    if dialect == "postgresql":
        # Large mail is mostly base64, which does not compress: trying costs the time of whoever queues it.
        op.execute("ALTER TABLE mailq_content_part ALTER COLUMN data SET STORAGE EXTERNAL")
    op.execute(_split)
    op.execute(_cut)


def _add_history(dialect: str) -> None:
    op.create_table(
        "mailq_transcript",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mailq_transcript"),
        sqlite_autoincrement=True,
    )
    op.add_column("mailq_attempt", sa.Column("recipient_key", _octets, server_default="", nullable=False))
    op.add_column("mailq_attempt", sa.Column("relay_address", sa.Text(), server_default="", nullable=False))
    op.add_column("mailq_attempt", sa.Column("milliseconds", _json))
    op.add_column("mailq_attempt", sa.Column("transcript_id", sa.BigInteger()))
    key = f"SELECT {_keys[dialect]} FROM mailq_recipient WHERE mailq_recipient.id = mailq_attempt.recipient_id"  # noqa: S608 - as above
    op.execute(f"UPDATE mailq_attempt SET recipient_key = coalesce(({key}), '')")  # noqa: S608 - as above
    op.create_index("ix_mailq_attempt_recipient_key", "mailq_attempt", ["recipient_key", "id"])


def _refuse_content_elsewhere() -> None:
    found = op.get_bind().execute(sa.text("SELECT count(*) FROM mailq_content WHERE parts = 0")).scalar()
    if found:
        raise sa.exc.InvalidRequestError(
            f"{found} messages have their content at content_url, where the older release does not look for it; "
            "deliver or purge them first"
        )


def _join_parts() -> None:
    connection = op.get_bind()
    large = connection.execute(sa.text("SELECT message_id FROM mailq_content WHERE parts > 1")).scalars().all()
    for message_id in large:
        whole = b"".join(itertools.chain.from_iterable(_pieces(connection, message_id)))
        statement = sa.text("UPDATE mailq_content SET data = :data WHERE message_id = :id")
        connection.execute(statement, {"data": whole, "id": message_id})


def _pieces(connection: sa.Connection, message_id: str) -> Iterator[list[bytes]]:
    for query in (
        "SELECT data FROM mailq_content WHERE message_id = :id",
        "SELECT data FROM mailq_content_part WHERE message_id = :id ORDER BY number",
    ):
        yield [bytes(data) for data in connection.execute(sa.text(query), {"id": message_id}).scalars()]
