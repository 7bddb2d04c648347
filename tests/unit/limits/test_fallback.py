"""Without Redis all workers count in the database, go there and back together, and exceed nothing on the way."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from mailq.errors import BrokerUnavailableError, DatabaseUnavailableError
from mailq.limits.fallback import LOOK_SECONDS, NOTICE_SECONDS, PAUSE_SECONDS, FallbackLimits
from mailq.limits.gates import Admitted, Bar, Gate, Refused
from mailq.limits.local_limits import LocalLimits
from mailq.limits.port import Limits
from mailq.limits.shelf_limits import ShelfLimits
from tests.fakes.clock import FakeClock
from tests.fakes.poll import eventually

MINUTE = timedelta(minutes=1)
GATE = Gate(key="site:a", sessions=2)


class Shelf:
    """Texts that all workers see."""

    def __init__(self, clock: FakeClock) -> None:
        self.texts: dict[str, str] = {}
        self.down = False
        self._clock = clock

    @contextmanager
    def open(self, keys: Collection[str]) -> Iterator[tuple[dict[str, str], int]]:
        self._check()
        texts = {key: self.texts.get(key, "") for key in keys}
        yield texts, self._now()
        self.texts |= texts

    def read(self, keys: Collection[str]) -> tuple[Mapping[str, str], int]:
        self._check()
        return {key: self.texts[key] for key in keys if self.texts.get(key)}, self._now()

    def _check(self) -> None:
        if self.down:
            raise DatabaseUnavailableError("down")

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1e6)


class Line:
    """A worker's line to the Redis that all share; it can be cut."""

    def __init__(self, limits: LocalLimits) -> None:
        self.cut = False
        self._limits = limits

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise BrokerUnavailableError("no line")
        return getattr(self._limits, name)


class Worker:
    """A process that holds what it was let in for."""

    def __init__(self, redis: LocalLimits, shelf: Shelf, clock: FakeClock) -> None:
        self.line: Any = Line(redis)
        self.limits = FallbackLimits(self.line, ShelfLimits(shelf), shelf, hold_for=MINUTE, monotonic=clock.monotonic)
        self.limits.carry_over = lambda: self.limits.renew(self.held, hold_for=MINUTE)
        self.held: list[Admitted] = []

    def begin(self) -> Admitted | Refused:
        answer = self.limits.admit([GATE], owner="w", hold_for=MINUTE)
        if isinstance(answer, Admitted):
            self.held.append(answer)
        return answer


class Scene:
    """Two workers, one Redis, one database."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.shelf = Shelf(self.clock)
        self.redis = LocalLimits(time=lambda: int(self.clock.monotonic() * 1e6))
        self.here, self.there = (Worker(self.redis, self.shelf, self.clock) for _ in range(2))

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for one in (self.here, self.there):
            one.limits.look_around()

    def busy(self, limits: Limits) -> int:
        return limits.look([GATE])[0].busy


@pytest.fixture
def scene() -> Iterator[Scene]:
    one = Scene()
    yield one
    for worker in (one.here, one.there):
        worker.line.cut = False
        worker.limits.close()


def bars(answers: Sequence[Admitted | Refused]) -> list[Bar | None]:
    return [one.bar if isinstance(one, Refused) else None for one in answers]


def test_as_long_as_redis_answers_it_is_the_only_place(scene: Scene) -> None:
    assert [None, None] == bars([scene.here.begin(), scene.there.begin()])
    assert [Bar.FULL] == bars([scene.here.begin()])
    assert ({}, False) == (scene.shelf.texts, scene.here.limits.is_away)


def test_who_loses_redis_takes_the_others_along_and_nobody_exceeds_the_limit(scene: Scene) -> None:
    scene.here.begin()
    scene.there.begin()
    scene.here.line.cut = True
    scene.here.limits.renew(scene.here.held, hold_for=MINUTE)
    assert (True, False) == (scene.here.limits.is_away, scene.there.limits.is_away)
    # What the other one holds is not known here yet, so nothing begins.
    assert [Bar.SUSPENDED] == bars([scene.here.begin()])
    scene.pass_time(LOOK_SECONDS)
    assert scene.there.limits.is_away
    scene.pass_time(PAUSE_SECONDS)
    assert [Bar.FULL, Bar.FULL] == bars([scene.here.begin(), scene.there.begin()])
    assert 2 == scene.busy(scene.here.limits)


def test_a_session_under_way_goes_on_in_the_new_place(scene: Scene) -> None:
    scene.here.begin()
    scene.here.limits.carry_over = lambda: None
    scene.here.line.cut = True
    assert scene.here.limits.spend(scene.here.held[0]).refused is None
    assert 1 == scene.busy(scene.here.limits)


def test_all_go_back_once_nobody_says_any_more_that_redis_is_lost(scene: Scene) -> None:
    scene.here.begin()
    scene.here.line.cut = True
    scene.here.limits.room([[GATE]])
    scene.pass_time(LOOK_SECONDS)
    assert (True, True) == (scene.here.limits.is_away, scene.there.limits.is_away)
    scene.here.line.cut = False

    def are_back() -> bool:
        scene.pass_time(NOTICE_SECONDS)
        return not (scene.here.limits.is_away or scene.there.limits.is_away)

    assert eventually(are_back)
    assert [Bar.SUSPENDED] == bars([scene.there.begin()])
    scene.pass_time(PAUSE_SECONDS)
    assert [None, Bar.FULL] == bars([scene.there.begin(), scene.here.begin()])
    assert 2 == scene.busy(scene.redis)


def test_a_session_admitted_while_its_process_moves_does_not_begin(scene: Scene) -> None:
    admit = scene.redis.admit

    def slow(*gates: Any, **options: Any) -> Admitted | Refused:
        answer = admit(*gates, **options)
        scene.here.limits._move(scene.here.limits._spare)
        return answer

    scene.redis.admit = slow  # type: ignore[method-assign]  # for this test alone
    assert [Bar.SUSPENDED] == bars([scene.here.begin()])
    assert 0 == scene.busy(scene.redis)


def test_without_redis_and_database_nothing_begins_and_the_caller_is_told(scene: Scene) -> None:
    scene.here.line.cut = scene.shelf.down = True
    with pytest.raises(DatabaseUnavailableError):
        scene.here.begin()
