"""When a batch gives way."""

from dataclasses import dataclass, field

import pytest

from mailq.worker.batch_time import BatchTime


@dataclass
class World:
    """What a batch asks about."""

    now: float = 0.0
    overtaken: bool = False
    late: bool = False
    wanted: bool = False
    asked: list[str] = field(default_factory=list)

    def batch(self) -> BatchTime:
        return BatchTime(
            ends_at=1.0,
            seconds=1.0,
            monotonic=lambda: self.now,
            is_wanted=lambda: self.wanted,
            is_overtaken=lambda _left: self.answer("overtaken", answer=self.overtaken),
            is_late=lambda: self.late,
        )

    def answer(self, question: str, *, answer: bool) -> bool:
        self.asked.append(question)
        return answer

    def looks(self, time: BatchTime, *, until: float) -> int:
        """How often it asks whether it is overtaken, with a message each tenth of a second."""
        self.asked.clear()
        while self.now < until:
            self.now += 0.1
            time.is_over(1)
        return self.asked.count("overtaken")


def test_nothing_is_asked_before_its_time_is_up() -> None:
    world = World(overtaken=True)
    assert (False, []) == (world.batch().is_over(99), world.asked)


@pytest.mark.parametrize("overtaken", [True, False])
def test_then_it_is_over_for_good_where_something_else_is_to_be_done(*, overtaken: bool) -> None:
    world = World(now=1.0, overtaken=overtaken)
    time = world.batch()
    assert overtaken is time.is_over(1)
    world.overtaken = False
    assert overtaken is time.is_over(1)


@pytest.mark.parametrize("wanted", [True, False])
def test_it_ends_where_its_task_has_to(*, wanted: bool) -> None:
    assert wanted is World(now=5.0, wanted=wanted).batch().is_over(2)


def test_it_looks_around_once_in_each_batch_time_and_less_often_where_the_process_is_late() -> None:
    quick, late = World(), World(late=True)
    assert 9 <= quick.looks(quick.batch(), until=10.05) <= 10
    assert 3 == late.looks(late.batch(), until=10.05)
