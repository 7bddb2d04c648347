"""The content of messages, for the routine and for reports to read.

Content is stored once, however many recipients a message has. A small one is
one row; a larger one is cut into parts, of which a reader holds one at a time;
a very large one may lie outside the database, see :mod:`mailq.queue.objects`.
So what a session needs of memory does not depend on the size of its message.

Invariants:
    No connection is held between two reads: a slow server costs the database nothing.
    A reader gets all of the content or an exception, never a shorter message that looks whole.

Parts are rows, not slices of a large value, because both databases find a row
without reading those before it, and take in a large message piece by piece.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader, BytesIO, RawIOBase
from typing import Any, BinaryIO, Final

from sqlalchemy import Select, bindparam, select

from mailq.errors import ContentUnavailableError, UnknownMessageError
from mailq.queue import wire
from mailq.queue.engine import Database
from mailq.queue.fixed import FixedStatement
from mailq.queue.objects import ObjectStore
from mailq.queue.tables import content, content_part, message

PART_BYTES: Final = 262_144
HEAD_LIMIT_BYTES: Final = 1_048_576
_READ_BYTES: Final = 65_536
_END_OF_HEADER: Final = b"\r\n\r\n"

_first = select(content.c.data, content.c.parts, content.c.location).where(
    content.c.message_id == bindparam("queue_id")
)
_small = select(content.c.message_id, content.c.data).where(
    content.c.message_id.in_(bindparam("queue_ids", expanding=True)), content.c.parts == 1, content.c.location == ""
)
_part = select(content_part.c.data).where(
    content_part.c.message_id == bindparam("queue_id"), content_part.c.number == bindparam("number")
)
# The same on PostgreSQL, which would write octets out as text for any other way of asking.
_fixed = {
    _first: FixedStatement(
        "mailq_content",
        "SELECT data, parts, location FROM mailq_content WHERE message_id = %(queue_id)s",
        {"queue_id": wire.TEXT},
    ),
    _small: FixedStatement(
        "mailq_small_contents",
        "SELECT message_id, data FROM mailq_content"
        " WHERE message_id = ANY (%(queue_ids)s) AND parts = 1 AND location = ''",
        {"queue_ids": wire.many(wire.TEXT)},
    ),
    _part: FixedStatement(
        "mailq_content_part",
        "SELECT data FROM mailq_content_part WHERE message_id = %(queue_id)s AND number = %(number)s",
        {"queue_id": wire.TEXT, "number": wire.INTEGER},
    ),
}
_size = select(message.c.size_bytes).where(message.c.id == bindparam("queue_id"))


class StoredBodies:
    """Content by queue id.

    Args:
        database: The queue.
        objects: Where content lies that is not in the database; None where there is no such place.
    """

    def __init__(self, database: Database, objects: ObjectStore | None = None) -> None:
        self._database = database
        self._objects = objects

    @contextmanager
    def open(self, queue_id: str) -> Iterator[BinaryIO]:
        """Open the content of a message, for one reading from the beginning.

        A read raises as this does.

        Raises:
            UnknownMessageError: There is none; it was purged.
            ContentUnavailableError: It cannot be read now, or its object is gone.
            DatabaseUnavailableError: The database is down.
        """
        row = next(iter(self._rows(_first, {"queue_id": queue_id})), None)
        if row is None:
            raise UnknownMessageError(f"no message has the queue id {queue_id}")
        if row.location:
            with self._open_object(queue_id, row.location) as stream:
                yield stream
        elif row.parts == 1:
            yield BytesIO(row.data)
        else:
            pieces = self._pieces(queue_id, row.data, row.parts)
            yield BufferedReader(_Pieces(pieces), _READ_BYTES)

    def read_small(self, queue_ids: Collection[str]) -> dict[str, bytes]:
        """Return the contents of messages by queue id; those that are not one row here are absent.

        Raises:
            DatabaseUnavailableError: The database is down.
        """
        return {row.message_id: row.data for row in self._rows(_small, {"queue_ids": list(queue_ids)})}

    def read_head(self, queue_id: str) -> bytes:
        """Return the header with its empty line, and perhaps some of what follows; at most about a mebibyte is read.

        Raises as :meth:`open`.
        """
        head = b""
        with self.open(queue_id) as stream:
            while _END_OF_HEADER not in head and len(head) < HEAD_LIMIT_BYTES and (more := stream.read(_READ_BYTES)):
                head += more
        return head

    def _pieces(self, queue_id: str, first: bytes, parts: int) -> Iterator[bytes]:
        yield first
        # The caller holds it no longer than it needs it, and so should this frame.
        del first
        for number in range(1, parts):
            rows = self._rows(_part, {"queue_id": queue_id, "number": number})
            if not rows:
                raise ContentUnavailableError(f"part {number} of the content of {queue_id} is missing", gone=True)
            yield rows[0].data
            del rows

    def _rows(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Any]:
        if self._database.dialect == "postgresql":
            return self._database.run_fixed(_fixed[statement], values)
        with self._database.read() as connection:
            return connection.execute(statement, values).all()

    @contextmanager
    def _open_object(self, queue_id: str, location: str) -> Iterator[BinaryIO]:
        if self._objects is None:
            raise ContentUnavailableError(
                f"the content of {queue_id} lies outside the database, at {location}; set content_url to that place",
            )
        with self._database.read() as connection:
            size = connection.execute(_size, {"queue_id": queue_id}).scalar_one()
        with self._objects.open(location) as pieces:
            yield BufferedReader(_Pieces(_of_size(pieces, size, location)), _READ_BYTES)


def _of_size(pieces: Iterator[bytes], size: int, location: str) -> Iterator[bytes]:
    found = 0
    for piece in pieces:
        found += len(piece)
        yield piece
    if found != size:
        raise ContentUnavailableError(f"the content at {location} has {found} bytes, not {size}", gone=True)


class _Pieces(RawIOBase):
    """A stream of what an iterator gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._source = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        if not self._rest:
            # Let go of the old piece before the next one is fetched.
            self._rest = memoryview(b"")
            self._rest = memoryview(next(self._source, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
