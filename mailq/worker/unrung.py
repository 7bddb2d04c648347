"""Tasks that nobody rings for: the dispatcher's own process begins them, where very many are due at once.

A ring costs as much as delivering several messages, published and consumed.
Where hundreds of nexthops become due in a moment, that is seconds before the
last of them is begun, although threads are idle beside the dispatcher. So of
such a crowd it begins its process's share itself; the first few and the shares
of other workers are rung for as always.

Invariant: these tasks and those of the broker together are no more than there are threads, but for one: a ring for
urgent mail is always taken.

Source: docs/why/scale.md
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mailq.worker.by_hand import Serve, serve_unrung

log = logging.getLogger(__name__)

FEW: Final = 20
"""So many of a round's nexthops are rung for in any case."""


class Places(Protocol):
    """The threads of a worker that tasks of the broker have."""

    def taken(self) -> int:
        """Return how many tasks of the broker there are, begun or about to be."""

    def leave(self, threads: int) -> None:
        """Let the broker's tasks be so many at most from now on."""


def share_of(crowd: int, *, workers: int, spare: int) -> int:
    """Return how many of a round's *crowd* of nexthops are begun here.

    Args:
        crowd: How many are due and have room.
        workers: Processes, this one included; the others get as much.
        spare: Threads of this process that have no task.
    """
    beyond = max(0, crowd - FEW)
    return max(0, min(spare, -(-beyond // max(1, workers))))


class Unrung:
    """Begins tasks; called by one thread.

    Args:
        serve: Does the work of one.
        places: Those of the broker.
        threads: Of this process.
        workers: Returns how many processes there are.
    """

    def __init__(self, serve: Serve, *, places: Places, threads: int, workers: Callable[[], int]) -> None:
        self._serve = serve
        self._places = places
        self._threads = threads
        self._workers = workers
        self._lock = threading.Lock()
        self._begun = 0

    def __call__(self, nexthops: Sequence[str]) -> frozenset[str]:
        """Begin to serve the last ones of *nexthops*, as many as is our share and as there are threads for."""
        with self._lock:
            spare = self._threads - self._begun - self._places.taken()
            count = share_of(len(nexthops), workers=self._workers(), spare=spare)
            self._note(count)
        mine = nexthops[len(nexthops) - count :]
        if mine:
            self._start(mine)
        return frozenset(mine)

    def _start(self, nexthops: Sequence[str]) -> None:
        """Start a thread that begins with these."""
        try:
            threading.Thread(target=self._begin, args=(nexthops,), name="mailq-unrung", daemon=True).start()
        except RuntimeError:
            log.exception("%d nexthops are rung for later: no thread could be started", len(nexthops))
            with self._lock:
                self._note(-len(nexthops))

    def _begin(self, nexthops: Sequence[str]) -> None:
        """Serve the first of *nexthops*, each of the others in a thread of its own.

        Whoever starts a thread waits until that has had its turn in the interpreter. One that started hundreds would be
        at it for seconds; so each gives half of what it has to the next.
        """
        while len(nexthops) > 1:
            half = len(nexthops) // 2
            self._start(nexthops[half:])
            nexthops = nexthops[:half]
        self._run(nexthops[0])

    def _run(self, nexthop: str) -> None:
        try:
            serve_unrung(self._serve, nexthop)
        finally:
            with self._lock:
                self._note(-1)

    def _note(self, more: int) -> None:
        self._begun += more
        if more:
            self._places.leave(max(1, self._threads - self._begun))
