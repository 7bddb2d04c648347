"""The routine walks sites and servers as a postmaster expects. Each story is a row group of the reference."""

import pytest

from mailq.errors import DestinationSyntaxError
from mailq.status import Deferred
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason


def ok() -> FakeServer:
    return FakeServer()


def test_the_best_server_takes_the_mail_and_the_second_is_not_asked():
    """1.01: A-36 C-30."""
    world = World({"mx1": ok(), "mx2": ok()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx1.dest.test"
    assert world.network.attempts == ["mx1.dest.test"]
    assert world.said("mx1") == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
    assert len(world.servers["mx1"].accepted) == 1


def test_a_dead_first_server_is_passed_over():
    """C-39 C-51."""
    world = World({"mx1": None, "mx2": ok()})
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 mx2.dest.test"
    assert world.network.attempts == ["mx1.dest.test", "mx2.dest.test"]


def test_when_all_refuse_the_connection_the_last_one_is_named():
    """C-60 C-84 D-10."""
    world = World({"mx1": None, "mx2": None})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.1 none"
    assert reason(outcome) == "connect to mx2.dest.test[192.0.2.2]:25: Connection refused"
    assert isinstance(outcome, Deferred)
    assert [f.endpoint.host for f in outcome.earlier if f.endpoint] == ["mx1.dest.test"]
    assert world.destination_failure is outcome.failure


def test_a_domain_that_does_not_exist_bounces():
    """1.03: A-21 C-65."""
    world = World({}, zone={})
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.4.4 none"


def test_recipients_part_ways_by_what_each_server_says():
    """4.03: X-33 X-34 T-01 T-03 T-06."""
    first = FakeServer(rcpts={"b@dest.test": "450 4.2.1 busy", "c@dest.test": "550 5.1.1 unknown"})
    world = World({"mx1": first, "mx2": ok()})
    outcomes = world.deliver("a@dest.test", "b@dest.test", "c@dest.test")
    assert {r: brief(o) for r, o in outcomes.items()} == {
        "a@dest.test": "sent 2.0.0 mx1.dest.test",
        "b@dest.test": "sent 2.0.0 mx2.dest.test",
        "c@dest.test": "bounced 5.1.1 mx1.dest.test",
    }
    assert [sorted(settled) for settled in world.settled] == [[1, 3], [2]]


def test_two_transactions_a_site_are_enough():
    """4.05: C-44 C-58."""
    world = World({name: FakeServer(rcpt="450 4.2.1 busy") for name in ("mx1", "mx2")} | {"mx3": ok()})
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.2.1 mx2.dest.test"
    assert world.network.attempts == ["mx1.dest.test", "mx2.dest.test"]


def test_a_failed_handshake_costs_no_session():
    """4.06: C-52 C-58."""
    busy = {name: FakeServer(rcpt="450 4.2.1 busy") for name in ("mx2", "mx3")}
    world = World({"mx1": FakeServer(greeting="421 4.3.2 later")} | busy)
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.2.1 mx3.dest.test"


def test_the_address_limit_counts_dead_hosts():
    """2.08: C-31 C-51."""
    world = World({"mx1": None, "mx2": None, "mx3": ok()}, mx_address_limit=2)
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.4.1 none"
    assert world.network.attempts == ["mx1.dest.test", "mx2.dest.test"]


def test_no_limit_means_every_server_is_asked():
    """4.08: C-31 C-44."""
    servers = {f"mx{i}": FakeServer(rcpt="450 4.2.1 busy") for i in range(1, 8)}
    world = World(servers, mx_address_limit=0, mx_session_limit=0)
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.2.1 mx7.dest.test"
    assert len(world.network.attempts) == 7


def test_the_last_evidence_is_reported_even_when_it_says_less():
    """4.10: D-04 C-06."""
    world = World({"mx1": FakeServer(rcpt="450 4.2.1 busy"), "mx2": None})
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.1 none"
    assert world.destination_failure is None, "one carried-through transaction shields the site (T-22, T-29)"


def test_the_fallback_relay_takes_over_with_fresh_limits():
    """5.03: C-59 T-01."""
    busy = {name: FakeServer(rcpt="450 4.2.1 busy") for name in ("mx1", "mx2")}
    world = World(busy | {"fb.test": ok()}, fallback_relay=("[fb.test]",))
    assert brief(world.deliver()["u@dest.test"]) == "sent 2.0.0 fb.test"


def test_a_refusal_in_a_session_never_reaches_the_fallback_relay():
    """5.05: T-03."""
    world = World(
        {"mx1": FakeServer(rcpt="550 5.1.1 unknown"), "fb.test": ok()},
        fallback_relay=("[fb.test]",),
    )
    assert brief(world.deliver()["u@dest.test"]) == "bounced 5.1.1 mx1.dest.test"
    assert world.network.attempts == ["mx1.dest.test"]


def test_an_unknown_fallback_relay_is_our_fault_and_defers():
    """5.06 5.07: C-62."""
    world = World({"mx1": None}, fallback_relay=("fb.test",))
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.5 none"
    assert "fb.test" in reason(outcome)


def test_an_unknown_relayhost_is_our_fault_and_defers():
    """5.15: C-63."""
    world = World({}, relayhost="rh.test")
    assert brief(world.deliver(nexthop="rh.test")["u@dest.test"]) == "deferred 4.3.5 none"


def test_a_relayhost_may_still_refuse_a_recipient():
    """5.18: C-66."""
    world = World({"rh.test": FakeServer(rcpt="550 5.7.1 no relaying")}, relayhost="[rh.test]")
    assert brief(world.deliver(nexthop="[rh.test]")["u@dest.test"]) == "bounced 5.7.1 rh.test"


def test_a_host_that_is_its_own_mx_goes_no_further():
    """1.21: A-37 C-23."""
    world = World(
        {"mx1": None, "mx2": ok(), "mx3": ok(), "fb.test": ok()},
        own_addresses=("192.0.2.2",),
        fallback_relay=("[fb.test]",),
    )
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.4.1 none"
    assert world.network.attempts == ["mx1.dest.test"]


def test_mail_that_loops_bounces_and_no_fallback_relay_is_asked():
    """1.26: C-24."""
    world = World({"mx1": ok(), "fb.test": ok()}, own_addresses=("192.0.2.1",), fallback_relay=("[fb.test]",))
    outcome = world.deliver()["u@dest.test"]
    assert brief(outcome) == "bounced 5.4.6 none"
    assert reason(outcome) == "mail for dest.test loops back to myself"


def test_a_list_of_nexthops_is_tried_in_order():
    """2.18: C-13 C-27."""
    world = World({"two.test": ok()})
    assert brief(world.deliver(nexthop="nx.test, [two.test]")["u@dest.test"]) == "sent 2.0.0 two.test"


@pytest.mark.parametrize("nexthop", [",", "[x", "[x]:0", "[x]y", "host:25x"])
def test_a_nexthop_that_does_not_parse_is_a_configuration_error(nexthop):
    """C-01 C-106."""
    with pytest.raises(DestinationSyntaxError, match=r"expected|give a domain"):
        World({}).deliver(nexthop=nexthop)


def test_soft_bounce_asks_on_and_keeps_the_mail():
    """4.31: T-04 T-05."""
    servers = {name: FakeServer(rcpt="550 5.1.1 unknown") for name in ("mx1", "mx2")}
    world = World(servers, soft_bounce=True)
    assert brief(world.deliver()["u@dest.test"]) == "deferred 4.1.1 mx2.dest.test"
    assert len(world.network.attempts) == 2


def test_every_connection_is_closed_at_the_end():
    """Whatever happens in a session, its socket does not outlive the request (C-70)."""
    world = World({"mx1": FakeServer(greeting="!drop"), "mx2": FakeServer(dot="!stall"), "mx3": ok()})
    world.deliver()
    assert [c.closed for c in world.network.connections] == [True, True, True]
