"""The release after this one, as far as the database is concerned: the same code, and one migration more."""

import shutil
import sys
from pathlib import Path

from mailq.queue import schema

REVISION = "9999"

_MIGRATION = f'''
"""What the next release adds."""

import sqlalchemy as sa
from alembic import op

revision = "{REVISION}"
down_revision = "%s"
serves = "%s"


def upgrade() -> None:
    op.add_column("mailq_recipient", sa.Column("mood", sa.Text(), nullable=False, server_default="calm"))
    op.create_table("mailq_mood", sa.Column("name", sa.Text(), primary_key=True))


def downgrade() -> None:
    op.drop_table("mailq_mood")
    op.drop_column("mailq_recipient", "mood")
'''
_PROGRAM = """
import pathlib, sys
from mailq.queue import schema
schema.migrations_home = lambda: pathlib.Path(sys.argv[1])
from mailq.cli import main
main(sys.argv[2:])
"""


class NextRelease:
    """Its migrations, and its program.

    Args:
        folder: Where its migrations go.
        serves: The oldest revision whose release works on its schema; None: this release's.
    """

    def __init__(self, folder: Path, *, serves: str | None = None) -> None:
        self._home = folder / "migrations"
        shutil.copytree(schema.migrations_home(), self._home, ignore=shutil.ignore_patterns("__pycache__"))
        head = schema.head_revision()
        text = _MIGRATION % (head, serves or head)
        (self._home / "versions/9999_next.py").write_text(text.lstrip(), encoding="utf-8")

    def command(self, *words: str) -> list[str]:
        """Return the command line of its ``mailq``."""
        return [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(self._home), *words]
