"""The queue on connections that a framework owns, in the framework's own transactions.

A web framework that is not built on SQLAlchemy keeps a connection a thread,
and knows when its transaction began and will end. The queue joins in: what it
writes is committed or rolled back with what the application writes. Compiled
statements are kept for as long as the queue, whichever connection they run on.

Invariants:
    No connection is opened, committed, rolled back or closed here.
    A refused call leaves the framework's transaction usable; any other error inside one spoils it, as its own do.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import sqlalchemy
from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import DateTime

from mailq.errors import ConfigError, MailqError, RefusedError
from mailq.queue.engine import Database
from mailq.queue.ready import DriverConnection, Given, as_sqlalchemy, can_be_used

_OFTEN: Final = 5
"""A connection that was used so often is probably used on: as with the driver's own ``prepare_threshold``."""


class Lender(Protocol):
    """Whoever owns the connections.

    Attributes:
        url: SQLAlchemy URL of the database; only its kind counts, and what errors show of it.
    """

    url: str

    def connection(self) -> Any:
        """Return the calling thread's open connection: of ``sqlite3``, or of psycopg 3."""

    def transaction(self) -> AbstractContextManager[object]:
        """Join the running transaction, or run one of its own; an exception spoils or rolls back the whole."""

    def after_commit(self, call: Callable[[], object]) -> None:
        """Call *call* once the running transaction is committed; at once where none runs."""

    def explain(self, error: Exception, meaning: MailqError | None) -> MailqError | None:
        """Return what to tell an operator of an error that went through a transaction, or was made by beginning one.

        Args:
            error: Of SQLAlchemy, of the lender's own, or of whatever ran inside.
            meaning: What it means to mailq; None where that is unknown.

        Returns:
            Something better than *meaning*; None leaves it as it is.
        """


@dataclass(slots=True)
class _Habit:
    """How one of the lender's connections is used.

    Attributes:
        uses: How often, for a statement that is a transaction by itself.
        keeps: What is prepared on it is there the next time, too.
        known: Names of what is.
    """

    uses: int = 0
    keeps: bool = False
    known: set[bytes] = field(default_factory=set)

    def is_kept(self, low: DriverConnection) -> bool:
        """Count one more use of it; tell whether it is worth to prepare a statement, and safe."""
        self.uses += 1
        if self.uses == _OFTEN:
            self.keeps = low.is_direct()
        return self.keeps


class BorrowedDatabase(Database):
    """Transactions of somebody else's.

    Args:
        lender: Asked for the connection each time.

    Raises:
        ConfigError: The kind of database is not supported.
    """

    def __init__(self, lender: Lender) -> None:
        self._lender = lender
        self._habits: WeakKeyDictionary[Any, _Habit] = WeakKeyDictionary()
        super().__init__(_build_engine(lender))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Write in the lender's transaction; errors are those of the base class."""
        refused: RefusedError | None = None
        with self.translated(), self._lender.transaction(), self.engine.begin() as connection:
            try:
                yield connection
            except RefusedError as error:
                # Nothing was written, so there is nothing that would have to be rolled back.
                refused = error
        if refused is not None:
            raise refused

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        """As :meth:`write`: whether a statement is a transaction by itself is the lender's to say."""
        with self.write() as connection:
            yield connection

    def write_ready(self, work: Iterable[Given]) -> bool:
        """Write in the lender's transaction, over its connection; otherwise as the base class does."""
        if not can_be_used(self.engine):
            return False
        with self.translated():
            connection = self._lender.connection()
            if connection.info.encoding != "utf-8":
                return False
            low, given = self._driver_connection(connection), list(work)
            if len(given) == 1 and connection.autocommit and low.is_idle():
                # A transaction by itself, without the round trips of another around it.
                self._run_alone(connection, given[0])
                return True
            with self._lender.transaction():
                if low.is_idle():
                    # The driver begins with the first statement that it is given itself.
                    connection.execute("SELECT 1")
                self._run(low, given)
        return True

    def _driver_connection(self, connection: Any) -> DriverConnection:
        return DriverConnection(connection, self.engine.dialect.loaded_dbapi, keeps=False)

    def _run_alone(self, connection: Any, given: Given) -> None:
        """Run a statement that is a transaction by itself, prepared where the connection is used again and again."""
        driver = self.engine.dialect.loaded_dbapi
        low = self._driver_connection(connection)
        with self._raised(low):
            habit = self._habits.setdefault(connection, _Habit())
            if habit.is_kept(low):
                kept = DriverConnection(connection, driver, keeps=True, known=habit.known)
                # Its owner may have all of it forgotten without a word. Then nothing was done.
                with suppress(driver.errors.InvalidSqlStatementName, driver.errors.DuplicatePreparedStatement):
                    kept.run(*given)
                    return
                habit.keeps = False
            low.run(*given)

    def _run(self, low: DriverConnection, work: Iterable[Given]) -> None:
        with self._raised(low):
            for each in work:
                low.run(*each)

    @contextmanager
    def _raised(self, low: DriverConnection) -> Iterator[None]:
        """Have errors of the driver raised as SQLAlchemy raises them."""
        try:
            yield
        except Exception as error:
            wrapped = as_sqlalchemy(error, self.engine, lost=low.is_lost())
            if wrapped is None:
                raise
            raise wrapped from error

    def _new_ready(self) -> None:
        """Connections are the lender's."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read what the lender's connection sees; errors are those of the base class."""
        with self.translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def translated(self, *, own: bool = True) -> Iterator[None]:
        """Have errors of the driver, and of the lender, say what they mean to an operator."""
        try:
            with super().translated(own=own):
                yield
        except MailqError as error:
            cause = error.__cause__
            better = self._lender.explain(cause, error) if isinstance(cause, SQLAlchemyError) else None
            if better is None:
                raise
            raise better from cause
        except Exception as error:
            meaning = self._lender.explain(error, None)
            if meaning is None:
                raise
            raise meaning from error


class _Lent:
    """A connection whose transactions and whose end are its owner's."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def commit(self) -> None:
        """Do nothing: the owner commits."""

    def rollback(self) -> None:
        """Do nothing: the owner rolls back."""

    def close(self) -> None:
        """Do nothing: the owner closes."""

    def create_function(self, *_arguments: Any, **_options: Any) -> None:
        """Do nothing: SQLAlchemy would replace the owner's function for regular expressions by its own."""

    def add_notice_handler(self, _handler: Any) -> None:
        """Do nothing: SQLAlchemy would add another one each time that the connection is lent."""


class _LentPostgres(_Lent):
    """A connection of psycopg; its owner may have types read in ways of its own, which are not ours."""

    def cursor(self) -> Any:
        """Return a cursor that binds parameters on the server and reads types as psycopg does by itself."""
        import psycopg  # noqa: PLC0415 - an extra
        from psycopg.pq import Format  # noqa: PLC0415 - likewise

        cursor = psycopg.Cursor(self.raw)
        for name in ("timestamptz", "jsonb"):
            kind = psycopg.adapters.types[name].oid
            loader = psycopg.adapters.get_loader(kind, Format.TEXT)
            if loader is not None:
                cursor.adapters.register_loader(kind, loader)
        return cursor


class _SqliteDateTime(sqlite.DATETIME):
    """Reads instants as text, and as the objects that the owner's connection may have made of it."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return what makes an instant of a column's value."""
        parse: Any = super().result_processor(dialect, coltype)
        return lambda value: value if isinstance(value, datetime) else parse(value)


def _build_engine(lender: Lender) -> Engine:
    url = make_url(lender.url)
    kind = url.get_backend_name()
    if kind == "sqlite":
        engine = sqlalchemy.create_engine(url, creator=lambda: _Lent(lender.connection()), poolclass=NullPool)
        engine.dialect.colspecs = {**engine.dialect.colspecs, DateTime: _SqliteDateTime}
        return engine
    if kind != "postgresql":
        raise ConfigError(f"the database {kind} is not supported; give the queue one of its own in database_url")
    return sqlalchemy.create_engine(
        url, creator=lambda: _LentPostgres(lender.connection()), poolclass=NullPool, use_native_hstore=False
    )
