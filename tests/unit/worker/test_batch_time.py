"""When a batch gives way."""

from dataclasses import dataclass, field

import pytest

from mailq.worker.batch_time import BatchTime, is_worth_sharing


@pytest.mark.parametrize(
    ("expected", "left", "pace"),
    [(True, 5, 1.0), (False, 4, 1.0), (True, 40, 0.05), (False, 39, 0.05), (False, 5, 0.3), (False, 1, 1000.0)],
)
def test_what_soon_is_done_is_not_worth_another_session(*, expected: bool, left: int, pace: float) -> None:
    assert expected is is_worth_sharing(left, pace_seconds=pace, batch_seconds=1.0)


@dataclass
class World:
    """What a batch asks about."""

    now: float = 0.0
    overtaken: bool = False
    late: bool = False
    room: bool = False
    wanted: bool = True
    asked: list[str] = field(default_factory=list)

    def batch(self, *, last_at: float = 1000.0) -> BatchTime:
        return BatchTime(
            ends_at=1.0,
            last_at=last_at,
            seconds=1.0,
            monotonic=lambda: self.now,
            is_wanted=lambda: self.wanted,
            is_overtaken=lambda _left: self.answer("overtaken", answer=self.overtaken),
            is_late=lambda: self.late,
            may_share=lambda: self.answer("room", answer=self.room),
        )

    def answer(self, question: str, *, answer: bool) -> bool:
        self.asked.append(question)
        return answer

    def looks(self, time: BatchTime, *, until: float) -> int:
        """How often it asks whether it is overtaken, with a message each tenth of a second."""
        self.asked.clear()
        while self.now < until:
            self.now += 0.1
            time.is_over(1, pace_seconds=0.1)
        return self.asked.count("overtaken")


def test_nothing_is_asked_before_its_time_is_up() -> None:
    world = World(overtaken=True, room=True)
    assert (False, []) == (world.batch().is_over(99, pace_seconds=9.0), world.asked)


@pytest.mark.parametrize(
    ("over", "shares", "world", "left"),
    [
        (False, False, World(now=1.0), 99),
        (True, False, World(now=1.0, overtaken=True), 1),
        (True, True, World(now=1.0, room=True), 99),
        (False, False, World(now=1.0, room=True), 1),
    ],
)
def test_then_it_is_over_where_something_else_is_to_be_done(
    *, over: bool, shares: bool, world: World, left: int
) -> None:
    time = world.batch()
    assert (over, shares) == (time.is_over(left, pace_seconds=1.0), time.shares)
    world.overtaken = world.room = False
    assert over is time.is_over(left, pace_seconds=1.0)


@pytest.mark.parametrize("wanted", [True, False])
def test_it_ends_with_the_time_of_a_task_that_has_to_end(*, wanted: bool) -> None:
    assert wanted is World(now=5.0, wanted=wanted).batch(last_at=5.0).is_over(2, pace_seconds=0.1)


def test_it_looks_around_once_in_each_batch_time_and_less_often_where_the_process_is_late() -> None:
    quick, late = World(), World(late=True)
    assert 9 <= quick.looks(quick.batch(), until=10.05) <= 10
    assert 3 == late.looks(late.batch(), until=10.05)


def test_room_for_another_session_is_asked_for_less_and_less_often() -> None:
    world = World(now=1.0)
    time = world.batch()
    for _ in range(10):
        time.is_over(99, pace_seconds=1.0)
        world.now += 1.0
    assert 4 == world.asked.count("room")
