"""What a session asks between two messages: has somebody stopped this destination?

The answer is at most a second old, and the same for all sessions of a process,
so that asking costs nothing. While the database is down the last answer holds.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mailq.errors import InfrastructureError, SchemaError
from mailq.queue.suspend import Suspension, covers

log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 1.0
"""An answer is used for this long."""


class Suspensions(Protocol):
    """Where it is written what is stopped."""

    def suspensions(self) -> Sequence[Suspension]:
        """Return all that is stopped now."""


def never(_nexthop: str) -> bool:
    """Let everything pass."""
    return False


class Suspended:
    """Tells whether a nexthop is stopped; safe to use from many threads.

    Args:
        source: The store.
        monotonic: Seconds that never go backwards.
    """

    def __init__(self, source: Suspensions, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._patterns: frozenset[str] = frozenset()
        self._ask_at = float("-inf")

    def __call__(self, nexthop: str) -> bool:
        """Whether *nexthop* is stopped."""
        now = self._monotonic()
        with self._lock:
            asks = now >= self._ask_at
            if asks:
                # Whoever comes meanwhile has the last answer.
                self._ask_at = now + FRESH_SECONDS
        if asks:
            self._ask()
        return covers(self._patterns, nexthop)

    def _ask(self) -> None:
        try:
            self._patterns = frozenset(one.pattern for one in self._source.suspensions())
        except (InfrastructureError, SchemaError) as error:
            log.warning("What is suspended could not be read: %s", error)
