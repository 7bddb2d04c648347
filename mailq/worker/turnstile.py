"""How many sessions of a process work at a time: as many as its interpreter gains by.

A session that waits for its server costs nothing, and hundreds may. But where
servers answer at once, every session has something to do all the time, and they
only take turns in one interpreter: each turn is a switch of threads, and a
hundred of them take twice as long as two for the same mail. Nobody can tell
beforehand which servers those will be, so the width follows what is seen: a
process that is busy lets fewer work at a time, one that is not lets more.

A session passes for as long as it works on what it has leased. While it waits
for a server that takes its time it steps :meth:`Turnstile.aside`, and somebody
else has its place: a thousand sessions with servers that are slow or far away
keep nobody from working. Waits that are over in a moment are not worth two
switches more.

Source: docs/why/scale.md
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

LEAST: Final = 2
"""One works while the other waits for its server."""
_BUSY_SHARE: Final = 0.8
_LATE_SHARE: Final = 0.4
_LATE_SECONDS: Final = 0.004
_CALM_SHARE: Final = 0.6
_IDLE_SHARE: Final = 0.3
_LONGEST_WAIT_SECONDS: Final = 5.0
LONG_SECONDS: Final = 0.05
"""Whoever is aside for so long has a slow server."""


def next_width(width: int, *, most: int, share: float, lateness: float) -> int:
    """Return how many may work at a time from now on.

    Args:
        width: How many might until now.
        most: Never more; there are no more threads.
        share: Of a processor, used in the last moment.
        lateness: By so many seconds threads wake up late, since others have their turn.
    """
    if share >= _BUSY_SHARE or (lateness >= _LATE_SECONDS and share >= _LATE_SHARE):
        return max(LEAST, width // 2)
    if share < _IDLE_SHARE:
        return min(most, 2 * width)
    return min(most, width + 1 + width // 4) if share < _CALM_SHARE else width


class Turnstile:
    """Lets some of the sessions of a process work at a time; safe to use from many threads.

    Args:
        most: At most so many.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._most = max(LEAST, most)
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._inside = 0
        self._mine = threading.local()
        self.width = self._most

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Work in a ``with`` block when it is one's turn, in the order of coming; nobody waits without an end."""
        self._enter()
        self._mine.inside = True
        try:
            yield
        finally:
            if self._mine.inside:
                self._mine.inside = False
                self._leave()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let somebody else work in a ``with`` block, which waits; harmless for a thread that has not passed.

        Whoever comes back has a server waiting, and no turn to wait for: there may be one more inside for a while. Who
        was away for long, with a server that will take its time again, is not counted any more until it passes anew:
        it works so seldom that hundreds of them together are no more than a few, and others would never have a turn.
        """
        if not getattr(self._mine, "inside", False):
            yield
            return
        self._mine.inside = False
        self._leave()
        left_at = self._monotonic()
        try:
            yield
        finally:
            if self._monotonic() - left_at < LONG_SECONDS:
                with self._lock:
                    self._inside += 1
                self._mine.inside = True

    def follow(self, share: float, lateness: float) -> None:
        """Take in the share of a processor that was used in the last moment, and by how much threads wake up late."""
        with self._lock:
            self.width = next_width(self.width, most=self._most, share=share, lateness=lateness)
            self._admit()

    def _enter(self) -> None:
        with self._lock:
            if self._inside < self.width and not self._waiting:
                self._inside += 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        if not turn.wait(_LONGEST_WAIT_SECONDS):
            with self._lock:
                if not turn.is_set():
                    self._waiting.remove(turn)
                    self._inside += 1

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._inside < self.width:
            self._inside += 1
            self._waiting.popleft().set()
