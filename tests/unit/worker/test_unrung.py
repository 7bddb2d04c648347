"""The dispatcher's process begins its share of a crowd itself, and no more than it has threads for."""

import logging
import threading

import pytest

from mailq.worker.unrung import FEW, Unrung, share_of
from tests.fakes.poll import eventually


@pytest.mark.parametrize(
    ("expected", "crowd", "workers", "spare"),
    [
        (0, 0, 1, 100),
        (0, FEW, 1, 100),
        (1, FEW + 1, 1, 100),
        (100, FEW + 100, 1, 100),
        (25, FEW + 100, 4, 100),
        (26, FEW + 101, 4, 100),
        (7, FEW + 100, 4, 7),
        (0, FEW + 100, 1, 0),
        (0, FEW + 100, 1, -3),
        (100, FEW + 100, 0, 100),
    ],
)
def test_of_a_crowd_each_worker_gets_its_share_and_the_first_few_are_rung_for(
    expected: int, crowd: int, workers: int, spare: int
) -> None:
    assert expected == share_of(crowd, workers=workers, spare=spare)


class Pool:
    """The threads that tasks of a broker have."""

    def __init__(self, taken: int = 0) -> None:
        self.now = taken
        self.left: list[int] = []

    def taken(self) -> int:
        return self.now

    def leave(self, threads: int) -> None:
        self.left.append(threads)


CROWD = [f"n{number:03}" for number in range(FEW + 50)]


def test_what_is_begun_and_what_the_broker_has_are_no_more_than_there_are_threads() -> None:
    gate, served, pool = threading.Event(), [], Pool(taken=4)

    def serve(nexthop: str) -> None:
        gate.wait(10)
        served.append(nexthop)

    begins = Unrung(serve, places=pool, threads=10, workers=lambda: 1)
    assert frozenset(CROWD[-6:]) == begins(CROWD)
    assert [4] == pool.left
    assert frozenset() == begins(CROWD)
    pool.now = 0
    assert frozenset(CROWD[-4:]) == begins(CROWD)
    # One is left for a ring that is urgent.
    assert [4, 1] == pool.left
    gate.set()
    assert eventually(lambda: len(served) == 10 and pool.left[-1] == 10)


def test_a_bug_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    def serve(_nexthop: str) -> None:
        raise ZeroDivisionError

    pool = Pool()
    begins = Unrung(serve, places=pool, threads=1, workers=lambda: 1)
    with caplog.at_level(logging.ERROR):
        for count in (1, 2):
            assert frozenset(CROWD[-1:]) == begins(CROWD)
            assert eventually(lambda count=count: (len(caplog.records), len(pool.left)) == (count, 2 * count))
