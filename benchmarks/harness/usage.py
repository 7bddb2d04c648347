"""CPU time, memory and connections of groups of processes, as Linux counts them.

CPU time is that of the processes found under some roots, with what their ended children had used; a
child that ends between two readings is counted by whoever waited for it. The clock ticks a hundred times
a second for each process, so a run should use a second or more.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"


class Process(NamedTuple):
    """What is read of a process: its parent, its session, and ticks used, with those of ended children."""

    parent: int
    session: int
    ticks: int


def parse_stat(text: str) -> Process:
    """Read a ``/proc/PID/stat``."""
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    return Process(int(fields[1]), int(fields[3]), sum(int(one) for one in fields[11:15]))


def processes() -> dict[int, Process]:
    """Return every process there is."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parse_stat((entry / "stat").read_text())
            except (OSError, IndexError):
                continue
    return found


def tree(roots: Iterable[int], known: Mapping[int, Process]) -> set[int]:
    """Return the processes under *roots*, these with them, and orphans of the sessions that they lead."""
    children: dict[int, list[int]] = {}
    for pid, one in known.items():
        children.setdefault(one.parent, []).append(pid)
    leaders = set(roots)
    found: set[int] = set()
    waiting = [pid for pid, one in known.items() if pid in leaders or one.session in leaders]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def cpu_seconds(groups: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Return the CPU seconds that each group has used so far."""
    now = processes()
    return {name: sum(now[pid].ticks for pid in tree(roots, now)) / _TICKS for name, roots in groups.items()}


def _proportional_bytes(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def memory_bytes(roots: Iterable[int]) -> int:
    """Return the memory of the processes under *roots*; what several share is counted once."""
    return sum(_proportional_bytes(pid) for pid in tree(roots, processes()))


def count_connections(table: str, port: int) -> int:
    """Return how many established connections of a ``/proc/net/tcp`` have *port* on this side."""
    wanted = f":{port:04X}"
    rows = (line.split() for line in table.splitlines()[1:])
    return sum(row[1].endswith(wanted) and row[3] == _ESTABLISHED for row in rows)


class Watch:
    """Samples memory and connections in a thread of its own, for the time of a ``with`` block.

    Attributes:
        peak_bytes: By group, the most memory seen.
        peak_connections: Most connections to the receiver seen at once.
    """

    def __init__(
        self, groups: Callable[[], Mapping[str, Iterable[int]]], port: int, *, interval_seconds: float = 0.5
    ) -> None:
        self._groups, self._port, self._interval = groups, port, interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
        self.peak_bytes: dict[str, int] = {}
        self.peak_connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            for name, roots in self._groups().items():
                self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), memory_bytes(roots))
            found = count_connections(Path("/proc/self/net/tcp").read_text(), self._port)
            self.peak_connections = max(self.peak_connections, found)
            if self._stop.wait(self._interval):
                return
