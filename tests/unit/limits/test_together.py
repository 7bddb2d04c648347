"""Calls that are carried out together."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from mailq.limits.together import Together
from tests.fakes.poll import eventually


class Scene:
    """Doubles numbers when it is let, and threads that want numbers doubled."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked: list[list[int]] = []
        self.together: Together[int, int] = Together(self.double, most=3)
        self.threads = ThreadPoolExecutor(12)

    def double(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        assert self.let.wait(10)
        if 13 in numbers:
            raise ValueError("thirteen")
        return [2 * number for number in numbers]

    def ask(self, number: int) -> "Future[int]":
        waiting = len(self.together._waiting)
        future = self.threads.submit(self.together, number)
        eventually(lambda: len(self.together._waiting) > waiting or self.asked)
        return future


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.let.set()
    scene.threads.shutdown()


def crowd(scene: Scene, *numbers: int) -> "list[Future[int]]":
    first = scene.ask(numbers[0])
    eventually(lambda: scene.asked == [[numbers[0]]])
    others = []
    for count, number in enumerate(numbers[1:], 1):
        others.append(scene.threads.submit(scene.together, number))
        eventually(lambda count=count: len(scene.together._waiting) == count)
    scene.let.set()
    return [first, *others]


def test_a_call_alone_is_carried_out_alone(scene: Scene) -> None:
    scene.let.set()
    assert [2, 4] == [scene.together(1), scene.together(2)]
    assert [[1], [2]] == scene.asked


def test_those_who_come_meanwhile_are_carried_out_together_and_each_gets_its_own_answer(scene: Scene) -> None:
    assert [2, 4, 6, 8] == [one.result(10) for one in crowd(scene, 1, 2, 3, 4)]
    assert [[1], [2, 3, 4]] == scene.asked


def test_no_more_are_carried_out_at_a_time_than_allowed(scene: Scene) -> None:
    assert [2 * number for number in range(9)] == [one.result(10) for one in crowd(scene, *range(9))]
    assert [1, 3, 3, 2] == [len(one) for one in scene.asked]


def test_an_error_is_that_of_those_it_was_carried_out_with_and_of_nobody_else(scene: Scene) -> None:
    futures = crowd(scene, 1, 12, 13, 14, 15)
    assert 2 == futures[0].result(10)
    for one in futures[1:4]:
        with pytest.raises(ValueError, match="thirteen"):
            one.result(10)
    assert 30 == futures[4].result(10)
    assert 8 == scene.together(4)
