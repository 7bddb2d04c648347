"""One dispatcher works, the others wait; a database that is down is waited for, not shouted at."""

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest

from mailq.errors import DatabaseUnavailableError
from mailq.worker.dispatch import Round
from mailq.worker.dispatch_loop import DispatchLoop
from tests.fakes.poll import eventually

INTERVAL = timedelta(seconds=1)


class Office:
    """The store's part in it: who is elected."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.down = False

    def elect(self, owner: str, *, role: str, lease_time: timedelta) -> bool:
        if self.down:
            raise DatabaseUnavailableError("the database is down")
        self.holder = self.holder or owner
        return self.holder == owner

    def resign(self, owner: str, *, role: str) -> None:
        if self.holder == owner:
            self.holder = None


class Rounds:
    """A dispatcher that counts its rounds."""

    def __init__(self) -> None:
        self.count = 0
        self.busy = False
        self.bug = False
        self.outages = 0
        self.rung = 0
        self.ran = threading.Event()

    def run_once(self) -> Round:
        self.count += 1
        self.ran.set()
        if self.bug:
            raise RuntimeError("a bug")
        return Round(freed=0, noticed=0, rung=self.rung, reports=0, busy=self.busy)

    def after_outage(self) -> None:
        self.outages += 1


def make_loop(rounds: Rounds, office: Office, owner: str = "one", interval: timedelta = INTERVAL) -> DispatchLoop:
    parts: Any = (rounds, office)
    return DispatchLoop(parts[0], store=parts[1], owner=owner, interval=interval)


def test_only_the_elected_dispatches_and_resigning_lets_the_standby_in() -> None:
    office, first, second = Office(), Rounds(), Rounds()
    loop, standby = make_loop(first, office, "one"), make_loop(second, office, "two")
    loop.step()
    standby.step()
    assert (1, 0) == (first.count, second.count)
    office.resign("one", role="dispatcher")
    standby.step()
    loop.step()
    assert (1, 1) == (first.count, second.count)


def test_a_busy_round_is_followed_by_another_at_once() -> None:
    rounds = Rounds()
    loop = make_loop(rounds, Office())
    assert INTERVAL.total_seconds() == loop.step()
    rounds.busy = True
    assert 0 == loop.step()


def test_an_outage_is_logged_once_and_waited_for_ever_longer_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    office, rounds = Office(), Rounds()
    loop = make_loop(rounds, office)
    office.down = True
    pauses = [loop.step() for _ in range(20)]
    assert sorted(pauses) == pauses
    assert 15 == pauses[-1]
    assert ["The dispatcher waits: the database is down"] == [
        record.message for record in caplog.records if record.levelno == logging.ERROR
    ]


def test_after_an_outage_the_dispatcher_is_told_and_works_at_its_pace_again() -> None:
    office, rounds = Office(), Rounds()
    loop = make_loop(rounds, office)
    office.down = True
    loop.step()
    office.down = False
    assert INTERVAL.total_seconds() == loop.step()
    loop.step()
    assert (2, 1) == (rounds.count, rounds.outages)


def test_a_bug_does_not_end_dispatching() -> None:
    rounds = Rounds()
    loop = make_loop(rounds, Office())
    rounds.bug = True
    assert loop.step() > INTERVAL.total_seconds()
    rounds.bug = False
    loop.step()
    assert 2 == rounds.count


def test_stopping_the_thread_gives_the_office_up() -> None:
    office, rounds = Office(), Rounds()
    loop = make_loop(rounds, office, interval=timedelta(seconds=0.01))
    loop.start()
    assert rounds.ran.wait(5)
    loop.stop()
    assert office.holder is None


def test_after_a_quiet_round_a_ring_has_the_next_one_come_soon() -> None:
    rounds = Rounds()
    loop = make_loop(rounds, Office(), interval=timedelta(minutes=5))
    loop.start()
    assert rounds.ran.wait(5)
    # The round before may not be over yet, and then the ring is part of what it finds.
    assert eventually(lambda: loop.hurry() or rounds.count > 1)
    loop.stop()


def test_a_busy_dispatcher_is_not_hurried() -> None:
    rounds = Rounds()
    rounds.rung = 1
    loop = make_loop(rounds, Office(), interval=timedelta(minutes=5))
    loop.start()
    assert rounds.ran.wait(5)
    with pytest.raises(TimeoutError):
        eventually(lambda: loop.hurry() or rounds.count > 1, within_seconds=0.5)
    loop.stop()
