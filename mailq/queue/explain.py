"""Why a recipient is still queued, what happens next, and when: a sentence and the numbers behind it. Pure.

The rules are those that the claim, the dispatcher and the sweep act on: the
situation holds their own answers, and the waits are computed by the schedule
that the worker follows. What is said of the future holds as long as nobody
does anything and every attempt is put off.

Source: smtp-delivery Q-53 to Q-55
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mailq.queue.backoff import RetrySchedule, wait_after
from mailq.queue.blockers import Blocker, Sessions, find, instant, span
from mailq.queue.situation import Situation
from mailq.queue.states import FINAL, ShownState


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer for one recipient.

    Attributes:
        blocker: What keeps it from being tried now.
        sentence: The same for people, with who, since when and why.
        next: What happens next, for people.
        taken_next: The next round of the dispatcher and the claim that follows it take this recipient. None: they
            take one of several, or what a lost worker had begun; which, and when, is not known before.
        next_attempt_at: Not tried before; None: not known, or never.
        wait_after_that: From the next attempt to the one after it, without jitter; None: there will be none.
        expires_at: It is given up after the first attempt that is put off at or after this; None once it is finished,
            and where nothing is given up.
        warns_at: The sender is told of the delay after such an attempt; None: never, or already.
        numbers: What the rule looked at, by name.
    """

    queue_id: str
    recipient_id: int
    address: str
    nexthop: str
    state: ShownState
    blocker: Blocker
    sentence: str
    next: str
    taken_next: bool | None
    next_attempt_at: datetime | None
    wait_after_that: timedelta | None
    expires_at: datetime | None
    warns_at: datetime | None
    numbers: Mapping[str, Any] = field(default_factory=dict)


def explain(situation: Situation, *, sessions: Sessions, schedule: RetrySchedule) -> Explanation:
    """Return what *situation* means.

    Args:
        situation: Of one recipient, just read.
        sessions: With its nexthop.
        schedule: That it follows.
    """
    found = find(situation, sessions)
    is_final = situation.stored_state in FINAL
    expires_at = (situation.expires_at or situation.arrived_at + schedule.lifetime) if schedule.gives_up else None
    warns = schedule.warning and situation.warned_at is None and not is_final
    warns_at = situation.arrived_at + schedule.warning if warns else None
    wait = None
    if found.at is not None and (expires_at is None or found.at < expires_at):
        wait = wait_after(found.at - situation.arrived_at, schedule, jitter=0, attempts=situation.attempts + 1)
    return Explanation(
        queue_id=situation.queue_id,
        recipient_id=situation.recipient_id,
        address=situation.address,
        nexthop=situation.nexthop,
        state=situation.state,
        blocker=found.blocker,
        sentence=f"{situation.address} {found.sentence}.",
        next=found.next or _next(situation, found.at, wait, expires_at),
        taken_next=found.taken_next,
        next_attempt_at=found.at,
        wait_after_that=wait,
        expires_at=None if is_final else expires_at,
        warns_at=warns_at,
        numbers=_numbers(situation, sessions),
    )


def _next(one: Situation, at: datetime | None, wait: timedelta | None, expires_at: datetime | None) -> str:
    if at is None:
        return "It waits, and nothing is lost."
    told = f"Attempt {one.attempts + 1} at {instant(at)}" if at > one.now else f"Attempt {one.attempts + 1} now"
    end = "" if expires_at is None else instant(expires_at)
    if wait is None:
        return f"{told}, the last one: its time is over at {end}."
    until = f"until {end}" if end else "for as long as it takes"
    return f"{told}; if that is put off, the next after {span(wait)}, {until}."


def _numbers(one: Situation, sessions: Sessions) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "attempts": one.attempts,
        "priority": one.priority,
        "due_at": one.due_at,
        "sessions_limit": sessions.limit,
        "sessions_taken": None if sessions.owners is None else len(sessions.owners),
        "session_owners": None if sessions.owners is None else sorted(set(sessions.owners)),
        "tightest_limit": sessions.key or None,
        "limit_source": sessions.source or None,
        **sessions.numbers,
        "ahead": one.ahead,
        "next_ring_at": one.next_ring_at,
        "dispatcher": one.dispatcher,
        "suspension": None if one.suspension is None else one.suspension.pattern,
        "dead_since": None if one.dead is None else one.dead.since,
        "probe_at": None if one.dead is None else one.dead.probe_at,
        "lease_owner": None if one.holding is None else one.holding.owner,
        "lease_ends_at": None if one.holding is None else one.holding.ends_at,
        "stumbles": one.stumbles,
        "uncertain_at": one.uncertain_at,
    }
    return {name: value for name, value in numbers.items() if value is not None}
