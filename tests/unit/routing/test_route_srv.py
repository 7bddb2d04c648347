"""From a service's name to its servers, and what is done when SRV records do not lead there."""

import logging
from random import Random
from typing import Any

import pytest

from mailq.envelope import Protocol
from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.destination import parse_destination
from mailq.routing.mx import NoRoute, Route
from mailq.routing.route import find_route
from mailq.settings import Settings
from mailq.testing.dns_zone import Records
from tests.fakes.resolver import FakeResolver

SELF = "192.0.2.100"
NAME = "_submission._tcp.dest.test"
HOSTS: dict[str, Records] = {f"mx{n}.dest.test": {"A": [f"192.0.2.{n}"]} for n in range(1, 4)}
MX: dict[str, Records] = {"dest.test": {"MX": ["10 mx3.dest.test"], "A": ["192.0.2.9"]}}


def route(
    zone: dict[str, Records],
    text: str = "dest.test:submission",
    *,
    resolver: FakeResolver | None = None,
    protocol: Protocol = Protocol.SMTP,
    default_service: str = "smtp",
    seed: int = 1,
    **settings: Any,
) -> Route | NoRoute:
    defaults = {"use_srv_lookup": ("submission",), "randomize_addresses": False, "inet_protocols": ("ipv4",)}
    return find_route(
        parse_destination(text, default_service=default_service),
        resolver=resolver or FakeResolver(HOSTS | zone, families=("ipv4",)),
        own_addresses=(SELF,),
        settings=Settings(**(defaults | settings)),
        rng=Random(seed),
        protocol=protocol,
    )


def found(answer: Route | NoRoute) -> list[str]:
    assert isinstance(answer, Route)
    return [str(endpoint) for endpoint in answer.endpoints]


def failed(answer: Route | NoRoute) -> tuple[str, str]:
    assert isinstance(answer, NoRoute)
    return str(answer.failure.status), answer.failure.reason


def srv(*records: str, name: str = NAME) -> dict[str, Records]:
    return {name: {"SRV": list(records)}}


def test_each_server_has_the_port_of_its_own_record():
    """A-60 A-63 C-22: in the order of priority, which is the preference."""
    answer = route(srv("20 0 2588 mx2.dest.test.", "10 0 2587 mx1.dest.test."))
    assert ["mx1.dest.test[192.0.2.1]:2587", "mx2.dest.test[192.0.2.2]:2588"] == found(answer)
    assert isinstance(answer, Route)
    assert [10, 20] == [endpoint.preference for endpoint in answer.endpoints]
    assert (10, False) == (answer.best_preference, answer.last_site)


def test_the_weight_decides_even_when_addresses_are_not_shuffled():
    """A-63 A-64."""
    zone = srv("10 9 2587 mx1.dest.test.", "10 1 2587 mx2.dest.test.")
    first = [found(route(zone, seed=seed))[0] for seed in range(100)]
    assert 70 < first.count("mx1.dest.test[192.0.2.1]:2587") < 100


def test_the_family_preferred_does_not_reorder_what_the_records_say():
    """A-64."""
    zone: dict[str, Records] = srv("10 0 2587 mx1.dest.test.", "20 0 2587 six.dest.test.")
    zone |= {"six.dest.test": {"AAAA": ["2001:db8::6"]}, "mx1.dest.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}}
    both = {"inet_protocols": ("all",), "address_preference": "ipv6"}
    answer = route(zone, resolver=FakeResolver(zone), **both)
    assert ["192.0.2.1", "2001:db8::1", "2001:db8::6"] == [e.address for e in answer.endpoints]  # type: ignore[union-attr]  # a route
    limited = route(zone, resolver=FakeResolver(zone), mx_address_limit=2, **both)
    assert ["192.0.2.1", "2001:db8::1"] == [e.address for e in limited.endpoints]  # type: ignore[union-attr]  # a route


@pytest.mark.parametrize("text", ["dest.test:587", "dest.test", "[dest.test]:submission", "dest.test:smtps"])
def test_only_a_service_that_is_listed_by_name_is_looked_for(text: str):
    """11.07: C-21."""
    resolver = FakeResolver(HOSTS | MX | srv("10 0 2587 mx1.dest.test."))
    route({}, text, resolver=resolver)
    assert not [question for question in resolver.questions if question.startswith("SRV")]


def test_the_default_service_counts_as_well_and_case_does_not():
    """C-21."""
    zone = srv("10 0 2587 mx1.dest.test.")
    assert ["mx1.dest.test[192.0.2.1]:2587"] == found(route(zone, "dest.test", default_service="submission"))
    assert ["mx1.dest.test[192.0.2.1]:2587"] == found(route(zone, "dest.test:Submission"))


def test_without_dns_there_are_no_services():
    """C-21 A-24."""
    zone = MX | srv("10 0 2587 mx1.dest.test.")
    assert ["dest.test[192.0.2.9]:587"] == found(route(zone, disable_dns_lookups=True))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (LookupKind.RETRY, "4.4.3"),
        (LookupKind.INVALID, "5.4.4"),
        (LookupKind.FAIL, "5.4.3"),
        (LookupKind.POLICY, "4.7.0"),
        (LookupKind.NULL_SRV, "5.1.0"),
        (LookupKind.NOT_FOUND, "5.4.4"),
    ],
)
def test_a_service_that_cannot_be_looked_up_has_a_status(kind: LookupKind, status: str):
    """A-61 A-62: who overrides which."""

    class Failing(FakeResolver):
        def services(self, name: str) -> list[Any]:
            raise LookupFailedError(kind, "the words")

    resolver = Failing(HOSTS | MX)
    assert (status, "the words") == failed(route({}, resolver=resolver))
    by_mx = ["mx3.dest.test[192.0.2.3]:587"]
    assert by_mx == found(route({}, resolver=resolver, allow_srv_lookup_fallback=True))
    ignoring = route({}, resolver=resolver, ignore_srv_lookup_error=True)
    if kind in {LookupKind.RETRY, LookupKind.INVALID, LookupKind.FAIL}:
        assert by_mx == found(ignoring)
    else:
        assert (status, "the words") == failed(ignoring)


def test_targets_without_an_address_are_passed_over():
    """A-65 A-23."""
    records = ["10 0 2587 gone.dest.test.", "20 0 2588 mx2.dest.test."]
    assert ["mx2.dest.test[192.0.2.2]:2588"] == found(route(srv(*records)))


def test_a_service_whose_targets_have_no_address_fails_as_they_do(caplog: pytest.LogCaptureFixture):
    """A-65 A-62."""
    zone = MX | srv("10 0 2587 gone.dest.test.")
    with caplog.at_level(logging.WARNING, "mailq"):
        answer = route(zone, ignore_srv_lookup_error=True)
    text = "Host or domain name not found. Name service error for name=gone.dest.test type=A: Host not found"
    assert ("5.4.4", text) == failed(answer)
    assert [f"no SRV host for {NAME} has a valid address record"] == caplog.messages
    assert ["mx3.dest.test[192.0.2.3]:587"] == found(route(zone, allow_srv_lookup_fallback=True))


SMTP_NAME = "_smtp._tcp.dest.test"
SMTP = {"text": "dest.test", "use_srv_lookup": ("smtp",)}
BACKUP = {"self.dest.test": {"A": [SELF]}}


def test_this_host_and_worse_ones_are_dropped_from_a_service_too():
    """A-64 C-23."""
    records = ["10 0 2525 mx1.dest.test.", "20 0 25 self.dest.test.", "30 0 25 mx2.dest.test."]
    answer = route(BACKUP | srv(*records, name=SMTP_NAME), **SMTP)
    assert ["mx1.dest.test[192.0.2.1]:2525"] == found(answer)
    assert answer.last_site


@pytest.mark.parametrize(
    ("records", "failure"),
    [
        (["10 0 25 self.dest.test."], ("5.4.6", f"mail for {SMTP_NAME} loops back to myself")),
        (
            ["10 0 25 gone.dest.test.", "20 0 25 self.dest.test."],
            ("4.4.4", f"unable to find primary relay for {SMTP_NAME}"),
        ),
    ],
)
def test_a_service_that_is_this_host_alone_loops(records: list[str], failure: tuple[str, str]):
    """A-64 A-66: with a fallback the loop is forgotten, and later sites may be asked."""
    zone = BACKUP | MX | srv(*records, name=SMTP_NAME)
    answer = route(zone, **SMTP)
    assert failure == failed(answer)
    assert answer.last_site
    fallen_back = route(zone, **SMTP, allow_srv_lookup_fallback=True)
    assert ["mx3.dest.test[192.0.2.3]:25"] == found(fallen_back)
    assert not fallen_back.last_site


def test_on_another_port_an_own_address_serves_like_any_other():
    """A-64 C-18: the port that counts is the destination's."""
    zone: dict[str, Records] = {"self.dest.test": {"A": [SELF]}} | srv("10 0 25 self.dest.test.")
    assert [f"self.dest.test[{SELF}]:25"] == found(route(zone))


def test_lmtp_asks_for_services_and_falls_back_to_the_host_itself():
    """A-62 C-21."""
    lmtp: dict[str, Any] = {"text": "dest.test:lmtp", "protocol": Protocol.LMTP, "use_srv_lookup": ("lmtp",)}
    zone = MX | srv("10 0 2424 mx1.dest.test.", name="_lmtp._tcp.dest.test")
    assert ["mx1.dest.test[192.0.2.1]:2424"] == found(route(zone, **lmtp))
    assert ["dest.test[192.0.2.9]:24"] == found(route(MX, **lmtp, allow_srv_lookup_fallback=True))
