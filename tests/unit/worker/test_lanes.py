"""Leases no larger than a session can send in its time."""

from mailq.worker.lanes import BatchSize


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
