"""Without a broker the dispatcher's process serves by itself what it may, and no more than it can."""

import logging
import threading

import pytest

from mailq.worker.by_hand import ByHand
from tests.fakes.poll import eventually


def test_as_many_are_served_as_there_is_room_for_and_others_later() -> None:
    served, gate = [], threading.Event()

    def serve(nexthop: str) -> None:
        gate.wait(10)
        served.append(nexthop)

    by_hand = ByHand(serve, most=2)
    assert {"a", "b"} == by_hand(["a", "b", "c"])
    gate.set()
    assert eventually(lambda: by_hand(["c"]) == {"c"})
    assert eventually(lambda: sorted(served) == ["a", "b", "c"])


def test_a_bug_costs_no_room(caplog: pytest.LogCaptureFixture) -> None:
    def serve(_nexthop: str) -> None:
        raise ZeroDivisionError

    by_hand = ByHand(serve, most=1)
    with caplog.at_level(logging.ERROR):
        assert {"a"} == by_hand(["a"])
        assert eventually(lambda: by_hand(["b"]) == {"b"})
        assert eventually(lambda: len(caplog.records) == 2)


def test_no_more_is_begun_than_there_are_threads_without_a_task() -> None:
    served: list[str] = []
    by_hand = ByHand(served.append, most=9, spare=lambda: 2)
    assert {"a", "b"} == by_hand(["a", "b", "c"])
    assert eventually(lambda: sorted(served) == ["a", "b"])
