"""Limits that people set at run time, one row a field; :mod:`mailq.limits.rules` knows what they mean.

The stamp is a number that grows in the transaction of every change. Workers look at it every
few seconds, and read the rows when it is another.

Invariant: the stamp is read before the rows, so what a change in between brings is read again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select

from mailq.queue import audit
from mailq.queue.audit import By
from mailq.queue.engine import Database
from mailq.queue.sqltypes import DatabaseNow
from mailq.queue.tables import limit_rule, limit_stamp
from mailq.queue.upsert import DIALECTS, insert_into

_STAMP: Final = {"what": "limits"}

_number = select(limit_stamp.c.number).where(limit_stamp.c.what == bindparam("what"))
_all = select(limit_rule).order_by(limit_rule.c.subject, limit_rule.c.field)
_of_subject = delete(limit_rule).where(limit_rule.c.subject == bindparam("whose")).returning(limit_rule.c.field)
_of_fields = _of_subject.where(limit_rule.c.field.in_(bindparam("fields", expanding=True)))


def _grow(dialect: str) -> Any:
    statement = insert_into(limit_stamp, dialect).values(number=1)
    grown = {"number": limit_stamp.c.number + 1}
    return statement.on_conflict_do_update(index_elements=[limit_stamp.c.what], set_=grown)


def _set(dialect: str) -> Any:
    statement = insert_into(limit_rule, dialect).values(set_at=DatabaseNow())
    replaced = {name: statement.excluded[name] for name in ("value", "actor", "reason", "set_at")}
    return statement.on_conflict_do_update(index_elements=[limit_rule.c.subject, limit_rule.c.field], set_=replaced)


_GROW = {dialect: _grow(dialect) for dialect in DIALECTS}
_SET = {dialect: _set(dialect) for dialect in DIALECTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRow:
    """One field that somebody set.

    Attributes:
        subject: Whom it is for: ``destination:example.com``.
        value: As text.
        actor: Who set it last.
        reason: Why; may be empty.
        set_at: When, by the database's clock.
    """

    subject: str
    field: str
    value: str
    actor: str
    reason: str
    set_at: datetime


class StoredLimitRules:
    """The rows in SQL: a :class:`mailq.limits.live_rules.Rows`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stamp(self) -> int:
        """Return a number that changes with every change."""
        with self._database.read() as connection:
            return _stamp(connection)

    def stamped(self) -> tuple[int, Sequence[LimitRow]]:
        """Return all rows, by subject and field, and the number they were read under."""
        with self._database.read() as connection:
            number = _stamp(connection)
            rows = connection.execute(_all).all()
        return number, [LimitRow(**{name: getattr(row, name) for name in LimitRow.__slots__}) for row in rows]

    def set(self, subject: str, values: Mapping[str, str], *, by: By) -> None:
        """Set *values* by field for *subject*; its other fields stay."""
        rows = [
            {"subject": subject, "field": field, "value": value, "actor": by.actor, "reason": by.reason}
            for field, value in sorted(values.items())
        ]
        with self._database.write() as connection:
            _write_down(connection, "set limits", subject, dict(values), by=by)
            connection.execute(_SET[connection.dialect.name], rows)

    def unset(self, subject: str, fields: Collection[str] = (), *, by: By) -> frozenset[str]:
        """Forget *fields* of *subject*, all of them where none is named; return those that were set."""
        with self._database.write() as connection:
            _write_down(connection, "unset limits", subject, {"fields": sorted(fields)} if fields else {}, by=by)
            if fields:
                gone = connection.execute(_of_fields, {"whose": subject, "fields": sorted(fields)})
            else:
                gone = connection.execute(_of_subject, {"whose": subject})
            return frozenset(gone.scalars())


def _stamp(connection: Connection) -> int:
    number = connection.execute(_number, _STAMP).scalar_one_or_none()
    return 0 if number is None else int(number)


def _write_down(connection: Connection, action: str, subject: str, arguments: Mapping[str, Any], *, by: By) -> None:
    """Note the order, and lock out other changes until it is committed."""
    connection.execute(_GROW[connection.dialect.name], _STAMP)
    order = audit.begin(connection, action, by=by, selector={"limits": subject}, arguments=arguments, counted=None)
    audit.finish(connection, order)
