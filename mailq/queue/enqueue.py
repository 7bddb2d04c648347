"""Putting messages into the queue: a few bulk statements, whatever the count.

Works on any connection, in a transaction that somebody else commits or rolls
back. It writes new rows only and so waits for nobody, except for another
transaction that holds the same idempotency key.

Invariant: a refused call has written nothing.
"""

import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from mailq.envelope import Notify
from mailq.errors import EnvelopeError, IdempotencyConflictError
from mailq.queue import one_statement
from mailq.queue.bodies import PART_BYTES
from mailq.queue.engine import Database
from mailq.queue.messages import NewMessage
from mailq.queue.queue_ids import RANDOM_BITS, queue_id
from mailq.queue.sqltypes import DatabaseNow, LaterOf, UtcDateTime
from mailq.queue.states import State
from mailq.queue.tables import content, content_part, message, recipient
from mailq.queue.upsert import DIALECTS, insert_into

_LOWEST_PRIORITY = 9
_MESSAGE_NAMES = tuple(column.name for column in one_statement.MESSAGE)

_start = LaterOf(func.coalesce(bindparam("not_before", type_=UtcDateTime()), DatabaseNow()), DatabaseNow())
_insert_message = insert(message).values(created_at=DatabaseNow(), arrived_at=_start)
_insert_content = insert(content)
_insert_part = insert(content_part)
_insert_recipient = insert(recipient).values(due_at=_start)
_insert_keyed = {
    dialect: insert_into(message, dialect)
    .values(created_at=DatabaseNow(), arrived_at=_start)
    .on_conflict_do_nothing(index_elements=[message.c.idempotency_key])
    for dialect in DIALECTS
}
_by_key = select(message.c.idempotency_key, message.c.id, message.c.digest).where(
    message.c.idempotency_key.in_(bindparam("keys", expanding=True))
)
_delete_messages = delete(message).where(message.c.id.in_(bindparam("ids", expanding=True)))


def insert_messages(connection: Connection, messages: Sequence[NewMessage]) -> list[str]:
    """Insert *messages* and return their queue ids in the same order.

    Raises:
        EnvelopeError: A message has no recipient, or an impossible priority.
        IdempotencyConflictError: A key was used before with another message.
    """
    if not messages:
        return []
    ids = _checked(messages)
    if connection.dialect.driver == one_statement.DRIVER and all(map(_is_in_memory, messages)):
        one_statement.insert_rows(connection, list(zip(ids, messages, strict=True)))
        return ids
    keyed = _distinct_keys(messages, ids)
    existing = _existing(connection, keyed) if keyed else {}
    accepted = [
        (new_id, one)
        for new_id, one in zip(ids, messages, strict=True)
        if one.idempotency_key is None
        or (one.idempotency_key not in existing and keyed[one.idempotency_key][0] == new_id)
    ]
    _insert_unkeyed_rows(connection, accepted)
    won = _insert_keyed_rows(connection, accepted)
    if len(won) < sum(one.idempotency_key is not None for _, one in accepted):
        existing |= _lost_races(connection, keyed, accepted, won)
        accepted = [(new_id, one) for new_id, one in accepted if one.idempotency_key is None or new_id in won]
    _insert_children(connection, accepted)
    return [
        new_id if one.idempotency_key is None else existing.get(one.idempotency_key, keyed[one.idempotency_key][0])
        for new_id, one in zip(ids, messages, strict=True)
    ]


def insert_own(database: Database, messages: Sequence[NewMessage]) -> list[str]:
    """Insert *messages* in a transaction of their own; otherwise as :func:`insert_messages`.

    Raises:
        DatabaseUnavailableError: The database is down, or was busy for too long.
        SchemaError: A table is missing.
    """
    if not messages:
        return []
    if all(map(_is_in_memory, messages)):
        ids = _checked(messages)
        if database.write_ready(one_statement.statements(list(zip(ids, messages, strict=True)))):
            return ids
    is_one = len(messages) == 1 and fits_one_statement(messages[0])
    with database.write_at_once() if is_one else database.write() as connection:
        return insert_messages(connection, messages)


def fits_one_statement(one: NewMessage) -> bool:
    """Tell whether *one* can be written by one statement, where the database's driver is for it."""
    return one.idempotency_key is None and (bool(one.location) or one.size_bytes <= PART_BYTES)


def _is_in_memory(one: NewMessage) -> bool:
    """Tell whether *one* can be written by the statements of :mod:`mailq.queue.one_statement`.

    What is read from a file, or is very large, is written piece by piece, so that no more than that is in memory.
    """
    if fits_one_statement(one):
        return True
    return one.idempotency_key is None and one.large is None and one.size_bytes <= one_statement.MOST_BYTES


def _checked(messages: Sequence[NewMessage]) -> list[str]:
    """Return a new queue id for each of *messages*, of which none is refused."""
    for one in messages:
        _check(one)
    now = datetime.now(UTC)
    # In order, so that rows and index entries of one statement are written side by side.
    return [queue_id(now, bits) for bits in sorted([secrets.randbits(RANDOM_BITS) for _ in messages])]


def _check(one: NewMessage) -> None:
    if not one.recipients:
        raise EnvelopeError("a message needs at least one recipient")
    if not 0 <= one.priority <= _LOWEST_PRIORITY:
        raise EnvelopeError(f"priority {one.priority} is not between 0 (first) and {_LOWEST_PRIORITY} (last)")
    if one.not_before is not None:
        _check_instant("not_before", one.not_before)
    if one.expires_at is not None:
        _check_instant("expires_at", one.expires_at)


def _check_instant(name: str, instant: datetime) -> None:
    if instant.tzinfo is None:
        raise EnvelopeError(f"{name} {instant!r} has no time zone")


def _distinct_keys(messages: Sequence[NewMessage], ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the id and fingerprint of the first message of each key."""
    keyed: dict[str, tuple[str, str]] = {}
    for new_id, one in zip(ids, messages, strict=True):
        if one.idempotency_key is not None:
            _, fingerprint = keyed.setdefault(one.idempotency_key, (new_id, one.fingerprint))
            if fingerprint != one.fingerprint:
                raise _conflict(one.idempotency_key)
    return keyed


def _existing(connection: Connection, keyed: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the queue ids of the keys that are in the queue already."""
    found = {}
    for key, known_id, digest in connection.execute(_by_key, {"keys": list(keyed)}):
        if digest != keyed[key][1]:
            raise _conflict(key)
        found[key] = known_id
    return found


def _insert_unkeyed_rows(connection: Connection, accepted: Iterable[tuple[str, NewMessage]]) -> None:
    rows = [_message_row(new_id, one) for new_id, one in accepted if one.idempotency_key is None]
    if rows:
        connection.execute(_insert_message, rows)


def _insert_keyed_rows(connection: Connection, accepted: Iterable[tuple[str, NewMessage]]) -> set[str]:
    """Insert the rows with a key and return the ids of those that no concurrent transaction was faster with."""
    rows = [_message_row(new_id, one) for new_id, one in accepted if one.idempotency_key is not None]
    if not rows:
        return set()
    connection.execute(_insert_keyed[connection.dialect.name], rows)
    keys = [row["idempotency_key"] for row in rows]
    mine = {row["id"] for row in rows}
    return {known_id for _, known_id, _ in connection.execute(_by_key, {"keys": keys})} & mine


def _lost_races(
    connection: Connection, keyed: dict[str, tuple[str, str]], accepted: Iterable[tuple[str, NewMessage]], won: set[str]
) -> dict[str, str]:
    lost = {key: value for key, value in keyed.items() if value[0] not in won}
    try:
        return _existing(connection, lost)
    except IdempotencyConflictError:
        # No savepoint: on an application's SQLite connection, releasing one may commit.
        connection.execute(_delete_messages, {"ids": [new_id for new_id, _ in accepted]})
        raise


def _insert_children(connection: Connection, accepted: Sequence[tuple[str, NewMessage]]) -> None:
    if not accepted:
        return
    _insert_contents(connection, accepted)
    connection.execute(_insert_recipient, [row for new_id, one in accepted for row in _recipient_rows(new_id, one)])


def _insert_contents(connection: Connection, accepted: Sequence[tuple[str, NewMessage]]) -> None:
    """Insert the first part of each content, then what is left of large ones, one part at a time."""
    connection.execute(_insert_content, [_content_row(new_id, one) for new_id, one in accepted])
    for new_id, one in accepted:
        if one.location or one.size_bytes <= PART_BYTES:
            continue
        for number, piece in enumerate(one.pieces(PART_BYTES)):
            if number:
                connection.execute(_insert_part, {"message_id": new_id, "number": number, "data": piece})


def _content_row(new_id: str, one: NewMessage) -> dict[str, Any]:
    if one.location:
        return {"message_id": new_id, "data": b"", "parts": 0, "location": one.location}
    parts = one_statement.parts_of(one)
    return {"message_id": new_id, "data": next(one.pieces(PART_BYTES)), "parts": parts, "location": ""}


def _message_row(new_id: str, one: NewMessage) -> dict[str, Any]:
    return {
        **dict(zip(_MESSAGE_NAMES, one_statement.message_values(new_id, one), strict=True)),
        "tags": dict(one.tags),
        "idempotency_key": one.idempotency_key,
        "digest": None if one.idempotency_key is None else one.fingerprint,
    }


def _recipient_rows(new_id: str, one: NewMessage) -> Iterable[dict[str, Any]]:
    for each in one.recipients:
        yield {
            "message_id": new_id,
            "address": each.address,
            "orcpt": each.orcpt,
            "notify": one_statement.notify_text(each.notify),
            "nexthop": each.nexthop,
            "state": State.QUEUED.value,
            "priority": one.priority,
            "tenant": one.tenant,
            "fresh": True,
            "attempts": 0,
            "not_before": one.not_before,
        }


def parse_notify(text: str) -> frozenset[Notify]:
    """Return what ``notify`` was stored as."""
    return frozenset(Notify(word) for word in text.split(",") if word)


def _conflict(key: str) -> IdempotencyConflictError:
    return IdempotencyConflictError(
        f"idempotency key {key!r} was used before with another message; use a new key for a new message"
    )
