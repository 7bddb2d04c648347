"""Serving what is due without a ring: for the time in which the broker carries none.

The dispatcher's own process serves then what it would have rung for, in
threads beside its tasks, within the same limits. That is slower than a fleet,
and goes on.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

log = logging.getLogger(__name__)

Serve = Callable[[str], object]
"""Serves one nexthop; does not raise for mail."""
MOST: Final = 50
"""Most threads of a process that serve without a ring."""


class ByHand:
    """Serves nexthops in threads of this process.

    Args:
        serve: Does it.
        most: Threads at a time.
        spare: How many more sessions there may be now, whoever began the others; None: as many as threads.
    """

    def __init__(self, serve: Serve, *, most: int = MOST, spare: Callable[[], int] | None = None) -> None:
        self._serve = serve
        self._places = threading.BoundedSemaphore(most)
        self._spare = spare

    def __call__(self, nexthops: Iterable[str]) -> frozenset[str]:
        """Begin to serve as many of *nexthops* as there is room for, and return these; does not wait."""
        begun: list[str] = []
        # A ring may fail for want of time, too: where every thread has a task, more would only take more of it.
        spare = None if self._spare is None else self._spare()
        for nexthop in nexthops:
            if spare is not None and len(begun) >= spare:
                break
            if not self._places.acquire(blocking=False):
                break
            threading.Thread(target=self._run, args=(nexthop,), name="mailq-by-hand", daemon=True).start()
            begun.append(nexthop)
        return frozenset(begun)

    def _run(self, nexthop: str) -> None:
        try:
            serve_unrung(self._serve, nexthop)
        finally:
            self._places.release()


def serve_unrung(serve: Serve, nexthop: str) -> None:
    """Have *serve* serve *nexthop*, outside of any task that would tell of a bug."""
    try:
        serve(nexthop)
    except Exception:
        log.exception("Serving %s without a ring failed; it is rung for again", nexthop)


def nobody(_nexthops: Iterable[str]) -> frozenset[str]:
    """Serve none."""
    return frozenset()
