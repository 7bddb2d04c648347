"""A destination names a service, and SRV records say which hosts and ports offer it."""

from typing import Any

import pytest

from mailq.status import Bounced, Delivered, Outcome
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason

SERVICE = "_submission._tcp.dest.test"
RECORDS = {SERVICE: {"SRV": ["20 0 2588 mx2.dest.test.", "10 0 2587 mx1.dest.test."]}}


def deliver(
    *servers: str, zone: Any = RECORDS, dead: str = "", nexthop: str = "dest.test:submission", **settings: Any
) -> tuple[World, Outcome]:
    world = World(
        {name: None if name == dead else FakeServer() for name in servers},
        zone=zone,
        use_srv_lookup=("submission",),
        **settings,
    )
    return world, world.deliver(nexthop=nexthop)["u@dest.test"]


def server(outcome: Outcome) -> str:
    assert isinstance(outcome, Delivered)
    return str(outcome.endpoint)


def test_the_record_of_lowest_priority_tells_host_and_port():
    """11.01: A-60 A-63."""
    world, outcome = deliver("mx1", "mx2")
    assert server(outcome) == "mx1.dest.test[192.0.2.1]:2587"
    assert world.network.attempts == ["mx1.dest.test"]


def test_the_next_record_is_tried_on_its_own_port():
    """11.02: A-63 C-39."""
    world, outcome = deliver("mx1", "mx2", dead="mx1")
    assert server(outcome) == "mx2.dest.test[192.0.2.2]:2588"
    assert world.network.attempts == ["mx1.dest.test", "mx2.dest.test"]


def test_the_port_of_the_record_stands_in_the_reason():
    """A-63 C-84."""
    _, outcome = deliver("mx1", zone={SERVICE: {"SRV": ["10 0 2587 mx1.dest.test."]}}, dead="mx1")
    assert reason(outcome) == "connect to mx1.dest.test[192.0.2.1]:2587: Connection refused"


def test_without_records_the_mail_bounces_though_there_is_an_mx():
    """11.03: A-61."""
    world, outcome = deliver("mx1", zone={})
    text = f"Host or domain name not found. Name service error for name={SERVICE} type=SRV: Host not found"
    assert (brief(outcome), reason(outcome)) == ("bounced 5.4.4 none", text)
    assert world.network.attempts == []


def test_without_records_the_mx_is_asked_where_that_is_allowed():
    """11.04: A-62."""
    _, outcome = deliver("mx1", zone={}, allow_srv_lookup_fallback=True)
    assert server(outcome) == "mx1.dest.test[192.0.2.1]:587"


def test_a_failing_lookup_is_passed_over_where_that_is_wanted():
    """11.05: A-62."""
    torn = {SERVICE: "SERVFAIL"}
    _, outcome = deliver("mx1", zone=torn, ignore_srv_lookup_error=True)
    assert server(outcome) == "mx1.dest.test[192.0.2.1]:587"
    assert brief(deliver("mx1", zone=torn)[1]) == "deferred 4.4.3 none"


def test_a_service_that_is_explicitly_not_offered_bounces():
    """11.06: A-08 A-61."""
    _, outcome = deliver("mx1", zone={SERVICE: {"SRV": ["0 0 0 ."]}})
    assert isinstance(outcome, Bounced)
    assert (brief(outcome), reason(outcome)) == (
        "bounced 5.1.0 none",
        f"Domain {SERVICE} does not support SRV requests",
    )


def test_a_port_given_as_a_number_is_no_service():
    """11.07: C-21."""
    world, outcome = deliver(nexthop="dest.test:587", zone={"dest.test": {"A": ["192.0.2.9"]}} | RECORDS)
    assert reason(outcome) == "connect to dest.test[192.0.2.9]:587: Connection refused"
    assert f"SRV {SERVICE}" not in world.ports.resolver.questions  # type: ignore[attr-defined]  # the fake's


@pytest.mark.parametrize(("count", "sessions"), [(1, 1), (2, 1)])
def test_a_kept_session_is_found_again_by_the_port_of_the_record(count: int, sessions: int):
    """A-63 R-42."""
    world = World(
        {"mx1": FakeServer()},
        zone=RECORDS,
        use_srv_lookup=("submission",),
        connection_cache_destinations=("dest.test",),
    )
    for _ in range(count):
        world.deliver(nexthop="dest.test:submission")
    assert sessions == len(world.servers["mx1"].sessions)
