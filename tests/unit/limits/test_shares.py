"""How many sessions are kept free for urgent mail."""

from typing import Any

import pytest

from mailq.limits.shares import kept_free, most_unproven
from mailq.settings import Settings


@pytest.mark.parametrize(
    ("limit", "fields", "free"),
    [
        (20, {}, 2),
        (100, {}, 10),
        (5, {}, 1),
        (4, {}, 0),
        (1, {}, 0),
        (0, {}, 0),
        (20, {"urgent_sessions": 0.0}, 0),
        (20, {"urgent_sessions": 0.5}, 10),
        (20, {"urgent_sessions": 1.0}, 19),
        (20, {"urgent_priority": -1}, 0),
    ],
)
def test_a_few_sessions_are_for_urgent_mail_alone(limit: int, fields: dict[str, Any], free: int) -> None:
    assert free == kept_free(Settings(**fields), limit)


@pytest.mark.parametrize(("threads", "workers", "most"), [(100, 1, 75), (100, 4, 300), (10, 3, 22), (1, 1, 1)])
def test_a_quarter_of_all_threads_is_left_to_those_that_do_well(threads: int, workers: int, most: int) -> None:
    assert most == most_unproven(threads=threads, workers=workers)
