"""When a batch gives way: after its time, where that does anybody good.

After ``batch_time`` a session asks for more urgent mail. What it would claim is
most often the mail that it has, so it goes on with that unless something else
is due first, or unless so much is left that others, who have nothing to do,
should take a share of it. Handing a lease back and claiming it again costs as
much as ten messages, and a session with a slow server would do it for each.

Invariant: once over, it stays over.

Source: docs/why/scale.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailq.queue.messages import Lease
from mailq.queue.overtaking import Rest
from mailq.worker.runtime import Runtime
from mailq.worker.wanted import always

_WORTH_BATCHES: Final = 2
_WORTH_MESSAGES: Final = 5
_MOST_EXTENSIONS: Final = 7


def is_worth_sharing(left: int, *, pace_seconds: float, batch_seconds: float) -> bool:
    """Whether the rest of a batch lasts so long that another session, which has to connect first, is of use.

    Args:
        left: How many messages.
        pace_seconds: What the last one took.
        batch_seconds: After so long a session looks around.
    """
    return left >= _WORTH_MESSAGES and left * pace_seconds >= _WORTH_BATCHES * batch_seconds


@dataclass(slots=True, kw_only=True)
class BatchTime:
    """The time of one batch; for one thread.

    Attributes:
        ends_at: When it looks around, by the monotonic clock.
        last_at: When the task's time is up: then it ends where the task has to.
        seconds: It looks around again after this.
        monotonic: Seconds that never go backwards.
        is_wanted: Whether a task whose time is up has to end.
        is_overtaken: Whether something is due that goes before the rest, of so many messages.
        is_late: Whether this process keeps itself waiting.
        may_share: Whether somebody else could take what is left.
        shares: It is over so that others take a share.
    """

    ends_at: float
    last_at: float
    seconds: float
    monotonic: Callable[[], float]
    is_wanted: Callable[[], bool]
    is_overtaken: Callable[[int], bool]
    is_late: Callable[[], bool]
    may_share: Callable[[], bool]
    shares: bool = False
    _over: bool = False
    _looks: int = 0
    _extensions: int = 0

    def put_off(self, seconds: float) -> None:
        """Begin so much later."""
        self.ends_at += seconds

    def is_over(self, left: int, *, pace_seconds: float) -> bool:
        """Whether something else is to be done than the *left* messages, each of which takes about *pace_seconds*."""
        now = self.monotonic()
        if self._over or now < self.ends_at:
            return self._over
        self.shares = self._is_to_be_shared(left, pace_seconds)
        self._over = self.shares or (now >= self.last_at and self.is_wanted()) or self.is_overtaken(left)
        # Where it is late, a crowd of sessions that all ask would be what makes it late: so less and less often.
        self._extensions = min(2 * self._extensions + 1, _MOST_EXTENSIONS) if self.is_late() else 1
        self.ends_at = now + self._extensions * self.seconds
        return self._over

    def _is_to_be_shared(self, left: int, pace_seconds: float) -> bool:
        """Whether others should have some of it: asked less and less often, since it is asked of somebody far away."""
        if not is_worth_sharing(left, pace_seconds=pace_seconds, batch_seconds=self.seconds):
            return False
        self._looks += 1
        is_turn = self._looks & (self._looks - 1) == 0
        return is_turn and self.may_share()


def time_of(
    lease: Lease,
    count: int,
    runtime: Runtime,
    *,
    ends_at: float,
    last_at: float,
    is_wanted: Callable[[], bool] = always,
) -> BatchTime:
    """Return when a batch of *count* messages gives way."""
    tenants = {labels.tenant for labels in lease.labels.values()}
    rest = Rest(lease.nexthop, lease.priority, next(iter(tenants)) if len(tenants) == 1 else None)

    def is_overtaken(left: int) -> bool:
        # Tenants alternate in a lease: once each has had a turn, others may have theirs.
        return (len(tenants) > 1 and count - left >= len(tenants)) or runtime.is_overtaken(rest)

    return BatchTime(
        ends_at=ends_at,
        last_at=last_at,
        seconds=runtime.settings.batch_time.total_seconds(),
        monotonic=runtime.monotonic,
        is_wanted=is_wanted,
        is_overtaken=is_overtaken,
        is_late=lambda: runtime.pulse.late or runtime.pulse.busy,
        may_share=lambda: runtime.may_share(lease.nexthop),
    )
