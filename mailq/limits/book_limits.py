"""The verbs of the port, on books that are opened one way or another.

What is done with the books is in :mod:`mailq.limits.operations`; where they lie is for a subclass to say.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

from mailq.limits import operations
from mailq.limits.books import Book
from mailq.limits.buckets import NOTHING, Amounts
from mailq.limits.gates import ZERO, Admitted, Feedback, Gate, GateView, Refused, WindowChange
from mailq.limits.port import ONE_MESSAGE, ONE_SESSION, Spent, new_token

Opened = AbstractContextManager[tuple[dict[str, Book], int]]
"""The books of some keys and the present in microseconds, for a ``with`` block."""


class BookLimits(ABC):
    """The port :class:`mailq.limits.port.Limits`, except for ``close``."""

    @abstractmethod
    def _open(self, gates: Sequence[Gate]) -> Opened:
        """Give the books of *gates* to one at a time; what is changed in them is kept."""

    @abstractmethod
    def _reading(self, gates: Sequence[Gate]) -> Opened:
        """Give the books of *gates* to look at."""

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
        with self._reading(gates) as (books, now):
            return tuple(books[gate.key].look(gate, now=now) for gate in gates)

    def room(self, wanted: Sequence[Sequence[Gate]]) -> tuple[int, ...]:
        """Return, for each group of gates, how many sessions may begin through it now."""
        with self._reading([gate for gates in wanted for gate in gates]) as (books, now):
            return tuple(operations.room(books, gates, now=now) for gates in wanted)

    def revive(self, gates: Sequence[Gate]) -> None:
        """Forget that a destination is dead."""
        with self._open(gates) as (books, now):
            for gate in gates:
                books[gate.key].revive(gate, now=now)
