"""Write docs/benchmarks.md and its pictures from the results file.

python -m benchmarks.report
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.cost_model import DATABASE_CORES, PEAK, PER_DAY, USABLE, need
from benchmarks.harness.goals import judge, peers_ahead
from benchmarks.harness.plot import bars
from benchmarks.harness.workloads import WORKLOADS
from benchmarks.run import RESULTS

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHOD = Path(__file__).parent / "method.md"
_SIZED = frozenset({"W1", "W2", "W4", "W5"})
_SIZED_RATE = 100
_COLUMNS = (
    *("system", "messages/s", "least", "most", "CPU µs a message", "by component", "memory MB", "sessions"),
    *("delivered", "twice", "missing"),
)


def workload_table(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for name, one in systems.items():
        rate, micros = one["messages_per_second"], one["cpu_micros_per_message"]
        cells = (
            name,
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f}",
            f"{rate['max']:,.0f}",
            f"{one['cpu_micros_per_message_total']:,.0f}",
            ", ".join(f"{part} {value:,.0f}" for part, value in micros.items()),
            f"{sum(one['peak_memory_bytes'].values()) / 1e6:,.0f}",
            str(one["connections"]),
            f"{one['delivered']:,}",
            str(one["duplicates"]),
            str(one["missing"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def latency_table(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of W8 in Markdown."""
    lines = ["| view | p50 ms | p99 ms | least p99 | most p99 |", "|---|---|---|---|---|"]
    for name, one in views.items():
        p50, p99 = one["p50_ms"], one["p99_ms"]
        lines.append(f"| {name} | {p50['median']:.2f} | {p99['median']:.2f} | {p99['min']:.2f} | {p99['max']:.2f} |")
    return lines


def goals_table(workloads: Mapping[str, Any]) -> list[str]:
    """Return what was to be reached, and what was."""
    lines = ["| goal | to reach | measured | |", "|---|---|---|---|"]
    for one in judge(workloads):
        sign = "≤" if one.goal.at_most else "≥"
        found = "" if one.found is None else f"{one.found:.2f}{one.goal.unit}"
        lines.append(f"| {one.goal.text} | {sign} {one.goal.bound:.3g}{one.goal.unit} | {found} | {one.verdict} |")
    return lines


def sizing_table(workloads: Mapping[str, Any]) -> list[str]:
    """Return what mailq needs by kind of mail, so that a fleet can be reckoned up."""
    lines = [
        "| mail | cores of workers | of PostgreSQL | of Redis | of enqueueing | a worker's memory MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, systems in workloads.items():
        one = systems.get("mailq")
        if name not in _SIZED or one is None:
            continue
        micros = one["cpu_micros_per_message"]
        cores = (
            f"{micros.get(part, 0) * _SIZED_RATE / 1e6:.2f}" for part in ("worker", "postgresql", "redis", "enqueue")
        )
        memory = f"{one['peak_memory_bytes'].get('worker', 0) / 1e6:,.0f}"
        lines.append("| " + " | ".join((f"{name}: {WORKLOADS[name].title}", *cores, memory)) + " |")
    return lines


def day_table(workloads: Mapping[str, Any]) -> list[str]:
    """Return what amounts of mail a day need, as far as that was measured."""
    lines = [
        "| mail | a day | a second at the peak | workers | cores of PostgreSQL | servers | cores of enqueueing |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("W1", "W2"):
        one = workloads.get(name, {}).get("mailq")
        for found in (need(per_day, one["cpu_micros_per_message"]) for per_day in PER_DAY) if one else ():
            cores = (found.worker_cores, found.database_cores, found.databases, found.enqueue_cores)
            amounts = (f"{found.per_day:,}", f"{found.per_second:,.0f}", *map(str, cores))
            lines.append("| " + " | ".join((f"{name}: {WORKLOADS[name].title}", *amounts)) + " |")
    return lines


def picture(name: str, systems: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the plot of one workload."""
    key, unit = ("p99_ms", " ms") if name == "W8" else ("messages_per_second", "/s")
    values = {system: tuple(one[key][part] for part in ("median", "min", "max")) for system, one in systems.items()}
    what = "p99" if name == "W8" else "messages a second"
    return bars(f"{name}, {what}: {WORKLOADS[name].title}", values, unit=unit)


def page(results: Mapping[str, Any], text: str) -> str:
    """Return the page; *text* tells how things are measured."""
    workloads = results["workloads"]
    ahead = [f"- {one}" for one in peers_ahead(workloads)] or ["In nothing that was measured."]
    lines = [text.rstrip(), "", "## What was to be reached", "", *goals_table(workloads), ""]
    lines += ["## Where a peer wins", "", "Against mailq with one message a transaction:", "", *ahead, ""]
    lines += ["## What a fleet needs", "", f"For {_SIZED_RATE} messages a second of each kind:", ""]
    lines += [*sizing_table(workloads), ""]
    lines += [_BY_DAY, "", *day_table(workloads), ""]
    for name, systems in workloads.items():
        stamp = results["runs"][name]
        rows = latency_table(systems) if name == "W8" else workload_table(systems)
        repetitions = next(iter(systems.values()))["repetitions"]
        lines += [f"## {name}: {WORKLOADS[name].title}", "", f"![{name}](images/benchmark-{name}.svg)", "", *rows, ""]
        where = f"{stamp['cores']} cores of {stamp['processor']}, load {stamp['load']} at the start"
        software = f"Python {stamp['python']}, Linux {stamp['kernel']}"
        lines += [f"`{stamp['command']}`, {stamp['at']}, {repetitions} in turn; {where}; {software}.", ""]
    return "\n".join(lines).rstrip() + "\n"


_BY_DAY = (
    f"By the day, where the busiest minutes have {PEAK:.0f} times the average, at most {USABLE:.0%} of a core is used "
    f"then, and one PostgreSQL has {DATABASE_CORES} cores. This is reckoned, not tried:"
)


def main() -> int:
    """Write the page and the pictures."""
    results = json.loads(RESULTS.read_text())
    (DOCS / "images").mkdir(exist_ok=True)
    for name, systems in results["workloads"].items():
        (DOCS / "images" / f"benchmark-{name}.svg").write_text(picture(name, systems))
    (DOCS / "benchmarks.md").write_text(page(results, METHOD.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
