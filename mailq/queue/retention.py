"""Deleting what is finished and old: messages with all that belongs to them, transcripts, orphaned content.

Work is done in windows along the primary key, so that a window's cost does
not depend on how much is in the queue, nor on how much of it must stay. Rows
that somebody has locked are passed over, and come again in the next pass.

Invariants:
    A message that is not finished, or whose sender is still owed a report, stays whole.
    Content outside the database is deleted after the transaction that purged its message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, literal, literal_column, not_, select

from mailq.queue import audit
from mailq.queue.engine import Database
from mailq.queue.objects import ObjectStore
from mailq.queue.queue_ids import queue_id
from mailq.queue.sqltypes import seconds_from_now
from mailq.queue.states import FINAL
from mailq.queue.tables import (
    attempt,
    content,
    content_part,
    delay,
    destination,
    in_state,
    message,
    recipient,
    transcript,
)

_WINDOW: Final = 500
_CLOCK_SLACK: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Window:
    """What was done in one window.

    Attributes:
        purged: Messages deleted.
        after: Where the next window begins; None: this was the last of the pass.
    """

    purged: int
    after: str | None


_candidates = (
    select(message.c.id)
    .where(message.c.id > bindparam("after"), message.c.id < bindparam("created_before"))
    .order_by(message.c.id)
    .limit(bindparam("limit"))
)
_unfinished = exists().where(
    recipient.c.message_id == message.c.id,
    not_(in_state(*sorted(FINAL)))
    | (recipient.c.notice == literal("wanted"))
    | (recipient.c.finished_at > seconds_from_now("seconds")),
)
_finished = (
    select(message.c.id)
    .where(message.c.id.in_(bindparam("ids", expanding=True)), not_(_unfinished))
    .with_for_update(of=message, skip_locked=True)
)
_NOT_HERE: ColumnElement[bool] = content.c.location != literal_column("''")
_elsewhere = select(content.c.location).where(content.c.message_id.in_(bindparam("ids", expanding=True)), _NOT_HERE)
_known = select(content.c.location).where(content.c.location.in_(bindparam("locations", expanding=True)), _NOT_HERE)
_delete_transcripts_of = delete(transcript).where(
    transcript.c.id.in_(
        select(attempt.c.transcript_id).where(
            attempt.c.message_id.in_(bindparam("ids", expanding=True)), attempt.c.transcript_id.is_not(None)
        )
    )
)
_DELETES: Final = [
    delete(table).where(column.in_(bindparam("ids", expanding=True)))
    for table, column in (
        (attempt, attempt.c.message_id),
        (recipient, recipient.c.message_id),
        (content_part, content_part.c.message_id),
        (content, content.c.message_id),
        (delay, delay.c.message_id),
        (message, message.c.id),
    )
]
# Only the oldest are looked at: a condition on the time alone would read all that are young.
_oldest_transcripts = (
    select(transcript.c.id, transcript.c.created_at)
    .order_by(transcript.c.id)
    .limit(bindparam("limit"))
    .subquery("oldest_transcript")
)
_delete_transcripts = delete(transcript).where(
    transcript.c.id.in_(
        select(_oldest_transcripts.c.id).where(_oldest_transcripts.c.created_at < seconds_from_now("seconds"))
    )
)
_idle_destinations = (
    select(destination.c.nexthop)
    .where(destination.c.next_ring_at.is_(None), destination.c.touched_at < seconds_from_now("seconds"))
    .order_by(destination.c.nexthop)
    .limit(_WINDOW)
    .with_for_update(skip_locked=True)
    .cte("idle_destination")
)
_delete_idle = delete(destination).where(
    destination.c.nexthop.in_(select(_idle_destinations.c.nexthop)), destination.c.next_ring_at.is_(None)
)


def purge(database: Database, objects: ObjectStore | None, *, older_than: timedelta, limit: int) -> int:
    """Delete at most *limit* messages whose recipients all ended longer than *older_than* ago; return how many.

    A message that still owes its sender a report stays. Its idempotency key
    is free again once it is gone.
    """
    purged, after = 0, ""
    while purged < limit:
        window = purge_window(database, objects, older_than=older_than, after=after, limit=min(_WINDOW, limit - purged))
        purged += window.purged
        if window.after is None:
            break
        after = window.after
    forget(database, older_than=older_than, limit=limit)
    return purged


def purge_window(
    database: Database, objects: ObjectStore | None, *, older_than: timedelta, after: str, limit: int
) -> Window:
    """Look at the *limit* oldest messages with ids above *after*, and delete those that ended long enough ago."""
    # The ids sort by time, so younger messages need not be looked at; the exact test is by the database's clock.
    newest = queue_id(datetime.now(UTC) - older_than + _CLOCK_SLACK, 0)
    with database.read() as connection:
        parameters = {"after": after, "created_before": newest, "limit": limit}
        candidates = connection.execute(_candidates, parameters).scalars().all()
    if not candidates:
        return Window(0, None)
    with database.write() as connection:
        found = connection.execute(_finished, {"ids": candidates, "seconds": -older_than.total_seconds()})
        ids = found.scalars().all()
        locations = _delete(connection, ids)
    if objects is not None:
        objects.delete(locations)
    return Window(len(ids), candidates[-1] if len(candidates) == limit else None)


def forget(database: Database, *, older_than: timedelta, limit: int) -> None:
    """Delete what is known of destinations and orders of so long ago, in one bounded transaction."""
    with database.write() as connection:
        connection.execute(_delete_idle, {"seconds": -older_than.total_seconds()})
        audit.forget(connection, older_than=older_than, limit=limit)


def purge_transcripts(database: Database, *, older_than: timedelta, limit: int) -> int:
    """Delete the transcripts that are older, among the *limit* oldest; return how many. Attempts stay without them."""
    with database.write() as connection:
        parameters = {"seconds": -older_than.total_seconds(), "limit": limit}
        return connection.execute(_delete_transcripts, parameters).rowcount


def sweep_orphans(database: Database, objects: ObjectStore, *, now: datetime) -> int:
    """Delete the objects that no message refers to, and that no open transaction may refer to yet; return how many.

    Reads the names of all objects but today's and yesterday's: for once a day, beside everything else.

    Raises:
        ContentUnavailableError: The place cannot be listed now.
    """
    swept = 0
    for folder in objects.folders(now=now):
        locations = objects.locations(folder)
        for start in range(0, len(locations), _WINDOW):
            orphans = _orphans(database, locations[start : start + _WINDOW])
            objects.delete(orphans)
            swept += len(orphans)
        objects.remove_empty(folder)
    return swept


def _orphans(database: Database, locations: Sequence[str]) -> Sequence[str]:
    with database.read() as connection:
        known = set(connection.execute(_known, {"locations": locations}).scalars())
    return [one for one in locations if one not in known]


def _delete(connection: Connection, ids: Sequence[str]) -> Sequence[str]:
    """Delete messages with everything that belongs to them; return where their content lies elsewhere."""
    if not ids:
        return []
    locations = connection.execute(_elsewhere, {"ids": ids}).scalars().all()
    for statement in (_delete_transcripts_of, *_DELETES):
        connection.execute(statement, {"ids": ids})
    return locations
