"""What limits some mail has to pass, who says so, and who holds them now: for people, and for explanations.

What applies is asked of the rules that workers ask; how it looks, of whoever counts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from mailq.errors import InfrastructureError
from mailq.limits.fields import shown
from mailq.limits.gates import Bar, GateView, Refused
from mailq.limits.port import Limits
from mailq.limits.rules import Applied, RuleBook, Traffic
from mailq.limits.shares import WORKERS, most_unproven
from mailq.limits.tight import most_sessions, tightest_of
from mailq.queue.blockers import Sessions
from mailq.settings import Settings

_RATE_FIELDS = ("rate", "recipient_rate", "session_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldView:
    """One number, and who says so."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """One limit.

    Attributes:
        key: What is shared.
        fields: What is said of it.
        limit: Most sessions for ordinary mail at present; 0 is no limit.
        window: Most sessions as feedback has it; None: that does not count here, or nobody can be asked.
        busy: Sessions that are open; None, as for all that follows: nobody can be asked.
        holders: How many of them each worker has.
        at_hand: What may be sent at once, by rate.
        state: ready, dead or suspended.
        opens_in: When it is ready again by itself; None while ready.
        reason: Why it is dead; empty unless it is.
    """

    key: str
    fields: Sequence[FieldView]
    limit: int
    window: int | None = None
    busy: int | None = None
    holders: Mapping[str, int] | None = None
    at_hand: Mapping[str, float] | None = None
    state: str | None = None
    opens_in: timedelta | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsView:
    """All limits of some mail.

    Attributes:
        nexthop: Where it goes.
        hosts: Names of the nexthop's servers; empty where they are not known.
        limits: That of the nexthop first.
        tightest: The key of the one that stands most in the way of the next session.
        shut: Why that cannot begin now; empty: it can, or nobody can be asked.
        problem: Why the servers are not known, or nobody could be asked for sessions; empty: nothing of the kind.
        not_in_force: What somebody said to no effect.
    """

    nexthop: str
    hosts: Sequence[str] = ()
    limits: Sequence[LimitView] = ()
    tightest: str = ""
    shut: str = ""
    problem: str = ""
    not_in_force: Sequence[str] = field(default_factory=tuple)


def view(applied: Sequence[Applied], limits: Limits | None) -> tuple[Sequence[LimitView], str, str, str]:
    """Return how each limit is, the key of the tightest, why it is shut, and why nobody could be asked.

    Args:
        applied: What has to be passed; at least one.
        limits: Whoever counts; None: nobody can be asked.
    """
    gates = [one.gate for one in applied]
    looks, problem = _look(applied, limits)
    if looks is None:
        return [_unseen(one) for one in applied], "", "", problem
    place, refused = tightest_of(gates, looks)
    shut = "" if refused is None else _shut(applied[place], refused)
    seen = [_seen(one, look) for one, look in zip(applied, looks, strict=True)]
    return seen, gates[place].key, shut, ""


def sessions_for(rules: RuleBook, traffic: Traffic, limits: Limits | None) -> Sessions:
    """Return the tightest limit that *traffic* has to pass, and who talks there, for an explanation."""
    applied = rules.applied(traffic)
    looks, _ = _look(applied, limits)
    if looks is None:
        gate = applied[0].gate
        return Sessions(limit=gate.limit, owners=None, key=gate.key, source=_source(applied[0], "sessions"))
    place, refused = tightest_of([one.gate for one in applied], looks)
    one, look = applied[place], looks[place]
    full = refused is None or refused.bar is Bar.FULL
    wait = None if refused is None else refused.wait_seconds
    return Sessions(
        limit=most_sessions(one.gate, look),
        owners=tuple(holder.owner for holder in look.holders),
        key=one.gate.key,
        source=_who_says(one, look, refused),
        shut="" if full or refused is None else _shut(one, refused),
        opens_in=None if wait is None else timedelta(seconds=wait),
        numbers=_numbers(look),
    )


def most_unproven_now(settings: Settings, limits: Limits | None) -> int:
    """Return how many sessions there may be with nexthops that nothing good is known of, by the workers there are."""
    workers = 1
    if limits is not None:
        with suppress(InfrastructureError):
            workers = max(1, limits.look([WORKERS])[0].busy)
    return most_unproven(threads=settings.worker_concurrency, workers=workers)


def _look(applied: Sequence[Applied], limits: Limits | None) -> tuple[Sequence[GateView] | None, str]:
    if limits is None:
        return None, "each worker process counts its own sessions, so nobody can be asked from here"
    try:
        return limits.look([one.gate for one in applied]), ""
    except InfrastructureError as error:
        return None, str(error)


def _shut(one: Applied, refused: Refused) -> str:
    key = one.gate.key
    if refused.bar is Bar.DEAD:
        return f"{key} is dead ({refused.reason})"
    if refused.bar is Bar.SUSPENDED:
        return f"{key} pauses for {_text(one, 'rate_delay')} after each delivery"
    if refused.bar is Bar.RATE and refused.rate is not None:
        return f"{key} has used up its {shown(_field_of(refused), (refused.rate,))} of {refused.rate.unit.value}"
    most = refused.limit if refused.window is None else min(refused.limit or refused.window, refused.window)
    return f"{refused.busy} of {most} sessions to {key} are open"


def _who_says(one: Applied, look: GateView, refused: Refused | None) -> str:
    """Return who set what stands in the way."""
    if refused is not None and refused.bar is Bar.DEAD:
        return _source(one, "failed_cohort_limit")
    if refused is not None and refused.bar is Bar.RATE:
        return _source(one, _field_of(refused))
    if one.gate.rate_delay:
        return _source(one, "rate_delay")
    if look.window is not None and (not look.limit or look.window < look.limit):
        return f"feedback: a window of {look.window}, at most {look.limit or 'any number'}"
    return _source(one, "sessions")


def _field_of(refused: Refused) -> str:
    units = {"messages": "rate", "recipients": "recipient_rate", "sessions": "session_rate"}
    return units[refused.rate.unit.value] if refused.rate is not None else "sessions"


def _source(one: Applied, name: str) -> str:
    return one.given[name].source if name in one.given else ""


def _text(one: Applied, name: str) -> str:
    return one.given[name].text if name in one.given else ""


def _numbers(look: GateView) -> dict[str, object]:
    numbers: dict[str, object] = {"concurrency_limit": look.limit}
    if look.window is not None:
        numbers["window"] = look.window
        numbers["failed_cohorts"] = round(look.cohorts, 3)
    numbers.update({f"at_hand_{name}": count for name, count in _at_hand(look).items()})
    if look.reason:
        numbers["limit_reason"] = look.reason
    return numbers


def _at_hand(look: GateView) -> dict[str, float]:
    fields = dict(zip(("messages", "recipients", "sessions"), _RATE_FIELDS, strict=True))
    return {
        f"{shown(fields[rate.unit.value], (rate,))} of {rate.unit.value}": round(count, 3)
        for rate, count in look.tokens
    }


def _fields(one: Applied) -> list[FieldView]:
    return [FieldView(name=said.name, value=said.text, source=said.source) for said in one.given.values()]


def _unseen(one: Applied) -> LimitView:
    return LimitView(key=one.gate.key, fields=_fields(one), limit=one.gate.limit)


def _seen(one: Applied, look: GateView) -> LimitView:
    return LimitView(
        key=one.gate.key,
        fields=_fields(one),
        limit=most_sessions(one.gate, look),
        window=look.window,
        busy=look.busy,
        holders=dict(sorted(Counter(holder.owner or "unknown" for holder in look.holders).items())),
        at_hand=_at_hand(look),
        state=look.state.value,
        opens_in=look.ends_in,
        reason=look.reason,
    )
