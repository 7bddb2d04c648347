"""A place in the database to keep what is known of each key that sessions share.

Here are texts under keys, and nothing of what they mean: that is
:mod:`mailq.limits.shelf_limits`. Whoever has them open has them alone.

Invariant: rows are locked in the order of their keys.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, select, update

from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.tables import limit_book
from mailq.queue.upsert import DIALECTS, insert_into

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _lock(dialect: str) -> Any:
    statement = insert_into(limit_book, dialect).values(document="", touched_at=DatabaseNow())
    return statement.on_conflict_do_update(
        index_elements=[limit_book.c.key], set_={"touched_at": DatabaseNow()}
    ).returning(limit_book.c.document)


_locks = {dialect: _lock(dialect) for dialect in DIALECTS}
_now = select(DatabaseNow())
_write = update(limit_book).where(limit_book.c.key == bindparam("kept")).values(document=bindparam("text"))
_drop = delete(limit_book).where(limit_book.c.key == bindparam("dropped"))
_read = select(limit_book.c.key, limit_book.c.document).where(limit_book.c.key.in_(bindparam("keys", expanding=True)))


class StoredBooks:
    """Texts under keys; safe to use from many threads and processes.

    Args:
        database: The queue's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def open(self, keys: Collection[str]) -> Iterator[tuple[dict[str, str], int]]:
        """Yield the texts of *keys* and the present in microseconds; what is changed in the mapping is written.

        Args:
            keys: One without a text has an empty one, and what is left empty takes no place.

        Raises:
            DatabaseUnavailableError: The database is down; nothing was written.
        """
        with self._database.write() as connection:
            lock = _locks[connection.dialect.name]
            before = {key: str(connection.execute(lock, {"key": key}).scalar_one()) for key in sorted(set(keys))}
            # Asked once the rows are ours, so that time goes on from one owner to the next.
            texts, now = dict(before), _microseconds(connection.execute(_now).scalar_one())
            yield texts, now
            kept = [{"kept": key, "text": texts[key]} for key in before if texts[key] and texts[key] != before[key]]
            dropped = [{"dropped": key} for key in before if not texts[key]]
            if kept:
                connection.execute(_write, kept)
            if dropped:
                connection.execute(_drop, dropped)

    def read(self, keys: Collection[str]) -> tuple[Mapping[str, str], int]:
        """Return the texts of those of *keys* that have one, and the present in microseconds.

        Raises:
            DatabaseUnavailableError: The database is down.
        """
        with self._database.read() as connection:
            rows = connection.execute(_read, {"keys": sorted(set(keys))}).all()
            return {row.key: row.document for row in rows}, _microseconds(connection.execute(_now).scalar_one())


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND
