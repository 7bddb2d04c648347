import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest

from mailq.errors import DatabaseUnavailableError, LeaseLostError
from mailq.queue.messages import Entry
from mailq.worker.committer import Committer

LEASE_TIME = timedelta(seconds=10)
SECONDS = 10.0


class Groups:
    """A store that notes what it is given, and can be held up."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.answer: Callable[[Sequence[Entry]], list[LeaseLostError | None]] = lambda entries: [None] * len(entries)

    def record_group(self, entries: Sequence[Entry]) -> list[LeaseLostError | None]:
        self.entered.release()
        assert self.open.wait(SECONDS)
        answer = self.answer(entries)
        self.groups.append([entry.lease_id for entry in entries])
        return answer


@pytest.fixture
def groups() -> Groups:
    return Groups()


@pytest.fixture
def committer(groups: Groups) -> Iterator[Committer]:
    one = Committer(groups, lease_time=LEASE_TIME)
    yield one
    groups.open.set()
    one.close()


def patient(groups: Groups) -> Committer:
    """Return one that gathers for longer than any test waits."""
    return Committer(groups, lease_time=LEASE_TIME, gather_seconds=10 * SECONDS)


def test_entries_that_nobody_waits_for_are_gathered_until_somebody_does(groups: Groups) -> None:
    committer = patient(groups)
    receipts = [committer.submit(Entry(number)) for number in (1, 2, 3)]
    assert not groups.entered.acquire(timeout=0.05)
    receipts[0].wait()
    assert ([[1, 2, 3]], [True] * 3) == (groups.groups, [receipt.done for receipt in receipts])
    committer.close()


def test_whoever_waited_before_hurries_nobody_later(groups: Groups) -> None:
    committer = patient(groups)
    committer.submit(Entry(1)).wait()
    committer.submit(Entry(2))
    assert groups.entered.acquire(timeout=SECONDS)
    assert not groups.entered.acquire(timeout=0.05)
    committer.close()
    assert [[1], [2]] == groups.groups


def test_whoever_waits_for_what_is_being_written_hurries_nobody(groups: Groups) -> None:
    committer = patient(groups)
    groups.open.clear()
    first = committer.submit(Entry(1))
    waiters = [threading.Thread(target=first.wait) for _ in range(2)]
    waiters[0].start()
    assert groups.entered.acquire(timeout=SECONDS)
    committer.submit(Entry(2))
    waiters[1].start()
    groups.open.set()
    for waiter in waiters:
        waiter.join(SECONDS)
    assert not groups.entered.acquire(timeout=0.05)
    committer.close()
    assert [[1], [2]] == groups.groups


def test_entries_that_nobody_waits_for_are_written_in_time(groups: Groups, committer: Committer) -> None:
    committer.submit(Entry(1))
    assert groups.entered.acquire(timeout=SECONDS)


def test_enough_entries_are_written_whoever_waits(groups: Groups) -> None:
    committer = patient(groups)
    for number in range(64):
        committer.submit(Entry(number))
    assert groups.entered.acquire(timeout=SECONDS)
    committer.close()
    assert 64 == len(groups.groups[0])


def test_an_entry_that_is_waited_for_is_written_at_once(groups: Groups, committer: Committer) -> None:
    receipt = committer.submit(Entry(1))
    receipt.wait()
    assert ([[1]], True, None) == (groups.groups, receipt.done, receipt.error)


def test_what_comes_during_a_commit_is_written_together(groups: Groups, committer: Committer) -> None:
    groups.open.clear()
    receipts = [committer.submit(Entry(1))]
    assert groups.entered.acquire(timeout=SECONDS)
    receipts += [committer.submit(Entry(number)) for number in (2, 3, 4)]
    assert not any(receipt.done for receipt in receipts)
    groups.open.set()
    for receipt in receipts:
        receipt.wait()
    assert [[1], [2, 3, 4]] == groups.groups


def test_one_lost_lease_is_told_to_its_owner_alone(groups: Groups, committer: Committer) -> None:
    lost = LeaseLostError("lost")
    groups.answer = lambda entries: [lost if entry.lease_id == 2 else None for entry in entries]
    receipts = [committer.submit(Entry(number)) for number in (1, 2, 3)]
    for receipt in receipts:
        receipt.wait()
    assert [None, lost, None] == [receipt.error for receipt in receipts]


def test_a_database_that_is_down_is_tried_again(groups: Groups, committer: Committer) -> None:
    troubles = [DatabaseUnavailableError("down"), DatabaseUnavailableError("down")]

    def answer(entries: Sequence[Entry]) -> list[LeaseLostError | None]:
        if troubles:
            raise troubles.pop()
        return [None] * len(entries)

    groups.answer = answer
    receipt = committer.submit(Entry(1))
    receipt.wait()
    assert (None, []) == (receipt.error, troubles)


def test_patience_with_the_database_ends(groups: Groups) -> None:
    def answer(entries: Sequence[Entry]) -> list[LeaseLostError | None]:
        raise DatabaseUnavailableError("down")

    groups.answer = answer
    clock = iter(range(0, 10_000, 100))
    committer = Committer(groups, lease_time=LEASE_TIME, monotonic=lambda: float(next(clock)))
    receipt = committer.submit(Entry(1))
    receipt.wait()
    committer.close()
    assert "down" == str(receipt.error)


def test_whatever_is_wrong_with_one_entry_the_others_are_written(groups: Groups, committer: Committer) -> None:
    def answer(entries: Sequence[Entry]) -> list[LeaseLostError | None]:
        if any(entry.lease_id == 2 for entry in entries):
            raise ValueError("cannot be written")
        return [None] * len(entries)

    groups.answer = answer
    groups.open.clear()
    receipts = [committer.submit(Entry(number)) for number in (1, 2, 3)]
    groups.open.set()
    for receipt in receipts:
        receipt.wait()
    assert [type(None), ValueError, type(None)] == [type(receipt.error) for receipt in receipts]


def test_closing_writes_what_was_given(groups: Groups) -> None:
    committer = Committer(groups, lease_time=LEASE_TIME)
    receipt = committer.submit(Entry(1))
    committer.close()
    assert ([[1]], True) == (groups.groups, receipt.done)


def test_a_closed_one_takes_nothing_more(groups: Groups) -> None:
    committer = Committer(groups, lease_time=LEASE_TIME)
    committer.close()
    receipt = committer.submit(Entry(1))
    assert ([], DatabaseUnavailableError) == (groups.groups, type(receipt.error))
