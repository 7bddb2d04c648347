"""Giving half of what is left of a batch to others, where a server takes its time over each message. Pure.

What one session has leased nobody else sends. With a server that answers at
once that does no harm. With one that is slow or far away, the last messages of
a batch wait for those before them, although other sessions could send them now.

Invariant: what is given away was neither begun nor named by the lease, and no message is torn apart.

Source: docs/why/scale.md
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mailq.envelope import DeliveryRequest

WORTH_MESSAGES: Final = 5
"""Fewer are not worth a statement and a claim."""
_WORTH_SECONDS: Final = 0.5
_WORTH_CONNECTING_SECONDS: Final = 2.0
_FIRST_LOOK_SECONDS: Final = 1.0
_REST_SECONDS: Final = 0.25


def is_worth_sharing(left: int, *, pace_seconds: float, connecting: bool) -> bool:
    """Whether the rest of a batch lasts so long that another session is of use.

    Args:
        left: How many messages.
        pace_seconds: What the last one took.
        connecting: That session would have to be begun.
    """
    worth = _WORTH_CONNECTING_SECONDS if connecting else _WORTH_SECONDS
    return left >= WORTH_MESSAGES and left * pace_seconds >= worth


def kept_of(parts: Sequence[DeliveryRequest], *, first: int) -> int:
    """Return how many of *parts* a session keeps that gives half of those from number *first* on away."""
    kept = first + -(-(len(parts) - first) // 2)
    while 0 < kept < len(parts) and parts[kept].queue_id == parts[kept - 1].queue_id:
        kept += 1
    return min(kept, len(parts))


@dataclass(slots=True, kw_only=True)
class Sharing:
    """When a batch gives some of itself away; for one thread.

    Attributes:
        looked_at: When it began, or last looked for room, by the monotonic clock.
        monotonic: Seconds that never go backwards.
        is_waited_for: Whether an open session waits for such mail; cheap.
        is_free: Whether another session would not only take turns with those there are; cheap.
        has_room: Whether it could be had; not cheap.
    """

    looked_at: float
    monotonic: Callable[[], float]
    is_waited_for: Callable[[], bool]
    is_free: Callable[[], bool]
    has_room: Callable[[], bool]
    _pause: float = _FIRST_LOOK_SECONDS
    _rests_until: float = float("-inf")

    def is_due(self, left: int, *, pace_seconds: float) -> bool:
        """Whether some of the *left* messages, each of which takes about *pace_seconds*, are for somebody else now."""
        if not is_worth_sharing(left, pace_seconds=pace_seconds, connecting=False):
            return False
        now = self.monotonic()
        # Whoever is given some needs a moment to take it.
        if now < self._rests_until:
            return False
        if not self.is_waited_for() and not (
            is_worth_sharing(left, pace_seconds=pace_seconds, connecting=True) and self._finds_room(now)
        ):
            return False
        self._rests_until = now + _REST_SECONDS
        return True

    def _finds_room(self, now: float) -> bool:
        if now < self.looked_at + self._pause or not self.is_free():
            return False
        # It is asked of somebody far away, so less and less often.
        self.looked_at, self._pause = now, 2 * self._pause
        return self.has_room()
