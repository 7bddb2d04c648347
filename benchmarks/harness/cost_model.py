"""What an amount of mail a day needs, reckoned from what a message was measured to cost. Values in, values out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PER_DAY: Final = (1_000_000, 10_000_000, 100_000_000)
PEAK: Final = 3.0
"""The busiest minutes of a day have so many times the average."""
USABLE: Final = 0.6
"""So much of a core is used at the peak; the rest is for what nobody foresaw."""
DATABASE_CORES: Final = 16
"""Of one PostgreSQL; beyond that its locks and its one log of writes are what it waits for."""
_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What an amount of mail needs at its peak.

    Attributes:
        per_day: Messages a day.
        per_second: Messages a second at the peak.
        worker_cores: As many worker processes, since each uses one core.
        database_cores: Of all databases together.
        databases: PostgreSQL servers.
        enqueue_cores: Of the applications, for handing over.
    """

    per_day: int
    per_second: float
    worker_cores: int
    database_cores: int
    databases: int
    enqueue_cores: int


def need(per_day: int, micros: Mapping[str, float]) -> Need:
    """Return what *per_day* messages need.

    Args:
        per_day: Messages a day.
        micros: Of CPU time a message, by component: ``worker``, ``postgresql``, ``enqueue``.
    """
    per_second = per_day / _DAY_SECONDS * PEAK
    worker, database, enqueue = (
        math.ceil(per_second * micros.get(part, 0.0) / 1e6 / USABLE) for part in ("worker", "postgresql", "enqueue")
    )
    return Need(
        per_day=per_day,
        per_second=per_second,
        worker_cores=worker,
        database_cores=database,
        databases=max(1, math.ceil(database / DATABASE_CORES)),
        enqueue_cores=enqueue,
    )
