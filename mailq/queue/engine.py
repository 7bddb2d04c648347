"""Connections to the database: how they are made, and what their errors mean.

SQLite runs in WAL mode with full synchronisation, because a committed message
is a promise; its writers take the lock when they begin and queue inside the
process, because SQLite's own waiting is neither fair nor quick. PostgreSQL is
spoken to through psycopg at READ COMMITTED; it ends a transaction in which
nothing happens for a while, so that nobody's locks outlive him; behind a
pooler (``?pooler=transaction``) that is the pooler's to do. An engine survives ``fork``: the
child forgets the parent's connections, which two processes would otherwise
share and read each other's answers from.
"""

import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from mailq.errors import ConfigError, DatabaseUnavailableError, MailqError, SchemaError
from mailq.queue.fixed import FixedStatement
from mailq.queue.ready import BY_INDEX, Given, ReadyConnections, can_be_used

_BUSY_SECONDS = 5.0
_CONNECT_SECONDS = 5
# A worker that is frozen, or whose machine is gone, in the middle of a transaction would otherwise keep its locks.
_IDLE_TRANSACTION = "-c idle_in_transaction_session_timeout=20s"
_BY_INDEX = " ".join(f"-c {name}={value}" for name, value in BY_INDEX.items())
_SQLITE = "sqlite"
_POOL_SIZE = 10
_POOL_OVERFLOW = 10
# Less than any server takes to start again.
_RESTED_SECONDS = 0.1
_RETURNED = "mailq_returned_at"
_READ_ONLY = "mailq_read_only"
_UNDEFINED = {"42P01", "42703"}
_MISSING_SQLITE = ("no such table", "no such column", "has no column named")


class Database:
    """Transactions on one database, usable from many threads.

    Args:
        engine: Made by :func:`build_engine`.

    Attributes:
        ready: Connections for statements that are known beforehand; None where there are none of that kind.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        if self.dialect == "sqlite":
            self._reader = engine.execution_options(**{_READ_ONLY: True})
        else:
            self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._turn = self._new_turn()
        self.ready = self._new_ready()
        _databases.add(self)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one transaction; an exception rolls it back.

        Raises:
            DatabaseUnavailableError: The database is down, or was busy for too long.
            SchemaError: A table is missing.
        """
        with self._turn, self.translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write_at_once(self) -> Iterator[Connection]:
        """Give a connection for a single statement, which is a transaction by itself.

        It saves the round trips of begin and commit. Errors are those of :meth:`write`.
        """
        if self.dialect == "sqlite":
            with self.write() as connection:
                yield connection
        else:
            with self.translated(), self._reader.connect() as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading.

        Raises:
            DatabaseUnavailableError: The database is down.
            SchemaError: A table is missing.
        """
        with self.translated(), self._reader.connect() as connection:
            yield connection

    def write_ready(self, work: Iterable[Given]) -> bool:
        """Execute statements, of which at least one is given, in a transaction of their own.

        Errors are those of :meth:`write`.

        Returns:
            False where that cannot be done in this way, and nothing was.
        """
        if self.ready is None:
            return False
        with self.translated():
            self.ready.execute(list(work))
        return True

    def run_fixed(self, statement: FixedStatement, values: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement of PostgreSQL in a transaction of its own; return its rows.

        Errors are those of :meth:`write`.
        """
        if self.ready is None:
            with self.write_at_once() as connection:
                return statement.run_on(connection, values)
        with self.translated():
            return self.ready.fetch(statement.ready, statement.octets(values))

    def close(self) -> None:
        """Close all connections that are not in use."""
        if self.ready is not None:
            self.ready.close()
        self.engine.dispose()

    def forget_connections(self) -> None:
        """Start over in a forked child: the connections are the parent's."""
        if self.ready is not None:
            self.ready.forget()
        self.engine.dispose(close=False)
        self._turn = self._new_turn()

    def _new_ready(self) -> ReadyConnections | None:
        return ReadyConnections(self.engine) if can_be_used(self.engine) else None

    def _new_turn(self) -> AbstractContextManager[Any]:
        return threading.Lock() if self.dialect == "sqlite" else nullcontext()

    @contextmanager
    def translated(self, *, own: bool = True) -> Iterator[None]:
        """Have errors of a driver say what they mean to an operator.

        Args:
            own: The transaction is ours. Of somebody else's, who may begin it again, conflicts with other
                transactions are told as the driver tells them.

        Raises:
            DatabaseUnavailableError: The database is down, or was busy for too long.
            SchemaError: A table is missing.
        """
        try:
            yield
        except SQLAlchemyError as error:
            translation = translate(error, self.engine.url)
            if translation is None or (not own and _is_conflict(error)):
                raise
            raise translation from error


_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_databases):
        database.forget_connections()


os.register_at_fork(after_in_child=_after_fork)


def is_sqlite(url: str) -> bool:
    """Tell whether *url* is a database in a file.

    Raises:
        ConfigError: The URL does not parse.
    """
    name: str = _parse(url).get_backend_name()
    return name == _SQLITE


def build_engine(url: str) -> Engine:
    """Return an engine for *url*; nothing is connected yet.

    Raises:
        ConfigError: The URL does not parse, or names a database that is not supported.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == _SQLITE:
        engine = sqlalchemy.create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    parsed, pooled = _without_pooler(parsed)
    try:
        engine = sqlalchemy.create_engine(
            parsed,
            isolation_level="READ COMMITTED",
            pool_size=_POOL_SIZE,
            max_overflow=_POOL_OVERFLOW,
            pool_use_lifo=True,
            connect_args=_postgresql_arguments(parsed, pooled=pooled),
        )
    except ModuleNotFoundError as error:
        raise ConfigError(f"{masked(parsed)} needs the package {error.name}; install mailq[postgres]") from error
    event.listen(engine, "checkin", _note_return)
    event.listen(engine, "checkout", _Ping(engine))
    return engine


def _note_return(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_RETURNED] = time.monotonic()


class _Ping:
    """Asks a connection that has rested whether it still lives.

    A restarted database would otherwise fail the first statement on every kept connection. One that has just been
    used is not asked: that would be a round trip for every transaction.
    """

    def __init__(self, engine: Engine) -> None:
        self._dialect = engine.dialect

    def __call__(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: Any) -> None:
        if time.monotonic() - record.info.get(_RETURNED, time.monotonic()) < _RESTED_SECONDS:
            return
        try:
            alive = self._dialect.do_ping(connection)
        except self._dialect.loaded_dbapi.Error as error:
            # The others that rest with it are no better; the pool opens a new one.
            raise InvalidatePoolError from error
        if not alive:
            raise InvalidatePoolError


def _postgresql_arguments(url: URL, *, pooled: bool = False) -> dict[str, Any]:
    """Return what is told to the driver; options in the URL are the operator's own."""
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    if pooled:
        # The next transaction may be on another connection to the server, which knows no statement of the last one's.
        return arguments | {"prepare_threshold": None}
    return arguments if "options" in url.query else arguments | {"options": f"{_IDLE_TRANSACTION} {_BY_INDEX}"}


def _without_pooler(url: URL) -> tuple[URL, bool]:
    """Return *url* as the driver understands it, and whether a pooler hands out connections a transaction each."""
    pooler = url.query.get("pooler", "session")
    if pooler not in {"session", "transaction"}:
        raise ConfigError(f"pooler={pooler} in the database URL is not known; use transaction, or session")
    return url.difference_update_query(["pooler"]), pooler == "transaction"


def masked(url: URL) -> str:
    """Return *url* with the password hidden."""
    return url.render_as_string(hide_password=True)


def translate(error: SQLAlchemyError, url: URL) -> MailqError | None:
    """Return what *error* means to an operator; None for a bug."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError(f"all connections to {masked(url)} were busy for too long; try again")
    if not isinstance(error, DBAPIError):
        return None
    if is_missing_table(error):
        return SchemaError(f"the tables of mailq in {masked(url)} are missing or outdated; run mailq migrate")
    # The base class itself is what a damaged SQLite file raises.
    is_trouble = isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError
    if error.connection_invalidated or is_trouble:
        reason = " ".join(str(error.orig).split())
        return DatabaseUnavailableError(
            f"cannot use the database {masked(url)}: {reason}; check that it runs and that the URL is right"
        )
    return None


def is_missing_table(error: DBAPIError) -> bool:
    """Whether *error* says that a table or column does not exist."""
    if getattr(error.orig, "sqlstate", None) in _UNDEFINED:
        return True
    return isinstance(error, OperationalError) and any(words in str(error.orig) for words in _MISSING_SQLITE)


def _is_conflict(error: SQLAlchemyError) -> bool:
    """Whether *error* is PostgreSQL's class 40: a deadlock, or a transaction that could not be serialised."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "").startswith("40")


def _parse(url: str) -> URL:
    # SQLAlchemy knows no postgres://, which hosting providers hand out.
    scheme, separator, rest = url.partition("://")
    if scheme in {"postgres", "postgresql"}:
        scheme = "postgresql+psycopg"
    try:
        parsed = make_url(scheme + separator + rest)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise ConfigError("the database URL does not parse; expected postgresql://… or sqlite:///path") from error
    if backend not in {"postgresql", "sqlite"}:
        raise ConfigError(f"the database {backend} is not supported; use postgresql://… or sqlite:///path")
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError("SQLite in memory cannot keep mail; name a file, such as sqlite:////var/lib/mailq/queue.db")
    return parsed


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin late and on its own; begin is said by _begin_sqlite.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
