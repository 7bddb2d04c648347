"""What a nexthop's text means."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.errors import ConfigError, DestinationSyntaxError
from mailq.routing.destination import (
    Destination,
    Lookup,
    ascii_hostname,
    canonical_address,
    is_hostname,
    parse_destination,
    split_nexthops,
)


def parsed(text: str) -> tuple[str, int, Lookup]:
    destination = parse_destination(text, default_service="smtp")
    return destination.host, destination.port, destination.lookup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.test", ("a.test",)),
        ("a.test,b.test c.test\td.test\r\ne.test", ("a.test", "b.test", "c.test", "d.test", "e.test")),
        (" , a.test ,, ", ("a.test",)),
        (",", ()),
        ("", ()),
        ("[a.test]:25,[2001:db8::1]", ("[a.test]:25", "[2001:db8::1]")),
    ],
)
def test_a_nexthop_list_is_split_at_commas_and_space(text: str, expected: tuple[str, ...]):
    """C-11."""
    assert expected == split_nexthops(text)


def test_a_vertical_tab_does_not_separate():
    """C-11 names five separators; anything else belongs to a destination and makes it fail."""
    assert ("a\vb",) == split_nexthops("a\vb")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # C-100
        ("dest.test", ("dest.test", 25, Lookup.MX)),
        ("dest.test:", ("dest.test", 25, Lookup.MX)),
        ("dest.test:2525", ("dest.test", 2525, Lookup.MX)),
        ("Dest.Test", ("Dest.Test", 25, Lookup.MX)),
        # C-101
        ("[dest.test]", ("dest.test", 25, Lookup.HOST)),
        ("[dest.test]:", ("dest.test", 25, Lookup.HOST)),
        ("[dest.test]:587", ("dest.test", 587, Lookup.HOST)),
        ("[127.0.1.1]", ("127.0.1.1", 25, Lookup.HOST)),
        # C-102
        ("[ipv6:2001:db8::1]", ("2001:db8::1", 25, Lookup.HOST)),
        ("[IPv6:2001:db8::1]:26", ("2001:db8::1", 26, Lookup.HOST)),
        ("[2001:db8::1]", ("2001:db8::1", 25, Lookup.HOST)),
        # C-103
        ("127.0.1.1", ("127.0.1.1", 25, Lookup.MX)),
        # C-105
        ("dest.test:submission", ("dest.test", 587, Lookup.MX)),
        ("dest.test:SMTPS", ("dest.test", 465, Lookup.MX)),
        ("dest.test:submissions", ("dest.test", 465, Lookup.MX)),
        ("dest.test:lmtp", ("dest.test", 24, Lookup.MX)),
        ("dest.test:1", ("dest.test", 1, Lookup.MX)),
        ("dest.test:65535", ("dest.test", 65535, Lookup.MX)),
        ("dest.test:00025", ("dest.test", 25, Lookup.MX)),
        # C-107
        ("_mail.dest.test", ("_mail.dest.test", 25, Lookup.MX)),
        ("bücher.test", ("bücher.test", 25, Lookup.MX)),
        ("localhost", ("localhost", 25, Lookup.MX)),
        ("1.2.3.4.test", ("1.2.3.4.test", 25, Lookup.MX)),
    ],
)
def test_every_form_of_a_destination_is_understood(text: str, expected: tuple[str, int, Lookup]):
    assert expected == parsed(text)


def test_a_destination_keeps_its_text_and_service_as_written():
    """C-17 C-21."""
    expected = Destination("[mail.test]:Submission", "mail.test", 587, "Submission", Lookup.HOST)
    assert expected == parse_destination("[mail.test]:Submission", default_service="smtp")


@pytest.mark.parametrize(("default", "port"), [("smtp", 25), ("24", 24), ("2525", 2525)])
def test_a_destination_without_port_gets_the_default_service(default: str, port: int):
    """C-05."""
    assert Destination("a.test", "a.test", port, default, Lookup.MX) == parse_destination(
        "a.test", default_service=default
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[dest.test", 'missing "]"'),
        ("[dest.test]y", 'garbage after "]"'),
        ("[ipv6:2001:db8::z]", "malformed IPv6 address"),
        ("[ipv6:192.0.2.1]", "malformed IPv6 address"),
        (":25", "missing host information"),
        ("[]", "missing host information"),
        ("", "missing host information"),
        ("2001:db8::1", "valid hostname or network address required"),
        ("-dest.test", "valid hostname or network address required"),
        ("dest-.test", "valid hostname or network address required"),
        ("dest..test", "valid hostname or network address required"),
        ("dest.test.", "valid hostname or network address required"),
        ("1.2.3", "valid hostname or network address required"),
        ("a b", "valid hostname or network address required"),
        ("x" * 64 + ".test", "valid hostname or network address required"),
        (".".join(["x" * 63] * 4) + ".x", "valid hostname or network address required"),
        ("[fe80::1%eth0]", "valid hostname or network address required"),
        ("☃\u200d.test", "valid hostname or network address required"),
        ("dest.test:25x", "garbage after numerical service in '25x'"),
        ("dest.test:0", "bad network port 0, not 1 to 65535"),
        ("dest.test:65536", "bad network port 65536, not 1 to 65535"),
        ("dest.test:70000", "bad network port 70000, not 1 to 65535"),
        ("dest.test:nosuch", "unknown service 'nosuch'"),
        ("dest.test:٢٥", "garbage after numerical service"),
    ],
)
def test_an_error_shows_the_text_what_is_wrong_and_what_was_expected(text: str, what: str):
    """C-104 C-106 C-107."""
    with pytest.raises(DestinationSyntaxError) as caught:
        parsed(text)
    message = str(caught.value)
    assert message.startswith(f"bad destination {text[:200]!r}: {what}")
    assert message.endswith("expected domain, domain:port, [host], [host]:port or [address]")


def test_a_service_that_only_the_system_knows_is_unknown():
    """C-105; differs from Postfix, which asks the system: http is in any /etc/services."""
    with pytest.raises(DestinationSyntaxError, match="unknown service 'http', known are"):
        parsed("dest.test:http")


def test_a_bad_default_service_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match="unknown service 'nosuch'"):
        parse_destination("a.test", default_service="nosuch")


def test_an_endless_port_is_refused_without_counting_to_it():
    with pytest.raises(DestinationSyntaxError, match="bad network port"):
        parsed("dest.test:" + "9" * 100_000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Bücher.Test", "xn--bcher-kva.test"),
        ("bücher.test", "xn--bcher-kva.test"),
        ("_dmarc.bücher.test", "_dmarc.xn--bcher-kva.test"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("Plain.Test", "Plain.Test"),
    ],
)
def test_a_name_becomes_ascii_label_by_label(name: str, expected: str):
    """A-26 C-107."""
    assert expected == ascii_hostname(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("192.0.2.256", None),
        ("fe80::1%eth0", None),
        ("host.test", None),
        ("", None),
    ],
)
def test_an_address_has_one_spelling(text: str, expected: str | None):
    assert expected == canonical_address(text)


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused_with_one_error(text: str):
    try:
        destination = parse_destination(text, default_service="smtp")
    except DestinationSyntaxError:
        return
    assert 1 <= destination.port <= 65535
    assert is_hostname(destination.host) or canonical_address(destination.host) is not None


@given(
    host=st.from_regex(r"[a-z0-9_][a-z0-9-]{0,9}[a-z](\.[a-z]{1,9}){0,3}", fullmatch=True),
    port=st.integers(1, 65535),
    brackets=st.booleans(),
)
def test_what_was_put_together_comes_apart_again(host: str, port: int, *, brackets: bool):
    text = f"[{host}]:{port}" if brackets else f"{host}:{port}"
    assert (host, port, Lookup.HOST if brackets else Lookup.MX) == parsed(text)


@given(st.lists(st.text(string.ascii_letters + ":[].", min_size=1)), st.sampled_from([",", " ", "\t", "\r\n", ", "]))
def test_splitting_undoes_joining(parts: list[str], separator: str):
    assert tuple(parts) == split_nexthops(separator.join(parts))
