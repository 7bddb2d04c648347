"""Whether limits held, from what receivers counted: a line for people and a verdict for each item. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_USED = 0.95
"""Of the sessions that may be used, while mail waits."""
LEAST_RATE = 0.97
RATE_WINDOW = 10
MOST_WAIT_SECONDS = 5.0
"""For other mail, beside a destination that uses up its rate."""
MOST_RATIO = 1.25
"""Of waits with and without sick destinations; what is above 1 is that all share the processors of one machine."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One item's line, and whether it is as promised."""

    line: str
    fine: bool


def judge_sessions(
    *,
    item: int,
    allowed: int,
    domains: int,
    most: int,
    used: float,
    taken: int,
    queued: int,
    left: int,
    seconds: float,
    killed: int = 0,
    redis_lost: bool = False,
) -> Verdict:
    """Judge sessions with one site.

    Args:
        item: 1 or 5.
        allowed: Sessions.
        domains: That the site serves.
        most: Connections that the receiver saw at once.
        used: Share of the sessions that were used, but for those that a killed worker held until they ran out.
        taken: Messages that the receiver took; those of killed workers may come twice.
        queued: Messages.
        left: Messages that are not sent.
        seconds: From the first full house to nearly the last message.
        killed: Workers.
        redis_lost: In the middle; then less may be used.
    """
    fine = most <= allowed and left == 0 and taken >= queued and (used >= LEAST_USED or redis_lost)
    troubles = ", Redis lost and back" if redis_lost else f", {killed} workers killed"
    return _verdict(
        f"{item}: {allowed} sessions allowed to a site of {domains} domains{troubles}; the receiver saw {most} at "
        f"most, {used:.1%} of them used while mail waited; {taken} messages of {queued} taken in {seconds:.0f} s, "
        f"{left} not sent",
        fine=fine,
    )


def judge_rate(*, allowed: int, times: Sequence[float], start: float, seconds: int, waits: Sequence[float]) -> Verdict:
    """Judge a rate by every ten seconds, from each second on.

    Args:
        allowed: Messages a second.
        times: When the receiver took one.
        start: Of what is judged.
        seconds: Its length.
        waits: Of messages to others meanwhile, in seconds; infinite for one that did not come.
    """
    rates = [
        sum(start + first <= at < start + first + RATE_WINDOW for at in times) / RATE_WINDOW
        for first in range(seconds - RATE_WINDOW + 1)
    ]
    fine = LEAST_RATE * allowed <= min(rates) and max(rates) <= allowed and max(waits) <= MOST_WAIT_SECONDS
    return _verdict(
        f"2: {allowed} messages a second allowed; the receiver saw {min(rates):.1f} to {max(rates):.1f} in every "
        f"{RATE_WINDOW} seconds of {seconds}; {len(waits)} messages to others waited {sum(waits) / len(waits):.2f} s, "
        f"{max(waits):.2f} s at most",
        fine=fine,
    )


def judge_waits(*, alone: Sequence[float], beside: Sequence[float], sick: int) -> Verdict:
    """Judge the waits of a healthy destination's mail.

    Args:
        alone: In seconds, each message's.
        beside: Beside so many sick destinations.
        sick: Destinations that never answer, or slowly.
    """
    before, after = sum(alone) / len(alone), sum(beside) / len(beside)
    ratio = after / before
    return _verdict(
        f"4: {len(beside)} messages to a healthy destination waited {after:.2f} s beside {sick} slow or dead "
        f"destinations, {before:.2f} s without them: ratio {ratio:.2f}, {MOST_RATIO:g} allowed",
        fine=ratio <= MOST_RATIO,
    )


def _verdict(line: str, *, fine: bool) -> Verdict:
    return Verdict(line if fine else f"{line}  EXCEEDED", fine)
