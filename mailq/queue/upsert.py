"""``INSERT … ON CONFLICT``, which SQLAlchemy has once for each database."""

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

DIALECTS = ("postgresql", "sqlite")


def insert_into(table: Table, dialect: str) -> Any:
    """Return an insert with ``on_conflict_do_update`` and ``on_conflict_do_nothing`` for *dialect*."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
