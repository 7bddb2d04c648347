"""How many sessions urgent mail and the rest may use."""

import pytest

from mailq.limits.shares import limit_for
from mailq.settings import Settings


@pytest.mark.parametrize(
    ("limit", "urgent_priority", "priority", "expected"),
    [(20, 2, 2, 20), (20, 2, 3, 18), (4, 2, 9, 4), (0, 2, 9, 0), (20, -1, 0, 20), (5, 2, 5, 4)],
)
def test_a_few_sessions_are_for_urgent_mail_alone(
    limit: int, urgent_priority: int, priority: int, expected: int
) -> None:
    settings = Settings(destination_concurrency_limit=limit, urgent_priority=urgent_priority)
    assert expected == limit_for(settings, priority=priority)
