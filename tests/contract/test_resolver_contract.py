"""The resolver's contract, held by the fake, and by the real one against a real DNS server."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from mailq.errors import LookupFailedError, LookupKind
from mailq.routing.resolver import DnsResolver
from mailq.routing.route import Resolver
from mailq.routing.srv import ServiceRecord
from mailq.security import TlsaRecord
from mailq.settings import Settings
from mailq.testing.dns_zone import Records
from mailq.testing.dnsd import DnsServer
from tests.fakes.garbage import garbage_of
from tests.fakes.resolver import FakeResolver

NOT_FOUND = "Host or domain name not found. Name service error for"
ZONE: dict[str, Records] = {
    "dest.test": {"MX": ["20 mx2.dest.test.", "10 mx1.dest.test."], "A": ["192.0.2.9"]},
    "mx1.dest.test": {"A": ["192.0.2.2", "192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "mx2.dest.test": {"AAAA": ["2001:db8::2"]},
    "half.test": {"A": ["192.0.2.3"], "AAAA": "SERVFAIL"},
    "torn.test": {"A": "SERVFAIL"},
    "worn.test": {"A": "FORMERR", "AAAA": "NXDOMAIN"},
    "null.test": {"MX": ["0 ."], "A": ["192.0.2.4"]},
    "mixed.test": {"MX": ["10 mx1.dest.test.", "0 ."]},
    "broken.test": {"MX": ["10 -bad-.test."]},
    "mended.test": {"MX": ["10 -bad-.test.", "20 mx1.dest.test."]},
    "literal.test": {"MX": ["10 192.0.2.7."]},
    "alias.test": {"CNAME": ["other.test."]},
    "other.test": {"CNAME": ["dest.test."]},
    "dangling.test": {"CNAME": ["nowhere.test."]},
    "ring1.test": {"CNAME": ["ring2.test."]},
    "ring2.test": {"CNAME": ["ring1.test."]},
    "xn--bcher-kva.test": {"A": ["192.0.2.8"]},
    "_smtp._tcp.dest.test": {"SRV": ["20 5 2526 mx2.dest.test.", "10 0 2525 mx1.dest.test."]},
    "_smtp._tcp.null.test": {"SRV": ["0 0 0 ."]},
    "_smtp._tcp.mixed.test": {"SRV": ["10 0 25 mx1.dest.test.", "20 0 25 ."]},
    "_smtp._tcp.broken.test": {"SRV": ["10 0 25 -bad-.test.", "10 0 0 mx1.dest.test."]},
    "_smtp._tcp.mended.test": {"SRV": ["10 0 25 -bad-.test.", "10 0 0 mx1.dest.test.", "10 0 25 mx2.dest.test."]},
    "_smtp._tcp.alias.test": {"CNAME": ["_smtp._tcp.dest.test."]},
    "servfail.test": "SERVFAIL",
    "refused.test": "REFUSED",
    "notimp.test": "NOTIMP",
    "formerr.test": "FORMERR",
    "empty.test": {"A": []},
    "signed.test": {"MX": ["10 mx.signed.test."], "_ad": ""},
    "mx.signed.test": {"A": ["192.0.2.5"], "_ad": ""},
    "_25._tcp.mx.signed.test": {"TLSA": ["3 1 1 " + "ab" * 32, "2 0 1 " + "cd" * 32], "_ad": ""},
    "_25._tcp.mx1.dest.test": {"TLSA": ["3 1 1 " + "ab" * 32]},
    "_25._tcp.torn.test": "SERVFAIL",
    "safe.alias.test": {"CNAME": ["mx.signed.test."], "_ad": ""},
    "stray.alias.test": {"CNAME": ["mx1.dest.test."], "_ad": ""},
    "loose.alias.test": {"CNAME": ["mx.signed.test."]},
}

Make = Callable[[tuple[str, ...]], Resolver]
END_ENTITY = TlsaRecord(3, 1, 1, b"\xab" * 32)
ANCHOR = TlsaRecord(2, 0, 1, b"\xcd" * 32)


@pytest.fixture(params=["fake", "real"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a resolver of the given address families over ZONE."""
    if request.param == "fake":
        yield lambda families: FakeResolver(ZONE, families=families)
        return
    with DnsServer(ZONE) as server:
        settings = {
            "nameservers": (server.nameserver,),
            "dns_timeout": timedelta(seconds=20),
            "dns_support_level": "dnssec",
        }
        yield lambda families: DnsResolver(Settings(inet_protocols=families, **settings))


@pytest.fixture
def resolver(make: Make) -> Resolver:
    return make(("ipv4", "ipv6"))


def failure(ask: Callable[[str], object], name: str) -> tuple[LookupKind, str]:
    with pytest.raises(LookupFailedError) as caught:
        ask(name)
    return caught.value.kind, caught.value.text


def test_exchangers_come_in_the_order_of_the_answer(resolver: Resolver):
    assert [(20, "mx2.dest.test"), (10, "mx1.dest.test")] == list(resolver.mail_exchangers("dest.test"))


def test_a_name_may_be_asked_for_in_any_case(resolver: Resolver):
    assert ["192.0.2.9"] == list(resolver.addresses("DEST.Test"))


def test_ipv4_addresses_come_before_ipv6(resolver: Resolver):
    assert ["192.0.2.2", "192.0.2.1", "2001:db8::1"] == list(resolver.addresses("mx1.dest.test"))


@pytest.mark.parametrize(
    ("families", "expected"), [(("ipv4",), ["192.0.2.2", "192.0.2.1"]), (("ipv6",), ["2001:db8::1"])]
)
def test_only_enabled_families_are_returned(make: Make, families: tuple[str, ...], expected: list[str]):
    assert expected == list(make(families).addresses("mx1.dest.test"))


def test_one_answering_family_is_enough(resolver: Resolver):
    """A-11: OK ranks above everything."""
    assert ["192.0.2.3"] == list(resolver.addresses("half.test"))


@pytest.mark.parametrize("name", ["half.test", "dest.test", "torn.test", "nowhere.test"])
def test_what_failed_leaves_nothing_behind(resolver: Resolver, name: str):
    def ask() -> None:
        with suppress(LookupFailedError):
            resolver.addresses(name)

    ask()
    assert set() == garbage_of(ask)


def test_a_missing_name_is_reported_by_its_last_question(make: Make):
    """A-02 A-09 A-11, scenarios 1.03 and 1.04."""
    both = failure(make(("ipv4", "ipv6")).addresses, "nowhere.test")
    assert (LookupKind.NOT_FOUND, f"{NOT_FOUND} name=nowhere.test type=AAAA: Host not found") == both
    ipv4 = failure(make(("ipv4",)).addresses, "nowhere.test")
    assert (LookupKind.NOT_FOUND, f"{NOT_FOUND} name=nowhere.test type=A: Host not found") == ipv4


def test_a_name_without_the_wanted_record_is_not_found(resolver: Resolver):
    """A-02 A-09."""
    text = f"{NOT_FOUND} name=empty.test type=MX: Host found but no data record of requested type"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.mail_exchangers, "empty.test")


@pytest.mark.parametrize("name", ["servfail.test", "refused.test", "notimp.test"])
def test_a_server_that_cannot_answer_now_is_asked_again_later(resolver: Resolver, name: str):
    """A-03 A-09."""
    text = f"{NOT_FOUND} name={name} type=MX: Host not found, try again"
    assert (LookupKind.RETRY, text) == failure(resolver.mail_exchangers, name)


def test_a_server_that_rejects_the_question_is_final(resolver: Resolver):
    """A-04 A-09."""
    text = f"{NOT_FOUND} name=formerr.test type=MX: Non-recoverable error"
    assert (LookupKind.FAIL, text) == failure(resolver.mail_exchangers, "formerr.test")


def test_of_two_failures_the_higher_class_speaks(resolver: Resolver):
    """A-11: RETRY ranks above NOT_FOUND, FAIL above NOT_FOUND."""
    torn = f"{NOT_FOUND} name=torn.test type=A: Host not found, try again"
    assert (LookupKind.RETRY, torn) == failure(resolver.addresses, "torn.test")
    worn = f"{NOT_FOUND} name=worn.test type=A: Non-recoverable error"
    assert (LookupKind.FAIL, worn) == failure(resolver.addresses, "worn.test")


@pytest.mark.parametrize("name", ["null.test", "mixed.test"])
def test_a_root_target_anywhere_means_that_the_domain_takes_no_mail(resolver: Resolver, name: str):
    """A-07 A-09, RFC 7505."""
    text = f"Domain {name} does not accept mail (nullMX)"
    assert (LookupKind.NULL_MX, text) == failure(resolver.mail_exchangers, name)


def test_targets_that_cannot_be_hosts_are_left_out(resolver: Resolver):
    """A-05."""
    assert [(20, "mx1.dest.test")] == list(resolver.mail_exchangers("mended.test"))


def test_an_answer_of_impossible_targets_only_is_malformed(resolver: Resolver):
    """A-05 A-09."""
    text = "Name service error for name=broken.test type=MX: Malformed or unexpected name server reply"
    assert (LookupKind.INVALID, text) == failure(resolver.mail_exchangers, "broken.test")


def test_a_target_may_be_an_address_against_the_rules(resolver: Resolver):
    """A-20, scenario 1.18."""
    assert [(10, "192.0.2.7")] == list(resolver.mail_exchangers("literal.test"))


def test_aliases_are_followed_for_every_type(resolver: Resolver):
    """A-10."""
    assert [(20, "mx2.dest.test"), (10, "mx1.dest.test")] == list(resolver.mail_exchangers("alias.test"))
    assert ["192.0.2.9"] == list(resolver.addresses("alias.test"))


def test_an_alias_to_nowhere_is_not_found_under_its_own_name(resolver: Resolver):
    """A-02 A-10."""
    text = f"{NOT_FOUND} name=dangling.test type=MX: Host not found"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.mail_exchangers, "dangling.test")


def test_aliases_in_a_ring_are_noticed(resolver: Resolver):
    """A-02."""
    text = "Name server loop for ring1.test"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.mail_exchangers, "ring1.test")


@pytest.mark.parametrize("literal", ["192.0.2.77", "2001:db8::77"])
def test_an_address_stands_for_itself(resolver: Resolver, literal: str):
    """A-20."""
    assert [literal] == list(resolver.addresses(literal))


def test_an_address_of_a_disabled_family_is_not_found(make: Make):
    """A-20, scenario 2.16."""
    text = "Name service error for 2001:db8::1: invalid host or domain name"
    assert (LookupKind.NOT_FOUND, text) == failure(make(("ipv4",)).addresses, "2001:db8::1")


def test_an_address_has_no_exchangers(resolver: Resolver):
    """A-02 C-103."""
    text = "Name service error for 192.0.2.1: invalid host or domain name"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.mail_exchangers, "192.0.2.1")


@pytest.mark.parametrize("name", ["a..test", "-a.test", "a.test.", "", "a b.test", "é" * 70 + ".test"])
def test_an_impossible_name_is_not_asked_for(resolver: Resolver, name: str):
    """A-02."""
    text = f"Name service error for {name}: invalid host or domain name"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.addresses, name)


def test_an_international_name_is_asked_for_in_ascii(resolver: Resolver):
    """A-26."""
    assert ["192.0.2.8"] == list(resolver.addresses("Bücher.test"))
    text = f"{NOT_FOUND} name=xn--fcher-kva.test type=MX: Host not found"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.mail_exchangers, "fücher.test")


@pytest.mark.parametrize("domain", ["dest.test", "alias.test"])
def test_services_come_in_the_order_of_the_answer(resolver: Resolver, domain: str):
    """A-60 A-10."""
    expected = [ServiceRecord(20, 5, 2526, "mx2.dest.test"), ServiceRecord(10, 0, 2525, "mx1.dest.test")]
    assert expected == list(resolver.services(f"_smtp._tcp.{domain}"))


@pytest.mark.parametrize("domain", ["null.test", "mixed.test"])
def test_a_root_target_anywhere_means_that_the_service_is_not_offered(resolver: Resolver, domain: str):
    """A-08 A-09, RFC 2782."""
    text = f"Domain _smtp._tcp.{domain} does not support SRV requests"
    assert (LookupKind.NULL_SRV, text) == failure(resolver.services, f"_smtp._tcp.{domain}")


def test_services_at_impossible_hosts_or_ports_are_left_out(resolver: Resolver):
    """A-05."""
    assert [ServiceRecord(10, 0, 25, "mx2.dest.test")] == list(resolver.services("_smtp._tcp.mended.test"))
    text = "Name service error for name=_smtp._tcp.broken.test type=SRV: Malformed or unexpected name server reply"
    assert (LookupKind.INVALID, text) == failure(resolver.services, "_smtp._tcp.broken.test")


def test_a_missing_service_is_not_found(resolver: Resolver):
    """A-02 A-09."""
    text = f"{NOT_FOUND} name=_imap._tcp.dest.test type=SRV: Host not found"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.services, "_imap._tcp.dest.test")
    again = f"{NOT_FOUND} name=servfail.test type=SRV: Host not found, try again"
    assert (LookupKind.RETRY, again) == failure(resolver.services, "servfail.test")


def test_an_international_domain_is_asked_for_its_service_in_ascii(resolver: Resolver):
    """A-26 A-60."""
    text = f"{NOT_FOUND} name=_smtp._tcp.xn--fcher-kva.test type=SRV: Host not found"
    assert (LookupKind.NOT_FOUND, text) == failure(resolver.services, "_smtp._tcp.fücher.test")


def test_an_answer_says_whether_dnssec_vouches_for_it(resolver: Resolver):
    """P-42 P-44."""
    assert resolver.mail_exchangers("signed.test").validated
    assert resolver.addresses("mx.signed.test").validated
    assert not resolver.mail_exchangers("dest.test").validated
    assert not resolver.addresses("mx1.dest.test").validated


@pytest.mark.parametrize(
    ("alias", "end", "validated"),
    [
        ("safe.alias.test", "mx.signed.test", True),
        ("stray.alias.test", "mx1.dest.test", False),
        ("loose.alias.test", "mx.signed.test", False),
    ],
)
def test_an_alias_is_as_good_as_its_weakest_link(resolver: Resolver, alias: str, end: str, *, validated: bool):
    """P-44c."""
    answer = resolver.addresses(alias)
    assert (end, validated) == (answer.name, answer.validated)


def test_an_alias_by_itself_may_be_validated_though_its_end_is_not(resolver: Resolver):
    """P-44c."""
    answer = resolver.alias("stray.alias.test")
    assert (("mx1.dest.test",), True) == (answer.records, answer.validated)
    assert not resolver.alias("loose.alias.test").validated
    assert LookupKind.NOT_FOUND is failure(resolver.alias, "mx.signed.test")[0]


def test_the_certificate_records_of_a_port_are_found(resolver: Resolver):
    """P-44c."""
    answer = resolver.tlsa("mx.signed.test", 25)
    assert ((END_ENTITY, ANCHOR), True) == (answer.records, answer.validated)
    answer = resolver.tlsa("MX1.dest.test", 25)
    assert ((END_ENTITY,), False) == (answer.records, answer.validated)


def test_a_port_without_certificate_records_is_told_from_one_that_nobody_knows_of(resolver: Resolver):
    """P-43 P-44."""
    assert LookupKind.NOT_FOUND is failure(lambda host: resolver.tlsa(host, 587), "mx.signed.test")[0]
    assert LookupKind.RETRY is failure(lambda host: resolver.tlsa(host, 25), "torn.test")[0]


def test_nobody_vouches_for_an_address_as_written(resolver: Resolver):
    """P-44c."""
    assert not resolver.addresses("192.0.2.77").validated


def test_validation_is_not_believed_of_name_servers_that_are_not_trusted_with_it():
    """P-41."""
    with DnsServer(ZONE, authentic=True) as server:
        answer = DnsResolver(Settings(nameservers=(server.nameserver,))).mail_exchangers("signed.test")
    assert not answer.validated
