"""How many sessions a destination gets at present: the window that its own answers move. Pure.

A destination begins with a few sessions. A delivery that it took well widens
the window, one that failed by its fault narrows it, and after a whole window
of failures without a success the destination is dead for a while: nothing
begins there until the time is over, or until a delivery that was under way
goes well after all.

Invariants: a ready window is 1 or more, and never above a limit other than 0.
Instants are integers in microseconds, counted from wherever the keeper of the
clock does.

Source: smtp-delivery Q-20 to Q-23, Q-30 to Q-40
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, Self

from mailq.errors import SettingError
from mailq.status import EnhancedStatus

PREFIX: Final = "delivery temporarily suspended: "
"""Before the reason that killed a destination, in what its waiting mail is told. Source: smtp-delivery Q-35."""
FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""A ready window without news for this long begins anew: what it knew is out of date."""
NOTED_EVERY: Final = timedelta(minutes=1)
"""Good news that change nothing are noted once in so long at most, so that they need not be written down each time."""

_MICROSECOND: Final = timedelta(microseconds=1)
_CONCURRENCY: Final = "concurrency"


class State(StrEnum):
    """Whether sessions may begin. Source: smtp-delivery Q-20."""

    READY = "ready"
    DEAD = "dead"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class FeedbackRule:
    """How far one delivery moves the window: a number, or a number divided by the window.

    Attributes:
        number: 0 to 1.
        by_concurrency: Divided by the window of the moment, so that a whole window of deliveries makes the number.

    Source: smtp-delivery Q-23
    """

    number: float = 1.0
    by_concurrency: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.number <= 1:
            raise SettingError(f"feedback of {self.number:g} is not from 0 to 1")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1``, ``0.5``, ``1/5`` or ``1/concurrency``.

        Raises:
            SettingError: *text* is none of these, or not from 0 to 1.
        """
        number, slash, divisor = (word.strip() for word in text.partition("/"))
        try:
            if not slash:
                return cls(float(number))
            if divisor == _CONCURRENCY:
                return cls(float(number), by_concurrency=True)
            return cls(float(number) / float(divisor))
        except (ValueError, ArithmeticError, SettingError):
            raise SettingError(
                f"{text!r} is no feedback: expected a number from 0 to 1, such as 1, 1/5 or 1/concurrency"
            ) from None

    def at(self, size: int) -> float:
        """Return how far a window of *size* sessions moves."""
        return self.number / size if self.by_concurrency else self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """How a window begins and moves.

    Attributes:
        initial: Sessions of a new or revived destination; 1 or more.
        positive: After a delivery that the destination took well.
        negative: After a delivery that failed by the destination's fault.
        failed_cohort_limit: A destination is dead after so many windows of failures in a row; 0: never.
        dead_time: Nothing begins at a dead destination for this long.

    Source: postconf(5) initial_destination_concurrency, default_destination_concurrency_positive_feedback,
        default_destination_concurrency_negative_feedback, default_destination_concurrency_failed_cohort_limit,
        minimal_backoff_time
    """

    initial: int = 5
    positive: FeedbackRule = FeedbackRule()
    negative: FeedbackRule = FeedbackRule()
    failed_cohort_limit: float = 1.0
    dead_time: timedelta = timedelta(seconds=300)

    def __post_init__(self) -> None:
        if self.initial < 1:
            raise SettingError(f"a window cannot begin with {self.initial} sessions: 1 is the least")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is known of one destination.

    Attributes:
        size: Sessions that may be open at a time, while ready.
        success: Part of a step up that is earned already.
        failure: Part of a step down that is left before the next; negative within one event only.
        cohorts: Windows of failures since the last success.
        state: Whether sessions may begin.
        seen_at: Of the last news.
        until: When a dead or suspended destination is ready again; 0 while ready.
        status: Of the failure that killed it; empty unless dead.
        reason: Likewise, with :data:`PREFIX`.
    """

    size: int
    success: float = 0.0
    failure: float = 0.0
    cohorts: float = 0.0
    state: State = State.READY
    seen_at: int = 0
    until: int = 0
    status: str = ""
    reason: str = ""


def microseconds(duration: timedelta) -> int:
    """Return *duration* in whole microseconds."""
    return duration // _MICROSECOND


def begin(rule: WindowRule | None, *, limit: int, now: int) -> Window:
    """Return the window of a destination that nothing is known of. Source: smtp-delivery Q-21.

    Args:
        rule: None: the window is not moved by feedback, but can be suspended.
        limit: Most sessions; 0 is no limit.
        now: The instant.
    """
    return Window(size=_initial(rule, limit), seen_at=now)


def positive(window: Window, rule: WindowRule, *, busy: int, limit: int, now: int) -> Window:
    """Return *window* after a delivery went well; a dead one is revived. Source: smtp-delivery Q-30, Q-37.

    Args:
        window: Settled up to *now*.
        rule: How far it moves.
        busy: Deliveries in progress, this one included.
        limit: Most sessions; 0 is no limit.
        now: The instant.
    """
    if window.state is State.DEAD:
        return revive(rule, busy=busy, limit=limit, now=now)
    if window.state is not State.READY:
        return window
    size, success, failure = window.size, window.success, window.failure
    if (not limit or size < limit) and size < busy + _initial(rule, limit):
        step = rule.positive.at(size)
        success += step
        while success + step / 2 >= 1:
            size, success, failure = size + 1, success - 1, 0.0
        size = min(size, limit) if limit else size
    after = replace(window, size=size, success=success, failure=failure, cohorts=0.0)
    if after == window and now - window.seen_at < microseconds(NOTED_EVERY):
        return window
    return replace(after, seen_at=now)


def negative(window: Window, rule: WindowRule, *, now: int, status: str, reason: str) -> Window:
    """Return *window* after a delivery failed by the destination's fault. Source: smtp-delivery Q-31, Q-34, Q-35.

    Args:
        window: Settled up to *now*.
        rule: How far it moves.
        now: The instant.
        status: Told to waiting mail if the destination is dead now, see :func:`told_of`.
        reason: Likewise.
    """
    if window.state is not State.READY:
        return window
    cohorts = window.cohorts + 1 / window.size
    if 0 < rule.failed_cohort_limit <= cohorts:
        return replace(
            window,
            cohorts=cohorts,
            state=State.DEAD,
            seen_at=now,
            until=now + microseconds(rule.dead_time),
            status=status,
            reason=reason,
        )
    size, success, step = window.size, window.success, rule.negative.at(window.size)
    failure = window.failure - step
    while failure - step / 2 < 0:
        size, success, failure = size - 1, 0.0, failure + 1
    return replace(window, size=max(size, 1), success=success, failure=failure, cohorts=cohorts, seen_at=now)


def told_of(status: str, reason: str) -> tuple[str, str]:
    """Return what mail that waits for a dead destination is told, for the failure that killed it.

    Source: smtp-delivery Q-35
    """
    found = EnhancedStatus.find(status)
    return "4.0.0" if found is None else str(found), PREFIX + (reason or "unknown error")


def revive(rule: WindowRule | None, *, busy: int, limit: int, now: int) -> Window:
    """Return the window of a destination that was dead. Source: smtp-delivery Q-36, Q-39.

    Args:
        rule: How it begins.
        busy: Deliveries still in progress: as many as the destination seems to bear.
        limit: Most sessions; 0 is no limit.
        now: The instant.
    """
    return Window(size=busy if busy > 0 else _initial(rule, limit), seen_at=now)


def suspend(window: Window, rule: WindowRule | None, *, delay: timedelta, busy: int, limit: int, now: int) -> Window:
    """Return *window* after any delivery to a destination with a rate delay. Source: smtp-delivery Q-40.

    Args:
        window: The delivery's feedback is in it already; a dead one is revived, so dead time does not apply.
        rule: How a revived one begins.
        delay: Nothing begins for this long.
        busy: Deliveries in progress, this one included.
        limit: Most sessions; 0 is no limit.
        now: The instant.
    """
    if window.state is State.DEAD:
        window = revive(rule, busy=busy, limit=limit, now=now)
    if window.state is not State.READY:
        return window
    return replace(window, state=State.SUSPENDED, until=now + microseconds(delay), seen_at=now)


def settle(window: Window, rule: WindowRule | None, *, busy: int, limit: int, now: int) -> Window:
    """Return *window* as time and a changed limit leave it. Source: smtp-delivery Q-36, Q-40.

    Args:
        window: As it was left.
        rule: How a revived one begins.
        busy: Deliveries in progress: at the end of the dead time, where it is over.
        limit: Most sessions; 0 is no limit.
        now: The instant.
    """
    if window.state is not State.READY:
        if now < window.until:
            return window
        if window.state is State.DEAD:
            window = revive(rule, busy=busy, limit=limit, now=window.until)
        else:
            window = replace(window, size=1, state=State.READY, seen_at=window.until, until=0)
    if now - window.seen_at >= microseconds(FORGOTTEN_AFTER):
        return begin(rule, limit=limit, now=now)
    return replace(window, size=limit) if limit and window.size > limit else window


def _initial(rule: WindowRule | None, limit: int) -> int:
    initial = 1 if rule is None else rule.initial
    return min(initial, limit) if limit else initial
