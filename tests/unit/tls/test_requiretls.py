"""How far REQUIRETLS is followed."""

import pytest

from mailq.envelope import Protocol
from mailq.security import RequireTls
from mailq.tls.requiretls import level_for

OPPORTUNISTIC, ENFORCE = RequireTls.OPPORTUNISTIC, RequireTls.ENFORCE


def level(domain: str, *policy: str, protocol: Protocol = Protocol.SMTP) -> RequireTls | None:
    return level_for(domain, policy, own_name="mail.example.net", protocol=protocol)


@pytest.mark.parametrize("domain", ["mail.example.net", "a.mail.example.net", "localhost", "192.0.2.1", "2001:db8::1"])
def test_our_own_domains_and_addresses_are_not_forced(domain: str):
    """P-51."""
    assert OPPORTUNISTIC is level(domain)


@pytest.mark.parametrize("domain", ["dest.test", "example.net", "notmail.example.net", "net"])
def test_everybody_else_is(domain: str):
    """P-51."""
    assert ENFORCE is level(domain)


def test_lmtp_is_not_forced():
    """P-51."""
    assert OPPORTUNISTIC is level("dest.test", protocol=Protocol.LMTP)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("dest.test", RequireTls.DISABLE),
        ("a.dest.test", OPPORTUNISTIC),
        ("other.test", RequireTls.OPPORTUNISTIC_STARTTLS),
        ("mail.example.net", ENFORCE),
    ],
)
def test_the_first_item_that_matches_holds_and_none_means_enforce(domain: str, expected: RequireTls):
    """P-50."""
    policy = ("dest.test=disable", ".dest.test=opportunistic", ".test=opportunistic+starttls", "dest.test=enforce")
    assert expected is level(domain, *policy)


def test_a_word_by_itself_holds_for_all_that_come_to_it():
    """P-50."""
    assert ENFORCE is level("dest.test", "dest.test=enforce", "opportunistic")
    assert OPPORTUNISTIC is level("other.test", "dest.test=enforce", "opportunistic")


@pytest.mark.parametrize("item", ["perhaps", "dest.test=perhaps", "dest.test="])
def test_a_word_that_nobody_knows_is_an_error_and_no_guess(item: str):
    """P-50."""
    assert level("dest.test", item) is None
