"""What is shared, and in what numbers: the nouns of the limits. Pure.

A *key* names what is shared: ``nexthop:example.com``, ``site:mx1.p.example,mx2.p.example``, ``provider:NAME``,
``account:NAME``, ``source:192.0.2.1``, ``tenant:NAME``. A *gate* is a key with its numbers. A session passes all
gates of its mail, or none of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Self

from mailq.limits.buckets import NO_END, Rate
from mailq.limits.window import State, WindowRule
from mailq.status import Failure

ZERO: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A key with its numbers.

    Whoever shares a key should give it the same numbers; where they differ for a moment, as after a change, each
    caller is held to its own.

    Attributes:
        key: What is shared; at most one gate of a session has it.
        sessions: Most at a time; 0 is no limit.
        window: How the number of sessions follows the destination's answers; None: it does not.
        rates: Each with a unit and an interval that no other has.
        rate_delay: Nothing begins for this long after each delivery, and only one session at a time; 0: none.
            Source: smtp-delivery Q-22, Q-40.
        kept_free: Of *sessions*, for urgent mail alone; less than *sessions*. Urgent mail may go beyond the
            window by as many.
        urgent: This mail may use them.
        messages_per_session: Most messages that a connection is used for; 0 is no limit. Whoever connects keeps count.
        recipients_per_transaction: Most recipients that a message is sent to at once; 0 is no limit.
    """

    key: str
    sessions: int = 0
    window: WindowRule | None = None
    rates: tuple[Rate, ...] = ()
    rate_delay: timedelta = ZERO
    kept_free: int = 0
    urgent: bool = False
    messages_per_session: int = 0
    recipients_per_transaction: int = 0

    @property
    def limit(self) -> int:
        """Most sessions at a time, whatever the window; 0 is no limit."""
        return 1 if self.rate_delay else self.sessions

    @property
    def has_window(self) -> bool:
        """Whether anything is kept beside slots and buckets."""
        return self.window is not None or bool(self.rate_delay)

    def most(self, size: int | None) -> int:
        """Return how many sessions may be open once this mail's has begun.

        Args:
            size: Of the window; None: there is none.
        """
        free = max(0, min(self.kept_free, self.limit - 1))
        most = self.limit - (0 if self.urgent else free) if self.limit else NO_END
        return most if size is None else min(most, size + (free if self.urgent else 0))


class Bar(StrEnum):
    """Why a gate stays shut."""

    DEAD = "dead"
    FULL = "full"
    SUSPENDED = "suspended"
    RATE = "rate"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The tightest of the gates that stayed shut: dead before full before whichever opens last.

    Attributes:
        key: Of the gate.
        bar: Why it stays shut.
        wait_seconds: Until it may open; None: when a session ends, or when somebody releases what is in the way.
        busy: Sessions that are open there.
        limit: Most of them, whatever the window; 0 is no limit.
        window: Most of them at present; None where there is no window.
        rate: The one that is used up; None unless that is the reason.
        status: What killed the destination; empty unless dead. Source: smtp-delivery Q-35.
        reason: Likewise.
    """

    key: str
    bar: Bar
    wait_seconds: float | None = None
    busy: int = 0
    limit: int = 0
    window: int | None = None
    rate: Rate | None = None
    status: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A session that passed its gates and holds a slot in each.

    Attributes:
        token: Names the slots; nobody else has it.
        gates: That it passed. A caller that finds their numbers changed may replace them; their keys stay.
    """

    token: str
    gates: tuple[Gate, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """What the session shares."""
        return tuple(gate.key for gate in self.gates)


class Verdict(StrEnum):
    """What a delivery says about the destination."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The news that one delivery brings.

    Attributes:
        verdict: NONE: no delivery was finished, so nothing moves.
        status: Of a negative one's failure, such as ``4.4.1``.
        reason: Likewise, one line.
    """

    verdict: Verdict
    status: str = ""
    reason: str = ""

    @classmethod
    def of(cls, *, deferred: bool, destination_failure: Failure | None) -> Self:
        """Return what a finished delivery says. Source: smtp-delivery Q-32.

        Args:
            deferred: Some recipient must be tried again.
            destination_failure: Why the destination looks sick; None where it looks well.
        """
        if not deferred or destination_failure is None:
            return cls(verdict=Verdict.POSITIVE)
        status = str(destination_failure.status)
        return cls(verdict=Verdict.NEGATIVE, status=status, reason=destination_failure.reason)


WELL: Final = Feedback(verdict=Verdict.POSITIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowChange:
    """What one piece of news did to one key's window.

    Attributes:
        key: Whose window.
        before: Its size.
        after: Its size.
        cohorts: Windows of failures since the last success.
        state: Afterwards.
        died: The destination is dead by this news, be it only for a moment: mail that waits for it is to be told.
        revived: It was dead until this news.
        status: Told to waiting mail; empty unless died. Source: smtp-delivery Q-35.
        reason: Likewise.
    """

    key: str
    before: int
    after: int
    cohorts: float
    state: State
    died: bool = False
    revived: bool = False
    status: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has a slot.

    Attributes:
        owner: As it named itself; empty when it gave no name.
        ends_in: The slot is free again after this, unless it is renewed.
    """

    owner: str
    ends_in: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class GateView:
    """One gate as it is at the moment.

    Attributes:
        key: Of the gate.
        limit: Most sessions, whatever the window; 0 is no limit.
        window: Most sessions at present; None where there is no window.
        cohorts: Windows of failures since the last success.
        busy: Sessions that are open.
        holders: Whose they are, by name; busy without them where they were not asked for.
        tokens: What each rate has at hand; negative where what will flow in is promised already.
        state: Whether sessions may begin.
        ends_in: When it is ready again by itself; None while ready.
        status: What killed the destination; empty unless dead.
        reason: Likewise.
    """

    key: str
    limit: int
    window: int | None
    cohorts: float
    busy: int
    holders: tuple[Holder, ...]
    tokens: tuple[tuple[Rate, float], ...]
    state: State
    ends_in: timedelta | None
    status: str = ""
    reason: str = ""


def least(numbers: Iterable[int]) -> int:
    """Return the smallest of *numbers* that are limits, 0 being none."""
    return min(filter(None, numbers), default=0)


def check(gates: Sequence[Gate]) -> None:
    """Raise ValueError where *gates* contradict themselves: that is a bug of the caller."""
    keys = [gate.key for gate in gates]
    if len(set(keys)) != len(keys):
        raise ValueError(f"the gates share a key: {keys}")
    for gate in gates:
        names = [rate.name for rate in gate.rates]
        if len(set(names)) != len(names):
            raise ValueError(f"the rates of {gate.key} share a unit and an interval")
