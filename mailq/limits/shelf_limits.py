"""Limits over all workers, kept as texts on a shelf that they share: a database.

Slower than Redis, and as strict. It serves where there is no Redis, and while Redis is away.

Source: smtp-delivery Q-20 to Q-40
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Protocol

from mailq.limits import operations
from mailq.limits.books import Book
from mailq.limits.buckets import NOTHING, Amounts
from mailq.limits.gates import ZERO, Admitted, Feedback, Gate, GateView, Refused, WindowChange
from mailq.limits.port import ONE_MESSAGE, ONE_SESSION, Spent, new_token
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


class ShelfLimits:
    """The port :class:`mailq.limits.port.Limits` on a shelf.

    Args:
        shelf: Where the books are.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def admit(
        self, gates: Sequence[Gate], *, owner: str, hold_for: timedelta, want: Amounts = ONE_SESSION
    ) -> Admitted | Refused:
        """Take a slot in every gate, and draw *want* from all their rates; or take nothing at all."""
        with self._open(gates) as (books, now):
            return operations.admit(books, gates, token=new_token(owner), hold_for=hold_for, want=want, now=now)

    def spend(
        self,
        admitted: Admitted,
        want: Amounts = ONE_MESSAGE,
        *,
        least: Amounts = NOTHING,
        patience: timedelta = ZERO,
        news: Sequence[Feedback] = (),
    ) -> Spent:
        """Note *news*, then draw for the next messages on an open session."""
        with self._open(admitted.gates) as (books, now):
            return operations.spend(books, admitted, want, least=least, patience=patience, news=news, now=now)

    def note(self, admitted: Admitted, news: Sequence[Feedback]) -> tuple[WindowChange, ...]:
        """Move the windows by deliveries that were finished."""
        with self._open(admitted.gates) as (books, now):
            return operations.note(books, admitted, news, now=now)

    def release(
        self, admitted: Admitted, *, news: Sequence[Feedback] = (), drained: bool = False
    ) -> tuple[WindowChange, ...]:
        """Note *news*, then give the slots back."""
        with self._open(admitted.gates) as (books, now):
            return operations.release(books, admitted, news=news, drained=drained, now=now)

    def renew(self, held: Iterable[Admitted], *, hold_for: timedelta) -> frozenset[str]:
        """Hold the slots for another *hold_for*, and return the tokens of those that were gone."""
        every = tuple(held)
        with self._open([gate for one in every for gate in one.gates]) as (books, now):
            return operations.renew(books, every, hold_for=hold_for, now=now)

    def look(self, gates: Sequence[Gate]) -> tuple[GateView, ...]:
        """Return how each gate is, for people."""
        books, now = self._read(gates)
        return tuple(books[gate.key].look(gate, now=now) for gate in gates)

    def room(self, wanted: Sequence[Sequence[Gate]]) -> tuple[int, ...]:
        """Return, for each group of gates, how many sessions may begin through it now."""
        books, now = self._read([gate for gates in wanted for gate in gates])
        return tuple(operations.room(books, gates, now=now) for gates in wanted)

    def revive(self, gates: Sequence[Gate]) -> None:
        """Forget that a destination is dead."""
        with self._open(gates) as (books, now):
            for gate in gates:
                books[gate.key].revive(gate, now=now)

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

    def _read(self, gates: Sequence[Gate]) -> tuple[dict[str, Book], int]:
        texts, now = self._shelf.read({gate.key for gate in gates})
        return {gate.key: from_text(texts.get(gate.key, "")) for gate in gates}, now


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
