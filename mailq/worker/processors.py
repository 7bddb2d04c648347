"""How many processors this process may use: of those that it may run on, as many as its time is enough for.

A container or a unit may be given the time of one processor on a host of many.
Whoever counts processors there begins many processes, which stop each other as
soon as that time is used up.

Source: cgroups(7): ``cpu.max`` of version 2, ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` of version 1.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_MINE: Final = Path("/proc/self/cgroup")
_CPU: Final = "cpu"


def usable_processors(*, groups: Path = _GROUPS, mine: Path = _MINE) -> int:
    """Return how many processors this process may use, 1 at least.

    Args:
        groups: Where control groups are mounted.
        mine: Tells of which this process is.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [share for folder in _folders(groups, mine) for share in (_share_in(folder),) if share is not None]
    return max(1, min([there, *map(math.ceil, shares)]))


def _folders(groups: Path, mine: Path) -> Iterator[Path]:
    """Yield the folders of this process's group and of those that it is in; what is seen of them may begin anywhere."""
    for line in (_text(mine) or "").splitlines():
        number, controllers, path = line.split(":", 2)
        root = groups if number == "0" else groups / _CPU
        if number == "0" or _CPU in controllers.split(","):
            parts = [part for part in path.split("/") if part not in {"", ".."}]
            yield from (root.joinpath(*parts[:count]) for count in range(len(parts) + 1))


def _share_in(folder: Path) -> float | None:
    """Return how many processors' time a group has; None: as much as there is."""
    words = (_text(folder / "cpu.max") or "").split()
    if not words:
        words = [_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    try:
        quota, period = map(int, words)
    except ValueError:
        # No such file, or "max".
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
