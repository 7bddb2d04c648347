"""Kept sessions: rows R, as stories."""

from datetime import timedelta

from mailq.envelope import CacheRule
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief

KEEP = CacheRule(load=True, store=True)


def send(world: World, *recipients: str) -> list[str]:
    outcomes = world.deliver(*recipients, cache=KEEP)
    world.clock.advance(0.3)
    return [brief(o) for o in outcomes.values()]


def test_a_second_message_uses_the_session_of_the_first():
    """7.01: R-41 R-46."""
    world = World({"mx1": FakeServer()})
    assert send(world) + send(world) == ["sent 2.0.0 mx1.dest.test"] * 2
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA"]
    assert len(world.network.attempts) == 1


def test_a_session_idle_too_long_is_closed_without_a_word():
    """7.01: R-16."""
    world = World({"mx1": FakeServer()})
    send(world)
    world.clock.advance(2)
    world.cache.close_idle()
    assert len(world.cache) == 0
    assert world.network.connections[0].closed
    assert "QUIT" not in world.said("mx1")


def test_nothing_is_kept_unless_asked_for():
    """R-20 R-30."""
    world = World({"mx1": FakeServer()})
    world.deliver()
    assert len(world.cache) == 0
    assert world.said("mx1")[-1] == "QUIT"


def test_named_destinations_are_always_kept():
    """R-20."""
    world = World({"mx1": FakeServer()}, connection_cache_destinations=("dest.test",))
    world.deliver()
    world.deliver()
    assert len(world.network.attempts) == 1


def test_a_kept_session_that_is_dead_costs_nothing():
    """7.03 7.10: R-46."""
    for answer in ("500 what", "!drop", "!stall"):
        world = World({"mx1": FakeServer(rset=answer)})
        assert send(world) + send(world) == ["sent 2.0.0 mx1.dest.test"] * 2
        assert len(world.network.attempts) == 2
        assert world.network.connections[0].closed
        assert len(world.servers["mx1"].accepted) == 2


def test_the_reuse_count_is_limited():
    """7.04: R-03 X-13."""
    world = World({"mx1": FakeServer()}, connection_reuse_count_limit=1)
    for _ in range(4):
        send(world)
    assert [s[-1] for s in world.servers["mx1"].sessions] == ["QUIT", "QUIT"]


def test_a_session_has_a_total_life():
    """R-03."""
    world = World({"mx1": FakeServer()}, connection_reuse_time_limit=timedelta(seconds=0.2))
    for _ in range(3):
        send(world)
    assert len(world.network.attempts) == 2
    assert world.said("mx1")[-1] == "QUIT"


def test_after_the_first_server_was_dead_the_next_message_goes_straight_to_the_second():
    """7.05: R-51 C-73."""
    world = World({"mx1": None, "mx2": FakeServer()})
    assert send(world) + send(world) + send(world) == ["sent 2.0.0 mx2.dest.test"] * 3
    assert world.network.attempts == ["mx1.dest.test", "mx2.dest.test"]


def test_both_servers_stay_when_the_first_only_refused_the_recipient_for_now():
    """7.07: R-51 R-10 C-38."""
    world = World({"mx1": FakeServer(rcpt="450 4.2.1 busy"), "mx2": FakeServer()})
    assert send(world) + send(world) == ["sent 2.0.0 mx2.dest.test"] * 2
    assert world.network.attempts == ["mx1.dest.test", "mx2.dest.test"]
    assert len(world.cache) == 2


def test_a_server_that_is_out_of_step_is_not_kept():
    """7.09: T-30 R-06."""
    world = World({"mx1": FakeServer(rcpt=["503 5.5.1 bad sequence", "250 ok"])})
    assert send(world) + send(world) == ["bounced 5.5.1 mx1.dest.test", "sent 2.0.0 mx1.dest.test"]
    assert len(world.network.attempts) == 2


def test_a_reused_session_counts_against_the_session_limit():
    """7.12: C-56 R-44."""
    world = World({"mx1": FakeServer(rcpt=["250 ok", "450 4.2.1 busy"]), "mx2": FakeServer()}, mx_session_limit=1)
    assert send(world) + send(world) == ["sent 2.0.0 mx1.dest.test", "deferred 4.2.1 mx1.dest.test"]


def test_a_kept_fallback_relay_is_not_asked_twice():
    """7.14 7.15: R-45 C-28 C-68 C-61."""
    fallback = FakeServer(rcpt=["250 ok", "450 4.2.1 busy"])
    world = World({"mx1": None, "fb.test": fallback}, fallback_relay=("[fb.test]",))
    assert send(world) + send(world) == ["sent 2.0.0 fb.test", "deferred 4.3.0 none"]
    assert world.network.attempts == ["mx1.dest.test", "fb.test", "mx1.dest.test"]


def test_shutdown_closes_every_kept_session():
    """A worker leaves no socket behind."""
    world = World({"mx1": FakeServer()})
    send(world)
    world.cache.close()
    assert world.network.connections[0].closed
    send(world)
    assert len(world.cache) == 0
    assert all(c.closed for c in world.network.connections)
