"""Which of the gates that mail has to pass is the tightest, from how they look. Pure.

Invariant: :func:`refusal` says what an admission would say at that moment.

Source: smtp-delivery Q-20, Q-35, Q-40
"""

from collections.abc import Sequence

from mailq.limits.buckets import NO_END, Amounts, Rate, seconds_of
from mailq.limits.gates import Bar, Gate, GateView, Refused
from mailq.limits.operations import tightest
from mailq.limits.port import ONE_SESSION
from mailq.limits.window import State, microseconds

# As in mailq.limits.buckets: what a double cannot tell from nothing.
_SLACK_MICROSECONDS = 0.5


def refusal(gate: Gate, view: GateView, want: Amounts = ONE_SESSION) -> Refused | None:
    """Return why a session may not begin; None: it may."""
    bar, wait_seconds, rate = _bar(gate, view), None, None
    if bar in {Bar.DEAD, Bar.SUSPENDED} and view.ends_in is not None:
        wait_seconds = seconds_of(microseconds(view.ends_in))
    if bar is None:
        wait, rate = _dry(view, want)
        if rate is None:
            return None
        bar, wait_seconds = Bar.RATE, seconds_of(wait)
    dead = bar is Bar.DEAD
    return Refused(
        key=gate.key,
        bar=bar,
        wait_seconds=wait_seconds,
        busy=view.busy,
        limit=view.limit,
        window=view.window,
        rate=rate,
        status=view.status if dead else "",
        reason=view.reason if dead else "",
    )


def most_sessions(gate: Gate, view: GateView) -> int:
    """Return how many sessions this mail may find open once its own has begun; 0 is no limit."""
    most = gate.most(view.window)
    return 0 if most >= NO_END else most


def tightest_of(
    gates: Sequence[Gate], views: Sequence[GateView], want: Amounts = ONE_SESSION
) -> tuple[int, Refused | None]:
    """Return which gate, by its place, stands most in the way, and why; where none does, which leaves least room.

    Args:
        gates: At least one.
        views: How each looks, in the same order.
        want: What a session asks for.
    """
    answers = [refusal(gate, view, want) for gate, view in zip(gates, views, strict=True)]
    refused = tightest(answers)
    if refused is not None:
        return answers.index(refused), refused
    rooms = [gate.most(view.window) - view.busy for gate, view in zip(gates, views, strict=True)]
    return rooms.index(min(rooms)), None


def _bar(gate: Gate, view: GateView) -> Bar | None:
    if view.state is State.DEAD:
        return Bar.DEAD
    if view.busy >= gate.most(view.window):
        return Bar.FULL
    return Bar.SUSPENDED if view.state is State.SUSPENDED else None


def _dry(view: GateView, want: Amounts) -> tuple[float, Rate | None]:
    """Return how many microseconds *want* has to wait, and for which rate; None: for none."""
    longest: tuple[float, Rate | None] = (0.0, None)
    for rate, at_hand in view.tokens:
        amount = want.of(rate.unit)
        wait = (min(amount, rate.burst) - at_hand) * rate.each if amount else 0.0
        if wait > max(longest[0], _SLACK_MICROSECONDS):
            longest = (wait, rate)
    return longest
