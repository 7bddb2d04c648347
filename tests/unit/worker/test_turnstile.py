"""How many sessions work at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailq.worker import turnstile as module
from mailq.worker.turnstile import LEAST, LONG_SECONDS, Turnstile, next_width
from tests.fakes.poll import eventually


@pytest.mark.parametrize(
    ("expected", "width", "share", "lateness"),
    [
        (50, 100, 0.8, 0.001),
        (50, 100, 0.4, 0.005),
        (100, 100, 0.7, 0.001),
        (6, 4, 0.39, 0.005),
        (6, 4, 0.5, 0.001),
        (8, 4, 0.1, 0.001),
        (100, 90, 0.1, 0.001),
        (LEAST, LEAST, 1.0, 0.005),
        (LEAST, 3, 1.0, 0.005),
    ],
)
def test_the_width_follows_what_the_process_has_to_do(expected: int, width: int, share: float, lateness: float) -> None:
    assert expected == next_width(width, most=100, share=share, lateness=lateness)


def test_an_idle_process_soon_lets_everybody_work() -> None:
    width, beats = LEAST, 0
    while width < 1000:
        width, beats = next_width(width, most=1000, share=0.0, lateness=0.0), beats + 1
    assert beats <= 10


class Crew:
    """Threads that want to work."""

    def __init__(self, turnstile: Turnstile, count: int) -> None:
        self.turnstile = turnstile
        self.lock = threading.Lock()
        self.order: list[int] = []
        self.go_home = [threading.Event() for _ in range(count)]
        self.threads = ThreadPoolExecutor(count)

    def come(self, number: int) -> None:
        before = len(self.turnstile._waiting) + len(self.order)
        self.threads.submit(self.work, number)
        eventually(lambda: len(self.turnstile._waiting) + len(self.order) > before)

    def work(self, number: int) -> None:
        with self.turnstile.passed():
            with self.lock:
                self.order.append(number)
            assert self.go_home[number].wait(10)

    def end(self) -> None:
        for event in self.go_home:
            event.set()
        self.threads.shutdown()


def test_no_more_work_at_a_time_than_it_is_wide_and_who_came_first_is_next() -> None:
    turnstile = Turnstile(LEAST)
    crew = Crew(turnstile, 5)
    for number in range(5):
        crew.come(number)
    assert [0, 1] == crew.order
    crew.go_home[1].set()
    eventually(lambda: len(crew.order) == 3)
    assert [0, 1, 2] == crew.order
    crew.end()
    assert [0, 1, 2, 3, 4] == crew.order[:3] + sorted(crew.order[3:])


def test_who_waits_gets_in_when_it_widens() -> None:
    turnstile = Turnstile(100)
    for _ in range(10):
        turnstile.follow(1.0, 0.1)
    crew = Crew(turnstile, 4)
    for number in range(4):
        crew.come(number)
    assert [0, 1] == crew.order
    turnstile.follow(0.0, 0.0)
    eventually(lambda: len(crew.order) == 4)
    crew.end()


def test_nobody_waits_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_WAIT_SECONDS", 0.05)
    crew = Crew(Turnstile(LEAST), 3)
    for number in range(3):
        crew.come(number)
    eventually(lambda: len(crew.order) == 3)
    crew.end()
    assert 0 == crew.turnstile._inside


def test_who_steps_aside_lets_somebody_else_in_and_comes_back_without_a_turn() -> None:
    turnstile = Turnstile(LEAST, monotonic=lambda: 0.0)
    crew = Crew(turnstile, 2)
    with turnstile.passed():
        crew.come(0)
        crew.threads.submit(crew.work, 1)
        eventually(lambda: len(turnstile._waiting) == 1)
        with turnstile.aside():
            eventually(lambda: len(crew.order) == 2)
            assert LEAST == turnstile._inside
        assert LEAST + 1 == turnstile._inside
    crew.end()
    assert 0 == turnstile._inside


def test_who_was_aside_for_long_is_not_counted_until_it_passes_anew() -> None:
    now = [0.0]
    turnstile = Turnstile(LEAST, monotonic=lambda: now[0])
    for _ in range(2):
        with turnstile.passed():
            with turnstile.aside():
                now[0] += LONG_SECONDS / 2
            assert 1 == turnstile._inside
            with turnstile.aside():
                now[0] += LONG_SECONDS
            assert 0 == turnstile._inside
            with turnstile.aside():
                assert 0 == turnstile._inside
        assert 0 == turnstile._inside


def test_who_is_not_inside_steps_nowhere() -> None:
    turnstile = Turnstile(LEAST)
    with turnstile.aside():
        assert 0 == turnstile._inside
    with turnstile.passed(), turnstile.aside(), turnstile.aside():
        assert 0 == turnstile._inside
    assert 0 == turnstile._inside


def test_work_that_fails_leaves_the_place_free() -> None:
    turnstile = Turnstile(LEAST)
    for _ in range(5):
        with pytest.raises(ValueError, match="no"), turnstile.passed():
            raise ValueError("no")
    assert 0 == turnstile._inside
