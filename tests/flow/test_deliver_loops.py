"""Mail whose best exchanger is this very host goes another way, where there is one."""

from typing import Any

import pytest

from mailq.envelope import Protocol
from tests.fakes.servers import FakeServer
from tests.fakes.world import World, brief, reason

SELF = "192.0.2.1"


def world(*, detour: str, **others: Any) -> World:
    """dest.test's only exchanger is this host; inner.test would take its mail."""
    inner = others.pop("inner", None) or FakeServer()
    servers = {"mx1": FakeServer(), "inner.test": inner}
    return World(servers, own_addresses=(SELF,), best_mx_transport=detour, **others)


def test_without_another_way_the_mail_bounces():
    """1.19: A-37 C-65."""
    assert brief(world(detour="").deliver()["u@dest.test"]) == "bounced 5.4.6 none"


@pytest.mark.parametrize("detour", ["[inner.test]", "smtp:[inner.test]:2525"])
def test_looping_mail_is_handed_over_and_the_result_is_the_other_servers(detour: str):
    """1.25: C-64."""
    inner = FakeServer(rcpts={"b@dest.test": "550 5.1.1 unknown", "c@dest.test": "450 4.2.1 busy"})
    outcomes = world(detour=detour, inner=inner).deliver("a@dest.test", "b@dest.test", "c@dest.test")
    assert [brief(outcome) for outcome in outcomes.values()] == [
        "sent 2.0.0 inner.test",
        "bounced 5.1.1 inner.test",
        "deferred 4.2.1 inner.test",
    ]


def test_looping_mail_can_be_handed_over_by_lmtp():
    """C-64: the nexthop that is left out is the request's, as a host, for LMTP asks for no exchangers."""
    local = world(
        detour="lmtp:",
        inner=FakeServer(lmtp=True),
        zone={"dest.test": {"MX": ["10 mx1.dest.test."], "A": ["192.0.2.2"]}},
    )
    assert brief(local.deliver()["u@dest.test"]) == "sent 2.0.0 dest.test"
    assert local.said("inner.test")[0] == "LHLO"


def test_a_detour_that_loops_itself_ends_the_search():
    """C-64: one level, no more."""
    circle = world(detour="smtp:")
    assert brief(circle.deliver()["u@dest.test"]) == "bounced 5.4.6 none"
    assert circle.network.attempts == []


def test_only_the_recipients_that_are_left_go_the_other_way():
    """C-64 C-13: an earlier site settled one of them."""
    early = FakeServer(rcpts={"a@dest.test": "250 2.1.5 ok"}, rcpt="450 4.2.1 busy")
    servers = {"mx1": FakeServer(), "inner.test": FakeServer(), "early.test": early}
    two = World(servers, own_addresses=(SELF,), best_mx_transport="[inner.test]")
    outcomes = two.deliver("a@dest.test", "b@dest.test", nexthop="[early.test],dest.test")
    assert [brief(outcome) for outcome in outcomes.values()] == ["sent 2.0.0 early.test", "sent 2.0.0 inner.test"]
    assert [address for address, _ in two.servers["inner.test"].accepted] == ["b@dest.test"]
    assert [sorted(settled) for settled in two.settled] == [[1], [2]]


def test_soft_bounce_does_not_keep_mail_from_its_detour():
    """C-64 T-04."""
    assert brief(world(detour="[inner.test]", soft_bounce=True).deliver()["u@dest.test"]) == "sent 2.0.0 inner.test"


@pytest.mark.parametrize(
    ("zone", "outcome"),
    [
        ({"dest.test": "NXDOMAIN"}, "bounced 5.4.4 none"),
        ({"dest.test": {"MX": ["10 gone.test.", "20 mx1.dest.test."]}}, "deferred 4.4.4 none"),
    ],
)
def test_mail_that_does_not_loop_stays(zone: Any, outcome: str):
    """C-64 C-65: a missing primary is no loop."""
    stays = world(detour="[inner.test]", zone=zone)
    assert brief(stays.deliver()["u@dest.test"]) == outcome
    assert stays.network.attempts == []


def test_a_looping_relayhost_is_our_fault_and_defers():
    """C-63 before C-64, 1.28."""
    ours = world(detour="[inner.test]", relayhost="dest.test")
    outcome = ours.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.3.5 none"
    assert reason(outcome) == "mail for dest.test loops back to myself"


def test_lmtp_knows_no_detour():
    """C-64 C-18."""
    lmtp = world(detour="[inner.test]", zone={"dest.test": {"A": [SELF]}}, inner=FakeServer())
    lmtp.servers["mx1"].lmtp = True
    assert brief(lmtp.deliver(nexthop="dest.test:25", protocol=Protocol.LMTP)["u@dest.test"]) == "sent 2.0.0 dest.test"


def test_a_sick_detour_makes_the_destination_sick():
    """C-64 T-22: it is where this nexthop's mail goes."""
    sick = world(detour="[gone.test]", zone={"gone.test": {"A": ["192.0.2.77"]}})
    outcome = sick.deliver()["u@dest.test"]
    assert brief(outcome) == "deferred 4.4.1 none"
    assert sick.destination_failure is not None
    assert reason(outcome) == sick.destination_failure.reason
