"""Connections to PostgreSQL that are kept ready for one statement at a time, each a transaction by itself.

Whoever queues a message waits for one statement. Around it SQLAlchemy begins, sets and resets, and the driver looks
for the way to write each parameter, which costs several times what the statement does. Here the connection commits by
itself, knows the statement and its plan already, and is given octets.

The plan is made once, for any values: to plan a claim costs the server more than to carry it out. Whatever goes this
way must be written so that the plan for few values is good for many.

A connection that has rested is asked whether it still lives; when one turns out to be lost, those that rest with it
are given up, too.

Invariants:
    A connection is used by one thread at a time, and in a forked child none of the parent's.
    One that is not known to be idle and whole is closed, not used again.

The program waits inside of the driver's C library, so this is not for a process whose threads take turns by
switching (gevent, eventlet): :func:`can_be_used`.
"""

import socket
import threading
import time
from collections import deque, namedtuple
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_MOST: Final = 10
"""Open at a time. The commits of more would wait for each other."""
_PATIENCE_SECONDS: Final = 30.0
_RESTED_SECONDS: Final = 0.1
BY_INDEX: Final = {"random_page_cost": "1.1", "seq_page_cost": "4", "jit": "off"}
"""What is on the hot path is found by an index. A plan that was made while a table had a page or two would read it from
end to end, and be kept by the connection until the table, grown meanwhile, is analysed. Nothing is worth compiling."""
_FOR_KEPT_PLANS: Final = "; ".join(
    f"SET {name} TO {value}" for name, value in ({"plan_cache_mode": "force_generic_plan"} | BY_INDEX).items()
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, its parameters numbered and in binary.

    Attributes:
        name: Under which a connection knows it.
        text: With ``$1`` and so on, of types that the text tells.
    """

    name: bytes
    text: bytes


Given = tuple[Statement, Sequence[bytes | None]]
"""A statement and its parameters."""


class DriverConnection:
    """A connection of psycopg's, spoken to in the words of the library underneath.

    Args:
        connection: No other thread uses it.
        driver: The module psycopg, which is an extra.
        keeps: Statements are prepared on it, under their names.
        known: Names of those that are; None: none yet.
    """

    def __init__(self, connection: Any, driver: Any, *, keeps: bool, known: set[bytes] | None = None) -> None:
        self.returned_at = 0.0
        self._connection = connection
        self._low = connection.pgconn
        self._keeps = keeps
        self._known: set[bytes] = set() if known is None else known
        self._driver = driver
        self._done, self._rows = driver.pq.ExecStatus.COMMAND_OK, driver.pq.ExecStatus.TUPLES_OK
        self._binary = driver.pq.Format.BINARY

    def run(self, statement: Statement, parameters: Sequence[bytes | None]) -> Any:
        """Execute *statement* and return its result, see :meth:`read`; raises what the driver would."""
        low, binary = self._low, self._binary
        formats = (binary,) * len(parameters)
        if not self._keeps:
            found = low.exec_params(statement.text, parameters, param_formats=formats, result_format=binary)
        else:
            if statement.name not in self._known:
                self._check(low.prepare(statement.name, statement.text))
                self._known.add(statement.name)
            found = low.exec_prepared(statement.name, parameters, formats, binary)
        self._check(found)
        return found

    def read(self, result: Any) -> list[Any]:
        """Return the rows of a result, each a tuple whose values have the names of their columns, too."""
        count = result.ntuples
        if not count:
            return []
        names = tuple([result.fname(number).decode() for number in range(result.nfields)])
        reader = self._driver.adapt.Transformer()
        reader.set_pgresult(result)
        rows: list[Any] = reader.load_rows(0, count, _kind_of_row(names))
        return rows

    def say(self, command: bytes) -> None:
        """Execute *command*, which takes no parameters."""
        self._check(self._low.exec_(command))

    def is_idle(self) -> bool:
        """Tell whether it is whole, and nothing was begun on it."""
        return bool(self._low.transaction_status == self._driver.pq.TransactionStatus.IDLE)

    def is_lost(self) -> bool:
        """Tell whether there is nobody at the other end any more."""
        return bool(self._low.status == self._driver.pq.ConnStatus.BAD)

    def is_direct(self) -> bool:
        """Ask whether the server at the other end is the one that was connected to, and not one that a pooler chose."""
        answer = self._low.exec_(b"SELECT pg_backend_pid()")
        self._check(answer)
        return bool(int(answer.get_value(0, 0)) == self._low.backend_pid)

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def _check(self, result: Any) -> None:
        if result.status in (self._done, self._rows):
            return
        if self.is_lost():
            raise self._driver.OperationalError(result.get_error_message())
        raise self._driver.errors.error_from_result(result)


@lru_cache(maxsize=64)
def _kind_of_row(names: tuple[str, ...]) -> Any:
    """Return what makes a row of its values."""
    row: Any = namedtuple("Row", names)  # type: ignore[misc]  # noqa: PYI024 - the columns are the statement's
    return row._make


def can_be_used(engine: Engine) -> bool:
    """Tell whether connections of *engine* can be used in this way, in this process."""
    return engine.dialect.driver == "psycopg" and socket.socket.__module__ == "socket"


def as_sqlalchemy(error: BaseException, engine: Engine, *, lost: bool) -> DBAPIError | None:
    """Return an error of the driver as SQLAlchemy would raise it; None for any other."""
    kind = engine.dialect.loaded_dbapi.Error
    if not isinstance(error, kind):
        return None
    found = DBAPIError.instance(
        None, None, error, kind, hide_parameters=True, connection_invalidated=lost, dialect=engine.dialect
    )
    return found if isinstance(found, DBAPIError) else None


class ReadyConnections:
    """At most a few, opened when they are needed; safe to share between threads.

    Args:
        engine: Of psycopg's; its pool opens the connections.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._driver: Any = engine.dialect.loaded_dbapi
        self._idle: deque[DriverConnection] = deque()
        self._open = 0
        self._waiting = 0
        self._returned = threading.Condition()
        self._of_parents: list[deque[DriverConnection]] = []

    def execute(self, work: Sequence[Given]) -> None:
        """Execute statements, of which at least one is given, in a transaction of their own.

        Raises:
            SQLAlchemyError: As SQLAlchemy would raise it; nothing was written, unless the connection was lost.
        """
        with self._taken() as ready:
            if len(work) == 1:
                ready.run(*work[0])
            else:
                ready.say(b"BEGIN ISOLATION LEVEL READ COMMITTED")
                for each in work:
                    ready.run(*each)
                ready.say(b"COMMIT")

    def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> list[Any]:
        """Execute a statement, which is a transaction by itself, and return its rows; errors as of :meth:`execute`."""
        with self._taken() as ready:
            return ready.read(ready.run(statement, parameters))

    def close(self) -> None:
        """Close those that are not in use."""
        while True:
            try:
                ready = self._idle.pop()
            except IndexError:
                return
            self._drop(ready)

    def forget(self) -> None:
        """Start over in a forked child: the connections are the parent's, whose end they would be told of."""
        self._of_parents.append(self._idle)
        self._idle = deque()
        self._open = self._waiting = 0
        self._returned = threading.Condition()

    @contextmanager
    def _taken(self) -> Iterator[DriverConnection]:
        """Give a connection for the time of a ``with`` block, which raises as SQLAlchemy would."""
        ready = self._take()
        try:
            yield ready
        except BaseException as error:
            wrapped = self._after(error, ready)
            if wrapped is None:
                raise
            raise wrapped from error
        self._give_back(ready)

    def _after(self, error: BaseException, ready: DriverConnection) -> DBAPIError | None:
        """Put *ready* away after *error*; return that as SQLAlchemy would raise it, None if it is not the driver's."""
        lost = ready.is_lost()
        if ready.is_idle():
            self._give_back(ready)
        else:
            self._drop(ready)
        if lost:
            self.close()
        return as_sqlalchemy(error, self._engine, lost=lost)

    def _take(self) -> DriverConnection:
        try:
            ready = self._idle.pop()
        except IndexError:
            return self._another()
        if time.monotonic() - ready.returned_at < _RESTED_SECONDS or self._lives(ready):
            return ready
        self._drop(ready)
        self.close()
        return self._another()

    def _lives(self, ready: DriverConnection) -> bool:
        try:
            ready.say(b"SELECT 1")
        except self._driver.Error:
            return False
        return True

    def _another(self) -> DriverConnection:
        """Open one, or wait for one where enough are open."""
        ends_at = time.monotonic() + _PATIENCE_SECONDS
        with self._returned:
            self._waiting += 1
            try:
                while self._open >= _MOST:
                    with suppress(IndexError):
                        return self._idle.pop()
                    if not self._returned.wait(ends_at - time.monotonic()):
                        raise PoolTimeoutError("all connections are in use")
            finally:
                self._waiting -= 1
            self._open += 1
        try:
            return self._opened()
        except BaseException:
            self._closed_one()
            raise

    def _opened(self) -> DriverConnection:
        try:
            borrowed = self._engine.raw_connection()
            connection: Any = borrowed.driver_connection
            borrowed.detach()
            connection.autocommit = True
            # A pooler may give the next statement to another connection, which knows nothing of this one's.
            keeps = connection.prepare_threshold is not None
            connection.execute("SET client_encoding TO 'UTF8'")
            if keeps:
                # Also where the URL has options of its own.
                connection.execute(_FOR_KEPT_PLANS)
        except self._driver.Error as error:
            raise as_sqlalchemy(error, self._engine, lost=True) or error from error
        return DriverConnection(connection, self._driver, keeps=keeps)

    def _give_back(self, ready: DriverConnection) -> None:
        ready.returned_at = time.monotonic()
        self._idle.append(ready)
        # Whoever waits has said so before it looked for an idle one, and so is seen here or has seen this one.
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def _drop(self, ready: DriverConnection) -> None:
        ready.close()
        self._closed_one()

    def _closed_one(self) -> None:
        with self._returned:
            self._open -= 1
            self._returned.notify()
