"""What stands in a recipient's way: one rule each, in the order in which they do. Pure.

Source: smtp-delivery Q-01, Q-03, Q-13, Q-20, Q-35
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from mailq.queue.situation import MOST_COUNTED, Situation
from mailq.queue.states import FINAL, State

_REASON_LENGTH: Final = 300


class Blocker(StrEnum):
    """What keeps a recipient from being tried at this moment."""

    NOTHING = "nothing"
    NOT_NOTICED = "not noticed"
    NOT_DUE = "not due"
    SCHEDULED = "scheduled"
    HELD = "held"
    UNCERTAIN = "uncertain"
    QUARANTINED = "quarantined"
    SUSPENDED = "suspended"
    DEAD_DESTINATION = "dead destination"
    NO_SESSION = "no session"
    LIMITED = "limited"
    NO_WORKER = "no worker"
    IN_BATCH = "in batch"
    BEING_DELIVERED = "being delivered"
    WORKER_LOST = "worker lost"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The tightest limit that a recipient's mail has to pass, and who talks there.

    Attributes:
        limit: Most sessions for mail of this recipient's priority at present; 0 is no limit.
        owners: The worker of each slot that is taken; None: they cannot be counted now.
        key: What is shared, such as ``nexthop:example.com``; empty: the nexthop.
        source: Who says so; empty: not known.
        shut: Why no session may begin though one is free, for people; empty: one may.
        opens_in: When it may; None: not known.
        numbers: What whoever counts looked at, by name.
    """

    limit: int
    owners: tuple[str, ...] | None
    key: str = ""
    source: str = ""
    shut: str = ""
    opens_in: timedelta | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def are_taken(self) -> bool:
        """Whether none is free."""
        return bool(self.limit) and self.owners is not None and len(self.owners) >= self.limit

    @property
    def may_begin(self) -> bool:
        """Whether one more may begin."""
        return not (self.are_taken or self.shut)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found: see :class:`mailq.queue.explain.Explanation`, whose fields these become."""

    blocker: Blocker
    sentence: str
    taken_next: bool | None = False
    at: datetime | None = None
    next: str = ""


def find(situation: Situation, sessions: Sessions) -> Finding:
    """Ask the rules in the order in which they stand in a recipient's way."""
    for rule in _RULES:
        found = rule(situation, sessions)
        if found is not None:
            return found
    since = instant(situation.due_at)
    return Finding(
        Blocker.NOTHING,
        f"is due since {since} and is taken up as soon as a worker answers the ring{_ahead(situation)}",
        taken_next=True,
        at=situation.now,
    )


def _finished(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.stored_state not in FINAL:
        return None
    told = f"{one.state.value} at {instant(one.finished_at)}"
    if one.signed_by is not None:
        told += f" by {one.signed_by.actor}{_because(one.signed_by.reason)}"
    elif one.last_reason or one.last_status:
        told += f": {_last(one)}"
    return Finding(Blocker.FINISHED, f"was {told}", next="Nothing: it is finished.")


def _quarantined(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.stored_state is not State.QUARANTINED:
        return None
    where = f": {_cut(one.fault.strip().splitlines()[-1])}" if one.fault.strip() else ""
    return Finding(
        Blocker.QUARANTINED,
        f"is in quarantine, since {one.stumbles} attempts in a row made our own code stumble{where}",
        next='Nothing until somebody says "mailq release".',
    )


def _held(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.stored_state is not State.HELD:
        return None
    until = 'Nothing until somebody says "mailq release".'
    if one.signed_by is None and one.uncertain_at is not None:
        return Finding(
            Blocker.UNCERTAIN,
            f"is held, since it may have been sent at {instant(one.uncertain_at)}: {_last(one)}",
            next=until,
        )
    by = "" if one.signed_by is None else f" by {one.signed_by.actor} since {instant(one.signed_by.at)}"
    why = "" if one.signed_by is None else _because(one.signed_by.reason)
    return Finding(Blocker.HELD, f"is held{by}{why}", next=until)


def _leased(one: Situation, sessions: Sessions) -> Finding | None:
    holding = one.holding
    if holding is None:
        return None
    since = f"worker {holding.owner} since {instant(holding.since_at)}"
    if not holding.is_over:
        if holding.at_work:
            return Finding(Blocker.BEING_DELIVERED, f"is being delivered by {since}", next="What the server says.")
        return Finding(Blocker.IN_BATCH, f"is in the batch of {since}; its turn comes", next="That worker tries it.")
    lost = f"was taken by {since}, which is lost: its lease ran out at {instant(holding.ends_at)}"
    if holding.at_work:
        return Finding(
            Blocker.WORKER_LOST,
            f"{lost}; it may have been sent",
            taken_next=None,
            next="The dispatcher's next round applies the policy for uncertain mail.",
        )
    free = one.may_be_claimed is True and one.dispatcher is not None and sessions.may_begin
    return Finding(
        Blocker.WORKER_LOST,
        f"{lost} before it came to this one",
        taken_next=free if one.may_be_claimed is not None else None,
        at=one.now,
        next="The dispatcher's next round makes it due again." if one.dispatcher else _NO_WORKER,
    )


def _not_due(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.is_due:
        return None
    at: datetime | None = one.due_at
    more = ""
    if one.suspension is not None:
        ends_at = one.suspension.until_at
        at = None if ends_at is None else max(one.due_at, ends_at)
        more = f"; also, {_stopped(one)}"
    due = f"{instant(one.due_at)} (in {span(one.due_at - one.now)})"
    if one.attempts == 0:
        return Finding(Blocker.SCHEDULED, f"is scheduled for {due}{more}", at=at)
    return Finding(Blocker.NOT_DUE, f"waits until {due}, because the last answer was: {_last(one)}{more}", at=at)


def _suspended(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.suspension is None:
        return None
    at = one.suspension.until_at
    next_step = f'Nothing until somebody says "mailq resume {one.suspension.pattern}".' if at is None else ""
    return Finding(Blocker.SUSPENDED, f"is due, but {_stopped(one)}", at=at, next=next_step)


def _dead(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.dead is None:
        return None
    since = f"is due, but {one.nexthop} is dead since {instant(one.dead.since)} ({_cut(one.dead.reason)})"
    if one.may_be_claimed is None:
        told = f"{since}; one recipient is tried now, as a probe"
        return Finding(Blocker.DEAD_DESTINATION, told, taken_next=None)
    told = f"{since}; one recipient is tried at {instant(one.dead.probe_at)}, as a probe"
    return Finding(Blocker.DEAD_DESTINATION, told, next="When the probe gets through, everything that is due flows.")


def _no_worker(one: Situation, _sessions: Sessions) -> Finding | None:
    if one.dispatcher is not None:
        return None
    told = f"is due since {instant(one.due_at)}, but no worker is alive to be the dispatcher"
    return Finding(Blocker.NO_WORKER, told, next=_NO_WORKER)


def _limited(one: Situation, sessions: Sessions) -> Finding | None:
    if not sessions.shut:
        return None
    at = None if sessions.opens_in is None else one.now + sessions.opens_in
    until = "" if at is None else f" until {instant(at)}"
    told = f"is due, but {sessions.shut}{until}{_said_by(sessions)}{_ahead(one)}"
    return Finding(Blocker.LIMITED, told, at=at, next="" if at else "A session begins when the limit allows it.")


def _no_session(one: Situation, sessions: Sessions) -> Finding | None:
    if not sessions.are_taken:
        return None
    used = Counter(owner or "unknown" for owner in sessions.owners or ())
    whom = ", ".join(f"{owner}: {count}" for owner, count in used.most_common(5))
    where = sessions.key if sessions.key and sessions.key != f"nexthop:{one.nexthop}" else one.nexthop
    taken = f"{used.total()} of {sessions.limit} sessions to {where} are taken ({whom})"
    told = f"is due, but {taken}{_said_by(sessions)}{_ahead(one)}"
    return Finding(Blocker.NO_SESSION, told, next="Those who hold the sessions go on until nothing is due.")


def _not_noticed(one: Situation, _sessions: Sessions) -> Finding | None:
    if not one.is_fresh:
        return None
    told = f"is new, and the dispatcher's round after its arrival has {one.nexthop} rung{_ahead(one)}"
    return Finding(Blocker.NOT_NOTICED, told, taken_next=True, at=one.now)


_RULES: Sequence[Callable[[Situation, Sessions], Finding | None]] = (
    _finished,
    _quarantined,
    _held,
    _leased,
    _not_due,
    _suspended,
    _dead,
    _no_worker,
    _limited,
    _no_session,
    _not_noticed,
)
_NO_WORKER: Final = 'Start a worker: "mailq worker". Mail waits for it.'


def _stopped(one: Situation) -> str:
    stop = one.suspension
    if stop is None:
        return ""
    until = "until somebody resumes it" if stop.until_at is None else f"until {instant(stop.until_at)}"
    return (
        f"{one.nexthop} is suspended ({stop.pattern}) by {stop.actor} since {instant(stop.since_at)} {until}"
        f"{_because(stop.reason)}"
    )


def _said_by(sessions: Sessions) -> str:
    return f"; limit: {sessions.source}" if sessions.source else ""


def _ahead(one: Situation) -> str:
    if not one.ahead:
        return ""
    return f", behind {'at least ' if one.ahead >= MOST_COUNTED else ''}{one.ahead} others"


def _last(one: Situation) -> str:
    return _cut(f"{one.last_status} {one.last_reason}".strip()) or "none"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _cut(text: str) -> str:
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"


def instant(when: datetime | None) -> str:
    """Return an instant as people read it."""
    return "an unknown time" if when is None else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def span(duration: timedelta) -> str:
    """Return a duration as people read it, to the second."""
    return str(timedelta(seconds=max(round(duration.total_seconds()), 0)))
