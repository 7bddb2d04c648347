"""Whether a task whose time is up is to end, or calls for help: only where that does anybody good.

A task that ends rings for the mail it leaves, and whoever answers begins anew
with a ticket, a claim and often a connection. That lets rings that wait have a
thread, and other workers have a share of a busy one's mail. Where neither is
of use, a thousand sessions with slow servers would only begin again and again.
So as many end as are wanted, and no more; those first that share their nexthop
with others, which go on with its mail.

Source: docs/why/scale.md
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from mailq.errors import BrokerUnavailableError

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
_SHARE: Final = 50
_ENDS: Final = "ends"
_CALLS: Final = "calls"


def always(_others: int = 0) -> bool:
    """Have every task end in time."""
    return True


def wanted_of(*, tasks: int, crowded: bool, rings: int, relief: bool) -> int:
    """Return how many tasks are to end within a look's time, if their time is up.

    Args:
        tasks: That run.
        crowded: Each thread has one.
        rings: Wait for a thread.
        relief: This process is busy, and there are others.
    """
    # All of a thousand at once would be a second in which nothing is sent.
    return (rings if crowded else 0) + (-(-tasks // _SHARE) if relief else 0)


class Wanted:
    """Whether threads of this process are wanted for something else; safe to use from many threads.

    Args:
        tasks: How many tasks there are.
        extras: How many of them are not the only one of their nexthop.
        threads: For them.
        is_busy: Whether the interpreter has little time left.
        workers: How many processes there are, this one included.
        rings: How many rings wait at the broker.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        *,
        tasks: Callable[[], int],
        extras: Callable[[], int],
        threads: int,
        is_busy: Callable[[], bool],
        workers: Callable[[], int],
        rings: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._extras = extras
        self._threads = threads
        self._is_busy = is_busy
        self._workers = workers
        self._rings = rings
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looks_at = float("-inf")
        self._left: Counter[str] = Counter()

    def __call__(self, others: int) -> bool:
        """Tell a task whose time is up whether it is to end; as many are told so as are wanted.

        Args:
            others: So many more of this process serve its nexthop; while there are such tasks, none without is told.
        """
        return bool(others or not self._extras()) and self._draw(_ENDS)

    def may_call(self) -> bool:
        """Tell whether a ring for one more session is likely to find a thread that no other ring waits for."""
        return 2 * self._tasks() <= self._threads or self._draw(_CALLS)

    def _draw(self, what: str) -> bool:
        """Take one of what there is until the next look; False where there is none, or somebody draws just now."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._look()
            self._left[what] -= 1
            return self._left[what] >= 0
        finally:
            self._lock.release()

    def _look(self) -> None:
        """Look at what there is, now and then."""
        now = self._monotonic()
        if now < self._looks_at:
            return
        tasks, others = self._tasks(), self._workers() > 1
        spare, rings = self._threads - tasks, self._waiting_rings()
        self._left[_ENDS] = wanted_of(tasks=tasks, crowded=spare <= 0, rings=rings, relief=others and self._is_busy())
        # One that waits says that the others have no thread to spare either.
        self._left[_CALLS] = max(spare - rings, int(others and not rings))
        self._looks_at = now + LOOK_SECONDS

    def _waiting_rings(self) -> int:
        try:
            return self._rings()
        except BrokerUnavailableError as error:
            log.debug("Nobody knows whether rings wait: %s", error)
            return 0
