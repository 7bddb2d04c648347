"""Looking through what happened: attempts, the newest first, by who, where, when and what was said.

Ids grow with time, so the order costs no index, and neither does a range of
time: its ids are found by halving, in some thirty steps along the primary key.
Recipient and domain have one index together. Server, reply, text and sender
have none: they are looked for from the newest attempt on, until enough are
found; a range of time keeps that short.

Invariant: nothing here locks, and whatever it reads, delivery does not wait for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, or_, select

from mailq.queue.attempts import domain_range, recipient_key
from mailq.queue.engine import Database
from mailq.queue.tables import attempt, message, recipient, transcript
from mailq.queue.views import AttemptView, attempt_view

CLOCK_SLACK: Final = timedelta(hours=1)
"""Attempts are numbered when they are recorded, and dated by workers whose clocks may differ by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Attempts for which everything that is given holds; nothing given selects all.

    Attributes:
        recipient: Address, whatever the case of its letters.
        domain: What stands behind the ``@``.
        server: Name or address of the server spoken to; ``.example.com`` is every name under it.
        code: The server's reply code.
        status: Enhanced status, such as ``4.7.1``.
        text: The reason or the reply contains this, whatever the case of its letters.
        sender: Envelope sender; empty is the null sender, None any.
        queue_id: Of this message.
        outcome: ``sent``, ``deferred``, ``bounced`` or ``expired``.
        since_at: Ended at this instant or later; aware.
        until_at: Ended before this instant; aware.
    """

    recipient: str | None = None
    domain: str | None = None
    server: str | None = None
    code: int | None = None
    status: str | None = None
    text: str | None = None
    sender: str | None = None
    queue_id: str | None = None
    outcome: str | None = None
    since_at: datetime | None = None
    until_at: datetime | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Give the same as SQL, about attempt and message; but for the bounds on ids."""
        if self.recipient is not None:
            yield attempt.c.recipient_key == recipient_key(self.recipient)
        if self.domain is not None:
            begin, end = domain_range(self.domain)
            yield attempt.c.recipient_key >= begin
            yield attempt.c.recipient_key < end
        if self.server is not None:
            yield _is_server(self.server.lower())
        for column, wanted in (
            (attempt.c.reply_code, self.code),
            (attempt.c.status, self.status),
            (attempt.c.message_id, self.queue_id),
            (attempt.c.outcome, self.outcome),
            (message.c.sender, self.sender),
        ):
            if wanted is not None:
                yield column == wanted
        if self.text is not None:
            yield or_(*(_contains(column, self.text) for column in (attempt.c.reason, attempt.c.reply_text)))
        if self.since_at is not None:
            yield attempt.c.finished_at >= self.since_at
        if self.until_at is not None:
            yield attempt.c.finished_at < self.until_at


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One attempt, and whose.

    Attributes:
        id: Of the attempt; the next page begins below the last one's.
    """

    id: int
    queue_id: str
    sender: str
    recipient: str
    attempt: AttemptView


_entries = (
    select(attempt, recipient.c.address, message.c.sender, transcript.c.text.label("said"))
    .join_from(attempt, recipient, recipient.c.id == attempt.c.recipient_id)
    .join(message, message.c.id == attempt.c.message_id)
    .outerjoin(transcript, transcript.c.id == attempt.c.transcript_id)
)
_first_from = (
    select(attempt.c.id, attempt.c.finished_at)
    .where(attempt.c.id >= bindparam("least"))
    .order_by(attempt.c.id)
    .limit(1)
)
_last_id = select(attempt.c.id).order_by(attempt.c.id.desc()).limit(1)


def find(database: Database, query: HistoryQuery, *, limit: int, before: int | None = None) -> Sequence[HistoryEntry]:
    """Return at most *limit* attempts, the newest first, with ids below *before*; None is from the newest on."""
    with database.read() as connection:
        statement = _entries.where(*query.conditions())
        if query.since_at is not None:
            statement = statement.where(attempt.c.id >= first_id(connection, query.since_at - CLOCK_SLACK))
        if query.until_at is not None:
            statement = statement.where(attempt.c.id < first_id(connection, query.until_at + CLOCK_SLACK))
        if before is not None:
            statement = statement.where(attempt.c.id < before)
        rows = connection.execute(statement.order_by(attempt.c.id.desc()).limit(limit)).all()
    return [_entry(row) for row in rows]


def first_id(connection: Connection, instant: datetime) -> int:
    """Return an id below which all attempts ended before *instant*, as far as ids grow with time; found by halving."""
    low, high = 0, (connection.execute(_last_id).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(_first_from, {"least": middle}).one_or_none()
        if found is None or found.finished_at >= instant:
            high = middle
        else:
            low = found.id + 1
    return low


def _is_server(wanted: str) -> ColumnElement[bool]:
    host = func.lower(attempt.c.relay_host)
    if wanted.startswith("."):
        return host.endswith(wanted, autoescape=True)
    return or_(host == wanted, attempt.c.relay_address == wanted)


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.lower(column).contains(text.lower(), autoescape=True)


def _entry(row: Row[Any]) -> HistoryEntry:
    return HistoryEntry(
        id=row.id,
        queue_id=row.message_id,
        sender=row.sender,
        recipient=row.address,
        attempt=attempt_view(row),
    )
