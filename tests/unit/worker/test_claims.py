"""Claims that are asked for together: who is asked for when, and who gets what."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from mailq.errors import DatabaseUnavailableError
from mailq.queue.messages import Lease, Wish
from mailq.worker import claims as module
from mailq.worker.claims import Claimed, Claims
from tests.fakes.clock import FakeClock
from tests.fakes.poll import eventually

LONG = timedelta(seconds=30)
LEASE_TIME = timedelta(minutes=1)


def wish(nexthop: str, last_priority: int = 9) -> Wish:
    return Wish(nexthop=nexthop, limit=10, last_priority=last_priority)


def never() -> bool:
    return False


class Leased(NamedTuple):
    """As much of a lease as is looked at."""

    name: str
    full: bool


class Shelf:
    """Has mail for the nexthops in ``due``, once each; answers when it is let."""

    def __init__(self) -> None:
        self.due: list[str] = []
        self.asked: list[list[str]] = []
        self.let = threading.Event()
        self.let.set()
        self.error: Exception | None = None
        self.full = False

    def claim_many(self, wishes: Sequence[Wish], *, owner: str, lease_time: timedelta) -> Mapping[str, Lease]:
        assert ("me", LEASE_TIME) == (owner, lease_time)
        self.asked.append([one.nexthop for one in wishes])
        assert self.let.wait(10)
        if self.error is not None:
            raise self.error
        found: dict[str, Any] = {}
        for one in wishes:
            if one.nexthop in self.due:
                self.due.remove(one.nexthop)
                found[one.nexthop] = Leased(f"lease on {one.nexthop}", self.full)
        return found


class Crew:
    """Claims on a shelf, and threads that ask for them."""

    def __init__(self, **options: Any) -> None:
        self.shelf = Shelf()
        self.claims = Claims(self.shelf, owner="me", lease_time=LEASE_TIME, **options)
        self.threads = ThreadPoolExecutor(8)

    def ask(self, nexthop: str) -> "Future[Claimed | None]":
        return self.threads.submit(self.claims.claim, wish(nexthop))

    def wait(
        self, nexthop: str, patience: timedelta = LONG, give_up: Callable[[], bool] = never
    ) -> "Future[Claimed | None]":
        return self.threads.submit(self.claims.wait_for, wish(nexthop), patience=patience, give_up=give_up)


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.shelf.let.set()
    crew.threads.shutdown()


def lease_in(future: "Future[Claimed | None]") -> str | None:
    claimed = future.result(10)
    lease: Any = claimed and claimed.lease
    return lease and lease.name


def test_what_is_due_is_leased_and_nothing_is_nothing(crew: Crew) -> None:
    crew.shelf.due = ["a"]
    assert "lease on a" == lease_in(crew.ask("a"))
    assert lease_in(crew.ask("a")) is None


def test_who_comes_while_others_are_asked_for_is_asked_for_with_everybody_else(crew: Crew) -> None:
    crew.shelf.let.clear()
    crew.shelf.due = ["a", "c"]
    first = crew.ask("a")
    eventually(lambda: crew.shelf.asked == [["a"]])
    others = [crew.ask(name) for name in "bcd"]
    eventually(lambda: len(crew.claims._waiting) == 4)
    crew.shelf.let.set()
    assert ["lease on a", None, "lease on c", None] == [lease_in(one) for one in (first, *others)]
    assert [["a"], ["b", "c", "d"]] == [sorted(one) for one in crew.shelf.asked]


def test_no_more_is_asked_for_at_once_than_is_soon_answered(crew: Crew) -> None:
    crew.shelf.let.clear()
    first = crew.ask("a")
    eventually(lambda: crew.shelf.asked == [["a"]])
    large = [crew.threads.submit(crew.claims.claim, Wish(nexthop=name, limit=1500)) for name in "bcd"]
    eventually(lambda: len(crew.claims._waiting) == 4)
    crew.shelf.let.set()
    assert [None] * 4 == [lease_in(one) for one in (first, *large)]
    assert [1, 2, 1] == [len(one) for one in crew.shelf.asked]


def test_of_one_nexthop_one_wish_at_a_time_is_asked_for(crew: Crew) -> None:
    crew.shelf.let.clear()
    crew.shelf.due = ["a", "a"]
    wishes = [crew.ask("a") for _ in range(3)]
    eventually(lambda: len(crew.claims._waiting) == 3)
    crew.shelf.let.set()
    assert 2 == sum(lease_in(one) is not None for one in wishes)
    assert [["a"]] * 3 == crew.shelf.asked


def test_a_task_that_waits_gets_what_comes(crew: Crew) -> None:
    waiting = crew.wait("a")
    eventually(lambda: len(crew.shelf.asked) > 1)
    crew.shelf.due.append("a")
    assert "lease on a" == lease_in(waiting)


def test_nothing_came_for_as_long_as_a_task_waits(crew: Crew) -> None:
    assert lease_in(crew.wait("a", timedelta(seconds=0.1))) is None
    assert [] == crew.claims._waiting


def test_those_that_wait_are_asked_for_together(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 0.5)
    waiting = [crew.wait(name, timedelta(seconds=0.6)) for name in "abcd"]
    assert [None] * 4 == [lease_in(one) for one in waiting]
    assert ["a", "b", "c", "d"] in [sorted(one) for one in crew.shelf.asked]


def test_a_task_that_is_wanted_elsewhere_waits_no_longer_and_the_others_do(crew: Crew) -> None:
    wanted = threading.Event()
    leaver, stayer = crew.wait("a", give_up=wanted.is_set), crew.wait("b")
    eventually(lambda: len(crew.shelf.asked) > 1)
    wanted.set()
    assert lease_in(leaver) is None
    crew.shelf.due.append("b")
    assert "lease on b" == lease_in(stayer)


def test_a_task_that_waits_looks_at_once_when_it_is_nudged(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 20.0)
    waiting, other = crew.wait("a"), crew.wait("b", LONG)
    eventually(lambda: len(crew.claims._waiting) == 2)
    crew.shelf.due = ["a", "b"]
    assert crew.claims.is_waited_for("a")
    assert crew.claims.nudge("a")
    assert "lease on a" == lease_in(waiting)
    assert [["a"]] == crew.shelf.asked
    assert crew.claims.nudge("b")
    assert "lease on b" == lease_in(other)


def test_nobody_is_nudged_who_does_not_wait_or_waits_for_urgent_mail_alone(crew: Crew) -> None:
    assert not crew.claims.nudge("a")
    assert not crew.claims.is_waited_for("a")
    done = threading.Event()
    urgent = crew.threads.submit(crew.claims.wait_for, wish("a", 1), patience=LONG, give_up=done.is_set)
    eventually(lambda: len(crew.claims._waiting) == 1)
    assert not crew.claims.nudge("a")
    done.set()
    assert urgent.result(10) is None


@pytest.mark.parametrize(("full", "looks_after"), [(False, 1500.0), (True, 1000.0)])
def test_whoever_else_waits_for_a_nexthop_looks_later_when_all_its_mail_was_leased(
    monkeypatch: pytest.MonkeyPatch, *, full: bool, looks_after: float
) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 1000.0)
    clock, done = FakeClock(), threading.Event()
    crew, began = Crew(monotonic=clock.monotonic), clock.monotonic()
    crew.shelf.full, crew.shelf.due = full, ["a"]
    waiting = [crew.wait("a", timedelta(hours=1), done.is_set) for _ in range(2)]
    eventually(lambda: len(crew.claims._waiting) == 2)
    clock.advance(500.0)
    crew.claims.nudge("a")
    eventually(lambda: any(one.done() for one in waiting))
    assert [looks_after] == [one.look_at - began for one in crew.claims._waiting]
    done.set()
    crew.claims.nudge("a")
    crew.threads.shutdown()


def test_a_busy_process_looks_later(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(is_busy=lambda: True)
    monkeypatch.setattr(module, "BUSY_LOOK_SECONDS", 20.0)
    waiting = crew.wait("a")
    eventually(lambda: len(crew.claims._waiting) == 1)
    assert [] == crew.shelf.asked
    crew.shelf.due = ["a"]
    crew.claims.nudge("a")
    assert "lease on a" == lease_in(waiting)
    crew.threads.shutdown()


def test_an_error_is_everybodys_who_was_asked_for(crew: Crew) -> None:
    crew.shelf.let.clear()
    first = crew.ask("a")
    eventually(lambda: crew.shelf.asked == [["a"]])
    others = [crew.ask(name) for name in "bc"]
    eventually(lambda: len(crew.claims._waiting) == 3)
    crew.shelf.error = DatabaseUnavailableError("it is down")
    crew.shelf.let.set()
    for one in (first, *others):
        with pytest.raises(DatabaseUnavailableError, match="it is down"):
            one.result(10)
    assert [] == crew.claims._waiting


def test_it_goes_on_after_an_error(crew: Crew) -> None:
    crew.shelf.error = DatabaseUnavailableError("it is down")
    with pytest.raises(DatabaseUnavailableError):
        crew.ask("a").result(10)
    crew.shelf.error, crew.shelf.due = None, ["a"]
    assert "lease on a" == lease_in(crew.ask("a"))
