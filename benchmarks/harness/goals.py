"""What must show in the results, and whether it does. Values in, values out.

Ratios are of medians of the same run. Totals of CPU time count everything on the way, what hands over with it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Workloads = Mapping[str, Mapping[str, Mapping[str, Any]]]
Measure = Callable[[Workloads], float | None]

MAILQ = ("mailq", "mailq-bulk", "mailqx", "mailq+", "mailq@", "insert", "three inserts", "mail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure and what it must reach.

    Attributes:
        text: What is compared.
        bound: What it must reach, or not exceed.
        measure: Returns the figure; None where it was not measured.
        at_most: Whether the bound is an upper one.
        unit: Behind the figures.
    """

    text: str
    bound: float
    measure: Measure
    at_most: bool = False
    unit: str = " times"

    def is_met(self, found: float) -> bool:
        """Tell whether a figure reaches the bound."""
        return found <= self.bound if self.at_most else found >= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A goal and the figure; None: not measured."""

    goal: Goal
    found: float | None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.found is None:
            return "not measured"
        return "met" if self.goal.is_met(self.found) else "not met"


def rate(workloads: Workloads, workload: str, system: str) -> float | None:
    """Return the median messages a second."""
    one = workloads.get(workload, {}).get(system)
    return None if one is None else float(one["messages_per_second"]["median"])


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below


def _rates(workload: str, system: str, *peers: str) -> Measure:
    """Compare with one of *peers*; none is the best of all configurations of Postfix."""

    def measure(workloads: Workloads) -> float | None:
        known = workloads.get(workload, {})
        names = peers or tuple(name for name in known if name.startswith("postfix"))
        found = [one for one in (rate(workloads, workload, name) for name in names) if one is not None]
        return _ratio(rate(workloads, workload, system), max(found, default=None))

    return measure


def _cpu(workload: str) -> Measure:
    def measure(workloads: Workloads) -> float | None:
        known = workloads.get(workload, {})
        if not {"mailq", "postfix"} <= known.keys():
            return None
        totals = [float(known[name]["cpu_micros_per_message_total"]) for name in ("mailq", "postfix")]
        return _ratio(*totals)

    return measure


def _worker_megabytes(workload: str) -> Measure:
    def measure(workloads: Workloads) -> float | None:
        one = workloads.get(workload, {}).get("mailq")
        return None if one is None else float(one["peak_memory_bytes"]["worker"]) / 1e6

    return measure


def _permitted(workload: str) -> Measure:
    """Of W3: a session a destination, a second for connecting, and one more for each message on it."""

    def measure(workloads: Workloads) -> float | None:
        one = workloads.get(workload, {}).get("mailq-bulk")
        if one is None:
            return None
        sessions = 1000
        return _ratio(rate(workloads, workload, "mailq-bulk"), one["messages"] / (1 + one["messages"] / sessions))

    return measure


def _latency(workloads: Workloads) -> float | None:
    views = workloads.get("W8", {})
    if not {"mail", "three inserts"} <= views.keys():
        return None
    return _ratio(views["mail"]["p99_ms"]["median"], views["three inserts"]["p99_ms"]["median"])


def _usual(workload: str) -> list[Goal]:
    return [
        Goal(
            text=f"{workload}: mailq to Postfix at its defaults", bound=3, measure=_rates(workload, "mailq", "postfix")
        ),
        Goal(text=f"{workload}: mailq to Postfix at its best", bound=2, measure=_rates(workload, "mailq")),
        Goal(text=f"{workload}: CPU a message, mailq to Postfix", bound=1 / 3, measure=_cpu(workload), at_most=True),
        Goal(
            text=f"{workload}: mailq, handed over in bulk, to Postfix at its defaults",
            bound=6,
            measure=_rates(workload, "mailq-bulk", "postfix"),
        ),
    ]


GOALS = (
    *_usual("W1"),
    *_usual("W2"),
    Goal(text="W3: mailq to Postfix at its defaults", bound=10, measure=_rates("W3", "mailq-bulk", "postfix")),
    Goal(text="W3, 10 messages each: share of what 1,000 sessions permit", bound=0.9, measure=_permitted("W3")),
    Goal(text="W3, 60 messages each: share of what 1,000 sessions permit", bound=0.9, measure=_permitted("W3long")),
    Goal(text="W3: memory of the worker", bound=500, measure=_worker_megabytes("W3"), at_most=True, unit=" MB"),
    Goal(text="W3b1: mailq to Postfix, both at their defaults", bound=1, measure=_rates("W3b1", "mailq", "postfix")),
    Goal(text="W3b1: mailq to Postfix, both with 50 sessions", bound=1, measure=_rates("W3b1", "mailq-tuned")),
    Goal(text="W3b50: mailq to Postfix at its best", bound=2, measure=_rates("W3b50", "mailq")),
    Goal(text="W4: mailq to Postfix at its defaults", bound=1, measure=_rates("W4", "mailq", "postfix")),
    Goal(text="W4: memory of the worker", bound=200, measure=_worker_megabytes("W4"), at_most=True, unit=" MB"),
    Goal(text="W5: mailq to Postfix at its defaults", bound=2, measure=_rates("W5", "mailq", "postfix")),
    Goal(text="W6: mailq to Postfix at its defaults", bound=2, measure=_rates("W6", "mailq", "postfix")),
    Goal(
        text="W7: a backlog of a million to one of a thousand",
        bound=0.9,
        measure=_rates("W7", "mailq+1000000", "mailq+1000"),
    ),
    Goal(text="W8: p99 of a mail to that of three rows", bound=1, measure=_latency, at_most=True),
    Goal(text="W9: two worker processes to one", bound=1.7, measure=_rates("W9", "mailqx2", "mailq")),
    Goal(text="W1: mailq to a Celery task a message", bound=5, measure=_rates("W1", "mailq", "celery")),
)


def judge(workloads: Workloads) -> list[Judgement]:
    """Hold the results against every goal."""
    return [Judgement(goal=goal, found=goal.measure(workloads)) for goal in GOALS]


def peers_ahead(workloads: Workloads) -> Iterator[str]:
    """Say in what a peer did better than mailq, one message a transaction, with as many injectors."""
    for workload, systems in workloads.items():
        ours = systems.get("mailq")
        if ours is None:
            continue
        for name, theirs in systems.items():
            if name.startswith(MAILQ) or "@" in name:
                continue
            found = [f"{what} ({ratio:.1f} times)" for what, ratio in _ahead(ours, theirs)]
            if found:
                yield f"{workload}: {name} {', '.join(found)}"


def _ahead(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    rates = [one["messages_per_second"]["median"] for one in (theirs, ours)]
    if rates[0] > rates[1]:
        yield "sends more messages a second", rates[0] / rates[1]
    cpu = [one["cpu_micros_per_message_total"] for one in (ours, theirs)]
    if cpu[0] > cpu[1] > 0:
        yield "uses less CPU time a message", cpu[0] / cpu[1]
    memory = [sum(one["peak_memory_bytes"].values()) for one in (ours, theirs)]
    if memory[0] > memory[1] > 0:
        yield "uses less memory", memory[0] / memory[1]
