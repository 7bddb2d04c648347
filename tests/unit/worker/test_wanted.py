"""As many tasks end when their time is up as somebody gains by, and no more."""

from dataclasses import dataclass, field

import pytest

from mailq.errors import BrokerUnavailableError
from mailq.worker.wanted import LOOK_SECONDS, Wanted, wanted_of


@pytest.mark.parametrize(
    ("expected", "tasks", "crowded", "rings", "relief"),
    [
        (0, 10, False, 0, False),
        (0, 10, False, 7, False),
        (0, 10, True, 0, False),
        (7, 10, True, 7, False),
        (1, 10, False, 0, True),
        (1, 50, False, 0, True),
        (2, 51, False, 0, True),
        (9, 100, True, 7, True),
    ],
)
def test_rings_that_wait_and_a_share_of_a_busy_workers_tasks_are_wanted(
    *, expected: int, tasks: int, crowded: bool, rings: int, relief: bool
) -> None:
    assert expected == wanted_of(tasks=tasks, crowded=crowded, rings=rings, relief=relief)


@dataclass
class World:
    """What is asked about."""

    now: float = 0.0
    tasks: int = 10
    extras: int = 0
    busy: bool = False
    workers: int = 1
    waiting: int = 0
    down: bool = False
    looks: int = 0
    wanted: Wanted = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = Wanted(
            tasks=lambda: self.tasks,
            extras=lambda: self.extras,
            threads=10,
            is_busy=lambda: self.busy,
            workers=lambda: self.workers,
            rings=self.rings,
            monotonic=lambda: self.now,
        )

    def rings(self) -> int:
        self.looks += 1
        if self.down:
            raise BrokerUnavailableError("down")
        return self.waiting


def told(world: World, asked: int = 10, *, others: int = 0) -> int:
    return sum(world.wanted(others) for _ in range(asked))


def test_a_task_ends_for_each_ring_that_waits_for_a_thread() -> None:
    world = World(waiting=3)
    assert (3, 1) == (told(world), world.looks)
    world.now += LOOK_SECONDS
    assert (3, 2) == (told(world), world.looks)


def test_none_ends_while_there_is_a_thread_for_each_ring() -> None:
    world = World(waiting=3, tasks=9)
    assert 0 == told(world)


def test_those_end_first_whose_nexthop_is_served_by_others_too() -> None:
    world = World(waiting=3, extras=4)
    assert (0, 3) == (told(world), told(world, others=2))
    world.now += LOOK_SECONDS
    world.extras = 0
    assert 3 == told(world)


@pytest.mark.parametrize(("ended", "workers", "busy"), [(0, 1, True), (0, 2, False), (1, 2, True)])
def test_other_workers_have_a_share_of_a_busy_ones_mail(ended: int, workers: int, *, busy: bool) -> None:
    assert ended == told(World(workers=workers, busy=busy))


def test_a_broker_that_does_not_answer_ends_no_task() -> None:
    assert 0 == told(World(down=True))


@pytest.mark.parametrize(
    ("calls", "tasks", "workers", "waiting"),
    [
        (10, 5, 1, 5),
        (3, 6, 1, 1),
        (1, 9, 1, 0),
        (0, 9, 1, 1),
        (0, 9, 2, 5),
        (0, 10, 1, 0),
        (1, 10, 2, 0),
        (0, 10, 2, 1),
    ],
)
def test_help_is_called_for_threads_that_no_ring_waits_for_and_one_at_a_time_of_other_workers(
    calls: int, tasks: int, workers: int, waiting: int
) -> None:
    world = World(tasks=tasks, workers=workers, waiting=waiting)
    assert calls == sum(world.wanted.may_call() for _ in range(10))
