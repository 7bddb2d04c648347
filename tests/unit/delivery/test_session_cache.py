"""What is kept costs nothing while nobody takes it, and is closed in time."""

from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Self

import pytest

from mailq.delivery.session_cache import SessionCache

IDLE = timedelta(seconds=2)


class Instant(float):
    """A time that counts how often one like it is looked at."""

    looks = 0

    def __add__(self, seconds: float) -> Self:
        return type(self)(float(self) + seconds)

    def __le__(self, other: float) -> bool:
        type(self).looks += 1
        return float(self) <= float(other)


@dataclass(eq=False)
class Kept:
    """What the cache sees of a session."""

    key: Any = ("server",)
    passage: Any = None
    end: str = ""

    def close(self) -> None:
        self.end = "closed"

    def quit(self) -> None:
        self.end = "quit"


@dataclass
class World:
    """A cache and its clock."""

    now: float = 0.0
    cache: SessionCache = field(init=False)

    def __post_init__(self) -> None:
        clock: Any = SimpleNamespace(monotonic=lambda: Instant(self.now))
        self.cache = SessionCache(clock, idle_time=IDLE)

    def reserve(self, request: object, **fields: Any) -> Kept:
        kept: Any = Kept(**fields)
        next_one: Any = request
        self.cache.reserve(kept, next_one)
        return kept

    def keep(self, *, label: Any = None, **fields: Any) -> Kept:
        kept: Any = Kept(**fields)
        self.cache.keep(kept, label)
        return kept


@pytest.fixture
def world() -> World:
    Instant.looks = 0
    return World()


def request() -> Any:
    return SimpleNamespace()


def test_a_reserved_session_is_found_by_its_request_alone_and_once(world: World) -> None:
    mine, other = request(), request()
    kept = world.reserve(mine)
    assert world.cache.take_reserved(other) is None
    assert kept is world.cache.take_reserved(mine)
    assert world.cache.take_reserved(mine) is None


def test_a_reserved_session_that_was_idle_too_long_is_closed_whoever_finds_it(world: World) -> None:
    mine = request()
    found, left = world.reserve(mine), world.reserve(request())
    world.now = 2.0
    assert world.cache.take_reserved(mine) is None
    assert ("closed", "") == (found.end, left.end)
    world.cache.close_idle()
    assert ("closed", 0) == (left.end, len(world.cache))


def test_nothing_is_kept_by_a_closed_cache(world: World) -> None:
    before = world.reserve(request())
    world.cache.close()
    after = world.reserve(request()), world.keep()
    assert ["closed"] * 3 == [one.end for one in (before, *after)]
    assert 0 == len(world.cache)


def test_the_oldest_that_is_wanted_is_given_up_reserved_or_not(world: World) -> None:
    kept = []
    for passage in ("a", "b", "b", "b"):
        kept.append(world.reserve(request(), passage=passage) if len(kept) == 1 else world.keep(passage=passage))
        world.now += 0.1
    assert [True, True, True, False] == [world.cache.give_up(lambda passage: passage == "b") for _ in range(4)]
    assert ["", "quit", "quit", "quit"] == [one.end for one in kept]
    assert kept[0] is world.cache.take_by_endpoint(("server",))


def test_a_session_taken_in_time_is_left_alone_afterwards(world: World) -> None:
    first, second = world.keep(label="d"), world.keep(label="d")
    assert first is world.cache.take_by_destination("d")
    world.now = 2.0
    world.cache.close_idle()
    assert ("", "closed") == (first.end, second.end)


def test_to_take_one_session_costs_the_same_however_many_others_are_kept(world: World) -> None:
    for number in range(1000):
        world.keep(key=(number,), label=f"d{number}")
        world.reserve(request())
        world.now += 0.0001
    mine = request()
    world.reserve(mine)
    assert world.cache.take_reserved(mine)
    assert world.cache.take_by_destination("d7")
    assert world.cache.take_by_endpoint((8,))
    assert Instant.looks < 10
