"""The policy table: what entries mean, and which of them a destination is found by."""

import pytest

from mailq.errors import SettingError
from mailq.security import TlsLevel
from mailq.tls.table import BadEntry, Entry, PolicyTable, lookup_keys, parse_entry


@pytest.mark.parametrize("word", ["none", "may", "encrypt", "fingerprint", "dane", "dane-only", "verify", "secure"])
def test_every_level_can_be_asked_for(word: str):
    """P-01 to P-09."""
    assert Entry(key="dest.test", level=TlsLevel(word)) == parse_entry("dest.test", word)


def test_an_entry_says_names_ciphers_and_protocols():
    """P-11."""
    words = "ciphers=high protocols=>=TLSv1.3 exclude=3DES:kRSA servername=nexthop tafile=/a"
    text = f"secure match=nexthop:.mail.test {words}"
    expected = Entry(
        key="dest.test",
        level=TlsLevel.SECURE,
        match=("nexthop", ".mail.test"),
        ciphers="high",
        protocols=(">=TLSv1.3",),
        exclude_ciphers=("3DES", "kRSA"),
        server_name="nexthop",
        trust_anchors="/a",
    )
    assert expected == parse_entry("dest.test", text)


def test_names_may_be_given_in_several_attributes_and_separated_by_commas():
    """P-11."""
    entry = parse_entry("dest.test", "verify match=mx1.test, match=mx2.test|hostname,connection_reuse=no")
    assert (
        Entry(key="dest.test", level=TlsLevel.VERIFY, match=("mx1.test", "mx2.test", "hostname"), reuse=False) == entry
    )


def test_a_value_with_spaces_is_put_in_braces():
    """P-11 [H]."""
    entry = parse_entry(
        "dest.test", "secure policy_type=sts { policy_string = version: STSv1 } {policy_string=mode: enforce}"
    )
    assert isinstance(entry, Entry)
    assert (True, ("version: STSv1", "mode: enforce")) == (entry.sts, entry.policy_strings)


def test_fingerprints_are_compared_without_colons_in_lower_case():
    """P-04."""
    entry = parse_entry("dest.test", "fingerprint match=AB:CD:EF|0123456789ab")
    assert Entry(key="dest.test", level=TlsLevel.FINGERPRINT, match=("abcdef", "0123456789ab")) == entry


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown level ''"),
        ("bogus", "unknown level 'bogus'"),
        ("half-dane", "unknown level 'half-dane'"),
        ("MAY", "unknown level 'MAY'"),
        ("may colour=blue", "unknown attribute 'colour'"),
        ("may high", "not name=value: 'high'"),
        ("may ciphers=high ciphers=medium", "ciphers is there twice"),
        ("may ciphers=strong", "unknown cipher grade 'strong'"),
        ("may ciphers=", "ciphers is empty"),
        ("may match=mx.test", "level may has no match"),
        ("dane match=mx.test", "level dane has no match"),
        ("encrypt tafile=/a", "level encrypt has no tafile"),
        ("none ciphers=high", "level none has no ciphers"),
        ("fingerprint match=hostname", "'hostname' is no fingerprint"),
        ("may connection_reuse=maybe", "connection_reuse is yes or no, not 'maybe'"),
        ("verify enable_rpk=yes", "raw public keys cannot be used: enable_rpk must be no"),
        ("verify policy_type=tlsa", "unknown policy_type 'tlsa'"),
        ("verify policy_ttl=soon", "policy_ttl is no number of seconds: 'soon'"),
        ("verify policy_failure=no-such-host", "the policy could not be had: no-such-host"),
    ],
)
def test_an_entry_that_cannot_be_meant_in_full_is_not_followed_at_all(text: str, problem: str):
    """P-12."""
    assert BadEntry("dest.test", problem) == parse_entry("dest.test", text)


@pytest.mark.parametrize(
    "text", ["encrypt protocols=TLSv9", "encrypt protocols=!TLSv1.2:!TLSv1.3", "encrypt exclude=!x"]
)
def test_words_that_the_library_would_refuse_are_refused_beforehand(text: str):
    """P-12 P-17."""
    assert isinstance(parse_entry("dest.test", text), BadEntry)


@pytest.mark.parametrize(
    ("nexthop", "expected"),
    [
        ("mail.example.com", ("mail.example.com", ".example.com", ".com")),
        ("Example.COM", ("example.com", ".com")),
        ("bücher.test", ("bücher.test", "xn--bcher-kva.test", ".test")),
        ("[mail.example.com]", ("[mail.example.com]",)),
        ("[mail.example.com]:587", ("[mail.example.com]:587",)),
        ("example.com:2525", ("example.com:2525",)),
        ("unix:/run/lmtp", ("unix:/run/lmtp",)),
        ("2001:db8::1", ("2001:db8::1",)),
        ("192.0.2.1", ("192.0.2.1",)),
    ],
)
def test_only_a_plain_domain_is_looked_up_by_its_parents(nexthop: str, expected: tuple[str, ...]):
    """P-11."""
    assert expected == lookup_keys(nexthop)


def test_the_nearest_entry_is_the_one_that_holds():
    """P-11 P-13."""
    table = PolicyTable([".test=encrypt", ".dest.test=secure", "dest.test=may", "[mx.dest.test]=none"])

    def level(nexthop: str) -> TlsLevel | None:
        entry = table.find(nexthop)
        return entry.level if isinstance(entry, Entry) else None

    assert TlsLevel.MAY is level("dest.test")
    assert TlsLevel.SECURE is level("a.b.dest.test")
    assert TlsLevel.ENCRYPT is level("other.test")
    assert TlsLevel.NONE is level("[MX.dest.test]")
    assert level("dest.test:25") is None
    assert level("elsewhere.example") is None


def test_a_destination_that_is_there_twice_waits():
    """P-12."""
    table = PolicyTable(["dest.test=may", "Dest.Test=encrypt"])
    assert (BadEntry("dest.test", "it is there twice"),) == table.problems
    assert BadEntry("dest.test", "it is there twice") == table.find("dest.test")


@pytest.mark.parametrize("entry", ["encrypt", "=encrypt", ""])
def test_an_entry_without_a_destination_stops_the_program(entry: str):
    with pytest.raises(SettingError, match="nexthop=level"):
        PolicyTable([entry])
