"""Leased rows as requests for the routine, whatever state the rows are in.

Invariant: a row that cannot be read keeps no other message from being
delivered. It is told apart here, with the reason; whoever claims puts it in
quarantine at once, since reading it again will not heal it.

Source: smtp-delivery Q-04, D-01 to D-03
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from mailq.envelope import DeliveryRequest, Encoding, Protocol, Recipient, Ret
from mailq.errors import DestinationSyntaxError
from mailq.faults import describe_fault
from mailq.queue.enqueue import parse_notify
from mailq.queue.sqltypes import among
from mailq.queue.tables import message
from mailq.queue.upsert import DIALECTS
from mailq.routing.transport import NextHop
from mailq.status import RecipientId

# The tags are the application's: no delivery reads them, so none can stumble over them.
_messages = {
    dialect: select(*(column for column in message.c if column is not message.c.tags)).where(
        among(message.c.id, "ids", dialect)
    )
    for dialect in DIALECTS
}

Instant = Callable[[Any], datetime]
"""How the instants of a row are read."""
_NOBODY_IS_TOLD: Final = parse_notify("")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Recipients of a message that cannot be made a request of.

    Attributes:
        recipients: Their ids.
        fault: Where the reading failed.
    """

    recipients: tuple[RecipientId, ...]
    fault: str


def messages_of(connection: Connection, queue_ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Return the rows of these messages by queue id; one whose columns do not even parse is absent."""
    ids = sorted(set(queue_ids))
    try:
        rows = connection.execute(_messages[connection.dialect.name], {"ids": ids}).all()
    except (TypeError, ValueError):
        rows = [row for queue_id in ids for row in _message_alone(connection, queue_id)]
    return {row.id: row for row in rows}


def as_it_is(value: datetime) -> datetime:
    """Read an instant that is one already."""
    return value


def requests_of(
    nexthop: str,
    taken: Sequence[Row[Any]],
    messages: Mapping[str, Row[Any]],
    active_at: datetime,
    *,
    instant: Instant = as_it_is,
) -> tuple[list[DeliveryRequest], list[Unreadable]]:
    """Group *taken* recipients by message, in their order, and say which of them cannot be read."""
    where = _destination(nexthop)
    grouped: dict[str, list[Row[Any]]] = {}
    for row in taken:
        grouped.setdefault(row.message_id, []).append(row)
    requests, unreadable = [], []
    for queue_id, rows in grouped.items():
        try:
            requests.append(_request(where, messages[queue_id], rows, active_at, instant))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one row, the others are delivered
            unreadable.append(Unreadable(tuple(RecipientId(row.id) for row in rows), describe_fault(error)))
    return requests, unreadable


def _message_alone(connection: Connection, queue_id: str) -> Sequence[Row[Any]]:
    try:
        return connection.execute(_messages[connection.dialect.name], {"ids": [queue_id]}).all()
    except (TypeError, ValueError):
        return ()


@lru_cache(maxsize=4096)
def _destination(nexthop: str) -> NextHop:
    try:
        return NextHop.parse(nexthop)
    except DestinationSyntaxError:
        # The routine refuses it with an outcome for each recipient; an exception here would leave them leased.
        return NextHop(Protocol.SMTP, nexthop)


def _request(
    where: NextHop, found: Row[Any], rows: Sequence[Row[Any]], active_at: datetime, instant: Instant
) -> DeliveryRequest:
    return DeliveryRequest(
        queue_id=rows[0].message_id,
        nexthop=where.text,
        protocol=where.protocol,
        sender=found.sender,
        recipients=tuple([_recipient(row) for row in rows]),
        size_bytes=found.size_bytes,
        arrived_at=instant(found.arrived_at),
        active_at=active_at,
        encoding=None if found.encoding is None else Encoding(found.encoding),
        smtputf8=found.smtputf8,
        utf8_header=found.utf8_header,
        envid=found.envid,
        ret=None if found.ret is None else Ret(found.ret),
        require_tls=found.require_tls,
        tls_optional=found.tls_optional,
        verp=found.verp,
    )


def _recipient(row: Row[Any]) -> Recipient:
    notify = parse_notify(row.notify) if row.notify else _NOBODY_IS_TOLD
    return Recipient(RecipientId(row.id), row.address, row.orcpt, notify)
