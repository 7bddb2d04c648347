"""Which patterns stop which nexthops."""

import pytest

from mailq.errors import OrderError
from mailq.queue.suspend import covers, parse_pattern, patterns_of


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("far.test", "nexthop:far.test"),
        ("FAR.test", "nexthop:far.test"),
        ("nexthop:far.test", "nexthop:far.test"),
        ("NextHop:[mx.far.test]:2525", "nexthop:[mx.far.test]:2525"),
        ("far.test, near.test", "nexthop:far.test,near.test"),
        ("far.test:587", "nexthop:far.test:587"),
        ("lmtp:unix:/run/lmtp", "nexthop:lmtp:unix:/run/lmtp"),
        ("site:MX.far.test", "site:mx.far.test"),
        ("site:*.far.test", "site:*.far.test"),
        ("site:*", "site:*"),
        ("site:[127.0.0.9]", "site:127.0.0.9"),
        ("site:[0:0::1]", "site:::1"),
        ("site:bücher.test", "site:xn--bcher-kva.test"),
    ],
)
def test_a_pattern_is_read_into_one_spelling(text: str, pattern: str) -> None:
    assert pattern == parse_pattern(text)
    assert pattern == parse_pattern(pattern)


@pytest.mark.parametrize(
    "text", ["", "nexthop:", "site:", "site:*.", "site:a b", "site:*far.test", "[far.test", "a..b"]
)
def test_what_is_no_pattern_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(OrderError, match=r"bad pattern .* site:"):
        parse_pattern(text)


@pytest.mark.parametrize(
    ("nexthop", "pattern"),
    [
        ("far.test", "nexthop:far.test"),
        ("far.test", "site:far.test"),
        ("far.test", "site:*.test"),
        ("far.test", "site:*"),
        ("mx.far.test:587", "site:*.far.test"),
        ("[mx.far.test]:2525", "site:mx.far.test"),
        ("lmtp:[mx.far.test]:24", "site:*.far.test"),
        ("near.test,mx.far.test", "site:*.far.test"),
        ("[127.0.0.9]", "site:127.0.0.9"),
        ("[ipv6:::1]", "site:::1"),
        ("lmtp:unix:/run/lmtp", "nexthop:lmtp:unix:/run/lmtp"),
        ("lmtp:unix:/run/lmtp", "site:*"),
    ],
)
def test_a_nexthop_is_stopped_by_its_own_name_and_by_its_hosts(nexthop: str, pattern: str) -> None:
    assert pattern in patterns_of(nexthop)
    assert covers({pattern}, nexthop)


@pytest.mark.parametrize(
    ("nexthop", "pattern"),
    [
        ("far.test", "nexthop:mx.far.test"),
        ("far.test", "site:*.far.test"),
        ("near.test", "site:far.test"),
        ("farfar.test", "site:*.far.test"),
        ("far.test:587", "nexthop:far.test"),
        ("not [ a nexthop", "site:*.test"),
    ],
)
def test_no_other_nexthop_is_stopped(nexthop: str, pattern: str) -> None:
    assert not covers({pattern}, nexthop)
    assert not covers(set(), nexthop)
