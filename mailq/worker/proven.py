"""Nexthops that nothing good is known of may not take all threads: those that never answer would.

A nexthop is *proven* once a server of it took mail without being slow, for
:data:`mailq.limits.shares.PROVEN_FOR`, unless it is dead or has been slow since. The others share a
gate of their own, over all workers: three quarters of the threads there are. So
however many destinations hang or dawdle at once, proven ones have threads left,
and the unproven take turns.

Source: celery.md §2.2
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Final, Protocol

from mailq.errors import InfrastructureError
from mailq.limits.gates import Admitted
from mailq.limits.port import Limits
from mailq.limits.shares import PROVEN_FOR, WORKERS, most_unproven
from mailq.limits.together import Together

SLOW_SECONDS: Final = 5.0
"""A nexthop is slow whose messages take longer than this on the average."""
_COUNT_EVERY: Final = 5.0
_MISSED_COUNTS: Final = 4
_DOUBT_SECONDS: Final = 5.0
_TRUST_SECONDS: Final = 600.0
_MOST_REMEMBERED: Final = 10_000
_MOST_TOGETHER: Final = 500


class WellKnown(Protocol):
    """Where it is kept which nexthops did well."""

    def proven(self, nexthops: Collection[str], *, within: timedelta) -> frozenset[str]:
        """Return those of *nexthops* that did well within so long and are not dead."""


class Proven:
    """What this process knows of nexthops, and of how many workers there are; safe to use from many threads.

    Args:
        store: Knows what all processes found.
        limits: Where workers are counted.
        owner: Names this process.
        threads: Of each process.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        store: WellKnown,
        limits: Limits,
        *,
        owner: str,
        threads: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._limits = limits
        self._owner = owner
        self._threads = threads
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._together: Together[Collection[str], frozenset[str]] = Together(self._found, most=_MOST_TOGETHER)
        self._until: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._workers = 1
        self._presence: Admitted | None = None
        self._counts_at = float("-inf")

    @property
    def workers(self) -> int:
        """How many worker processes there are, as far as this one knows."""
        return self._workers

    def most_sessions_if_not(self, nexthop: str) -> int:
        """Return how many sessions there may be with all nexthops that are not proven; 0: *nexthop* is.

        Raises:
            InfrastructureError: The database is down.
        """
        return 0 if self.holds_for(nexthop) else most_unproven(threads=self._threads, workers=self._workers)

    def look_up(self, nexthops: Collection[str]) -> None:
        """Find out about those of *nexthops* that nothing recent is known of.

        Raises:
            InfrastructureError: The database is down.
        """
        now = self._monotonic()
        with self._lock:
            unknown = [one for one in nexthops if self._until.get(one, (False, now))[1] <= now]
        if unknown:
            found = self._together(unknown)
            for one in unknown:
                self._note(one, is_proven=one in found)

    def _found(self, asked: Sequence[Collection[str]]) -> Sequence[frozenset[str]]:
        """Ask for all that several threads want to know."""
        found = self._store.proven(frozenset().union(*asked), within=PROVEN_FOR)
        return [found] * len(asked)

    def holds_for(self, nexthop: str) -> bool:
        """Tell whether *nexthop* is proven.

        Raises:
            InfrastructureError: The database is down.
        """
        self.look_up([nexthop])
        with self._lock:
            return self._until.get(nexthop, (False, 0.0))[0]

    def note_well(self, nexthop: str) -> None:
        """Note that *nexthop* did well."""
        self._note(nexthop, is_proven=True)

    def note_unwell(self, nexthop: str) -> None:
        """Note that *nexthop* is dead or slow."""
        self._note(nexthop, is_proven=False)

    def on_tick(self) -> None:
        """Count the workers now and then; called every second or so, never raises."""
        now = self._monotonic()
        if now < self._counts_at:
            return
        self._counts_at = now + _COUNT_EVERY
        hold_for = timedelta(seconds=_MISSED_COUNTS * _COUNT_EVERY)
        try:
            if self._presence is None:
                answer = self._limits.admit([WORKERS], owner=self._owner, hold_for=hold_for)
                self._presence = answer if isinstance(answer, Admitted) else None
            else:
                self._limits.renew([self._presence], hold_for=hold_for)
            self._workers = max(1, self._limits.look([WORKERS])[0].busy)
        except InfrastructureError:
            return

    def _note(self, nexthop: str, *, is_proven: bool) -> None:
        until = self._monotonic() + (_TRUST_SECONDS if is_proven else _DOUBT_SECONDS)
        with self._lock:
            self._until[nexthop] = is_proven, until
            self._until.move_to_end(nexthop)
            while len(self._until) > _MOST_REMEMBERED:
                self._until.popitem(last=False)
