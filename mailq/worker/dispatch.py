"""The dispatcher: who is due is rung, what the dead held is freed, who must be told is told.

A round costs what is due, not what is queued. Two dispatchers at once are
harmless, since claims are atomic; one is enough, so an SQL lease elects it.

Source: celery.md §2.6, §2.8, §6 pitfalls 1, 14 and 18.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from mailq.errors import InfrastructureError
from mailq.queue.certainty import CertaintyRules
from mailq.queue.dispatch import Noticed, earliest_of
from mailq.queue.store import Store
from mailq.ring import Ringer
from mailq.settings import Settings
from mailq.worker.by_hand import nobody
from mailq.worker.desk import LOOK_AGAIN, Desk, is_own
from mailq.worker.housekeeping import no_housekeeping
from mailq.worker.newcomers import SETTLED_SECONDS, Newcomers

log = logging.getLogger(__name__)

NEW_RECIPIENTS: Final = 5000
"""Most fresh recipients noticed a round."""
RINGS: Final = 500
"""Most nexthops rung a round."""
PARKED: Final = 20
"""So many nexthops a key are looked at in a round, of those that wait for room; more, where all of these had it."""
MOST_PARKED: Final = 640
"""At most so many."""
REPORTS: Final = 100
"""Most messages reported on a round."""
RING_PATIENCE: Final = timedelta(seconds=5)
"""Longest time a round may be held up by the broker."""
GRACE_SECONDS: Final = 5.0
"""After an outage of the database, living workers get this long to write and renew before leases are swept."""
_RULES: Final = CertaintyRules()
_NOBODY: Final = Noticed(0, frozenset())


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did.

    Attributes:
        freed: Recipients taken from leases that ran out.
        noticed: Fresh recipients.
        rung: Nexthops that a ring is on its way to.
        reports: Failure and delay reports queued, and copies for the postmaster.
        busy: A bound was reached, so the next round should not wait.
    """

    freed: int
    noticed: int
    rung: int
    reports: int
    busy: bool


class Dispatcher:
    """Runs rounds; for one thread.

    Args:
        store: The queue.
        desk: Asked who has room.
        ringer: Publishes the rings.
        settings: Of these, ``ring_timeout`` and ``destination_concurrency_limit``.
        send_reports: Queues the reports about at most so many messages, and returns how many.
        certainty: What becomes of mail that a lost worker was at work on.
        settled_seconds: What is new for so long after it was first seen is noticed in writing.
        takes_here: Returns those whose due mail somebody in this process takes without a ring.
        begin_here: Begins to serve some of many nexthops without a ring, and returns which.
        serve_here: Serves nexthops that cannot be rung for, and returns which.
        housekeep: Deletes a little of what is finished and old.
        monotonic: Seconds that never go backwards.
    """

    def __init__(
        self,
        *,
        store: Store,
        desk: Desk,
        ringer: Ringer,
        settings: Settings,
        send_reports: Callable[[int], int],
        certainty: CertaintyRules = _RULES,
        settled_seconds: float = SETTLED_SECONDS,
        takes_here: Callable[[Collection[str]], frozenset[str]] = nobody,
        begin_here: Callable[[Sequence[str]], frozenset[str]] = nobody,
        serve_here: Callable[[Iterable[str]], frozenset[str]] = nobody,
        housekeep: Callable[[], None] = no_housekeeping,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._desk = desk
        self._ringer = ringer
        self._settings = settings
        self._send_reports = send_reports
        self._takes_here = takes_here
        self._begin_here = begin_here
        self._serve_here = serve_here
        self._housekeep = housekeep
        self._certainty = certainty
        self._monotonic = monotonic
        self._sweep_from = float("-inf")
        self._not_rung: frozenset[str] = frozenset()
        self._looks_at = PARKED
        self._newcomers = Newcomers(settled_seconds=settled_seconds)

    def run_once(self) -> Round:
        """Run one round.

        Raises:
            DatabaseUnavailableError: The database is down; nothing is lost, the next round does it.
        """
        freed = self._store.sweep(self._certainty) if self._monotonic() >= self._sweep_from else 0
        new, looked_at = self._notice()
        # Before all others, of which there may be more than can be rung for now.
        urgent = self._ringer.ring_all(sorted(new.urgent), again=True, urgent=True) if new.urgent else frozenset()
        more_parked = self._call_parked()
        wanted, crowded = self._due()
        rung = self._ring(wanted - urgent) | urgent
        reports = self._send_reports(REPORTS)
        self._housekeep()
        busy = looked_at >= NEW_RECIPIENTS or crowded or more_parked or reports >= REPORTS
        return Round(freed=freed, noticed=new.recipients, rung=len(rung), reports=reports, busy=busy)

    def after_outage(self) -> None:
        """Give living workers a moment to keep what is theirs before leases are swept again."""
        self._sweep_from = self._monotonic() + GRACE_SECONDS

    def _notice(self) -> tuple[Noticed, int]:
        """Tell destinations of new mail; return what is new, and the most of what was looked at or written to."""
        last, now = self._settings.urgent_priority, self._monotonic()
        found = self._store.newcomers(after=self._newcomers.after, limit=NEW_RECIPIENTS)
        new = self._newcomers.note(found, now)
        if new:
            self._store.ring_for(earliest_of((one.nexthop, one.due_at) for one in new))
        upto = self._newcomers.settled(now)
        late = self._store.notice(limit=NEW_RECIPIENTS, urgent_priority=last, upto=upto) if upto else _NOBODY
        urgent = frozenset(one.nexthop for one in new if one.priority <= last)
        return Noticed(len(new), urgent | late.urgent), max(len(found), late.recipients)

    def _due(self) -> tuple[frozenset[str], bool]:
        """Return whom to ring, and whether more may be due; what could not be rung before goes first."""
        if len(self._not_rung) >= RINGS:
            return self._not_rung, False
        due = self._store.due_nexthops(limit=RINGS, ring_timeout=self._settings.ring_timeout)
        return self._not_rung.union(due), len(due) >= RINGS

    def _ring(self, wanted: Iterable[str]) -> frozenset[str]:
        wanted = frozenset(wanted)
        names = sorted(wanted - self._takes_here(wanted))
        shut = self._obstacles(names, urgent=False)
        # What is kept free for urgent mail is opened only for that: whoever is rung in vain costs as much as a message.
        urgent = [nexthop for nexthop in shut if self._has_urgent(nexthop)]
        shut = {one: key for one, key in shut.items() if one not in urgent} | self._obstacles(urgent, urgent=True)
        # A full destination needs no ring: who holds its slots goes on until nothing is due.
        admitted = frozenset(names) - shut.keys()
        shared = {nexthop: key for nexthop, key in shut.items() if not is_own(key, nexthop)}
        self._store.park(shared, look_again=LOOK_AGAIN)
        # Each was due by SQL, so a ring of a moment ago does not stand for it.
        begun = self._begin_here(sorted(admitted))
        wanted = sorted(admitted - begun)
        rung = begun | (self._ringer.ring_all(wanted, again=True, patience=RING_PATIENCE) if wanted else frozenset())
        rung |= self._serve_here(sorted(admitted - rung))
        self._not_rung = admitted - rung
        return rung

    def _call_parked(self) -> bool:
        """Ring those who wait for what has room again, the longest wait first; return whether there may be more."""
        parked = [one.nexthop for one in self._store.parked(most=self._looks_at)]
        if not parked:
            return False
        shut = self._obstacles(parked, urgent=False)
        called = [nexthop for nexthop in parked if nexthop not in shut][:RINGS]
        all_had_room = not shut and len(parked) >= self._looks_at
        self._looks_at = min(2 * self._looks_at, MOST_PARKED) if all_had_room else PARKED
        self._not_rung = self._not_rung.union(self._store.call(called, ring_timeout=self._settings.ring_timeout))
        return all_had_room

    def _has_urgent(self, nexthop: str) -> bool:
        urgent = self._settings.urgent_priority
        return urgent >= 0 and self._store.is_due(nexthop, last_priority=urgent)

    def _obstacles(self, nexthops: Sequence[str], *, urgent: bool) -> dict[str, str]:
        """Return who has no room, and for what; the others may be rung, and a ring too many tells no more."""
        if not nexthops:
            return {}
        try:
            return dict(self._desk.obstacles(nexthops, urgent=urgent))
        except InfrastructureError:
            # The ring will tell, or fail and be repeated.
            return {}
