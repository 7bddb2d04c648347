"""Whether the promises were kept: what was committed against what arrived, and what the queue says about both.

The receivers do the counting. A duplicate is explained when the queue itself
says that nobody could know: each surplus copy needs an attempt in the history
that ended without an answer, or with the loss of its worker.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from mailq.queue.states import State
from mailq.queue.tables import attempt, in_state, lease, recipient
from mailq.status import Stage

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What the queue says of one recipient.

    Attributes:
        state: As stored.
        attempts: How many were counted.
        recorded: How many stand in the history.
        sent: How many of these ended with the message sent.
        doubts: In how many places the history says that the message may have been sent without anybody knowing.
    """

    state: str
    attempts: int = 1
    recorded: int = 1
    sent: int = 1
    doubts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one trial.

    Attributes:
        mails: Recipients whose mail was committed.
        lost: Those who did not get it, or whose mail is not known to be sent.
        explained: Surplus copies that the queue calls uncertain.
        unexplained: Recipients with more copies than that.
        broken: Invariants that do not hold, in words.
        worst_delay_seconds: Longest time from commit to arrival.
    """

    mails: int
    lost: tuple[str, ...]
    explained: int
    unexplained: tuple[str, ...]
    broken: tuple[str, ...]
    worst_delay_seconds: float

    @property
    def good(self) -> bool:
        """Whether everything is as promised."""
        return not (self.lost or self.unexplained or self.broken)


@dataclass(slots=True)
class Evidence:
    """What is known when everything has come to rest.

    Attributes:
        committed: Recipients whose transaction was answered, and when.
        doubtful: Those whose transaction was not.
        taken: By the receivers: copies.
        first_taken_at: By the receivers: when the first copy came.
        facts: By the queue; what was deleted meanwhile is missing.
        poison: Recipients that must not get anything and must end in quarantine.
        leases: How many are left.
        listed: Recipients whom the queue lists as ever uncertain; None: it was not asked.
    """

    committed: Mapping[str, float]
    doubtful: Collection[str]
    taken: Counter[str]
    first_taken_at: Mapping[str, float]
    facts: Mapping[str, Fact]
    poison: Collection[str] = ()
    leases: int = 0
    listed: Collection[str] | None = None


def judge(evidence: Evidence) -> Verdict:
    """Compare what was promised with what is."""
    promised = set(evidence.committed) | (set(evidence.doubtful) & set(evidence.facts))
    lost = sorted(one for one in promised if not _has_arrived(one, evidence))
    surplus = {one: count - 1 for one, count in evidence.taken.items() if count > 1}
    unexplained = sorted(one for one, count in surplus.items() if count > _doubts(one, evidence))
    delays = [evidence.first_taken_at[one] - at for one, at in evidence.committed.items() if one in evidence.taken]
    return Verdict(
        mails=len(promised),
        lost=tuple(lost),
        explained=sum(min(count, _doubts(one, evidence)) for one, count in surplus.items()),
        unexplained=tuple(unexplained),
        broken=tuple(_broken(evidence)),
        worst_delay_seconds=max(delays, default=0.0),
    )


def _has_arrived(one: str, evidence: Evidence) -> bool:
    fact = evidence.facts.get(one)
    return one in evidence.taken and fact is not None and fact.state == State.SENT


def _doubts(one: str, evidence: Evidence) -> int:
    fact = evidence.facts.get(one)
    return 0 if fact is None else fact.doubts


def _broken(evidence: Evidence) -> list[str]:
    facts, taken = evidence.facts, evidence.taken
    found = {
        "sent although its transaction was rolled back": [one for one in taken if one not in facts],
        "attempts that the history does not tell of": [
            one for one, fact in facts.items() if fact.attempts != fact.recorded
        ],
        "sent more than once by the history": [one for one, fact in facts.items() if fact.sent > 1],
        "came twice and not listed as uncertain": [
            one
            for one, count in taken.items()
            if evidence.listed is not None and count > 1 and one not in evidence.listed
        ],
        "poison that went through": [one for one in evidence.poison if one in taken],
        "poison out of quarantine": [
            one for one in evidence.poison if one not in facts or facts[one].state != State.QUARANTINED
        ],
    }
    told = [f"{len(ones)} {what}: {', '.join(sorted(ones)[:_SHOWN])}" for what, ones in found.items() if ones]
    return told + ([f"{evidence.leases} leases are left"] if evidence.leases else [])


def facts_of(connection: Connection, *, sender: str = "") -> dict[str, Fact]:
    """Read what the queue says of each recipient, by address."""
    history: dict[int, list[Any]] = {}
    for row in connection.execute(select(attempt.c.recipient_id, attempt.c.outcome, attempt.c.earlier)):
        history.setdefault(row.recipient_id, []).append(row)
    rows = connection.execute(select(recipient.c.id, recipient.c.address, recipient.c.state, recipient.c.attempts))
    return {row.address: _fact(row, history.get(row.id, [])) for row in rows}


def _fact(row: Any, history: list[Any]) -> Fact:
    return Fact(
        state=row.state,
        attempts=row.attempts,
        recorded=len(history),
        sent=sum(1 for each in history if each.outcome == "sent"),
        doubts=sum(doubts_in(each.outcome, each.earlier) for each in history),
    )


def doubts_in(outcome: str, earlier: Collection[Mapping[str, str]]) -> int:
    """Return how many servers of one attempt may have taken the message without anybody knowing."""
    unanswered = sum(1 for each in earlier if Stage.END_OF_DATA.value in each["reason"])
    return unanswered + (outcome == "uncertain")


def unfinished(connection: Connection) -> int:
    """Return how many recipients are on their way, and how many leases there are, together."""
    waiting = select(func.count()).select_from(recipient).where(in_state(State.QUEUED, State.LEASED))
    return int(connection.execute(waiting).scalar_one()) + leases_left(connection)


def leases_left(connection: Connection) -> int:
    """Return how many leases there are."""
    return int(connection.execute(select(func.count()).select_from(lease)).scalar_one())
