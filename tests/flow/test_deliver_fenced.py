"""A worker whose lease is lost sends nothing more, and what was accepted is told before leave is taken."""

from dataclasses import replace
from typing import Any

import pytest

from mailq.envelope import CacheRule
from mailq.errors import LeaseLostError
from mailq.queue.certainty import is_uncertain
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief


class Fence:
    """Falls at the n-th time of asking."""

    def __init__(self, falls_at: int) -> None:
        self.left = falls_at

    def __call__(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise LeaseLostError("lost")


def fenced(world: World, falls_at: int) -> World:
    world.ports = replace(world.ports, fence=Fence(falls_at))
    return world


def test_nothing_is_offered_under_a_lost_lease():
    world = fenced(World({"mx1": FakeServer()}), 1)
    with pytest.raises(LeaseLostError):
        world.deliver()
    assert "MAIL" not in " ".join(world.said("mx1"))
    assert [] == world.servers["mx1"].accepted


def test_the_final_dot_is_not_sent_under_a_lease_lost_meanwhile():
    world = fenced(World({"mx1": FakeServer()}), 2)
    with pytest.raises(LeaseLostError):
        world.deliver()
    assert "DATA" in " ".join(world.said("mx1"))
    assert [] == world.servers["mx1"].accepted


def test_the_next_server_is_not_asked_under_a_lease_lost_meanwhile():
    first = FakeServer(rcpts={"b@dest.test": "450 4.2.1 busy"})
    world = fenced(World({"mx1": first, "mx2": FakeServer()}), 3)
    with pytest.raises(LeaseLostError):
        world.deliver("a@dest.test", "b@dest.test")
    assert [[1]] == [sorted(settled) for settled in world.settled]
    assert [] == world.servers["mx2"].accepted


def test_a_kept_session_is_fenced_too():
    world = World({"mx1": FakeServer()})
    keep = CacheRule(load=True, store=True)
    world.deliver(cache=keep)
    with pytest.raises(LeaseLostError):
        fenced(world, 1).deliver(cache=keep)
    assert 1 == len(world.servers["mx1"].accepted)


@pytest.mark.parametrize("skip", [True, False])
def test_what_was_accepted_is_told_before_leave_is_taken(skip: bool):  # noqa: FBT001 - a parameter of the test
    """T-39: the answer to QUIT may take minutes."""
    world = World({"mx1": FakeServer()}, skip_quit_response=skip)
    seen: list[bool] = []

    class Watching(list[Any]):
        """Looks at the server when it is told of an outcome."""

        def append(self, settled: Any) -> None:
            seen.append("QUIT" in world.said("mx1"))

    world.settled = Watching()
    world.deliver()
    assert [False] == seen
    assert "QUIT" in world.said("mx1")


def test_an_unanswered_dot_is_uncertain_and_the_next_server_is_asked_by_default():
    """T-36: as Postfix does."""
    world = World({"mx1": FakeServer(dot="!drop"), "mx2": FakeServer()})
    (outcome,) = world.deliver().values()
    assert "sent 2.0.0 mx2.dest.test" == brief(outcome)


def test_where_doubt_settles_no_other_server_is_asked():
    world = World({"mx1": FakeServer(dot="!drop"), "mx2": FakeServer()})
    (outcome,) = world.deliver(doubt_settles=True).values()
    assert ("deferred 4.4.2 mx1.dest.test", True) == (brief(outcome), is_uncertain(outcome))
    assert ["mx1.dest.test"] == world.network.attempts


def test_doubt_settles_under_soft_bounce_too():
    world = World({"mx1": FakeServer(dot="!drop"), "mx2": FakeServer()}, soft_bounce=True)
    world.deliver(doubt_settles=True)
    assert ["mx1.dest.test"] == world.network.attempts


def test_a_server_that_was_refused_before_the_dot_leaves_no_doubt():
    world = World({"mx1": FakeServer(data="!drop")})
    (outcome,) = world.deliver(doubt_settles=True).values()
    assert not is_uncertain(outcome)
