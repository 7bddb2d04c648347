"""Writing down what became of leased recipients.

One transaction: the recipients are locked and must all still belong to the
lease; then their new states, the history and, for what is to be tried again,
the time of the next ring. A report is marked as wanted in the same
transaction that gives a recipient up or delivers one whose sender asked, and a warning in the one that defers a
recipient of a message that is late; so neither happens without the other.

The same transaction notes what the lease's owner goes on to: from then on,
should the owner be lost, it is that message which may have been sent, and not
the one recorded here.

Invariants:
    When any recipient is no longer ours, nothing is written.
    The lease is locked before its recipients, and these before any destination.

Source: smtp-delivery D-04, D-09, D-11, T-07, T-36
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, insert, null, select, update

from mailq.errors import LeaseLostError
from mailq.queue.attempts import details_of, write_transcripts
from mailq.queue.backoff import Done, GiveUp, RetryAt
from mailq.queue.certainty import Quarantine, SetAside, fault_of, is_uncertain
from mailq.queue.dispatch import earliest_of, ring_no_later
from mailq.queue.engine import Database
from mailq.queue.messages import AtWork, Known, RecipientResult
from mailq.queue.requests import Unreadable
from mailq.queue.sqltypes import DatabaseNow, UtcDateTime
from mailq.queue.states import Event, sources, target
from mailq.queue.stories import story_of
from mailq.queue.successes import told_of_success
from mailq.queue.tables import attempt, delay, in_state, lease, recipient, stored
from mailq.queue.upsert import DIALECTS, insert_into
from mailq.status import Deferred, EnhancedStatus, Failure, Scope, Severity, Stage

_UNREADABLE = Failure(
    status=EnhancedStatus(Severity.TRANSIENT, 3, 0),
    reason="the stored message cannot be read",
    stage=Stage.POLICY,
    scope=Scope.MESSAGE,
)

_ours = (
    select(recipient.c.id, recipient.c.message_id, recipient.c.lease_id, recipient.c.attempts, recipient.c.stumbles)
    .add_columns(recipient.c.address, recipient.c.due_at, recipient.c.notify, lease.c.nexthop, lease.c.owner)
    .add_columns(DatabaseNow().label("now"))
    .join_from(recipient, lease, recipient.c.lease_id == lease.c.id)
    .where(
        recipient.c.id.in_(bindparam("ids", expanding=True)),
        recipient.c.lease_id == bindparam("token"),
        in_state(*sources(Event.DELIVER)),
    )
    .order_by(recipient.c.id)
    .with_for_update(of=recipient)
)
_insert_attempt = insert(attempt)
_note_delay = {
    dialect: insert_into(delay, dialect)
    .values(noticed_at=DatabaseNow())
    .on_conflict_do_nothing(index_elements=[delay.c.message_id])
    for dialect in DIALECTS
}
_recorded_before = (
    select(attempt.c.recipient_id, attempt.c.outcome, attempt.c.started_at, attempt.c.finished_at)
    .join_from(
        recipient,
        attempt,
        (attempt.c.message_id == recipient.c.message_id) & (attempt.c.recipient_id == recipient.c.id),
    )
    .where(recipient.c.id.in_(bindparam("ids", expanding=True)), attempt.c.lease_id == bindparam("token"))
)


def _transition(event: Event, **values: Any) -> Any:
    return (
        update(recipient)
        .where(
            recipient.c.id == bindparam("recipient"),
            recipient.c.lease_id == bindparam("token"),
            in_state(*sources(event)),
        )
        .values(
            state=stored(target(event)),
            lease_id=null(),
            last_status=bindparam("status"),
            last_reason=bindparam("reason"),
            last_relay=bindparam("relay"),
            last_attempt_at=bindparam("attempted_at", type_=UtcDateTime()),
            uncertain_at=bindparam("doubted_at", type_=UtcDateTime()),
            **values,
        )
    )


_TRANSITIONS = {
    Event.DELIVER: _transition(Event.DELIVER, finished_at=DatabaseNow(), notice=bindparam("mark")),
    Event.BOUNCE: _transition(Event.BOUNCE, finished_at=DatabaseNow(), notice="wanted"),
    Event.EXPIRE: _transition(Event.EXPIRE, finished_at=DatabaseNow(), notice="wanted"),
    Event.DEFER: _transition(
        Event.DEFER,
        due_at=bindparam("due", type_=UtcDateTime()),
        stumbles=bindparam("stumbled"),
        fault=bindparam("where"),
    ),
    Event.SET_ASIDE: _transition(Event.SET_ASIDE, stumbles=bindparam("stumbled"), fault=bindparam("where")),
    Event.QUARANTINE: _transition(
        Event.QUARANTINE, stumbles=bindparam("stumbled"), fault=bindparam("where"), fault_told_at=null()
    ),
}
begin_statement = (
    update(lease)
    .where(lease.c.id == bindparam("token"))
    .values(message_id=bindparam("queue_id"), last_recipient_id=bindparam("last"), also_at_work=bindparam("also"))
)


def at_work_row(lease_id: int, at_work: AtWork) -> dict[str, Any]:
    """Return the parameters of ``begin_statement``."""
    return {
        "token": lease_id,
        "queue_id": at_work.queue_id,
        "last": at_work.last_recipient_id,
        "also": " ".join(at_work.also),
    }


class Sequel(NamedTuple):
    """What follows from results in other tables, whose rows others change, too: written last, in one order.

    Attributes:
        due: Nexthops, and when something is due there.
        late: Queue ids of messages whose senders are to be told that they wait.
    """

    due: Sequence[tuple[str, datetime]] = ()
    late: frozenset[str] = frozenset()


def record(
    database: Database, lease_id: int, results: Sequence[RecipientResult], *, at_work: AtWork | None = None
) -> None:
    """Record *results*, at most one a recipient, and what the lease's owner goes on to; None: that stays as it is.

    A retry is written as a wait from now by the database's clock, the wait
    being ``due_at - finished_at``; so the worker's clock does not matter.
    Repeating a call whose answer was lost does no harm.

    Raises:
        LeaseLostError: A recipient no longer belongs to the lease; nothing was written.
    """
    if not results:
        return
    with database.write() as connection:
        if at_work is not None:
            connection.execute(begin_statement, at_work_row(lease_id, at_work))
        write_sequels(connection, [record_in(connection, lease_id, results)])


def record_in(connection: Connection, lease_id: int, results: Sequence[RecipientResult]) -> Sequel:
    """Record *results*, at least one, in a transaction that has locked the lease where it is to be changed.

    Returns:
        What the same transaction has to write when it has recorded all that it will.

    Raises:
        LeaseLostError: A recipient no longer belongs to the lease; the transaction must be rolled back.
    """
    rows = connection.execute(_ours, {"ids": [one.recipient_id for one in results], "token": lease_id}).all()
    ours = {row.id: row for row in rows}
    if not ours and _is_recorded(connection, lease_id, results):
        return Sequel()
    if len(ours) < len(results):
        raise LeaseLostError(
            f"lease {lease_id}: {len(results) - len(ours)} of {len(results)} recipients belong to somebody else now"
        )
    return write_results(connection, lease_id, results, rows)


def write_sequels(
    connection: Connection, sequels: Iterable[Sequel], *, due: Iterable[tuple[str, datetime]] = ()
) -> None:
    """Write what follows from all that a transaction has done; in one order, so that no two block each other.

    Args:
        connection: In the transaction.
        sequels: Of what it has recorded.
        due: Nexthops, and when something else is due there.
    """
    known = list(sequels)
    _note_delays(connection, {queue_id for one in known for queue_id in one.late})
    ring_no_later(connection, earliest_of(chain(due, *(one.due for one in known))))


def plain_row(result: RecipientResult) -> dict[str, Any]:
    """Return the attempt of a *result* that is known, as a row of its table."""
    known = result.known
    if known is None:
        raise ValueError(f"recipient {result.recipient_id}: its row must be read first")
    return _attempt_row(known, result) | details_of(known, result, {})


def write_plain(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Write attempts that delivered, in the order of their recipients, and the recipients' states.

    Raises:
        LeaseLostError: A recipient no longer belongs to its lease; the transaction must be rolled back.
    """
    states = [
        {
            "recipient": row["recipient_id"],
            "token": row["lease_id"],
            "status": row["status"],
            "reason": row["reason"],
            "relay": row["relay"],
            "attempted_at": row["finished_at"],
            "doubted_at": None,
            "mark": "",
        }
        for row in rows
    ]
    written = connection.execute(_TRANSITIONS[Event.DELIVER], states).rowcount
    if written != len(rows):
        raise LeaseLostError(f"{written} of {len(rows)} recipients could be written")
    connection.execute(_insert_attempt, rows)


def write_results(
    connection: Connection, lease_id: int, results: Sequence[RecipientResult], rows: Sequence[Row[Any]]
) -> Sequel:
    """Write *results*, one for each of *rows*: recipients that are locked and under this lease, with its data.

    Returns:
        What the same transaction has to write when it has recorded all that it will.

    Raises:
        LeaseLostError: A row is not as it was said to be; the transaction must be rolled back.
    """
    ours = {row.id: row for row in rows}
    now = rows[0].now
    _write_states(connection, lease_id, results, ours, now)
    said = write_transcripts(connection, results)
    attempts = [_attempt_row(ours[one.recipient_id], one) for one in results]
    details = [details_of(ours[one.recipient_id], one, said) for one in results]
    connection.execute(_insert_attempt, [row | more for row, more in zip(attempts, details, strict=True)])
    instants = [instant for one in results if (instant := _due(one, now)) is not None]
    return Sequel(
        due=[(rows[0].nexthop, min(instants))] if instants else (),
        late=frozenset(ours[one.recipient_id].message_id for one in results if _is_late(one)),
    )


def quarantine_unreadable(
    connection: Connection, lease_id: int, unreadable: Collection[Unreadable], *, now: datetime
) -> None:
    """Put recipients that were just claimed, and cannot be read, in quarantine."""
    faults = {recipient_id: one.fault for one in unreadable for recipient_id in one.recipients}
    if not faults:
        return
    rows = connection.execute(_ours, {"ids": sorted(faults), "token": lease_id}).all()
    results = [
        RecipientResult(
            recipient_id=recipient_id,
            outcome=Deferred(replace(_UNREADABLE, fault=fault)),
            disposition=Quarantine(),
            started_at=now,
            finished_at=now,
        )
        for recipient_id, fault in faults.items()
    ]
    write_sequels(connection, [write_results(connection, lease_id, results, rows)])


def _is_recorded(connection: Connection, lease_id: int, results: Sequence[RecipientResult]) -> bool:
    """Whether exactly *results* were written before: the connection broke after the commit."""
    parameters = {"ids": [one.recipient_id for one in results], "token": lease_id}
    found = {tuple(row) for row in connection.execute(_recorded_before, parameters)}
    return found >= {(one.recipient_id, outcome_word(one), one.started_at, one.finished_at) for one in results}


def event_of(result: RecipientResult) -> Event:
    """Return what happens to the recipient."""
    match result.disposition:
        case Done():
            return Event.DELIVER
        case RetryAt():
            return Event.DEFER
        case GiveUp(expired=expired):
            return Event.EXPIRE if expired else Event.BOUNCE
        case SetAside():
            return Event.SET_ASIDE
        case Quarantine():
            return Event.QUARANTINE


_WORDS = {
    Event.DELIVER: "sent",
    Event.DEFER: "deferred",
    Event.BOUNCE: "bounced",
    Event.EXPIRE: "expired",
    Event.SET_ASIDE: "held",
    Event.QUARANTINE: "quarantined",
}


def outcome_word(result: RecipientResult) -> str:
    """Return ``sent``, ``deferred``, ``bounced``, ``expired`` or ``quarantined``; ``uncertain`` where nobody knows."""
    event = event_of(result)
    if event in {Event.DELIVER, Event.DEFER, Event.SET_ASIDE} and is_uncertain(result.outcome):
        return "uncertain"
    return _WORDS[event]


def _write_states(
    connection: Connection,
    lease_id: int,
    results: Sequence[RecipientResult],
    ours: Mapping[int, Row[Any]],
    now: datetime,
) -> None:
    written = 0
    told = told_of_success(connection, results, ours)
    for event, statement in _TRANSITIONS.items():
        rows = [_state_row(one, lease_id, ours[one.recipient_id], now) for one in results if event_of(one) is event]
        if event is Event.DELIVER:
            rows = [row | {"mark": "wanted" if row["recipient"] in told else ""} for row in rows]
        if rows:
            written += connection.execute(statement, rows).rowcount
    if written != len(results):
        raise LeaseLostError(f"lease {lease_id}: {written} of {len(results)} recipients could be written")


def _state_row(result: RecipientResult, lease_id: int, ours: Row[Any], now: datetime) -> dict[str, Any]:
    story = story_of(result.outcome)
    fault = fault_of(result.outcome)
    row = {
        "recipient": result.recipient_id,
        "token": lease_id,
        "status": story["status"],
        "reason": story["reason"],
        "relay": story["relay"],
        "attempted_at": result.finished_at,
        "doubted_at": now if is_uncertain(result.outcome) else None,
    }
    if event_of(result) in {Event.DEFER, Event.SET_ASIDE, Event.QUARANTINE}:
        # Any attempt that goes as it should shows that the message can be handled.
        row |= {"stumbled": ours.stumbles + 1 if fault else 0, "where": fault}
    due = _due(result, now)
    return row if due is None else row | {"due": due}


def _due(result: RecipientResult, now: datetime) -> datetime | None:
    if not isinstance(result.disposition, RetryAt):
        return None
    return now + max(result.disposition.due_at - result.finished_at, timedelta(0))


def _is_late(result: RecipientResult) -> bool:
    return isinstance(result.disposition, RetryAt) and result.disposition.late


def _note_delays(connection: Connection, queue_ids: Collection[str]) -> None:
    """Have the senders told, where they are not yet."""
    if queue_ids:
        rows = [{"message_id": queue_id} for queue_id in sorted(queue_ids)]
        connection.execute(_note_delay[connection.dialect.name], rows)


def _attempt_row(ours: Row[Any] | Known, result: RecipientResult) -> dict[str, Any]:
    return {
        "recipient_id": result.recipient_id,
        "message_id": ours.message_id,
        "lease_id": ours.lease_id,
        "number": ours.attempts,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "outcome": outcome_word(result),
        "owner": ours.owner,
        **story_of(result.outcome),
    }
