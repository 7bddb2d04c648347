"""What runs yield: medians with their spread, as a table and as JSON. Values in, values out."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One timed run of one system under one workload.

    Attributes:
        workload: Its name.
        system: Its name, with what was varied.
        messages: Handed over in the timed part.
        seconds: From the first hand-over to the last acceptance.
        inject_seconds: Until the last message was handed over.
        cpu_seconds: By component.
        peak_bytes: By component.
        connections: Most sessions at once with the receiver.
        sessions: All sessions with the receiver that have ended.
        delivered: Recipients served, of all that were written to.
        duplicates: Deliveries beyond the first.
        missing: Recipients never served.
        left: Recipients without an outcome at the end, where all could have one.
        unrecorded: Deliveries whose outcome or attempt is not recorded, by a system that promises to.
        more: Figures of a workload of its own kind, by name.
    """

    workload: str
    system: str
    messages: int
    seconds: float
    inject_seconds: float = 0.0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    connections: int = 0
    sessions: int = 0
    delivered: int = 0
    duplicates: int = 0
    missing: int = 0
    left: int = 0
    unrecorded: int = 0
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def is_exact(self) -> bool:
        """Whether everybody was served once, nobody else, and all of it is recorded."""
        return not (self.duplicates or self.missing or self.left or self.unrecorded)

    def cpu_micros(self) -> dict[str, float]:
        """Return CPU microseconds a message, by component."""
        return {name: seconds / self.messages * 1e6 for name, seconds in self.cpu_seconds.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Several measurements of the same: in the middle, the least, the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return the spread of at least one value."""
        found = sorted(values)
        return cls(median=statistics.median(found), low=found[0], high=found[-1])

    def as_dict(self) -> dict[str, float]:
        """Return it as the results file has it."""
        return {"median": round(self.median, 4), "min": round(self.low, 4), "max": round(self.high, 4)}


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the results file says of one system under one workload, from its repetitions."""
    components = dict.fromkeys(name for run in runs for name in run.cpu_seconds)
    micros = {name: round(statistics.median(run.cpu_micros().get(name, 0.0) for run in runs), 1) for name in components}
    places = dict.fromkeys(name for run in runs for name in run.peak_bytes)
    extra = dict.fromkeys(name for run in runs for name in run.more)
    return {
        "messages": runs[0].messages,
        "repetitions": len(runs),
        "messages_per_second": Spread.of(run.rate for run in runs).as_dict(),
        "cpu_micros_per_message": micros,
        "cpu_micros_per_message_total": round(sum(micros.values()), 1),
        "peak_memory_bytes": {name: max(run.peak_bytes.get(name, 0) for run in runs) for name in places},
        "connections": max(run.connections for run in runs),
        "sessions": max(run.sessions for run in runs),
        "delivered": min(run.delivered for run in runs),
        "duplicates": max(run.duplicates for run in runs),
        "missing": max(run.missing for run in runs),
        "left": max(run.left for run in runs),
        "unrecorded": max(run.unrecorded for run in runs),
        **{name: Spread.of(run.more[name] for run in runs if name in run.more).as_dict() for name in extra},
    }


def summaries(runs: Iterable[Run]) -> dict[str, dict[str, Any]]:
    """Return workload → system → summary, in the order in which they first ran."""
    grouped: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault(run.workload, {}).setdefault(run.system, []).append(run)
    return {
        workload: {system: summary(several) for system, several in systems.items()}
        for workload, systems in grouped.items()
    }


_COLUMNS = ("msgs/s", "min", "max", "CPU us/msg", "memory MB", "sessions", "delivered", "twice", "missing")


def table(workload: str, systems: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of one workload as plain text."""
    width = max(len(name) for name in systems) + 2
    lines = [workload, " " * width + "".join(f"{name:>12}" for name in _COLUMNS) + "  CPU by component"]
    if all("p99_ms" in one for one in systems.values()):
        times = (
            f"{name:{width}}p50 {one['p50_ms']['median']:8.2f} ms   p99 {one['p99_ms']['median']:8.2f} ms"
            for name, one in systems.items()
        )
        return "\n".join([workload, *times])
    lines += [
        f"{name:{width}}" + "".join(f"{cell:>12}" for cell in _row(one)) + _parts(one) for name, one in systems.items()
    ]
    return "\n".join(lines)


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    rate = one["messages_per_second"]
    return (
        f"{rate['median']:.0f}",
        f"{rate['min']:.0f}",
        f"{rate['max']:.0f}",
        f"{one['cpu_micros_per_message_total']:.0f}",
        f"{sum(one['peak_memory_bytes'].values()) / 1e6:.0f}",
        str(one["connections"]),
        str(one["delivered"]),
        str(one["duplicates"]),
        str(one["missing"]),
    )


def _parts(one: Mapping[str, Any]) -> str:
    return "  " + ", ".join(f"{name} {value:.0f}" for name, value in one["cpu_micros_per_message"].items())
