"""Who waits for a dead destination and has come to the end of the time, or is to be called late.

Nobody is tried there but the probe, so expiry and warnings, which otherwise
follow an attempt, are looked for here after each probe that failed: as
punctual as the retries would have been. Reading is all it costs; only those of
whom something follows are leased, and recorded with the destination's failure.

Source: smtp-delivery Q-13, Q-53, Q-54
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row

from mailq.queue.backoff import GiveUp, RetryAt, RetrySchedule, dispose
from mailq.queue.claims import claim_these
from mailq.queue.dispatch import due_priorities
from mailq.queue.engine import Database
from mailq.queue.messages import Lease
from mailq.queue.schedules import Labels, Schedules
from mailq.queue.sites import waiting_page
from mailq.status import Deferred, Failure

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class RollCall:
    """What the waiting are asked against.

    Attributes:
        failure: What they are told.
        schedules: Theirs.
    """

    failure: Failure
    schedules: Schedules

    @property
    def shortest_lifetime(self) -> timedelta:
        """No message ends sooner by its schedule."""
        return min(one.lifetime for one in self._all())

    @property
    def shortest_warning(self) -> timedelta:
        """No message is late sooner; zero when none ever is."""
        return min((one.warning for one in self._all() if one.warning), default=timedelta(0))

    def concerns(self, row: Row[Any], nexthop: str) -> bool:
        """Tell whether something follows for a waiting recipient: it expires, or its sender is to know."""
        schedule = self.schedules.schedule_for(
            sender=row.sender, nexthop=nexthop, labels=Labels(row.mail_class, row.tenant)
        )
        match dispose(
            Deferred(self.failure),
            schedule,
            arrived_at=row.arrived_at,
            expires_at=row.expires_at,
            now=row.now,
            jitter=0,
            attempts=row.attempts,
        ):
            case RetryAt(late=late):
                return late and not row.warned
            case GiveUp():
                return True
            case _:
                return False

    def _all(self) -> list[RetrySchedule]:
        settings, named = self.schedules.settings, self.schedules.named.values()
        defaults = [RetrySchedule.of(settings, sender=sender) for sender in ("", "anybody")]
        return defaults + [each.followed_by(one, is_report=False) for each in defaults for one in named]


def roll_call(
    database: Database, nexthop: str, rules: RollCall, *, owner: str, lease_time: timedelta
) -> Iterator[Lease]:
    """Lease those who wait for the dead *nexthop* and whose time has come, page after page.

    Nothing is held while the caller works on a page.
    """
    lifetime, warning = rules.shortest_lifetime, rules.shortest_warning
    with database.read() as connection:
        priorities = due_priorities(connection, nexthop)
    for priority in priorities:
        after: dict[str, Any] = {}
        while rows := waiting_page(
            database, nexthop, priority=priority, lifetime=lifetime, warning=warning, page=_PAGE, **after
        ):
            after = {"after": (rows[-1].due_at, rows[-1].id)}
            chosen = [row.id for row in rows if rules.concerns(row, nexthop)]
            found = claim_these(database, nexthop, chosen, owner=owner, lease_time=lease_time) if chosen else None
            if found is not None:
                yield found
