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

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, RawIOBase
from typing import BinaryIO, Final

from sqlalchemy import bindparam, select

from mailq.errors import ContentUnavailableError, UnknownMessageError
from mailq.queue.engine import Database
from mailq.queue.objects import ObjectStore
from mailq.queue.sqltypes import among
from mailq.queue.tables import content, content_part, message
from mailq.queue.upsert import DIALECTS

PART_BYTES: Final = 262_144
HEAD_LIMIT_BYTES: Final = 1_048_576
_READ_BYTES: Final = 65_536
_END_OF_HEADER: Final = b"\r\n\r\n"

_first = select(content.c.data, content.c.parts, content.c.location).where(
    content.c.message_id == bindparam("queue_id")
)
_small = {
    dialect: select(content.c.message_id, content.c.data).where(
        among(content.c.message_id, "queue_ids", dialect), content.c.parts == 1, content.c.location == ""
    )
    for dialect in DIALECTS
}
_part = select(content_part.c.data).where(
    content_part.c.message_id == bindparam("queue_id"), content_part.c.number == bindparam("number")
)
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
        with self._database.read() as connection:
            row = connection.execute(_first, {"queue_id": queue_id}).one_or_none()
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
        with self._database.read() as connection:
            rows = connection.execute(_small[connection.dialect.name], {"queue_ids": list(queue_ids)}).all()
        return {row.message_id: row.data for row in rows}

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
            with self._database.read() as connection:
                data = connection.execute(_part, {"queue_id": queue_id, "number": number}).scalar()
            if data is None:
                raise ContentUnavailableError(f"part {number} of the content of {queue_id} is missing", gone=True)
            yield data

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
