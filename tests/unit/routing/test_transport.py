"""Where a recipient's mail goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.envelope import Protocol
from mailq.errors import AddressSyntaxError, ConfigError, DestinationSyntaxError, SettingError
from mailq.routing.transport import NextHop, Routes, nexthop_for
from mailq.settings import Settings

MAPS = (
    "example.org=[127.0.0.1]:2525",
    ".example.org=lmtp:unix:/run/LMTP",
    ".deep.example.org = lmtp:inet:store.test:24",
    "direct.test=",
    "bücher.test=lmtp:",
    "list.test=a.test, B.test:26",
)
SETTINGS = Settings(relayhost="[Relay.Test]:587", transport_maps=MAPS)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("u@example.org", "[127.0.0.1]:2525"),
        ("u@EXAMPLE.org", "[127.0.0.1]:2525"),
        ("u@a.example.org", "lmtp:unix:/run/LMTP"),
        ("u@b.a.example.org", "lmtp:unix:/run/LMTP"),
        ("u@a.deep.example.org", "lmtp:store.test:24"),
        ("u@deep.example.org", "lmtp:unix:/run/LMTP"),
        ("u@notexample.org", "[relay.test]:587"),
        ("u@direct.test", "direct.test"),
        ("u@Bücher.test", "lmtp:xn--bcher-kva.test"),
        ("u@list.test", "a.test,b.test:26"),
        ("u@[192.0.2.1]", "[relay.test]:587"),
        ('"a@example.org"@other.test', "[relay.test]:587"),
    ],
)
def test_the_map_goes_before_the_relayhost_and_the_nearest_entry_wins(address: str, expected: str):
    assert expected == nexthop_for(address, settings=SETTINGS)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("u@Dest.Test", "dest.test"),
        ("u@bücher.test", "xn--bcher-kva.test"),
        ("u@[192.0.2.1]", "[192.0.2.1]"),
        ("u@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
        ("u@smtp", "smtp"),
    ],
)
def test_without_map_and_relayhost_the_recipients_domain_is_the_nexthop(address: str, expected: str):
    assert expected == nexthop_for(address, settings=Settings())


def test_a_star_stands_for_every_domain_that_is_not_named():
    settings = Settings(relayhost="relay.test", transport_maps=("*=all.test", "dest.test=one.test"))
    assert "all.test" == nexthop_for("u@other.test", settings=settings)
    assert "all.test" == nexthop_for("u@[192.0.2.1]", settings=settings)
    assert "one.test" == nexthop_for("u@dest.test", settings=settings)


def test_a_literal_can_be_mapped():
    settings = Settings(transport_maps=("[IPv6:2001:DB8::1]=dest.test",))
    assert "dest.test" == nexthop_for("u@[IPv6:2001:db8:0::1]", settings=settings)


def test_routes_are_read_once_for_many_recipients():
    routes = Routes.from_settings(SETTINGS)
    assert "[127.0.0.1]:2525" == nexthop_for("u@example.org", settings=Settings(), routes=routes)


@pytest.mark.parametrize("address", ["u", "", "u@", "u@a..b", "u@[192.0.2.1", "u@[nonsense]", "u@1.2.3.4", "u@a b"])
def test_a_recipient_without_a_possible_domain_is_refused(address: str):
    with pytest.raises(AddressSyntaxError, match="the address"):
        nexthop_for(address, settings=SETTINGS)


@pytest.mark.parametrize(
    ("text", "expected", "stored"),
    [
        ("dest.test", NextHop(Protocol.SMTP, "dest.test"), "dest.test"),
        ("smtp:dest.test", NextHop(Protocol.SMTP, "dest.test"), "dest.test"),
        ("SMTP:[Dest.Test]:25", NextHop(Protocol.SMTP, "[dest.test]:25"), "[dest.test]:25"),
        ("a.test,\tb.test", NextHop(Protocol.SMTP, "a.test,b.test"), "a.test,b.test"),
        ("lmtp:dest.test", NextHop(Protocol.LMTP, "dest.test"), "lmtp:dest.test"),
        ("lmtp:inet:dest.test:24", NextHop(Protocol.LMTP, "dest.test:24"), "lmtp:dest.test:24"),
        ("lmtp:unix:/Run/a,b c", NextHop(Protocol.LMTP, "unix:/Run/a,b c"), "lmtp:unix:/Run/a,b c"),
        ("smtp:smtp:25", NextHop(Protocol.SMTP, "smtp:25"), "smtp:smtp:25"),
        ("smtp:lmtp:24", NextHop(Protocol.SMTP, "lmtp:24"), "smtp:lmtp:24"),
        ("lmtp:smtp:24", NextHop(Protocol.LMTP, "smtp:24"), "lmtp:smtp:24"),
    ],
)
def test_a_nexthop_has_one_stored_form(text: str, expected: NextHop, stored: str):
    """C-03 C-04 C-11."""
    hop = NextHop.parse(text)
    assert expected == hop
    assert stored == str(hop)
    assert hop == NextHop.parse(stored)


def test_only_an_lmtp_nexthop_has_a_socket():
    """C-03 C-04."""
    assert NextHop.parse("lmtp:unix:/run/lmtp").socket_path == "/run/lmtp"
    assert NextHop.parse("lmtp:dest.test").socket_path is None
    assert NextHop.parse("dest.test").socket_path is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "lmtp:",
        "smtp:",
        "lmtp:unix:",
        "lmtp:unix:run/lmtp",
        "lmtp:unix:/a\0b",
        "unix:/run/lmtp",
        "a.test:0,b.test",
    ],
)
def test_a_nexthop_that_cannot_be_delivered_to_is_refused(text: str):
    with pytest.raises(DestinationSyntaxError):
        NextHop.parse(text)


@given(st.text(st.sampled_from("smtp:l,[]. 24a")))
def test_what_is_stored_reads_back_the_same(text: str):
    try:
        hop = NextHop.parse(text)
    except DestinationSyntaxError:
        return
    assert hop == NextHop.parse(str(hop))


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("dest.test", "expected domain=nexthop"),
        ("=a.test", "expected domain=nexthop"),
        ("a..b=a.test", "expected domain=nexthop"),
        ("*.dest.test=a.test", "expected domain=nexthop"),
        (".[192.0.2.1]=a.test", "expected domain=nexthop"),
        ("u@dest.test=a.test", "expected domain=nexthop"),
        ("dest.test=a.test:99999", "bad network port 99999"),
        ("dest.test=lmtp:unix:x", "an absolute path"),
    ],
)
def test_a_bad_map_entry_is_shown_when_the_settings_are_read(entry: str, what: str):
    with pytest.raises(SettingError) as caught:
        Routes.from_settings(Settings(transport_maps=(entry,)))
    assert f"transport_maps: bad entry {entry!r}: " in str(caught.value)
    assert what in str(caught.value)


def test_a_domain_named_twice_is_an_error():
    with pytest.raises(SettingError, match=r"'Dest\.test' is given twice"):
        Routes.from_settings(Settings(transport_maps=("dest.test=a.test", "Dest.test=b.test")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "dest.test"), ("smtp:", "dest.test"), ("lmtp:", "lmtp:dest.test"), ("LMTP:[in.test]", "lmtp:[in.test]")],
)
def test_a_nexthop_that_an_entry_leaves_out_is_the_default(text: str, expected: str):
    """C-64, transport(5)."""
    assert expected == str(NextHop.parse_entry(text, default="Dest.test"))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(relayhost="a:0"),
        Settings(fallback_relay=("ok.test", "[x")),
        Settings(best_mx_transport="lmtp:unix:relative"),
    ],
)
def test_relays_are_checked_when_the_settings_are_read(settings: Settings):
    with pytest.raises(ConfigError, match=r"bad (destination|nexthop)"):
        Routes.from_settings(settings)
