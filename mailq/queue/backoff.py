"""When to try again, to warn and to give up. No input or output; the caller tells the time and draws the chance.

A deferred recipient rests for the age of its message, within bounds, so
attempts spread out as the message grows old. Expiry is looked at only after
an attempt: a lifetime of zero means exactly one. Only what has not expired can
be late.

Source: smtp-delivery Q-53 to Q-55; postconf(5) minimal_backoff_time, maximal_backoff_time, maximal_queue_lifetime,
bounce_queue_lifetime, delay_warning_time
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from mailq.queue.postmaster import is_double_bounce
from mailq.settings import Settings
from mailq.status import Bounced, Deferred, Delivered, Outcome


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """How long to wait and how long to go on.

    Attributes:
        minimal: Shortest wait.
        maximal: Longest wait, before jitter.
        lifetime: Age at which an undelivered message is returned; zero: one attempt.
        warning: Age from which the sender is told that the message is late; zero: never.
    """

    minimal: timedelta
    maximal: timedelta
    lifetime: timedelta
    warning: timedelta = timedelta(0)

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
        return cls(settings.minimal_backoff_time, settings.maximal_backoff_time, lifetime, warning)


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


def wait_after(age: timedelta, schedule: RetrySchedule, *, jitter: float) -> timedelta:
    """Return how long a deferred recipient rests.

    Args:
        age: Of the message; below zero counts as zero.
        schedule: The bounds.
        jitter: Share of the wait that is added, 0 to 1, drawn by the caller.
    """
    return min(max(age, schedule.minimal), schedule.maximal) * (1 + jitter)


def dispose(
    outcome: Outcome,
    schedule: RetrySchedule,
    *,
    arrived_at: datetime,
    expires_at: datetime | None,
    now: datetime,
    jitter: float,
) -> Disposition:
    """Return what follows from *outcome*.

    Args:
        outcome: Of the attempt that has just ended.
        schedule: Waits and lifetime.
        arrived_at: When the message entered the queue.
        expires_at: When the message itself asks to be given up; None: after the schedule's lifetime.
        now: When the attempt ended.
        jitter: Share of the wait that is added, 0 to 1, drawn by the caller.

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
            if now >= end:
                return GiveUp(expired=True)
            age = now - arrived_at
            late = timedelta(0) < schedule.warning <= age
            return RetryAt(now + wait_after(age, schedule, jitter=jitter), late)
