"""What a long run is measured by: samples, and whether anything grows that should not.

The first third of the samples is compared with the last third, by their
medians: a peak in the middle of a fault is no growth, and what fills up in the
first minutes has done so before the middle of the first third.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_RESIDENT: Final = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_THREADS: Final = re.compile(r"^Threads:\s+(\d+)", re.MULTILINE)

Sample = Mapping[str, float]
"""Values by name; a name is ``what: of which``, or only ``what``."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The last third may be this much: the first third times *factor*, and *slack*."""

    unit: str
    factor: float
    slack: float


BOUNDS: Mapping[str, Bound] = {
    "resident memory": Bound("MB", 1.15, 8.0),
    # The pool of ten starts a thread when none is idle, so it may take long until all are there.
    "threads": Bound("", 1.0, 10.0),
    "open files": Bound("", 1.1, 6.0),
    "database connections": Bound("", 1.25, 5.0),
    "rows": Bound("", 1.5, 500.0),
    "size with indexes": Bound("MB", 1.5, 2.0),
    "dead rows": Bound("", 2.0, 5000.0),
    "dispatch": Bound("ms", 2.0, 20.0),
    "claim and hand back": Bound("ms", 2.0, 20.0),
    "Redis memory": Bound("MB", 1.5, 1.0),
    "Redis keys": Bound("", 1.5, 50.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How one value went: medians of the first and the last third, the peak, and the most that the last may be."""

    name: str
    unit: str
    first: float
    last: float
    peak: float
    allowed: float

    @property
    def good(self) -> bool:
        """Whether it stayed within its bound."""
        return self.last <= self.allowed


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Compare the ends of a run; what has fewer than three values is left out."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    found = []
    for name in names:
        values = [sample[name] for sample in samples if name in sample]
        third = len(values) // 3
        if third:
            bound = BOUNDS[name.partition(":")[0]]
            first, last = median(values[:third]), median(values[-third:])
            allowed = first * bound.factor + bound.slack
            peak = max(values)
            found.append(Trend(name=name, unit=bound.unit, first=first, last=last, peak=peak, allowed=allowed))
    return found


def of_process(pid: int) -> Sample:
    """Read what the system says of a process; nothing when it is gone."""
    place = Path("/proc", str(pid))
    try:
        status = (place / "status").read_text()
        files = sum(1 for _ in (place / "fd").iterdir())
    except OSError:
        return {}
    resident, threads = _RESIDENT.search(status), _THREADS.search(status)
    if resident is None or threads is None:
        return {}
    return {"resident memory": int(resident[1]) / 1024, "threads": int(threads[1]), "open files": files}
