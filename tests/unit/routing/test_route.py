"""From a site to its servers, or to the reason why there are none."""

import logging
from random import Random
from typing import Any

import pytest

from mailq.envelope import Protocol
from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.destination import parse_destination
from mailq.routing.mx import NoRoute, Route
from mailq.routing.route import Resolver, find_route
from mailq.settings import Settings
from mailq.status import Scope, Stage
from mailq.testing.dns_zone import Records
from tests.fakes.resolver import FakeResolver

SELF = "192.0.2.100"
MX = {"MX": ["10 mx1.dest.test", "20 mx2.dest.test"]}
MX1 = {"A": ["192.0.2.1"]}
MX2 = {"A": ["192.0.2.2"]}
MX3 = {"A": ["192.0.2.3"]}
LOOP = "mail for dest.test loops back to myself"
ERROR = "Host or domain name not found. Name service error for"


def route(
    zone: dict[str, Records],
    text: str = "dest.test",
    *,
    protocol: Protocol = Protocol.SMTP,
    resolver: Resolver | None = None,
    own: tuple[str, ...] = (SELF,),
    seed: int = 1,
    **settings: Any,
) -> Route | NoRoute:
    families = settings.get("inet_protocols", ("ipv4", "ipv6"))
    return find_route(
        parse_destination(text, default_service="smtp"),
        resolver=resolver or FakeResolver(zone, families=families),
        own_addresses=own,
        settings=Settings(**({"randomize_addresses": False} | settings)),
        rng=Random(seed),
        protocol=protocol,
    )


def found(answer: Route | NoRoute) -> list[str]:
    assert isinstance(answer, Route)
    return [str(endpoint) for endpoint in answer.endpoints]


def failed(answer: Route | NoRoute) -> tuple[str, str]:
    assert isinstance(answer, NoRoute)
    assert (Stage.RESOLVE, Scope.SERVER) == (answer.failure.stage, answer.failure.scope)
    assert not answer.failure.settles
    return str(answer.failure.status), answer.failure.reason


def test_exchangers_are_tried_in_order_of_preference():
    """1.01: A-36."""
    zone = {"dest.test": {"MX": ["20 mx2.dest.test", "10 mx1.dest.test"]}, "mx1.dest.test": MX1, "mx2.dest.test": MX2}
    answer = route(zone)
    assert ["mx1.dest.test[192.0.2.1]:25", "mx2.dest.test[192.0.2.2]:25"] == found(answer)
    assert isinstance(answer, Route)
    assert (10, False) == (answer.best_preference, answer.last_site)


def test_a_domain_without_exchangers_is_its_own():
    """1.02: A-35 A-50."""
    answer = route({"dest.test": MX1})
    assert ["dest.test[192.0.2.1]:25"] == found(answer)
    assert isinstance(answer, Route)
    assert answer.best_preference == 0


def test_a_domain_that_does_not_exist_bounces():
    """1.03 and 1.04: A-11 A-21 A-35."""
    assert ("5.4.4", f"{ERROR} name=dest.test type=AAAA: Host not found") == failed(route({}))
    ipv4 = route({}, inet_protocols=("ipv4",))
    assert ("5.4.4", f"{ERROR} name=dest.test type=A: Host not found") == failed(ipv4)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (LookupKind.RETRY, "4.4.3"),
        (LookupKind.INVALID, "5.4.4"),
        (LookupKind.FAIL, "5.4.3"),
        (LookupKind.POLICY, "4.7.0"),
        (LookupKind.NULL_MX, "5.1.0"),
    ],
)
def test_a_failed_exchanger_lookup_ends_the_site_although_the_domain_has_an_address(kind: LookupKind, status: str):
    """1.05, 1.07 to 1.09, 1.30: A-30 to A-34."""

    class Broken(FakeResolver):
        def mail_exchangers(self, domain: str) -> list[tuple[int, str]]:
            raise LookupFailedError(kind, "the words")

    answer = route({}, resolver=Broken({"dest.test": MX1}))
    assert (status, "the words") == failed(answer)
    assert isinstance(answer, NoRoute)
    assert not answer.last_site


@pytest.mark.parametrize("word", ["SERVFAIL", "FORMERR", ["10 -bad-."]])
def test_a_failed_exchanger_lookup_can_be_ignored(word: Any):
    """1.06: A-30 to A-32."""
    zone: dict[str, Records] = {"dest.test": {"MX": word, "A": ["192.0.2.1"]}}
    assert ["dest.test[192.0.2.1]:25"] == found(route(zone, ignore_mx_lookup_error=True))


def test_a_domain_that_takes_no_mail_cannot_be_overruled():
    """1.08: A-34; the override covers errors of the lookup only."""
    zone: dict[str, Records] = {"dest.test": {"MX": ["0 ."], "A": ["192.0.2.1"]}}
    expected = ("5.1.0", "Domain dest.test does not accept mail (nullMX)")
    assert expected == failed(route(zone, ignore_mx_lookup_error=True))


def test_an_exchanger_without_address_bounces_and_the_domains_own_address_is_not_used(
    caplog: pytest.LogCaptureFixture,
):
    """1.10: A-36."""
    zone: dict[str, Records] = {"dest.test": {"MX": ["10 mx1.dest.test"], "A": ["192.0.2.9"]}}
    with caplog.at_level(logging.WARNING):
        assert ("5.4.4", f"{ERROR} name=mx1.dest.test type=AAAA: Host not found") == failed(route(zone))
    assert "no MX host for dest.test has a valid address record" in caplog.messages


def test_an_exchanger_without_address_can_be_waited_for():
    """1.11: A-36."""
    answer = route({"dest.test": {"MX": ["10 mx1.dest.test"]}}, defer_if_no_mx_address_found=True)
    assert ("4.4.4", f"{ERROR} name=mx1.dest.test type=AAAA: Host not found") == failed(answer)


def test_a_transient_lookup_makes_the_whole_site_transient_and_the_latest_one_speaks():
    """1.12 and 1.13: A-21 A-23."""
    soft_first = route({"dest.test": MX, "mx1.dest.test": "SERVFAIL"})
    assert ("4.4.4", f"{ERROR} name=mx2.dest.test type=AAAA: Host not found") == failed(soft_first)
    soft_last = route({"dest.test": MX, "mx2.dest.test": "SERVFAIL"})
    assert ("4.4.3", f"{ERROR} name=mx2.dest.test type=AAAA: Host not found, try again") == failed(soft_last)
    fatal_last = route({"dest.test": MX, "mx1.dest.test": "SERVFAIL", "mx2.dest.test": "FORMERR"})
    assert ("4.4.3", f"{ERROR} name=mx2.dest.test type=AAAA: Non-recoverable error") == failed(fatal_last)


def test_of_two_permanent_failures_the_latest_counts():
    """A-21."""
    answer = route({"dest.test": MX, "mx1.dest.test": "FORMERR"})
    assert ("5.4.4", f"{ERROR} name=mx2.dest.test type=AAAA: Host not found") == failed(answer)


def test_one_exchanger_with_an_address_is_enough():
    """1.14: A-39."""
    answer = route({"dest.test": MX, "mx2.dest.test": MX2})
    assert ["mx2.dest.test[192.0.2.2]:25"] == found(answer)
    assert isinstance(answer, Route)
    assert answer.best_preference == 20


def test_aliases_keep_the_name_that_was_looked_up():
    """1.16 and 1.17: A-10 D-08."""
    zone: dict[str, Records] = {
        "dest.test": {"CNAME": ["other.test"]},
        "other.test": {"MX": ["10 alias.test"]},
        "alias.test": {"CNAME": ["real.test"]},
        "real.test": MX1,
    }
    assert ["alias.test[192.0.2.1]:25"] == found(route(zone))


def test_an_exchanger_may_be_an_address():
    """1.18: A-20."""
    assert ["192.0.2.7[192.0.2.7]:25"] == found(route({"dest.test": {"MX": ["10 192.0.2.7"]}}))


@pytest.mark.parametrize(
    "exchangers",
    [["10 me.test"], ["10 mx1.dest.test", "10 me.test"], ["10 me.test", "20 mx1.dest.test"]],
)
def test_the_best_exchanger_being_this_host_is_a_loop_and_the_end(exchangers: list[str]):
    """1.19, 1.23, 1.26: A-37 A-41 C-23 C-24."""
    answer = route({"dest.test": {"MX": exchangers}, "mx1.dest.test": MX1, "me.test": {"A": [SELF]}})
    assert ("5.4.6", LOOP) == failed(answer)
    assert isinstance(answer, NoRoute)
    assert answer.last_site


def test_this_host_as_the_domains_own_address_is_a_loop_and_the_end():
    """1.20: A-51 C-24; one own address among others is enough."""
    for text in ("dest.test", "[dest.test]"):
        answer = route({"dest.test": {"A": ["192.0.2.1", SELF]}}, text)
        assert ("5.4.6", LOOP) == failed(answer)
        assert isinstance(answer, NoRoute)
        assert answer.last_site


def test_a_backup_exchanger_only_asks_better_ones():
    """1.21: A-37 C-23."""
    zone: dict[str, Records] = {
        "dest.test": {"MX": ["10 mx1.dest.test", "20 me.test", "30 mx3.dest.test"]},
        "mx1.dest.test": MX1,
        "me.test": {"A": [SELF]},
        "mx3.dest.test": MX3,
    }
    answer = route(zone)
    assert ["mx1.dest.test[192.0.2.1]:25"] == found(answer)
    assert isinstance(answer, Route)
    assert answer.last_site


def test_a_backup_exchanger_waits_while_the_better_ones_have_no_address():
    """1.22: A-37."""
    answer = route({"dest.test": {"MX": ["10 mx1.dest.test", "20 me.test"]}, "me.test": {"A": [SELF]}})
    assert ("4.4.4", "unable to find primary relay for dest.test") == failed(answer)
    assert isinstance(answer, NoRoute)
    assert answer.last_site


def test_on_another_port_or_with_lmtp_an_own_address_is_a_server_like_any_other():
    """1.27: C-18 A-53."""
    zone: dict[str, Records] = {"dest.test": {"A": [SELF]}}
    assert [f"dest.test[{SELF}]:2626"] == found(route(zone, "dest.test:2626"))
    assert [f"dest.test[{SELF}]:25"] == found(route(zone, protocol=Protocol.LMTP))


def test_lmtp_asks_for_no_exchangers():
    """C-19."""
    resolver = FakeResolver({"dest.test": {"MX": ["10 mx1.dest.test"], "A": ["192.0.2.1"]}})
    assert ["dest.test[192.0.2.1]:24"] == found(route({}, "dest.test:24", resolver=resolver, protocol=Protocol.LMTP))
    assert ["A dest.test", "AAAA dest.test"] == resolver.questions


def test_brackets_mean_this_host_and_no_exchanger():
    """2.10, 2.17: C-101 A-50."""
    resolver = FakeResolver({"dest.test": {"MX": ["10 mx1.dest.test"], "A": ["192.0.2.1"]}})
    assert ["dest.test[192.0.2.1]:25"] == found(route({}, "[dest.test]", resolver=resolver))
    assert ["A dest.test", "AAAA dest.test"] == resolver.questions
    assert ("5.4.4", f"{ERROR} name=nohost.test type=AAAA: Host not found") == failed(route({}, "[nohost.test]"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[127.0.1.1]", "127.0.1.1[127.0.1.1]:25"),
        ("127.0.1.1", "127.0.1.1[127.0.1.1]:25"),
        ("[IPv6:2001:db8::1]:26", "2001:db8::1[2001:db8::1]:26"),
    ],
)
def test_an_address_as_destination_is_taken_as_it_is(text: str, expected: str):
    """2.10 to 2.12: C-101 to C-103, A-20."""
    assert [expected] == found(route({}, text))


def test_an_address_of_a_disabled_family_bounces():
    """2.16: A-20."""
    answer = route({}, "[2001:db8::1]", inet_protocols=("ipv4",))
    assert ("5.4.4", "Name service error for 2001:db8::1: invalid host or domain name") == failed(answer)


def test_without_any_family_all_mail_waits():
    """C-10."""
    assert ("4.4.4", "all network protocols are disabled") == failed(route({}, inet_protocols=()))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (LookupKind.RETRY, "4.4.4"),
        (LookupKind.SYSTEM, "4.3.0"),
        (LookupKind.NOT_FOUND, "5.4.4"),
        (LookupKind.FAIL, "5.3.0"),
    ],
)
def test_the_systems_name_service_has_statuses_of_its_own(kind: LookupKind, status: str):
    """A-22."""

    class Native(FakeResolver):
        def addresses(self, host: str) -> list[str]:
            raise LookupFailedError(kind, "the words", native=True)

    assert (status, "the words") == failed(route({}, resolver=Native({}), disable_dns_lookups=True))


def test_without_dns_the_domain_is_a_host():
    """1.29: C-19 A-24."""
    resolver = FakeResolver({"dest.test": {"MX": ["10 mx1.dest.test"], "A": ["192.0.2.1"]}})
    assert ["dest.test[192.0.2.1]:25"] == found(route({}, resolver=resolver, disable_dns_lookups=True))
    assert "MX dest.test" not in resolver.questions


def test_families_are_ordered_and_balanced_at_the_end():
    """2.05 to 2.07: A-42 A-45 A-52."""
    ipv6 = [f"2001:db8::{n}" for n in range(1, 7)]
    zone: dict[str, Records] = {"dest.test": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ipv6}}
    balanced = route(zone, address_preference="ipv6")
    assert isinstance(balanced, Route)
    assert [*ipv6[:3], "192.0.2.1", "192.0.2.2"] == [e.address for e in balanced.endpoints]
    unbalanced = route(zone, address_preference="ipv6", balance_inet_protocols=False)
    assert isinstance(unbalanced, Route)
    assert [*ipv6, "192.0.2.1", "192.0.2.2"] == [e.address for e in unbalanced.endpoints]


def test_equal_servers_are_shuffled_only_when_asked_for():
    """A-38."""
    zone: dict[str, Records] = {"dest.test": {"A": [f"192.0.2.{n}" for n in range(1, 6)]}}
    fixed = {tuple(found(route(zone, seed=seed))) for seed in range(20)}
    mixed = {tuple(found(route(zone, seed=seed, randomize_addresses=True))) for seed in range(20)}
    assert len(fixed) == 1
    assert len(mixed) > 1


def test_a_site_lists_at_most_a_hundred_addresses():
    """A-27."""
    zone: dict[str, Records] = {"dest.test": {"MX": [f"10 mx{n}.test" for n in range(90)]}}
    zone |= {f"mx{n}.test": {"A": [f"192.0.2.{n}", f"198.51.100.{n}"]} for n in range(90)}
    assert 100 == len(found(route(zone, mx_address_limit=0)))


def test_a_hundred_exchangers_that_nobody_answers_for_do_not_hold_up_a_session_for_ever():
    """Differs from Postfix, which waits for each of them."""
    zone: dict[str, Records] = {"dest.test": {"MX": [f"10 mx{n:02}.test" for n in range(100)]}}
    zone |= {f"mx{n:02}.test": "TIMEOUT" for n in range(100)}
    resolver = FakeResolver(zone)
    assert ("4.4.3", f"{ERROR} name=mx09.test type=AAAA: Host not found, try again") == failed(
        route({}, resolver=resolver)
    )
    assert 10 == sum(question.startswith("A ") for question in resolver.questions)


def test_texts_show_an_international_name_as_it_was_written():
    """A-26."""
    zone: dict[str, Records] = {"xn--bcher-kva.test": {"A": [SELF]}}
    assert ("5.4.6", "mail for bücher.test loops back to myself") == failed(route(zone, "bücher.test"))


@pytest.mark.parametrize(
    ("text", "authentic", "expected"),
    [("dest.test", True, True), ("dest.test", False, False), ("bare.test", True, None), ("[dest.test]", True, None)],
)
def test_a_route_says_whether_dnssec_vouches_for_the_records_that_led_to_it(
    text: str, *, authentic: bool, expected: bool | None
):
    """P-42: without MX records there is nothing to vouch for."""
    zone = {"dest.test": {"MX": ["10 mx1.dest.test"], "A": ["192.0.2.9"]}, "mx1.dest.test": {"A": ["192.0.2.1"]}}
    answer = route({}, text, resolver=FakeResolver(zone | {"bare.test": {"A": ["192.0.2.8"]}}, authentic=authentic))
    assert isinstance(answer, Route)
    assert expected is answer.validated
