"""So many messages, recipients or sessions an interval: token buckets. Pure.

A bucket fills steadily and holds at most its burst. All there is to remember
is when it will be full again: an instant in microseconds, 0 for a full one. A
bucket that nobody draws from is forgotten without loss.

Invariant: in any stretch of time no more is drawn than the burst and what flows in meanwhile; what is larger than the
burst by itself is drawn from a full bucket and paid for afterwards.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import ceil, floor
from typing import Final

from mailq.errors import SettingError
from mailq.limits.window import microseconds

NO_END: Final = 1_000_000_000
"""As many as anybody could ask for: what no rate bounds."""
# Instants are counted in doubles near 2e15, which err by a quarter of a microsecond.
_SLACK: Final = 0.5


class Unit(StrEnum):
    """What a rate counts."""

    MESSAGES = "messages"
    RECIPIENTS = "recipients"
    SESSIONS = "sessions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much of each unit; 0 or more."""

    messages: int = 0
    recipients: int = 0
    sessions: int = 0

    def of(self, unit: Unit) -> int:
        """Return how much of *unit*."""
        if unit is Unit.MESSAGES:
            return self.messages
        return self.recipients if unit is Unit.RECIPIENTS else self.sessions

    def __bool__(self) -> bool:
        return bool(self.messages or self.recipients or self.sessions)


NOTHING: Final = Amounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many an interval.

    Attributes:
        unit: What is counted.
        count: In each interval, in the long run; more than 0.
        interval: More than 0.
        burst: Most at once after a pause; 1 or more.
    """

    unit: Unit
    count: float
    interval: timedelta = timedelta(seconds=1)
    burst: int = 1

    def __post_init__(self) -> None:
        if self.count <= 0 or self.interval <= timedelta(0) or self.burst < 1:
            raise SettingError(f"not a rate: {self.count:g} {self.unit} in {self.interval}, burst {self.burst}")

    @property
    def name(self) -> str:
        """What the bucket is kept under: a changed count or burst applies to the same bucket."""
        return f"{self.unit}/{microseconds(self.interval)}"

    @property
    def each(self) -> float:
        """Microseconds until one more has flowed in."""
        return microseconds(self.interval) / self.count

    def __str__(self) -> str:
        return f"{self.count:g} {self.unit} in {self.interval}"


def available(rate: Rate, full_at: float, *, now: int) -> float:
    """Return how much is in the bucket; negative where what will flow in is promised already."""
    return rate.burst - max(0.0, full_at - now) / rate.each


def wait_for(rate: Rate, full_at: float, amount: int, *, now: int) -> float:
    """Return the microseconds until *amount* can be drawn, 0 for at once.

    More than the burst is drawn when the bucket is full, and paid for afterwards: it would never fit.
    """
    room = (rate.burst - min(amount, rate.burst)) * rate.each
    wait = full_at - now - room
    return wait if wait > _SLACK else 0.0


def drawn(rate: Rate, full_at: float, amount: int, *, now: int) -> float:
    """Return when the bucket will be full again once *amount* is drawn."""
    return max(full_at, float(now)) + amount * rate.each


def at_once(rate: Rate, full_at: float, *, now: int) -> int:
    """Return how much can be drawn at once without a debt."""
    return max(0, floor((now + rate.burst * rate.each + _SLACK - max(full_at, float(now))) / rate.each))


def seconds_of(wait: float) -> float:
    """Return a wait in microseconds as seconds, never a moment too short."""
    return ceil(wait) / 1e6
