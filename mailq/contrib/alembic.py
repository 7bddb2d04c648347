"""The queue's tables beside those of an application whose migrations Alembic writes.

Both live in one database and never touch each other: mailq's migrations keep
their revision in a table of their own, ``mailq_schema``. Only Alembic's
autogenerate has to be told that tables which no model names are not to be
dropped::

    Migrate(app, db, include_name=without_mailq)               # Flask-Migrate
    context.configure(..., include_name=without_mailq)         # env.py of Alembic itself
"""

from collections.abc import Mapping
from typing import Final

PREFIX: Final = "mailq_"
"""Of the name of every table of the queue."""


def without_mailq(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Tell whether something found in the database is the application's; the arguments are Alembic's."""
    return not (kind == "table" and name is not None and name.startswith(PREFIX))
