"""The contents of a batch's messages, fetched some at a time.

A question to the database costs more than a small message. So with the
content of one message come those of the next ones, as many as fit a fixed
size; what is large is read by itself, piece by piece.

Invariant: a session holds no more than ``MOST_BYTES`` in advance, whatever its messages are.
"""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import BinaryIO, Final, Protocol

MOST_BYTES: Final = 262_144
MOST_MESSAGES: Final = 100
_NOTHING: Final[Mapping[str, bytes]] = {}


class Shelf(Protocol):
    """Where contents lie."""

    def open(self, queue_id: str) -> AbstractContextManager[BinaryIO]:
        """Open one content."""

    def read_small(self, queue_ids: Collection[str]) -> dict[str, bytes]:
        """Return contents by queue id; some may be absent."""


class ReadAhead:
    """One batch's :class:`mailq.delivery.ports.MessageBodies`; used by one thread.

    Args:
        shelf: Where contents lie.
        sizes: By queue id, the octets of each message, in the order of sending.
        held: Contents that came with the lease, by queue id; no more than one reads in advance.
    """

    def __init__(self, shelf: Shelf, sizes: Mapping[str, int], held: Mapping[str, bytes] = _NOTHING) -> None:
        self._shelf = shelf
        self._sizes = sizes
        self._order = list(sizes)
        self._place = {queue_id: place for place, queue_id in enumerate(self._order)}
        self._held: dict[str, bytes] = dict(held)

    def open(self, queue_id: str) -> AbstractContextManager[BinaryIO]:
        """Open the content of a message, for one reading from the beginning.

        Raises as :meth:`mailq.queue.bodies.StoredBodies.open`.
        """
        if queue_id not in self._held:
            self._fetch(queue_id)
        data = self._held.pop(queue_id, None)
        return self._shelf.open(queue_id) if data is None else nullcontext(BytesIO(data))

    def _fetch(self, queue_id: str) -> None:
        """Fetch this content and those behind it, as far as they are small enough."""
        wanted: list[str] = []
        room = MOST_BYTES
        for following in self._order[self._place[queue_id] :][:MOST_MESSAGES]:
            room -= self._sizes[following]
            if room < 0:
                break
            wanted.append(following)
        if wanted:
            # Those that were passed over will hardly be asked for again.
            self._held = self._shelf.read_small(wanted)
