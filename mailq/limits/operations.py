"""What each operation of the port does to the books of several keys. Pure.

Invariant: an operation is carried through in all books, or refused in all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

from mailq.limits.books import Book
from mailq.limits.buckets import NO_END, NOTHING, Amounts, Unit
from mailq.limits.gates import ZERO, Admitted, Bar, Feedback, Gate, Refused, WindowChange, check
from mailq.limits.port import Spent

Books = Mapping[str, Book]
"""A book for each key that an operation is about."""

_RANKS = {Bar.LOST: 3, Bar.DEAD: 2, Bar.FULL: 1}


def admit(
    books: Books, gates: Sequence[Gate], *, token: str, hold_for: timedelta, want: Amounts, now: int
) -> Admitted | Refused:
    """See :meth:`mailq.limits.port.Limits.admit`."""
    check(gates)
    answers = [books[gate.key].shut_to_new(gate, token, want, now=now) for gate in gates]
    refused = tightest(answers)
    if refused is not None:
        return refused
    for gate in gates:
        books[gate.key].hold(gate, token, hold_for, now=now)
        books[gate.key].draw(gate, want, now=now)
    return Admitted(token=token, gates=tuple(gates))


def spend(
    books: Books,
    admitted: Admitted,
    want: Amounts,
    *,
    least: Amounts = NOTHING,
    patience: timedelta = ZERO,
    news: Sequence[Feedback] = (),
    now: int,
) -> Spent:
    """See :meth:`mailq.limits.port.Limits.spend`."""
    changes = note(books, admitted, news, now=now)
    gates, needed = admitted.gates, needed_of(want, least)
    answers = [books[gate.key].shut_to_open(gate, admitted.token, now=now) for gate in gates]
    refused = tightest(answers)
    granted, wait_seconds = NOTHING, 0.0
    if refused is None:
        refused = tightest([books[gate.key].dry(gate, needed, now=now) for gate in gates])
        if refused is None:
            granted = _at_once(books, gates, want, needed, now)
        elif (refused.wait_seconds or 0.0) <= patience.total_seconds():
            granted, wait_seconds, refused = needed, refused.wait_seconds or 0.0, None
    for gate in gates:
        books[gate.key].draw(gate, granted, now=now)
    if refused is not None:
        wait_seconds = refused.wait_seconds or 0.0
    return Spent(granted=granted, wait_seconds=wait_seconds, refused=refused, changes=changes)


def note(books: Books, admitted: Admitted, news: Sequence[Feedback], *, now: int) -> tuple[WindowChange, ...]:
    """See :meth:`mailq.limits.port.Limits.note`."""
    return tuple(
        change for gate in admitted.gates for change in books[gate.key].note(gate, admitted.token, news, now=now)
    )


def release(
    books: Books, admitted: Admitted, *, news: Sequence[Feedback] = (), drained: bool = False, now: int
) -> tuple[WindowChange, ...]:
    """See :meth:`mailq.limits.port.Limits.release`."""
    changes = note(books, admitted, news, now=now)
    for gate in admitted.gates:
        books[gate.key].free(gate, admitted.token, drained=drained, now=now)
    return changes


def renew(books: Books, held: Iterable[Admitted], *, hold_for: timedelta, now: int) -> frozenset[str]:
    """See :meth:`mailq.limits.port.Limits.renew`."""
    return frozenset(
        admitted.token
        for admitted in held
        for gate in admitted.gates
        if not books[gate.key].hold(gate, admitted.token, hold_for, now=now)
    )


def room(books: Books, gates: Sequence[Gate], *, now: int) -> int:
    """Return how many sessions may begin through *gates* now."""
    return min((books[gate.key].room(gate, now=now) for gate in gates), default=NO_END)


def needed_of(want: Amounts, least: Amounts) -> Amounts:
    """Return the smallest part of *want* that is of use."""
    return _each(lambda unit: min(want.of(unit), max(least.of(unit), 1)))


def tightest(answers: Sequence[Refused | None]) -> Refused | None:
    """Return the refusal that matters most: dead before full before whichever lasts longest; the first of equals."""
    shut = (one for one in answers if one is not None)
    return max(shut, key=lambda one: (_RANKS.get(one.bar, 0), one.wait_seconds or 0.0), default=None)


def _at_once(books: Books, gates: Sequence[Gate], want: Amounts, needed: Amounts, now: int) -> Amounts:
    """Return what can be drawn without waiting; *needed* at least, which can."""

    def of(unit: Unit) -> int:
        most = min((books[gate.key].at_once(gate, unit, now=now) for gate in gates), default=NO_END)
        return max(needed.of(unit), min(want.of(unit), most))

    return _each(of)


def _each(of: Callable[[Unit], int]) -> Amounts:
    return Amounts(messages=of(Unit.MESSAGES), recipients=of(Unit.RECIPIENTS), sessions=of(Unit.SESSIONS))
