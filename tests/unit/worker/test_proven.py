"""Nexthops that nothing good is known of share a part of the threads; proven ones have the rest."""

from collections.abc import Collection
from datetime import timedelta

import pytest

from mailq.errors import BrokerUnavailableError, DatabaseUnavailableError
from mailq.limits.local_limits import LocalLimits
from mailq.worker.proven import Proven
from tests.fakes.clock import FakeClock


class Store:
    """Knows what it is told."""

    def __init__(self) -> None:
        self.well: set[str] = set()
        self.asked: list[set[str]] = []
        self.down = False

    def proven(self, nexthops: Collection[str], *, within: timedelta) -> frozenset[str]:
        if self.down:
            raise DatabaseUnavailableError("down")
        self.asked.append(set(nexthops))
        return frozenset(self.well.intersection(nexthops))


class Scene:
    """Processes that count each other."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = Store()
        self.limits = LocalLimits(time=lambda: int(self.clock.monotonic() * 1e6))
        self.proven = self.process("one")

    def process(self, owner: str) -> Proven:
        return Proven(self.store, self.limits, owner=owner, threads=100, monotonic=self.clock.monotonic)


def test_what_is_known_is_asked_for_once_and_doubt_is_looked_at_again_soon() -> None:
    scene = Scene()
    scene.store.well = {"good.test"}
    assert [True, False] * 2 == [scene.proven.holds_for(one) for one in ("good.test", "new.test")] * 2
    assert [{"good.test"}, {"new.test"}] == scene.store.asked
    scene.store.well.add("new.test")
    scene.clock.advance(10)
    scene.proven.look_up(["good.test", "new.test"])
    assert {"new.test"} == scene.store.asked[-1]
    assert scene.proven.holds_for("new.test")


def test_who_is_found_well_or_not_here_is_so_at_once() -> None:
    scene = Scene()
    scene.proven.note_well("a.test")
    assert scene.proven.holds_for("a.test")
    scene.proven.note_unwell("a.test")
    assert not scene.proven.holds_for("a.test")
    assert [] == scene.store.asked


def test_a_database_that_is_down_is_the_callers_to_handle() -> None:
    scene = Scene()
    scene.store.down = True
    with pytest.raises(DatabaseUnavailableError):
        scene.proven.holds_for("a.test")


def test_three_quarters_of_the_threads_of_all_workers_are_for_the_unproven() -> None:
    scene = Scene()
    assert 75 == scene.proven.most_sessions_if_not("new.test")
    others = [scene.process(owner) for owner in ("two", "three", "four")]
    for one in (*others, scene.proven):
        one.on_tick()
    assert 300 == scene.proven.most_sessions_if_not("new.test")
    # Those that are gone are not counted any more.
    for _ in range(10):
        scene.clock.advance(5)
        scene.proven.on_tick()
    assert 75 == scene.proven.most_sessions_if_not("new.test")


def test_who_cannot_count_goes_on_with_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    def dead(*_words: object, **_options: object) -> None:
        raise BrokerUnavailableError("down")

    monkeypatch.setattr(scene.limits, "admit", dead)
    scene.proven.on_tick()
    assert 75 == scene.proven.most_sessions_if_not("new.test")
