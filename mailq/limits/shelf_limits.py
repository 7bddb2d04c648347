"""Limits over all workers, kept as texts on a shelf that they share: a database.

Slower than Redis, and as strict. It serves where there is no Redis, and while Redis is away.

Source: smtp-delivery Q-20 to Q-40
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Protocol

from mailq.limits.book_limits import BookLimits
from mailq.limits.books import Book
from mailq.limits.gates import Gate
from mailq.limits.window import State, Window


class Shelf(Protocol):
    """Keeps texts under keys, for all workers."""

    def open(self, keys: Collection[str]) -> AbstractContextManager[tuple[dict[str, str], int]]:
        """Give the texts of *keys*, empty where there are none, and the present in microseconds, to one at a time.

        What is changed in the mapping is written at the end of the ``with`` block, all of it or nothing.

        Raises:
            InfrastructureError: The shelf cannot be reached.
        """

    def read(self, keys: Collection[str]) -> tuple[Mapping[str, str], int]:
        """Return the texts of those of *keys* that have one, and the present; errors as for :meth:`open`."""


class ShelfLimits(BookLimits):
    """The port :class:`mailq.limits.port.Limits` on a shelf.

    Args:
        shelf: Where the books are.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def close(self) -> None:
        """Do nothing: the shelf is its owner's to close."""

    @contextmanager
    def _open(self, gates: Sequence[Gate]) -> Iterator[tuple[dict[str, Book], int]]:
        if not gates:
            yield {}, 0
            return
        with self._shelf.open({gate.key for gate in gates}) as (texts, now):
            books = {key: from_text(text) for key, text in texts.items()}
            yield books, now
            for key, book in books.items():
                texts[key] = "" if book.tidy(now) else to_text(book)

    @contextmanager
    def _reading(self, gates: Sequence[Gate]) -> Iterator[tuple[dict[str, Book], int]]:
        texts, now = self._shelf.read({gate.key for gate in gates})
        yield {gate.key: from_text(texts.get(gate.key, "")) for gate in gates}, now


def to_text(book: Book) -> str:
    """Return *book* as it is kept."""
    window = None if book.window is None else asdict(book.window)
    return json.dumps({"slots": book.slots, "window": window, "buckets": book.buckets}, separators=(",", ":"))


def from_text(text: str) -> Book:
    """Return the book that *text* keeps; an empty one where it keeps none."""
    if not text:
        return Book()
    kept = json.loads(text)
    window = kept["window"]
    if window is not None:
        window = Window(**{**window, "state": State(window["state"])})
    return Book(slots=kept["slots"], window=window, buckets=kept["buckets"])
