"""How many of a destination's sessions which mail may use, and how many of all threads which destinations. Pure.

Ordinary mail may use all sessions of a destination but a few; the few are for
urgent mail alone, so it begins at once though thousands of newsletters keep
every other session busy.

Destinations that nothing good is known of may use three quarters of all
threads; the others are left to those that are *proven*, so mail to these goes
on at once however many others hang.
"""

from datetime import timedelta
from math import ceil
from typing import Final

from mailq.limits.gates import Gate
from mailq.settings import Settings

FEWEST_TO_SHARE: Final = 5
"""A destination with fewer sessions keeps none free: too much of it would lie idle."""

UNPROVEN: Final = "lane:unproven"
"""Key of the gate of nexthops that nothing good is known of; held by tasks alone."""
WORKERS: Final = Gate(key="lane:workers")
"""Every worker process holds a slot here, so that they can be counted."""
PROVEN_FOR: Final = timedelta(days=1)
"""A nexthop that did well is proven for this long."""


def most_unproven(*, threads: int, workers: int) -> int:
    """Return how many sessions there may be with nexthops that nothing good is known of.

    Args:
        threads: Of each process.
        workers: Processes.
    """
    return max(1, threads * workers * 3 // 4)


def kept_free(settings: Settings, limit: int) -> int:
    """Return how many of *limit* sessions are kept free for urgent mail."""
    if limit < FEWEST_TO_SHARE or settings.urgent_priority < 0:
        return 0
    return min(ceil(limit * settings.urgent_sessions), limit - 1)
