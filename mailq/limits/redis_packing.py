"""What the script for Redis is sent, and what it answers. Pure.

A request is one string of bytes and the names of the keys: a client sends few
long arguments faster than many short ones. ``limits.lua`` reads it in the same
order. An answer is a number, or JSON that is read already.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from mailq.limits.buckets import Amounts, Unit
from mailq.limits.gates import Admitted, Bar, Feedback, Gate, GateView, Holder, Refused, Verdict, WindowChange
from mailq.limits.port import owner_of
from mailq.limits.window import State, WindowRule, microseconds, told_of

Call = tuple[tuple[bytes, ...], bytes]
"""Names of keys, and the request."""

_ONE_GOOD: Final = b'[["positive","",""]]'
_NUMBERS: Final = Struct(">8d")
_SHORT: Final = Struct(">H")
_LONG: Final = Struct(">I")
_GATE: Final = Struct(">14d")
_RATE: Final = Struct(">3dB")
_UNITS: Final = {Unit.MESSAGES: 1, Unit.RECIPIENTS: 2, Unit.SESSIONS: 3}
_UNMOVED: Final = WindowRule()
_OPERATIONS: Final = ("admit", "spend", "note", "release", "renew", "look", "room", "revive")
_PREFIXES: Final = {name: bytes([len(name)]) + name.encode() for name in _OPERATIONS}


def packed(
    operation: str, admitted: Admitted, *, prefix: str, numbers: tuple[int, ...], news: Sequence[Feedback]
) -> Call:
    """Return a request.

    Args:
        operation: One of the port's.
        admitted: Whose token and gates it is about.
        prefix: Of every key.
        numbers: The time or -1, the operation's duration or flag, what is wanted and what is needed of each unit.
        news: Of finished deliveries.
    """
    names, gates = _names_and_numbers(prefix, admitted.gates)
    token, told = admitted.token.encode(), _packed_news(news)
    head = _NUMBERS.pack(*numbers) + _PREFIXES[operation]
    return names, b"".join((head, _SHORT.pack(len(token)), token, _LONG.pack(len(told)), told, gates))


@lru_cache(maxsize=4096)
def _names_and_numbers(prefix: str, gates: tuple[Gate, ...]) -> tuple[tuple[bytes, ...], bytes]:
    """Return the names of what is kept of *gates*, and what the script must know of them."""
    names = tuple(f"{prefix}limits:{kind}:{gate.key}".encode() for gate in gates for kind in ("slots", "state"))
    return names, b"".join([_packed_gate(gate) for gate in gates])


def _packed_gate(gate: Gate) -> bytes:
    rule = gate.window or _UNMOVED
    numbers = _GATE.pack(
        gate.limit,
        gate.kept_free,
        gate.urgent,
        gate.has_window,
        gate.window is not None,
        microseconds(gate.rate_delay),
        rule.initial,
        rule.positive.number,
        rule.positive.by_concurrency,
        rule.negative.number,
        rule.negative.by_concurrency,
        rule.failed_cohort_limit,
        microseconds(rule.dead_time),
        len(gate.rates),
    )
    names = [(rate, rate.name.encode()) for rate in gate.rates]
    return numbers + b"".join(
        _RATE.pack(_UNITS[rate.unit], rate.each, rate.burst, len(name)) + name for rate, name in names
    )


def _packed_news(news: Sequence[Feedback]) -> bytes:
    if len(news) == 1 and news[0].verdict is Verdict.POSITIVE:
        return _ONE_GOOD
    told = [(one.verdict, *told_of(one.status, one.reason)) for one in news if one.verdict is not Verdict.NONE]
    # A reason may hold what was no text to begin with.
    return json.dumps(told, ensure_ascii=False).encode(errors="replace") if told else b""


def each_of(amounts: Amounts) -> tuple[int, int, int]:
    """Return how much of each unit, in the script's order."""
    return amounts.messages, amounts.recipients, amounts.sessions


def refused_of(answer: Sequence[Any], gates: Sequence[Gate]) -> Refused:
    """Read why a gate stays shut."""
    index, bar, wait, busy, size, rate, status, reason = answer
    gate = gates[index - 1]
    return Refused(
        key=gate.key,
        bar=Bar(bar),
        wait_seconds=None if float(wait) < 0 else float(wait) / 1e6,
        busy=busy,
        limit=gate.limit,
        window=None if size < 0 else size,
        rate=None if rate < 0 else gate.rates[rate - 1],
        status=status,
        reason=reason,
    )


def changes_of(answer: Iterable[Sequence[Any]], gates: Sequence[Gate]) -> tuple[WindowChange, ...]:
    """Read what news did."""
    return tuple(
        WindowChange(
            key=gates[index - 1].key,
            before=before,
            after=after,
            cohorts=float(cohorts),
            state=State(state),
            died=bool(died),
            revived=bool(revived),
            status=status,
            reason=reason,
        )
        for index, before, after, cohorts, state, died, revived, status, reason in answer
    )


def view_of(gate: Gate, answer: Sequence[Any]) -> GateView:
    """Read how a gate is."""
    size, cohorts, state, left, status, reason, buckets, held = (value if value != {} else [] for value in answer)
    holders = sorted((owner_of(token), float(ends)) for token, ends in zip(held[::2], held[1::2], strict=True))
    return GateView(
        key=gate.key,
        limit=gate.limit,
        window=None if size < 0 else size,
        cohorts=float(cohorts),
        busy=len(holders),
        holders=tuple(Holder(owner=owner, ends_in=timedelta(microseconds=ends)) for owner, ends in holders),
        tokens=tuple(
            (rate, rate.burst - float(full_in) / rate.each) for rate, full_in in zip(gate.rates, buckets, strict=True)
        ),
        state=State(state),
        ends_in=None if state == "ready" else timedelta(microseconds=float(left)),
        status=status,
        reason=reason,
    )
