"""Which servers are tried, and in which order."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.routing.mx import any_is_self, balance_address_families, drop_self_and_worse, order_by_preference
from mailq.status import Endpoint

SELF4 = "192.0.2.100"
SELF6 = "2001:db8::100"


def servers(text: str) -> tuple[Endpoint, ...]:
    """Read ``10a4 20b6``: preference, one letter for the host, family; ``=`` instead of a letter is this host."""
    made = []
    for word in text.split():
        preference, letter, family = int(word[:-2]), word[-2], word[-1]
        number = 100 if letter == "=" else ord(letter)
        address = f"192.0.2.{number}" if family == "4" else f"2001:db8::{number}"
        made.append(Endpoint(f"mx{letter}.test", address, 25, preference))
    return tuple(made)


ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        st.sampled_from(["mx1.test", "mx2.test"]),
        st.integers(0, 99).map(lambda n: f"192.0.2.{n}") | st.integers(1, 99).map(lambda n: f"2001:db8::{n}"),
        st.just(25),
        st.sampled_from([0, 10, 20]),
    ),
    max_size=14,
).map(tuple)


@pytest.mark.parametrize(
    ("given_servers", "expected"),
    [
        ("10a4 20b4", "10a4 20b4"),
        ("10a4 20=4 30c4", "10a4"),
        ("10=4", ""),
        ("10=4 20b4", ""),
        ("10a4 10=4", ""),
        ("10a4 20b4 20=4 20c4", "10a4"),
        ("10a4 20=6 30b4", "10a4"),
        ("10a4 20=4 30=4", "10a4"),
        ("", ""),
    ],
)
def test_self_its_equals_and_the_worse_are_dropped(given_servers: str, expected: str):
    """A-37 A-41, scenarios 1.19, 1.21 and 1.23."""
    assert servers(expected) == drop_self_and_worse(servers(given_servers), own_addresses={SELF4, SELF6})


def test_self_is_known_by_address_in_any_spelling():
    """A-40."""
    endpoints = servers("10a4 20=6")
    assert servers("10a4") == drop_self_and_worse(endpoints, own_addresses=["2001:0DB8:0:0::0100"])
    assert any_is_self(endpoints, own_addresses=["2001:0DB8:0:0::0100"])


def test_a_name_is_never_self():
    """A-40."""
    endpoints = servers("10a4")
    assert endpoints == drop_self_and_worse(endpoints, own_addresses=["mxa.test"])
    assert not any_is_self(endpoints, own_addresses=["mxa.test"])


@given(ENDPOINTS, st.sets(st.integers(0, 99).map(lambda n: f"192.0.2.{n}")))
def test_what_remains_is_better_than_self_and_complete(endpoints: tuple[Endpoint, ...], own: set[str]):
    kept = drop_self_and_worse(endpoints, own_addresses=own)
    mine = [e.preference for e in endpoints if e.address in own]
    assert not any_is_self(kept, own_addresses=own)
    assert kept == tuple(e for e in endpoints if not mine or e.preference < min(mine))


@pytest.mark.parametrize(
    ("given_servers", "family", "expected"),
    [
        ("20b4 10a4", "any", "10a4 20b4"),
        ("10a4 10b6 10c4", "any", "10a4 10b6 10c4"),
        ("10a4 10b6 10c4 10d6", "ipv6", "10b6 10d6 10a4 10c4"),
        ("10a6 10b4 10c6 10d4", "ipv4", "10b4 10d4 10a6 10c6"),
        ("20b6 10a4", "ipv6", "10a4 20b6"),
        ("20b4 10a6", "ipv4", "10a6 20b4"),
    ],
)
def test_preference_comes_first_and_the_family_second(given_servers: str, family: str, expected: str):
    """A-38 A-42 A-44, scenarios 2.01 to 2.04."""
    assert servers(expected) == order_by_preference(servers(given_servers), rng=None, address_preference=family)


def test_servers_of_equal_preference_share_the_load():
    """A-38 A-43: each of three comes first now and then."""
    rng = Random(1)
    firsts = {
        order_by_preference(servers("10a4 10b4 10c4 20d4"), rng=rng, address_preference="any")[0].host
        for _ in range(50)
    }
    assert {"mxa.test", "mxb.test", "mxc.test"} == firsts


@given(ENDPOINTS, st.integers(), st.sampled_from(["any", "ipv4", "ipv6"]))
def test_ordering_loses_nothing_and_never_puts_a_worse_server_first(
    endpoints: tuple[Endpoint, ...], seed: int, family: str
):
    ordered = order_by_preference(endpoints, rng=Random(seed), address_preference=family)
    assert Counter(endpoints) == Counter(ordered)
    preferences = [e.preference for e in ordered]
    assert sorted(preferences) == preferences


@pytest.mark.parametrize(
    ("given_servers", "limit", "expected"),
    [
        # Scenario 2.05: few of one family keep their place.
        ("0a6 0b6 0c6 0d6 0e6 0f6 0g4 0h4", 5, "0a6 0b6 0c6 0g4 0h4"),
        # Scenario 2.07: the family of the first gets the odd one.
        ("0a6 0b6 0c6 0d6 0e4 0f4 0g4 0h4", 5, "0a6 0b6 0c6 0e4 0f4"),
        ("0e4 0f4 0g4 0h4 0a6 0b6 0c6 0d6", 5, "0e4 0f4 0g4 0a6 0b6"),
        ("0a4 0b4 0c4 0d4 0e4 0f4 0g6", 5, "0a4 0b4 0c4 0d4 0g6"),
        ("0a6 0b4 0c6 0d4 0e6", 4, "0a6 0b4 0c6 0d4"),
        ("0a4 0b4 0c4", 2, "0a4 0b4 0c4"),
        ("0a6 0b6 0c6", 2, "0a6 0b6 0c6"),
        ("0a4 0b6", 2, "0a4 0b6"),
        ("0a4 0b6", 0, "0a4 0b6"),
        ("0a4 0b6", 1, "0a4"),
        ("0b6 0a4", 1, "0b6"),
    ],
)
def test_both_families_keep_a_share_of_the_address_limit(given_servers: str, limit: int, expected: str):
    """A-45."""
    assert servers(expected) == balance_address_families(servers(given_servers), limit=limit)


@given(ENDPOINTS, st.integers(0, 14))
def test_balancing_fills_the_limit_and_keeps_the_order(endpoints: tuple[Endpoint, ...], limit: int):
    kept = balance_address_families(endpoints, limit=limit)
    remaining = iter(endpoints)
    assert all(endpoint in remaining for endpoint in kept)
    both = len({":" in e.address for e in endpoints}) > 1
    assert (limit if both and 0 < limit < len(endpoints) else len(endpoints)) == len(kept)
    if both and limit > 1:
        assert {True, False} == {":" in e.address for e in kept}


def test_no_list_is_balanced_to_more_than_a_hundred():
    """A-27 A-45."""
    endpoints = servers(" ".join(["0a4", "0b6"] * 60))
    assert 100 == len(balance_address_families(endpoints, limit=110))
