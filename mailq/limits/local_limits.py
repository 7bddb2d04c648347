"""Limits within one process: for the embedded worker, and for tests."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from mailq.limits.book_limits import BookLimits, Opened
from mailq.limits.books import Book
from mailq.limits.gates import Gate

_TIDY_EVERY: Final = 60_000_000


def _monotonic() -> int:
    return time.monotonic_ns() // 1000


class LocalLimits(BookLimits):
    """The port :class:`mailq.limits.port.Limits` in memory.

    Args:
        time: Microseconds that never go backwards.
    """

    def __init__(self, *, time: Callable[[], int] = _monotonic) -> None:
        self._time = time
        self._lock = threading.Lock()
        self._books: dict[str, Book] = {}
        self._tidy_at = 0

    def close(self) -> None:
        """Do nothing: there is no connection."""

    @contextmanager
    def _open(self, gates: Sequence[Gate]) -> Iterator[tuple[dict[str, Book], int]]:
        """Yield the books of *gates* and the time under the lock, and drop those in which nothing is left."""
        with self._lock:
            now = self._time()
            if now >= self._tidy_at:
                self._tidy(tuple(self._books), now)
                self._tidy_at = now + _TIDY_EVERY
            books = {gate.key: self._books.setdefault(gate.key, Book()) for gate in gates}
            yield books, now
            self._tidy(books, now)

    def _reading(self, gates: Sequence[Gate]) -> Opened:
        return self._open(gates)

    def _tidy(self, keys: Iterable[str], now: int) -> None:
        for key in keys:
            if self._books[key].tidy(now):
                del self._books[key]
