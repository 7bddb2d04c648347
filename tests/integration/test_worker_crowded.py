"""Where every thread has a task: those make room first that share their nexthop, and nothing is left lying."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest

from mailq.envelope import DeliveryRequest
from mailq.queue.states import ShownState
from mailq.queue.store import Store
from mailq.status import Outcome, RecipientId
from mailq.worker.serve import serve_nexthop
from tests.fakes.bench import NEXTHOP, Bench, taken_by_all


class Crowd(Bench):
    """A bench at which each message takes so many seconds.

    Attributes:
        rings: How many rings for others wait for a thread.
        after_first: Called when the first message is at its server.
        others: Tasks of others; a test ends them by closing it.
    """

    def __init__(self, store: Store, *, seconds: float, threads: int, **settings: Any) -> None:
        super().__init__(store, worker_concurrency=threads, **settings)
        self.rings = 0
        self.after_first: Callable[[], object] = lambda: None
        self.others = ExitStack()
        self._seconds, self._passed = seconds, 0.0
        self.runtime.monotonic = lambda: time.monotonic() + self._passed
        self.runtime.is_wanted = self._is_wanted
        self.answer = self._slowly

    def _is_wanted(self, others: int) -> bool:
        if self.rings and (others or not self.runtime.extras):
            self.rings -= 1
            return True
        return False

    def _slowly(self, request: DeliveryRequest, on_settled: Callable[..., None]) -> Mapping[RecipientId, Outcome]:
        self._passed += self._seconds
        if len(self.requests) == 1:
            self.after_first()
        return taken_by_all(request, on_settled)

    def keep_busy(self, *nexthops: str) -> None:
        """Have other tasks serve these."""
        for nexthop in nexthops:
            self.others.enter_context(self.runtime.serving(nexthop))

    def call(self) -> None:
        """Have a ring wait."""
        self.rings += 1


@pytest.fixture
def opened(sqlite_url: str) -> Iterator[Store]:
    store = Store.open(sqlite_url)
    yield store
    store.close()


def serve(crowd: Crowd) -> int:
    return serve_nexthop(NEXTHOP, crowd.runtime)


@pytest.mark.parametrize(
    ("served", "threads", "others", "rings"),
    [(0, 2, [NEXTHOP], 1), (3, 2, [NEXTHOP], 0), (3, 3, [NEXTHOP], 1), (3, 2, ["other.test"], 1)],
)
def test_no_second_session_begins_where_a_ring_for_others_waits_for_its_thread(
    opened: Store, served: int, threads: int, others: list[str], rings: int
) -> None:
    crowd = Crowd(opened, seconds=0.0, threads=threads)
    crowd.keep_busy(*others)
    crowd.rings = rings
    crowd.queue(*[[f"r{i}@dest.test"] for i in range(3)])
    assert served == serve(crowd)


def test_a_session_leaves_its_batch_to_others_of_its_nexthop_where_its_thread_is_waited_for(opened: Store) -> None:
    crowd = Crowd(opened, seconds=2.0, threads=2)
    crowd.keep_busy(NEXTHOP)
    crowd.after_first = crowd.call
    crowd.queue(*[[f"r{i}@dest.test"] for i in range(4)])
    assert 1 == serve(crowd)
    assert {ShownState.SENT: 1, ShownState.QUEUED: 3} == crowd.counts()
    assert [] == crowd.bell.rung, "those who go on need no ring"
    assert [NEXTHOP] == crowd.due(), "and should they end, the dispatcher knows"


def test_the_only_session_of_a_nexthop_finishes_its_batch_then(opened: Store) -> None:
    crowd = Crowd(opened, seconds=2.0, threads=2)
    crowd.keep_busy("other.test")
    crowd.after_first = crowd.call
    crowd.queue(*[[f"r{i}@dest.test"] for i in range(4)])
    assert 4 == serve(crowd)


@pytest.mark.parametrize(("lease_recipients", "seconds", "served"), [(1, 6.0, 1), (9, 2.0, 3)])
def test_nothing_is_left_to_others_of_its_nexthop_that_have_ended_meanwhile(
    opened: Store, lease_recipients: int, seconds: float, served: int
) -> None:
    crowd = Crowd(opened, seconds=seconds, threads=2, lease_recipients=lease_recipients)
    crowd.keep_busy(NEXTHOP)
    wanted = crowd.runtime.is_wanted

    def and_then_they_end(others: int) -> bool:
        told = wanted(others)
        if told:
            crowd.others.close()
            crowd.keep_busy("other.test")
        return told

    crowd.runtime.is_wanted = and_then_they_end
    crowd.after_first = crowd.call
    crowd.queue(*[[f"r{i}@dest.test"] for i in range(3)])
    assert served == serve(crowd)
    assert served == 3 or [NEXTHOP] == crowd.bell.rung[-1:], "what it left is rung for"


@pytest.mark.parametrize(("seconds", "served"), [(0.0, 2), (2.0, 3)])
def test_mail_that_came_during_a_long_batch_is_taken_although_threads_are_scarce(
    opened: Store, seconds: float, served: int
) -> None:
    crowd = Crowd(opened, seconds=seconds, threads=1, linger_time=timedelta(seconds=5))
    crowd.queue(["a@dest.test"], ["b@dest.test"])
    crowd.after_first = lambda: crowd.queue(["c@dest.test"])
    assert served == serve(crowd)
