"""How many of a destination's sessions which mail may use. Pure.

Ordinary mail may use all but a few; the few are for urgent mail alone, so it
begins at once though thousands of newsletters keep every other session busy.
"""

from math import ceil
from typing import Final

from mailq.settings import Settings

FEWEST_TO_SHARE: Final = 5
"""A destination with fewer sessions keeps none free: too much of it would lie idle."""


def kept_free(settings: Settings, limit: int) -> int:
    """Return how many of *limit* sessions are kept free for urgent mail."""
    if limit < FEWEST_TO_SHARE or settings.urgent_priority < 0:
        return 0
    return min(ceil(limit * settings.urgent_sessions), limit - 1)


def ordinary_limit(settings: Settings) -> int:
    """Return how many sessions to one nexthop may be in use when ordinary mail begins another; 0 is no limit."""
    limit = settings.destination_concurrency_limit
    return limit - kept_free(settings, limit)


def limit_for(settings: Settings, *, priority: int) -> int:
    """Return how many sessions to one nexthop may be in use when mail of *priority* begins another; 0 is no limit."""
    return settings.destination_concurrency_limit if priority <= settings.urgent_priority else ordinary_limit(settings)
