"""mailq and its peers side by side: the same mail, the same receiver, in turn.

    python -m benchmarks.run --workloads W1,W2 --systems mailq,postfix --repeat 3 [--messages N]

A system's name may end in ``@N``: handed over by N injectors at once, in ``xN``: with N worker processes, in
``+N``: with a backlog of N deferred recipients, as in ``mailq@10``, ``mailqx2``, ``mailq+1000``.

Everything runs in a private directory and, where this is permitted, in a network of its own with nothing but
loopback; needs root, since mail servers do. ``make bench`` installs the peers first.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.latency import measure_latency
from benchmarks.harness.measure import measure
from benchmarks.harness.network import enter_private_network
from benchmarks.harness.results import Run, summaries, table
from benchmarks.harness.system import System
from benchmarks.harness.workloads import WORKLOADS, Workload
from benchmarks.systems.exim import Exim
from benchmarks.systems.mailq_system import Mailq, MailqBulk, MailqTuned
from benchmarks.systems.naive_celery import NaiveCelery
from benchmarks.systems.post_office import PostOffice
from benchmarks.systems.postfix import Postfix, PostfixTuned
from mailq.errors import InfrastructureError

RESULTS = Path(__file__).parent / "results" / "latest.json"
SYSTEMS: Mapping[str, type[System]] = {
    one.name: one for one in (Mailq, MailqBulk, MailqTuned, Postfix, PostfixTuned, Exim, NaiveCelery, PostOffice)
}
QUICK = replace(WORKLOADS["W1"], messages=200, warm_up=20, injectors=2, seconds=60.0)
# What is told of a run that went wrong; everything else is a bug of ours.
_FAILURES = (RuntimeError, OSError, subprocess.SubprocessError, InfrastructureError)
_LABEL = re.compile(r"(?P<name>[a-z-]+?)(?:x(?P<processes>\d+))?(?:\+(?P<backlog>\d+))?(?:@(?P<injectors>\d+))?")


def parse_label(label: str) -> tuple[str, dict[str, int]]:
    """Return the system's name and what is varied of the workload.

    Raises:
        ValueError: There is no such system.
    """
    match = _LABEL.fullmatch(label)
    if match is None or match["name"] not in SYSTEMS:
        raise ValueError(f"no system {label}; there are {', '.join(SYSTEMS)}")
    return match["name"], {name: int(match[name]) for name in ("processes", "backlog", "injectors") if match[name]}


def new_system(name: str, workload: Workload) -> System:
    """Return a system that has not been started."""
    kind = SYSTEMS[name]
    return kind(settings=workload.mailq) if issubclass(kind, Mailq) else kind()


def compare(workload: Workload, labels: Sequence[str], *, repeat: int, everywhere: bool) -> list[Run]:
    """Run a workload on each system in turn, all of them *repeat* times; a failed run is told and left out."""
    runs = []
    for repetition in range(repeat):
        for label in labels:
            name, varied = parse_label(label)
            one = replace(workload, **varied)
            try:
                run = measure(new_system(name, one), one, label=label, everywhere=everywhere)
            except _FAILURES as error:
                print(f"{workload.name} {label} #{repetition + 1} FAILED: {error}", file=sys.stderr, flush=True)
                continue
            runs.append(run)
            exact = "" if run.is_exact else _wrong(run)
            micros = ", ".join(f"{part} {value:.0f}" for part, value in run.cpu_micros().items())
            print(
                f"{workload.name} {label} #{repetition + 1}: {run.rate:.0f}/s in {run.seconds:.2f} s, "
                f"handed over in {run.inject_seconds:.2f} s; CPU us: {micros}; {run.connections} sessions{exact}",
                flush=True,
            )
    return runs


def time_views(count: int, *, repeat: int) -> list[Run]:
    """Run W8; a failure is told, and leaves nothing of it."""
    try:
        return [run for _ in range(repeat) for run in measure_latency(count)]
    except _FAILURES as error:
        print(f"W8 FAILED: {error}", file=sys.stderr, flush=True)
        return []


def _wrong(run: Run) -> str:
    return f"  WRONG: {run.duplicates} twice, {run.missing} missing, {run.left} left, {run.unrecorded} not recorded"


def command(words: Sequence[str]) -> str:
    """Return what to type to get the same, wherever results go."""
    where = words.index("--output") if "--output" in words else len(words)
    return " ".join(["python -m benchmarks.run", *words[:where], *words[where + 2 :]])


def machine() -> dict[str, Any]:
    """Return what was run, where and when."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "command": command(sys.argv[1:]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 1),
    }


def write(path: Path, found: Mapping[str, Any], stamp: Mapping[str, Any]) -> None:
    """Write the results file, keeping the workloads that did not run now."""
    before = json.loads(path.read_text()) if path.exists() else {}
    workloads = before.get("workloads", {}) | dict(found)
    runs = before.get("runs", {}) | dict.fromkeys(found, stamp)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"runs": runs, "workloads": workloads}, indent=1) + "\n")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="W1,W2", help=f"of {', '.join(WORKLOADS)}; or all")
    parser.add_argument("--systems", default="", help=f"of {', '.join(SYSTEMS)}; default: those of the workload")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--messages", type=int, default=0, help="instead of the workload's own number")
    parser.add_argument("--quick", action="store_true", help="a small W1 of mailq and Postfix, once")
    parser.add_argument("--output", type=Path, default=None, help="results file; default: none is written")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; return the exit status."""
    chosen = options()
    # Told to end, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    everywhere = enter_private_network()
    if chosen.quick:
        runs = compare(QUICK, ("mailq", "postfix"), repeat=1, everywhere=everywhere)
        print(table(QUICK.title, summaries(runs)[QUICK.name]))
        return 0 if len(runs) == 2 and all(run.is_exact for run in runs) else 1  # noqa: PLR2004 - both systems
    everything: list[Run] = []
    stamp, complete = machine(), True
    for name in WORKLOADS if chosen.workloads == "all" else chosen.workloads.split(","):
        workload = WORKLOADS[name]
        if chosen.messages:
            workload = replace(workload, messages=chosen.messages)
        labels = chosen.systems.split(",") if chosen.systems else workload.systems
        if name == "W8":
            runs = time_views(chosen.messages or 2000, repeat=chosen.repeat)
            complete = complete and bool(runs)
        else:
            runs = compare(workload, labels, repeat=chosen.repeat, everywhere=everywhere)
            complete = complete and len(runs) == chosen.repeat * len(labels)
        everything += runs
        found = summaries(runs)
        for systems in found.values():
            print(f"\n{table(f'{name}: {workload.title}', systems)}\n", flush=True)
        if chosen.output:
            write(chosen.output, found, stamp)
    return 0 if complete and everything and all(run.is_exact for run in everything) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.exit(130)
