"""The content of messages, for the routine to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO

from sqlalchemy import bindparam, select

from mailq.errors import UnknownMessageError
from mailq.queue.engine import Database
from mailq.queue.tables import content

_data = select(content.c.data).where(content.c.message_id == bindparam("queue_id"))


class StoredBodies:
    """Content from SQL; no connection is held while it is being read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def open(self, queue_id: str) -> Iterator[BinaryIO]:
        """Open the content of a message.

        Raises:
            UnknownMessageError: There is none; it was purged.
        """
        with self._database.read() as connection:
            data = connection.execute(_data, {"queue_id": queue_id}).scalar()
        if data is None:
            raise UnknownMessageError(f"no message has the queue id {queue_id}")
        yield BytesIO(data)
