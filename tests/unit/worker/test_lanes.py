"""Sessions kept free for urgent mail, and leases no larger than a session can send in its time."""

from typing import Any

import pytest

from mailq.settings import Settings
from mailq.worker.lanes import BatchSize, ordinary_limit


@pytest.mark.parametrize(
    ("fields", "ordinary"),
    [
        ({}, 18),
        ({"destination_concurrency_limit": 100}, 90),
        ({"destination_concurrency_limit": 5}, 4),
        ({"destination_concurrency_limit": 4}, 4),
        ({"destination_concurrency_limit": 1}, 1),
        ({"destination_concurrency_limit": 0}, 0),
        ({"urgent_sessions": 0.0}, 20),
        ({"urgent_sessions": 0.5}, 10),
        ({"urgent_sessions": 1.0}, 1),
        ({"urgent_priority": -1}, 20),
    ],
)
def test_ordinary_mail_leaves_a_share_of_the_sessions_free(fields: dict[str, Any], ordinary: int) -> None:
    assert ordinary == ordinary_limit(Settings(**fields))


def test_a_lease_shrinks_to_what_was_sent_in_time_and_grows_again() -> None:
    size = BatchSize(100)
    seen = []
    for done in (6, 12, 24, 1, 0):
        size.note(done, of=size.now if done > 1 and done == size.now else 100)
        seen.append(size.now)
    assert [12, 24, 48, 2, 1] == seen


def test_a_lease_that_was_done_in_time_doubles_up_to_the_most() -> None:
    size = BatchSize(100, 0)
    size.note(1, of=100)
    grown = [2]
    while grown[-1] < 100:
        size.note(size.now, of=size.now)
        grown.append(size.now)
    assert [2, 4, 8, 16, 32, 64, 100] == grown
