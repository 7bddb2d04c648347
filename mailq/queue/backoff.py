"""When to try again, to warn and to give up. No input or output; the caller tells the time and draws the chance.

A deferred recipient rests for the age of its message, within bounds, so
attempts spread out as the message grows old; or for the step of a named
schedule that its number of attempts has come to. A server that names its wait,
as greylisting ones do, is taken at its word: the recipient is due after that
wait, sooner or later than the schedule has it, yet never before
``NAMED_AT_LEAST`` nor after the longest wait, and not after the message's time is over.

Expiry is looked at only after an attempt: a lifetime of zero means exactly
one. Only what has not expired can be late.

Source: smtp-delivery Q-53 to Q-55; postconf(5) minimal_backoff_time, maximal_backoff_time, maximal_queue_lifetime,
bounce_queue_lifetime, delay_warning_time
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from mailq.queue.named_wait import named_wait
from mailq.queue.postmaster import is_double_bounce
from mailq.settings import Settings
from mailq.settings_schedules import NamedSchedule
from mailq.status import Bounced, Deferred, Delivered, Outcome

NAMED_AT_LEAST: Final = timedelta(seconds=30)
"""A wait that a server names is never taken to be shorter."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """How long to wait and how long to go on.

    Attributes:
        minimal: Shortest wait.
        maximal: Longest wait, before jitter.
        lifetime: Age at which an undelivered message is returned; zero: one attempt.
        warning: Age from which the sender is told that the message is late; zero: never.
        jitter: Largest share of a wait that is added to it, 0 to 1.
        steps: Wait after the first, second, … attempt; empty: by age, between *minimal* and *maximal*.
        repeat_last: The last step repeats; otherwise the message is given up after it.
        gives_up: What is too old is returned; otherwise it is tried for ever.
    """

    minimal: timedelta
    maximal: timedelta
    lifetime: timedelta
    warning: timedelta = timedelta(0)
    jitter: float = 0.0
    steps: tuple[timedelta, ...] = ()
    repeat_last: bool = True
    gives_up: bool = True

    @property
    def longest(self) -> timedelta:
        """The longest wait that a server may ask for."""
        return max((self.maximal, *self.steps))

    @classmethod
    def of(cls, settings: Settings, *, sender: str) -> "RetrySchedule":
        """Return the schedule for mail from *sender*.

        Mail from the null sender, which is empty, has the shorter lifetime. Nobody is told that a report is late.
        """
        lifetime, warning = settings.maximal_queue_lifetime, settings.delay_warning_time
        if not sender:
            lifetime = min(lifetime, settings.bounce_queue_lifetime)
        if not sender or is_double_bounce(sender, settings):
            warning = timedelta(0)
        least, most = settings.minimal_backoff_time, settings.maximal_backoff_time
        # What cannot be told must not be given up. Source: smtp-delivery B-15, Q-53
        return cls(least, most, lifetime, warning, settings.backoff_jitter, gives_up=not settings.soft_bounce)

    def followed_by(self, named: NamedSchedule, *, is_report: bool) -> "RetrySchedule":
        """Return this default schedule with what *named* says instead.

        A report keeps the lifetime it has where that is shorter, and its being late stays nobody's concern.
        """
        lifetime = self.lifetime if named.expires is None else named.expires
        warning = self.warning if named.warn is None else named.warn
        return replace(
            self,
            steps=named.steps,
            repeat_last=named.repeat_last,
            jitter=self.jitter if named.jitter is None else named.jitter,
            lifetime=min(lifetime, self.lifetime) if is_report else lifetime,
            warning=self.warning if is_report else warning,
        )


@dataclass(frozen=True, slots=True)
class Done:
    """Delivered: nothing more to do."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again.

    Attributes:
        due_at: Not before this instant.
        late: The message is so old that its sender is to know, unless that is known already.
    """

    due_at: datetime
    late: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Return the message to its sender.

    Attributes:
        expired: It could have been tried again, but its time is over.
    """

    expired: bool


Disposition = Done | RetryAt | GiveUp


def wait_after(age: timedelta, schedule: RetrySchedule, *, jitter: float, attempts: int = 1) -> timedelta:
    """Return how long a deferred recipient rests.

    Args:
        age: Of the message; below zero counts as zero.
        schedule: The bounds, or the steps.
        jitter: Share of the wait that is added, 0 to 1, drawn by the caller.
        attempts: How often the recipient was tried, at least once.
    """
    if schedule.steps:
        wait = schedule.steps[min(max(attempts, 1), len(schedule.steps)) - 1]
    else:
        wait = min(max(age, schedule.minimal), schedule.maximal)
    return wait * (1 + jitter)


def dispose(
    outcome: Outcome,
    schedule: RetrySchedule,
    *,
    arrived_at: datetime,
    expires_at: datetime | None,
    now: datetime,
    jitter: float,
    attempts: int = 1,
) -> Disposition:
    """Return what follows from *outcome*.

    Args:
        outcome: Of the attempt that has just ended.
        schedule: Waits and lifetime.
        arrived_at: When the message entered the queue.
        expires_at: When the message itself asks to be given up; None: after the schedule's lifetime.
        now: When the attempt ended.
        jitter: Share of the wait that is added, 0 to 1, drawn by the caller.
        attempts: How often the recipient was tried, this time included.

    Source:
        smtp-delivery Q-53 to Q-55
    """
    match outcome:
        case Delivered():
            return Done()
        case Bounced():
            return GiveUp(expired=False)
        case Deferred():
            end = arrived_at + schedule.lifetime if expires_at is None else expires_at
            over = now >= end or (not schedule.repeat_last and attempts > len(schedule.steps))
            if over and schedule.gives_up:
                return GiveUp(expired=True)
            age = now - arrived_at
            late = timedelta(0) < schedule.warning <= age
            named = named_wait(outcome.failure)
            if named is None:
                return RetryAt(now + wait_after(age, schedule, jitter=jitter, attempts=attempts), late)
            wait = min(max(named, NAMED_AT_LEAST), schedule.longest) * (1 + jitter)
            return RetryAt(min(now + wait, end) if schedule.gives_up else now + wait, late)
