"""When a batch gives way: after its time, where that does anybody good.

After ``batch_time`` a session asks for more urgent mail. What it would claim is
most often the mail that it has, so it goes on with that unless something else
is due first. Handing a lease back and claiming it again costs as much as ten
messages, and a session with a slow server would do it for each.

Invariant: once over, it stays over.

Source: docs/why/scale.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailq.queue.messages import Lease
from mailq.queue.overtaking import Rest
from mailq.worker.runtime import Runtime

_MOST_EXTENSIONS: Final = 7


@dataclass(slots=True, kw_only=True)
class BatchTime:
    """The time of one batch; for one thread.

    Attributes:
        ends_at: When it looks around, by the monotonic clock.
        seconds: It looks around again after this.
        monotonic: Seconds that never go backwards.
        is_wanted: Whether its task has to end.
        is_overtaken: Whether something is due that goes before the rest, of so many messages.
        is_late: Whether this process keeps itself waiting.
    """

    ends_at: float
    seconds: float
    monotonic: Callable[[], float]
    is_wanted: Callable[[], bool]
    is_overtaken: Callable[[int], bool]
    is_late: Callable[[], bool]
    _over: bool = False
    _extensions: int = 0

    def put_off(self, seconds: float) -> None:
        """Begin so much later."""
        self.ends_at += seconds

    def is_over(self, left: int) -> bool:
        """Whether something else is to be done than the *left* messages."""
        now = self.monotonic()
        if self._over or now < self.ends_at:
            return self._over
        self._over = self.is_wanted() or self.is_overtaken(left)
        # Where it is late, a crowd of sessions that all ask would be what makes it late: so less and less often.
        self._extensions = min(2 * self._extensions + 1, _MOST_EXTENSIONS) if self.is_late() else 1
        self.ends_at = now + self._extensions * self.seconds
        return self._over


def time_of(
    lease: Lease,
    count: int,
    runtime: Runtime,
    *,
    ends_at: float,
    is_wanted: Callable[[], bool],
) -> BatchTime:
    """Return when a batch of *count* messages gives way."""
    tenants = {labels.tenant for labels in lease.labels.values()}
    rest = Rest(lease.nexthop, lease.priority, next(iter(tenants)) if len(tenants) == 1 else None)

    def is_overtaken(left: int) -> bool:
        # Tenants alternate in a lease: once each has had a turn, others may have theirs.
        return (len(tenants) > 1 and count - left >= len(tenants)) or runtime.is_overtaken(rest)

    return BatchTime(
        ends_at=ends_at,
        seconds=runtime.settings.batch_time.total_seconds(),
        monotonic=runtime.monotonic,
        is_wanted=is_wanted,
        is_overtaken=is_overtaken,
        is_late=lambda: runtime.pulse.late or runtime.pulse.busy,
    )
