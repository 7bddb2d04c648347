"""Time in SQL: one type and four expressions that mean the same in both databases.

Leases and due times are compared by the database's clock, so that workers
whose clocks differ cannot disagree about them. PostgreSQL's
``statement_timestamp()`` is used, not ``clock_timestamp()``: only a stable
function may bound an index scan.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, DateTime, Dialect, Float, Text, TypeDecorator, any_, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

_SQLITE_TIME = "strftime('%Y-%m-%d %H:%M:%f', 'now'{modifier}) || '000'"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant; comes back in UTC. A naive one is refused with ``ValueError``."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; SQLite stores text without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive instant: {value!r}; give it a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class DatabaseNow(FunctionElement[datetime]):
    """The present instant by the database's clock."""

    type = UtcDateTime()
    inherit_cache = True


class DatabaseAfter(FunctionElement[datetime]):
    """The instant some seconds from now by the database's clock; negative means before."""

    type = UtcDateTime()
    inherit_cache = True


class EarlierOf(FunctionElement[datetime]):
    """The earlier of two instants, neither of which is null."""

    type = UtcDateTime()
    inherit_cache = True


class LaterOf(FunctionElement[datetime]):
    """The later of two instants, neither of which is null."""

    type = UtcDateTime()
    inherit_cache = True


def seconds_from_now(parameter: str) -> ColumnElement[datetime]:
    """Return an expression for now plus the seconds bound as *parameter*."""
    return DatabaseAfter(bindparam(parameter, type_=Float()))


def among(column: ColumnElement[str], parameter: str, dialect: str) -> ColumnElement[bool]:
    """Return the condition that *column* is in the list bound as *parameter*.

    PostgreSQL gets an array, so that it is the same, prepared, statement whatever the length of the list.
    """
    if dialect == "postgresql":
        return column == any_(bindparam(parameter, type_=ARRAY(Text)))
    return column.in_(bindparam(parameter, expanding=True))


@compiles(DatabaseNow, "postgresql")
def _now_postgresql(_element: DatabaseNow, _compiler: SQLCompiler, **_options: Any) -> str:
    return "statement_timestamp()"


@compiles(DatabaseNow, "sqlite")
def _now_sqlite(_element: DatabaseNow, _compiler: SQLCompiler, **_options: Any) -> str:
    return f"({_SQLITE_TIME.format(modifier='')})"


@compiles(DatabaseAfter, "postgresql")
def _after_postgresql(element: DatabaseAfter, compiler: SQLCompiler, **options: Any) -> str:
    return f"(statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(DatabaseAfter, "sqlite")
def _after_sqlite(element: DatabaseAfter, compiler: SQLCompiler, **options: Any) -> str:
    modifier = f", ({compiler.process(element.clauses, **options)}) || ' seconds'"
    return f"({_SQLITE_TIME.format(modifier=modifier)})"


@compiles(EarlierOf, "postgresql")
def _earlier_postgresql(element: EarlierOf, compiler: SQLCompiler, **options: Any) -> str:
    return f"least({compiler.process(element.clauses, **options)})"


@compiles(EarlierOf, "sqlite")
def _earlier_sqlite(element: EarlierOf, compiler: SQLCompiler, **options: Any) -> str:
    return f"min({compiler.process(element.clauses, **options)})"


@compiles(LaterOf, "postgresql")
def _later_postgresql(element: LaterOf, compiler: SQLCompiler, **options: Any) -> str:
    return f"greatest({compiler.process(element.clauses, **options)})"


@compiles(LaterOf, "sqlite")
def _later_sqlite(element: LaterOf, compiler: SQLCompiler, **options: Any) -> str:
    return f"max({compiler.process(element.clauses, **options)})"
