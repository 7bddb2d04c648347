"""Leases no larger than a session can send in its time."""

import pytest

from mailq.worker.lanes import LONGEST_SECONDS, BatchSize

QUICK = 0.5


def test_a_lease_shrinks_to_what_was_sent_in_time_and_grows_again() -> None:
    size = BatchSize(100)
    seen = []
    for done in (6, 12, 24, 1, 0):
        size.note(done, of=size.now if done > 1 and done == size.now else 100, seconds=QUICK)
        seen.append(size.now)
    assert [12, 24, 48, 2, 1] == seen


def test_a_lease_that_was_done_in_time_doubles_up_to_the_most() -> None:
    size = BatchSize(100, 0)
    size.note(1, of=100, seconds=QUICK)
    grown = [2]
    while grown[-1] < 100:
        size.note(size.now, of=size.now, seconds=QUICK)
        grown.append(size.now)
    assert [2, 4, 8, 16, 32, 64, 100] == grown


@pytest.mark.parametrize(
    ("following", "seconds"),
    [
        (80, 0.0),
        (80, LONGEST_SECONDS / 2),
        (40, LONGEST_SECONDS),
        (20, 2 * LONGEST_SECONDS),
        (1, 1000 * LONGEST_SECONDS),
    ],
)
def test_slow_servers_get_no_more_than_lasts_for_a_while(following: int, seconds: float) -> None:
    size = BatchSize(1000)
    size.note(20, of=1000, seconds=QUICK)
    size.note(40, of=40, seconds=seconds)
    assert following == size.now
