"""What TLS reports are made of, and which of them have been sent.

Counts are added up by all workers. With the first count of a day and domain
goes a row that says when its report is due; sending, refusing or giving up
settles that row, in the transaction that queues the report where it goes by
mail. So a report is sent once, however many try.

Source: RFC 8460 §4, §5.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, null, select, update

from mailq.queue.engine import Database
from mailq.queue.enqueue import insert_messages
from mailq.queue.messages import NewMessage
from mailq.queue.sqltypes import DatabaseNow, seconds_from_now
from mailq.queue.tables import tls_count, tls_report
from mailq.queue.upsert import DIALECTS, insert_into
from mailq.tls.tlsrpt import SessionKind, due_at

_FIELDS: Final = (
    "day",
    "domain",
    "policy_type",
    "policy",
    "result_type",
    "receiving_host",
    "receiving_ip",
    "sending_ip",
    "reason",
)


def _add(dialect: str) -> Any:
    statement = insert_into(tls_count, dialect)
    total = tls_count.c.sessions + statement.excluded.sessions
    return statement.on_conflict_do_update(index_elements=[tls_count.c.id], set_={"sessions": total})


_ADD = {dialect: _add(dialect) for dialect in DIALECTS}
_OWE = {
    dialect: insert_into(tls_report, dialect)
    .values(attempts=0, outcome="", detail="")
    .on_conflict_do_nothing(index_elements=[tls_report.c.day, tls_report.c.domain])
    for dialect in DIALECTS
}
_is_report = (tls_report.c.day == bindparam("of_day")) & (tls_report.c.domain == bindparam("of_domain"))
_due = (
    select(tls_report.c.day, tls_report.c.domain)
    .where(tls_report.c.due_at <= DatabaseNow())
    .order_by(tls_report.c.due_at)
    .limit(bindparam("wanted_count"))
)
_counts = select(tls_count).where(tls_count.c.day == bindparam("of_day"), tls_count.c.domain == bindparam("of_domain"))
_take = (
    update(tls_report)
    .where(_is_report, tls_report.c.due_at.is_not(None))
    .values(due_at=seconds_from_now("again_seconds"), attempts=tls_report.c.attempts + 1)
    .returning(tls_report.c.attempts)
)
_put_off = (
    update(tls_report)
    .where(_is_report, tls_report.c.due_at.is_not(None))
    .values(due_at=seconds_from_now("again_seconds"), detail=bindparam("with_detail"))
)
_settle = (
    update(tls_report)
    .where(_is_report, tls_report.c.due_at.is_not(None))
    .values(
        due_at=null(),
        settled_at=DatabaseNow(),
        outcome=bindparam("with_outcome"),
        detail=bindparam("with_detail"),
    )
)
_reopen = update(tls_report).where(_is_report).values(due_at=DatabaseNow(), settled_at=null(), attempts=0)
_totals = (
    select(
        tls_report,
        func.coalesce(func.sum(tls_count.c.sessions), 0).label("sessions"),
        func.coalesce(func.sum(tls_count.c.sessions).filter(tls_count.c.result_type != ""), 0).label("failures"),
    )
    .outerjoin(tls_count, (tls_count.c.day == tls_report.c.day) & (tls_count.c.domain == tls_report.c.domain))
    .group_by(*tls_report.columns)
    .order_by(tls_report.c.day.desc(), tls_report.c.domain)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """One day and domain.

    Attributes:
        day: UTC, ``YYYY-MM-DD``.
        sessions: All that were counted.
        failures: Those of them that failed.
        outcome: ``sent``, ``unwanted`` or ``failed``; empty while a report is owed.
        detail: Where it went, or why it did not.
        attempts: How often sending was begun.
        due_at: None once settled.
    """

    day: str
    domain: str
    sessions: int
    failures: int
    outcome: str
    detail: str
    attempts: int
    due_at: datetime | None
    settled_at: datetime | None


class StoredTlsReports:
    """Counts and reports in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, counts: Mapping[SessionKind, int]) -> None:
        """Add *counts* to what is counted, in one transaction."""
        if not counts:
            return
        # In one order, so that two workers cannot block each other.
        rows = sorted((_row(kind, number) for kind, number in counts.items()), key=lambda row: str(row["id"]))
        owed = sorted({(kind.day, kind.domain) for kind in counts})
        with self._database.write() as connection:
            connection.execute(_ADD[connection.dialect.name], rows)
            due = [{"day": day, "domain": domain, "due_at": due_at(day, domain)} for day, domain in owed]
            connection.execute(_OWE[connection.dialect.name], due)

    def due(self, *, limit: int) -> Sequence[tuple[str, str]]:
        """Return days and domains whose report is due, at most *limit*."""
        with self._database.read() as connection:
            return [(row.day, row.domain) for row in connection.execute(_due, {"wanted_count": limit})]

    def counts(self, day: str, domain: str) -> Mapping[SessionKind, int]:
        """Return what was counted."""
        with self._database.read() as connection:
            rows = connection.execute(_counts.order_by(tls_count.c.id), {"of_day": day, "of_domain": domain}).all()
        return {_kind(row): row.sessions for row in rows}

    def take(self, day: str, domain: str, *, again: timedelta) -> int | None:
        """Begin to send a report; return how often that was begun, this time included, and None where none is owed.

        Args:
            day: UTC.
            domain: Whose.
            again: It is due again after this, unless it is settled.
        """
        parameters = {"of_day": day, "of_domain": domain, "again_seconds": again.total_seconds()}
        with self._database.write() as connection:
            found = connection.execute(_take, parameters).scalar_one_or_none()
        return None if found is None else int(found)

    def put_off(self, day: str, domain: str, *, again: timedelta, detail: str) -> None:
        """Try a report again after *again*; *detail* says why."""
        parameters = {"of_day": day, "of_domain": domain, "again_seconds": again.total_seconds(), "with_detail": detail}
        with self._database.write() as connection:
            connection.execute(_put_off, parameters)

    def settle(
        self, day: str, domain: str, *, outcome: str, detail: str, messages: Sequence[NewMessage] = ()
    ) -> Sequence[str]:
        """Note that a report needs no more sending, and queue *messages* in the same transaction.

        Returns:
            Their queue ids; none where the report was settled by somebody else, and nothing is queued then.
        """
        parameters = {"of_day": day, "of_domain": domain, "with_outcome": outcome, "with_detail": detail}
        with self._database.write() as connection:
            if connection.execute(_settle, parameters).rowcount != 1:
                return []
            return insert_messages(connection, messages) if messages else []

    def reopen(self, day: str, domain: str) -> None:
        """Make a report due now, whether or not it was sent."""
        with self._database.write() as connection:
            connection.execute(_reopen, {"of_day": day, "of_domain": domain})

    def list_reports(self, *, day: str = "", domain: str = "", limit: int = 1000) -> Sequence[ReportView]:
        """Return days and domains, the latest day first; empty arguments match all."""
        statement = _totals.limit(limit)
        if day:
            statement = statement.where(tls_report.c.day == day)
        if domain:
            statement = statement.where(tls_report.c.domain == domain)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return [ReportView(**{name: getattr(row, name) for name in ReportView.__slots__}) for row in rows]

    def purge(self, *, before: str) -> int:
        """Forget days before *before* that no report is owed for; return how many domains of days there were."""
        with self._database.write() as connection:
            settled = (tls_report.c.day < before) & tls_report.c.due_at.is_(None)
            owed = select(tls_report.c.domain).where(
                tls_report.c.day == tls_count.c.day,
                tls_report.c.domain == tls_count.c.domain,
                tls_report.c.due_at.is_not(None),
            )
            connection.execute(delete(tls_count).where(tls_count.c.day < before, ~owed.exists()))
            return connection.execute(delete(tls_report).where(settled)).rowcount


def _row(kind: SessionKind, number: int) -> dict[str, object]:
    identity = hashlib.sha256(json.dumps(astuple(kind)).encode()).hexdigest()
    values = {name: getattr(kind, name) for name in _FIELDS}
    return {**values, "policy": list(kind.policy), "id": identity, "sessions": number}


def _kind(row: Any) -> SessionKind:
    values = {name: getattr(row, name) for name in _FIELDS}
    return SessionKind(**{**values, "policy": tuple(row.policy)})
