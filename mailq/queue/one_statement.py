"""A message, its content and its recipients in one statement of PostgreSQL.

Three statements and their transaction are five round trips; a caller who queues one message waits for each. Here it is
one, which is a transaction by itself where none is open.

There are two forms of it: one message to one recipient, which is what applications queue most, and any number of
messages, as arrays. An array is left empty where all messages have the value that a message has by itself. The texts
are written out, and not composed by SQLAlchemy: nothing but parameters changes. Of a large content, each part behind
the first takes a statement more, in the same transaction.

Invariants:
    What either form writes is what :mod:`mailq.queue.enqueue` writes in three statements.
    No statement is given more than :data:`MOST_MESSAGES`, or much more than :data:`MOST_BYTES` of content.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from mailq.envelope import Notify
from mailq.queue import wire
from mailq.queue.bodies import PART_BYTES
from mailq.queue.headlines import HEAD_BYTES, headline
from mailq.queue.messages import DEFAULT_PRIORITY, NewMessage, NewRecipient
from mailq.queue.ready import Given, Statement
from mailq.queue.wire import Kind

DRIVER: Final = "psycopg"
"""Of the connections that take it; others have other ways to write a parameter or an array."""
MOST_MESSAGES: Final = 1000
MOST_BYTES: Final = 8_388_608

Queued = tuple[str, NewMessage]
"""A message under its queue id."""
_EACH: Final = object()


@dataclass(frozen=True, slots=True)
class _Column:
    """A column that is given.

    Attributes:
        name: Its name.
        kind: Its type.
        usual: What nearly all messages have; all others are told by the name.
        literal: The same in SQL; empty for NULL.
    """

    name: str
    kind: Kind
    usual: Any = _EACH
    literal: str = ""

    @property
    def read(self) -> str:
        """What is read of an array that may have been left empty."""
        return f"COALESCE({self.name}, {self.literal})" if self.literal else self.name


MESSAGE: Final = (
    _Column("id", wire.TEXT),
    _Column("sender", wire.TEXT),
    _Column("size_bytes", wire.BIGINT),
    _Column("encoding", wire.TEXT),
    _Column("smtputf8", wire.BOOLEAN, usual=False, literal="false"),
    _Column("utf8_header", wire.BOOLEAN, usual=False, literal="false"),
    _Column("envid", wire.TEXT, "", "''"),
    _Column("ret", wire.TEXT, None),
    _Column("not_before", wire.INSTANT, None),
    _Column("expires_at", wire.INSTANT, None),
    _Column("priority", wire.SMALLINT, DEFAULT_PRIORITY, str(DEFAULT_PRIORITY)),
    _Column("tags", wire.JSON, {}, "'{}'"),
    _Column("notice_of", wire.TEXT, None),
    _Column("notice_kind", wire.TEXT, None),
    _Column("mail_class", wire.TEXT, "", "''"),
    _Column("tenant", wire.TEXT, "", "''"),
    _Column("require_tls", wire.BOOLEAN, usual=False, literal="false"),
    _Column("tls_optional", wire.BOOLEAN, usual=False, literal="false"),
    _Column("verp", wire.TEXT, "", "''"),
    _Column("subject", wire.TEXT),
    _Column("header_id", wire.TEXT),
)
_CONTENT: Final = (
    _Column("message_id", wire.TEXT),
    _Column("data", wire.OCTETS),
    _Column("location", wire.TEXT, "", "''"),
    _Column("parts", wire.INTEGER, 1, "1"),
)
_PART: Final = (
    _Column("message_id", wire.TEXT),
    _Column("number", wire.INTEGER),
    _Column("data", wire.OCTETS),
)
_PART_NAMES: Final = tuple(column.name for column in _PART)
_RECIPIENT: Final = (
    _Column("message_id", wire.TEXT),
    _Column("address", wire.TEXT),
    _Column("orcpt", wire.TEXT, "", "''"),
    _Column("notify", wire.TEXT, "", "''"),
    _Column("nexthop", wire.TEXT),
    _Column("priority", wire.SMALLINT, DEFAULT_PRIORITY, str(DEFAULT_PRIORITY)),
    _Column("tenant", wire.TEXT, "", "''"),
    _Column("not_before", wire.INSTANT, None),
)
_NOT_STORED: Final = "not_before"


def message_values(new_id: str, one: NewMessage) -> tuple[Any, ...]:
    """Return what a message has in each of :data:`MESSAGE`."""
    called = headline(next(one.pieces(HEAD_BYTES), b""))
    return (
        new_id, one.sender, one.size_bytes, None if one.encoding is None else one.encoding.value, one.smtputf8,
        one.utf8_header, one.envid, None if one.ret is None else one.ret.value, one.not_before, one.expires_at,
        one.priority, one.tags, one.notice_of, one.notice_kind, one.mail_class, one.tenant, one.require_tls,
        one.tls_optional, one.verp, called["subject"], called["header_id"],
    )  # fmt: skip


def notify_text(words: Iterable[Notify]) -> str:
    """Return what *words* are stored as."""
    return ",".join(sorted(word.value for word in words)) if words else ""


def _content_values(new_id: str, one: NewMessage) -> tuple[Any, ...]:
    if one.location:
        return new_id, b"", one.location, 0
    return new_id, next(one.pieces(PART_BYTES)), "", parts_of(one)


def _part_rows(messages: Sequence[Queued]) -> Iterator[tuple[Any, ...]]:
    """Yield what is behind the first part of large contents."""
    for new_id, one in messages:
        if not one.location and one.size_bytes > PART_BYTES:
            for number, piece in enumerate(one.pieces(PART_BYTES)):
                if number:
                    yield new_id, number, piece


def parts_of(one: NewMessage) -> int:
    """Return in how many parts the content is stored."""
    return max(1, -(-one.size_bytes // PART_BYTES))


def _recipient_values(new_id: str, one: NewMessage, each: NewRecipient) -> tuple[Any, ...]:
    notify = notify_text(each.notify)
    return new_id, each.address, each.orcpt, notify, each.nexthop, one.priority, one.tenant, one.not_before


# One message to one recipient

_ONE: Final = (*MESSAGE, *_CONTENT[1:], *_RECIPIENT[1:5])


def _one_values(new_id: str, one: NewMessage) -> tuple[Any, ...]:
    return (
        *message_values(new_id, one),
        *_content_values(new_id, one)[1:],
        *_recipient_values(new_id, one, one.recipients[0])[1:5],
    )


def _names(columns: Iterable[_Column]) -> str:
    return ", ".join(column.name for column in columns if column.name != _NOT_STORED)


_STATE: Final = "state, fresh, attempts"
_QUEUED: Final = "'queued', true, 0"
# The later of both: GREATEST does not mind that one is NULL.
_START: Final = "GREATEST({not_before}, statement_timestamp())"


def _insert_one(place: Mapping[str, str]) -> str:
    """Return the statement, each parameter written as *place* says."""
    start = _START.format(not_before=place["not_before"])
    of_message = [place[column.name] for column in MESSAGE if column.name != _NOT_STORED]
    of_recipient = [place[column.name] for column in _RECIPIENT[1:] if column.name != _NOT_STORED]
    return f"""
WITH new_message AS (
    INSERT INTO mailq_message ({_names(MESSAGE)}, created_at, arrived_at)
    VALUES ({", ".join(of_message)}, statement_timestamp(), {start})
), new_content AS (
    INSERT INTO mailq_content ({_names(_CONTENT)})
    VALUES ({place["id"]}, {place["data"]}, {place["location"]}, {place["parts"]})
)
INSERT INTO mailq_recipient ({_names(_RECIPIENT)}, due_at, {_STATE})
VALUES ({place["id"]}, {", ".join(of_recipient)}, {start}, {_QUEUED})
"""  # noqa: S608 - made of the names above


# What is behind the first part of a content: as an array it would be copied several times more


def _insert_part(place: Mapping[str, str]) -> str:
    values = ", ".join(place[column.name] for column in _PART)
    return f"INSERT INTO mailq_content_part ({_names(_PART)}) VALUES ({values})"  # noqa: S608 - as above


# Any number of messages

_TABLES: Final = (("message", MESSAGE), ("content", _CONTENT), ("recipient", _RECIPIENT))


def _many_rows(messages: Sequence[Queued]) -> tuple[list[tuple[Any, ...]], ...]:
    return (
        [message_values(*each) for each in messages],
        [_content_values(*each) for each in messages],
        [_recipient_values(new_id, one, each) for new_id, one in messages for each in one.recipients],
    )


def _many_values(messages: Sequence[Queued]) -> list[tuple[Any, ...]]:
    """Return the array of each column, table by table; an empty one where all is as usual."""
    return [
        () if values.count(column.usual) == len(values) else values
        for (_, columns), rows in zip(_TABLES, _many_rows(messages), strict=True)
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]


def _insert_many(place: Mapping[str, str]) -> str:
    """Return the statement; *place* has a parameter for each column of each table, such as ``message_id``."""

    def given(table: str, columns: Sequence[_Column]) -> str:
        arrays = ", ".join(place[f"{table}_{column.name}"] for column in columns)
        return f"unnest({arrays}) WITH ORDINALITY AS given ({', '.join(column.name for column in columns)}, place)"

    def read(columns: Sequence[_Column]) -> str:
        return ", ".join(column.read for column in columns if column.name != _NOT_STORED)

    start = _START.format(not_before=_NOT_STORED)
    # Recipients are numbered in the order in which they were given: an order decides who is first offered to a server.
    return f"""
WITH new_message AS (
    INSERT INTO mailq_message ({_names(MESSAGE)}, created_at, arrived_at)
    SELECT {read(MESSAGE)}, statement_timestamp(), {start}
    FROM {given("message", MESSAGE)} ORDER BY place
), new_content AS (
    INSERT INTO mailq_content ({_names(_CONTENT)})
    SELECT {read(_CONTENT)}
    FROM {given("content", _CONTENT)} ORDER BY place
)
INSERT INTO mailq_recipient ({_names(_RECIPIENT)}, due_at, {_STATE})
SELECT {read(_RECIPIENT)}, {start}, {_QUEUED}
FROM {given("recipient", _RECIPIENT)} ORDER BY place
"""  # noqa: S608 - made of the names above


_MANY: Final = tuple((f"{table}_{column.name}", column.kind) for table, columns in _TABLES for column in columns)

# On a connection that is kept ready

_ready_one: Final = Statement(
    b"mailq_insert_one",
    _insert_one({column.name: f"${number}::{column.kind.name}" for number, column in enumerate(_ONE, 1)}).encode(),
)
_ready_many: Final = Statement(
    b"mailq_insert_many",
    _insert_many({name: f"${number}::{kind.name}[]" for number, (name, kind) in enumerate(_MANY, 1)}).encode(),
)
_ready_part: Final = Statement(
    b"mailq_insert_part",
    _insert_part({column.name: f"${number}::{column.kind.name}" for number, column in enumerate(_PART, 1)}).encode(),
)
_one_octets: Final = tuple(column.kind.octets for column in _ONE)
_part_octets: Final = tuple(column.kind.octets for column in _PART)


def statements(messages: Sequence[Queued]) -> Iterator[Given]:
    """Yield the statements that insert *messages*, for a connection that is kept ready.

    Args:
        messages: Without idempotency keys, each content in memory or in an object.
    """
    for some in _portions(messages):
        if _is_one(some):
            yield _ready_one, _octets(_one_octets, _one_values(*some[0]))
        else:
            arrays = zip(_MANY, _many_values(some), strict=True)
            yield _ready_many, [wire.array(kind, values) for (_, kind), values in arrays]
        for row in _part_rows(some):
            yield _ready_part, _octets(_part_octets, row)


def _octets(writers: Sequence[Callable[[Any], bytes]], values: Sequence[Any]) -> list[bytes | None]:
    return [None if value is None else octets(value) for octets, value in zip(writers, values, strict=True)]


# On any other connection of the driver's


def _place(name: str, kind: Kind, brackets: str = "") -> str:
    return f"%({name}){'b' if kind is wire.OCTETS else 's'}::{kind.name}{brackets}"


_driver_one: Final = _insert_one({column.name: _place(column.name, column.kind) for column in _ONE})
_driver_many: Final = _insert_many({name: _place(name, kind, "[]") for name, kind in _MANY})
_driver_part: Final = _insert_part({column.name: _place(column.name, column.kind) for column in _PART})


def insert_rows(connection: Connection, messages: Sequence[Queued]) -> None:
    """Insert *messages* on a connection of psycopg's, in a transaction where there are several.

    Args:
        connection: In the hands of SQLAlchemy.
        messages: As for :func:`statements`.
    """
    for some in _portions(messages):
        if _is_one(some):
            values = zip(_ONE, _one_values(*some[0]), strict=True)
            given = {column.name: _plain(column.kind, value) for column, value in values}
            connection.exec_driver_sql(_driver_one, given)
        else:
            arrays = zip(_MANY, _many_values(some), strict=True)
            given = {name: [_plain(kind, value) for value in values] for (name, kind), values in arrays}
            connection.exec_driver_sql(_driver_many, given)
        for row in _part_rows(some):
            connection.exec_driver_sql(_driver_part, dict(zip(_PART_NAMES, row, strict=True)))


def _plain(kind: Kind, value: Any) -> Any:
    """Return what the driver writes by itself."""
    return wire.json_text(value) if kind is wire.JSON else value


def _is_one(messages: Sequence[Queued]) -> bool:
    return len(messages) == 1 and len(messages[0][1].recipients) == 1


def _portions(messages: Sequence[Queued]) -> Iterator[Sequence[Queued]]:
    """Cut *messages* up for statements of a bounded size."""
    if len(messages) == 1:
        yield messages
        return
    begun, size = 0, 0
    for place, (_, one) in enumerate(messages):
        if place > begun and (size + one.size_bytes > MOST_BYTES or place - begun == MOST_MESSAGES):
            yield messages[begun:place]
            begun, size = place, 0
        size += one.size_bytes
    yield messages[begun:]
