"""Leases no larger than a session can send in its time."""

import pytest

from mailq.worker.lanes import FIRST, LONGEST_SECONDS, BatchSize

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


@pytest.mark.parametrize(("first", "most"), [(FIRST, 100), (7, 7), (FIRST, FIRST + 1)])
def test_the_first_is_bounded_since_nothing_is_known_yet(first: int, most: int) -> None:
    assert first == BatchSize(most).now


@pytest.mark.parametrize(
    ("following", "done", "seconds"),
    [
        (2 * FIRST, FIRST, 0.0),
        (2 * FIRST, FIRST, LONGEST_SECONDS / 2),
        (FIRST, FIRST, LONGEST_SECONDS),
        (FIRST // 2, FIRST, 2 * LONGEST_SECONDS),
        (1, FIRST, 1000 * LONGEST_SECONDS),
    ],
)
def test_slow_servers_get_no_more_than_lasts_for_a_while(following: int, done: int, seconds: float) -> None:
    size = BatchSize(1000)
    size.note(done, of=done, seconds=seconds)
    assert following == size.now
