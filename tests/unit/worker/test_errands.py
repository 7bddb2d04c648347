"""Work that is done now and then, beside everything else."""

import threading
from collections.abc import Callable

import pytest

from mailq.errors import DatabaseUnavailableError
from mailq.worker.errands import Errand
from tests.fakes.poll import eventually


class Desk:
    """An errand whose time and work a test sets."""

    def __init__(self, work: Callable[[], bool] = lambda: False) -> None:
        self.now = 0.0
        self.runs = 0
        self._work = work
        self.errand = Errand("test", self._run, every_seconds=10, monotonic=lambda: self.now)

    def _run(self) -> bool:
        self.runs += 1
        return self._work()

    def poke_and_wait(self) -> int:
        self.errand.poke()
        eventually(lambda: self.errand._thread is None)
        return self.runs


def test_an_errand_is_run_once_an_interval_however_often_it_is_poked() -> None:
    desk = Desk()
    assert [1, 1] == [desk.poke_and_wait() for _ in range(2)]
    desk.now = 10.0
    assert 2 == desk.poke_and_wait()


def test_an_errand_with_more_to_do_is_run_at_the_next_poke() -> None:
    desk = Desk(lambda: True)
    assert [1, 2] == [desk.poke_and_wait() for _ in range(2)]


def test_an_errand_is_not_begun_while_it_runs() -> None:
    gate = threading.Event()
    desk = Desk(lambda: gate.wait(30))
    desk.errand.poke()
    eventually(lambda: desk.runs)
    desk.now = 10.0
    desk.errand.poke()
    gate.set()
    desk.errand.stop()
    assert 1 == desk.runs


@pytest.mark.parametrize(
    ("error", "words"), [(DatabaseUnavailableError("down"), "test waits: down"), (KeyError("x"), "test stumbled")]
)
def test_an_errand_that_fails_is_logged_and_tried_again(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> bool:
        raise error

    desk = Desk(fail)
    desk.poke_and_wait()
    desk.now = 10.0
    assert 2 == desk.poke_and_wait()
    assert words in caplog.text


def test_an_errand_that_is_stopped_is_not_begun_any_more() -> None:
    desk = Desk()
    desk.errand.stop()
    desk.errand.poke()
    assert 0 == desk.runs
