"""The way to an address is the one that a search would find. Source: smtp-delivery A-20, A-50 to A-53, C-24."""

from random import Random

import pytest

from mailq.envelope import Protocol
from mailq.routing.destination import parse_destination
from mailq.routing.direct import direct_route
from mailq.routing.mx import Route
from mailq.routing.route import Search, find_route
from mailq.settings import Settings
from tests.fakes.resolver import FakeResolver

SELF = "192.0.2.100"


@pytest.mark.parametrize("own", [frozenset[str](), frozenset({SELF, "2001:db8::100"})])
@pytest.mark.parametrize("families", [("ipv4",), ("ipv6",), ("ipv4", "ipv6")])
@pytest.mark.parametrize(
    "text",
    ["[192.0.2.1]", "[192.0.2.1]:2525", "[192.0.2.100]", "[IPv6:2001:DB8::1]", "[2001:db8:0::100]", "[2001:db8::1]:26"],
)
def test_what_is_worked_out_once_is_what_a_search_finds(text: str, families: tuple[str, ...], own: frozenset[str]):
    destination = parse_destination(text, default_service="smtp")
    search = Search(
        destination=destination,
        resolver=FakeResolver({}, families=families),
        own_addresses=own,
        settings=Settings(inet_protocols=families, randomize_addresses=True, mx_address_limit=1),
        rng=Random(1),
        smtp=True,
    )
    enabled = ("ipv6" if ":" in destination.host else "ipv4") in families
    assert (search.by_host() if enabled else None) == direct_route(destination, own, families)


@pytest.mark.parametrize("text", ["192.0.2.1", "dest.test", "[mx.dest.test]"])
def test_other_destinations_are_asked_for(text: str):
    destination = parse_destination(text, default_service="smtp")
    assert direct_route(destination, frozenset(), ("ipv4", "ipv6")) is None


def test_nobody_is_asked_for_an_address():
    resolver = FakeResolver({})
    route = find_route(
        parse_destination("[192.0.2.1]", default_service="smtp"),
        resolver=resolver,
        own_addresses=(SELF,),
        settings=Settings(),
        rng=Random(1),
        protocol=Protocol.SMTP,
    )
    assert isinstance(route, Route)
    assert ["192.0.2.1"] == [endpoint.host for endpoint in route.endpoints]
    assert [] == resolver.questions
