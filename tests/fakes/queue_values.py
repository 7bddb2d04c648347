"""Messages to queue and results to record, with everything that a test does not care about filled in."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event

from mailq.queue.backoff import Done, GiveUp, RetryAt
from mailq.queue.certainty import Ruling
from mailq.queue.messages import Lease, NewMessage, NewRecipient, RecipientResult
from mailq.queue.store import Store
from mailq.status import (
    Bounced,
    Deferred,
    Delivered,
    Endpoint,
    EnhancedStatus,
    Failure,
    RecipientId,
    Reply,
    Scope,
    Stage,
)

CONTENT = b"From: ann@home.test\r\nSubject: hello\r\nMessage-ID: <1@home.test>\r\n\r\nGood morning.\r\n"
STARTED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
FINISHED = STARTED + timedelta(seconds=2)
SERVER = Endpoint("mx.far.test", "127.0.0.9", 25)
MINUTE = timedelta(minutes=1)
EXPIRED = timedelta(seconds=-1)


def a_message(*addresses: str, nexthop: str | None = None, sender: str = "ann@home.test", **fields: Any) -> NewMessage:
    """Return a message to *addresses*, each of which goes to its own domain unless *nexthop* is given."""
    recipients = tuple(NewRecipient(address=one, nexthop=nexthop or one.rpartition("@")[2]) for one in addresses)
    return NewMessage(**{"sender": sender, "recipients": recipients, "content": CONTENT} | fields)


def transient(reply: Reply | None = None) -> Failure:
    """Return a failure that may pass: a silent server, or one that said *reply*."""
    return Failure(
        status=EnhancedStatus.parse("4.4.1") if reply is None else reply.status,
        reason="connect to mx.far.test[127.0.0.9]:25: Connection timed out" if reply is None else reply.text,
        stage=Stage.CONNECT if reply is None else Stage.RCPT,
        scope=Scope.SERVER if reply is None else Scope.RECIPIENT,
        endpoint=SERVER,
        reply=reply,
    )


def permanent() -> Failure:
    """Return a refused recipient."""
    return Failure(
        status=EnhancedStatus.parse("5.1.1"),
        reason="host mx.far.test[127.0.0.9] said: 550 5.1.1 no such user (in reply to RCPT TO command)",
        stage=Stage.RCPT,
        scope=Scope.RECIPIENT,
        settles=True,
        endpoint=SERVER,
        reply=Reply(550, ("550 5.1.1 no such user",)),
    )


def sent(recipient_id: RecipientId) -> RecipientResult:
    """Return an accepted recipient."""
    return _result(recipient_id, Delivered(SERVER, Reply(250, ("250 2.0.0 queued as 42",))), Done())


def deferred(recipient_id: RecipientId, *, wait: timedelta = timedelta(0), late: bool = False) -> RecipientResult:
    """Return a recipient to be tried again after *wait*."""
    return _result(recipient_id, Deferred(transient(), (transient(),)), RetryAt(FINISHED + wait, late))


def bounced(recipient_id: RecipientId) -> RecipientResult:
    """Return a refused recipient."""
    return _result(recipient_id, Bounced(permanent()), GiveUp(expired=False))


def expired(recipient_id: RecipientId) -> RecipientResult:
    """Return a recipient whose time is over."""
    return _result(recipient_id, Deferred(transient()), GiveUp(expired=True))


def unanswered() -> Failure:
    """Return a server that went away after the final dot."""
    return Failure(
        status=EnhancedStatus.parse("4.4.2"),
        reason="lost connection with mx.far.test[127.0.0.9] while sending end of data",
        stage=Stage.END_OF_DATA,
        scope=Scope.SERVER,
        endpoint=SERVER,
    )


def uncertain(recipient_id: RecipientId, ruling: Ruling | None = None) -> RecipientResult:
    """Return a recipient that may have been sent to; None: it is tried again at once."""
    return _result(recipient_id, Deferred(unanswered()), RetryAt(FINISHED) if ruling is None else ruling)


def stumbled(recipient_id: RecipientId, ruling: Ruling | None = None) -> RecipientResult:
    """Return a recipient that our own code failed over; None: it is tried again at once."""
    failure = Failure(
        status=EnhancedStatus.parse("4.3.0"),
        reason="mail system internal error",
        stage=Stage.POLICY,
        scope=Scope.MESSAGE,
        fault="ours.py:7 in render\nbuiltins.ValueError: (its words are in the log of the worker)",
    )
    return _result(recipient_id, Deferred(failure), RetryAt(FINISHED) if ruling is None else ruling)


def unsynced(store: Store) -> Store:
    """Have SQLite not wait for the disk: quicker, and no machine stops during a test."""
    if store.engine.dialect.name == "sqlite":
        event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    return store


def recipients_of(lease: Lease | None) -> list[RecipientId]:
    """Return the recipients of a lease, in its order; none where there is no lease."""
    return [one.id for request in (lease.requests if lease else ()) for one in request.recipients]


def take(store: Store, nexthop: str = "far.test", *, limit: int = 100, lease_time: timedelta = MINUTE) -> Lease:
    """Claim what must be there."""
    lease = store.claim(nexthop, owner="worker 1", limit=limit, lease_time=lease_time)
    assert lease is not None
    return lease


def finish(store: Store, results: Iterable[RecipientResult], lease: Lease) -> None:
    """Record *results* and end the lease."""
    store.record(lease.id, list(results))
    store.release(lease.id)


def words(store: Store, queue_ids: Sequence[str]) -> list[str]:
    """Return the states people see, message by message."""
    return [one.state.value for queue_id in queue_ids for one in store.show(queue_id).recipients]


def _result(recipient_id: RecipientId, outcome: Delivered | Deferred | Bounced, disposition: Ruling) -> RecipientResult:
    return RecipientResult(
        recipient_id=recipient_id,
        outcome=outcome,
        disposition=disposition,
        started_at=STARTED,
        finished_at=FINISHED,
    )
