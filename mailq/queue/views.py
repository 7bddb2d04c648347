"""What people see of the queue: frozen values, and the queries that make them.

These may read the whole queue; nothing that delivers mail calls them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, func, or_, select

from mailq.errors import UnknownMessageError
from mailq.queue.engine import Database
from mailq.queue.states import ShownState, State, shown
from mailq.queue.tables import attempt, in_state, message, recipient, transcript

_WAITING = {State.QUEUED, State.HELD}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One attempt at one recipient.

    Attributes:
        number: Counts from 1; a gap is an attempt whose worker died.
        outcome: ``sent``, ``deferred``, ``bounced``, ``expired``, ``quarantined`` or ``uncertain``.
        relay: ``HOST[ADDR]:PORT`` of the server spoken to; empty when there was no session.
        reply_code: None when no server replied.
        reply_text: The server's own words, line by line; empty when it said none.
        stage: What was being done.
        owner: The worker.
        earlier: Relay, status and reason of each server asked before in the same attempt.
        tls: The fields of :class:`mailq.security.TlsResult`; None where no session came so far.
        milliseconds: How long each part took: ``queue`` from when it was due, ``dns``, ``connect``, ``handshake`` from
            the greeting to AUTH, ``transfer`` from MAIL to the answer to the content; absent where it was not reached.
        transcript: Of its sessions, each after the name of its server; empty: none was kept, or no longer.
    """

    number: int
    started_at: datetime
    finished_at: datetime
    outcome: str
    status: str
    reason: str
    relay: str
    reply_code: int | None
    reply_text: str
    stage: str
    owner: str
    earlier: Sequence[Mapping[str, str]]
    tls: Mapping[str, Any] | None = None
    milliseconds: Mapping[str, int] = field(default_factory=dict)
    transcript: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientView:
    """One recipient.

    Attributes:
        due_at: Not tried before; None when it is not waiting.
        attempts: How often it was taken.
        last_relay: As in an attempt.
        finished_at: None until it reaches a final state.
        uncertain_at: When the last attempt ended, if nobody knows whether it sent the message; else None.
        stumbles: So many last attempts in a row made our own code, a hook or a worker fail.
        fault: Where it failed the last time; empty: it did not.
        history: Oldest first; empty in lists.
    """

    id: int
    queue_id: str
    sender: str
    address: str
    nexthop: str
    state: ShownState
    priority: int
    arrived_at: datetime
    due_at: datetime | None
    attempts: int
    last_status: str
    last_reason: str
    last_relay: str
    last_attempt_at: datetime | None
    finished_at: datetime | None
    uncertain_at: datetime | None = None
    stumbles: int = 0
    fault: str = ""
    history: tuple[AttemptView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """One message with everything that happened to it.

    Attributes:
        created_at: When it was queued.
        arrived_at: When its lifetime began: ``created_at``, or the later instant it was scheduled for.
        expires_at: None: by the configured lifetime.
        notice_of: Queue id of the message that this one is a report about.
        require_tls: It goes only to servers that prove who they are. Source: RFC 8689.
        tls_optional: It says ``TLS-Required: No``. Source: RFC 8689 §3.
        mail_class: Its kind; empty: none.
        tenant: On whose behalf it is sent; empty: nobody's.
        verp: The delimiters of its envelope senders by recipient, see :mod:`mailq.verp`; empty: one for all.
    """

    queue_id: str
    sender: str
    size_bytes: int
    created_at: datetime
    arrived_at: datetime
    expires_at: datetime | None
    priority: int
    envid: str
    tags: Mapping[str, str]
    idempotency_key: str | None
    notice_of: str | None
    recipients: tuple[RecipientView, ...]
    require_tls: bool = False
    tls_optional: bool = False
    mail_class: str = ""
    tenant: str = ""
    verp: str = ""


_attempts = (
    select(attempt, transcript.c.text.label("said"))
    .outerjoin_from(attempt, transcript, transcript.c.id == attempt.c.transcript_id)
    .where(attempt.c.message_id == bindparam("queue_id"))
    .order_by(attempt.c.id)
)
_recipients = select(
    recipient,
    message.c.sender,
    message.c.arrived_at,
).join_from(recipient, message, recipient.c.message_id == message.c.id)


def is_shown_as(word: ShownState) -> ColumnElement[bool]:
    """Return the condition that people see a recipient as *word*."""
    match word:
        case ShownState.QUEUED:
            return in_state(State.QUEUED) & (recipient.c.attempts == 0)
        case ShownState.DEFERRED:
            return in_state(State.QUEUED) & (recipient.c.attempts > 0)
        case ShownState.ACTIVE:
            return in_state(State.LEASED)
        case _:
            return in_state(State(word.value))


def is_shown_as_any(words: Collection[ShownState]) -> ColumnElement[bool]:
    """Return the condition that people see a recipient as one of *words*, at least one."""
    return or_(*(is_shown_as(word) for word in words))


def list_recipients(
    database: Database, conditions: Iterable[ColumnElement[bool]], *, limit: int, after: int
) -> list[RecipientView]:
    """Return at most *limit* recipients with ids above *after*, oldest first."""
    statement = _recipients.where(recipient.c.id > after, *conditions).order_by(recipient.c.id).limit(limit)
    with database.read() as connection:
        return [_recipient_view(row, ()) for row in connection.execute(statement)]


def show(database: Database, queue_id: str) -> MessageView:
    """Return everything about one message.

    Raises:
        UnknownMessageError: There is none.
    """
    with database.read() as connection:
        found = connection.execute(select(message).where(message.c.id == queue_id)).one_or_none()
        if found is None:
            raise UnknownMessageError(f"no message has the queue id {queue_id}")
        history = _history(connection, queue_id)
        statement = _recipients.where(recipient.c.message_id == queue_id).order_by(recipient.c.id)
        recipients = tuple(_recipient_view(row, history.get(row.id, ())) for row in connection.execute(statement))
    return MessageView(
        queue_id=found.id,
        sender=found.sender,
        size_bytes=found.size_bytes,
        created_at=found.created_at,
        arrived_at=found.arrived_at,
        expires_at=found.expires_at,
        priority=found.priority,
        envid=found.envid,
        tags=found.tags,
        idempotency_key=found.idempotency_key,
        notice_of=found.notice_of,
        recipients=recipients,
        require_tls=found.require_tls,
        tls_optional=found.tls_optional,
        mail_class=found.mail_class,
        tenant=found.tenant,
        verp=found.verp,
    )


def counts(database: Database) -> dict[ShownState, int]:
    """Return how many recipients are in each state, zeros included. Reads every recipient."""
    tried = case((recipient.c.attempts > 0, 1), else_=0).label("tried")
    statement = select(recipient.c.state, tried, func.count().label("count")).group_by(recipient.c.state, tried)
    found = dict.fromkeys(ShownState, 0)
    with database.read() as connection:
        for state, attempts, count in connection.execute(statement):
            found[shown(State(state), attempts=attempts)] += count
    return found


def _history(connection: Connection, queue_id: str) -> dict[int, tuple[AttemptView, ...]]:
    history: dict[int, tuple[AttemptView, ...]] = {}
    for row in connection.execute(_attempts, {"queue_id": queue_id}):
        history[row.recipient_id] = (*history.get(row.recipient_id, ()), attempt_view(row))
    return history


def attempt_view(row: Row[Any]) -> AttemptView:
    """Return the view of a row of ``attempt``, to which ``said`` was joined, the text of its transcript."""
    return AttemptView(
        number=row.number,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=row.outcome,
        status=row.status,
        reason=row.reason,
        relay=row.relay,
        reply_code=row.reply_code,
        reply_text=row.reply_text,
        stage=row.stage,
        owner=row.owner,
        earlier=tuple(row.earlier),
        tls=row.tls,
        milliseconds=row.milliseconds or {},
        transcript=tuple((row.said or "").splitlines()),
    )


def _recipient_view(row: Row[Any], history: tuple[AttemptView, ...]) -> RecipientView:
    state = State(row.state)
    return RecipientView(
        id=row.id,
        queue_id=row.message_id,
        sender=row.sender,
        address=row.address,
        nexthop=row.nexthop,
        state=shown(state, attempts=row.attempts),
        priority=row.priority,
        arrived_at=row.arrived_at,
        due_at=row.due_at if state in _WAITING else None,
        attempts=row.attempts,
        last_status=row.last_status,
        last_reason=row.last_reason,
        last_relay=row.last_relay,
        last_attempt_at=row.last_attempt_at,
        finished_at=row.finished_at,
        uncertain_at=row.uncertain_at,
        stumbles=row.stumbles,
        fault=row.fault,
        history=history,
    )
