"""MTA-STS announcements and policies. Source: RFC 8461 §3, §4.1, smtp-delivery P-45."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.tls.sts import StsPolicy, StsSyntaxError, parse_policy, policy_id

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mail.far.test\r\nmx: *.mx.far.test\r\nmax_age: 604800\r\n"


def parsed(text: bytes) -> StsPolicy:
    return parse_policy(text, domain="far.test", version="20260301")


def problem(text: bytes) -> str:
    with pytest.raises(StsSyntaxError) as caught:
        parsed(text)
    return str(caught.value)


@pytest.mark.parametrize(
    "records",
    [
        ["v=STSv1; id=20160831085700Z;"],
        ["v=STSv1; id=20160831085700Z"],
        ["v=STSv1;id=20160831085700Z;"],
        ["v=STSv1 \t; \tid=20160831085700Z ; "],
        ["v=STSv1; more=a:b/c; id=20160831085700Z; other.field_1=x;"],
        ["v=STSv1; id=20160831085700Z; id=second;"],
        ["v=spf1 -all", "v=STSv1; id=20160831085700Z;", "v=STSv2; id=other;"],
    ],
)
def test_an_announcement_names_a_version(records: list[str]) -> None:
    assert "20160831085700Z" == policy_id(records)


@pytest.mark.parametrize(
    "records",
    [
        [],
        ["v=spf1 -all"],
        ["v=STSv1; id=1;", "v=STSv1; id=1;"],
        ["v=STSv1;"],
        ["v=STSv1"],
        ["v=STSv1; id="],
        ["v=STSv1; id=with-dash;"],
        ["v=STSv1; id=" + "1" * 33],
        ["v=STSv1; id=1;; x=1"],
        ["v=STSv1; id=1; no field"],
        ["v=STSv1; id=1; x=a=b"],
        ["V=STSv1; id=1;"],
        [" v=STSv1; id=1;"],
        ["v=STSv1 id=1;"],
    ],
)
def test_what_is_not_one_announcement_announces_nothing(records: list[str]) -> None:
    assert policy_id(records) is None


def test_a_policy_is_read_with_its_names_in_lower_case() -> None:
    expected = StsPolicy("far.test", "20260301", "enforce", ("mail.far.test", "*.mx.far.test"), 604_800)
    assert expected == parsed(POLICY.replace(b"mail.far", b"Mail.FAR"))


@pytest.mark.parametrize(
    "text",
    [
        POLICY.replace(b"\r\n", b"\n"),
        POLICY.removesuffix(b"\r\n"),
        POLICY.replace(b": ", b":"),
        POLICY.replace(b": ", b":\t  "),
        POLICY.replace(b"\r\n", b" \t\r\n"),
        POLICY + b"extension: anything: it likes, caf\xc3\xa9\r\n",
        POLICY + b"mode: none\r\nmax_age: 1\r\nversion: STSv9\r\n",
        b"mode: enforce\nmx: mail.far.test\nmx: *.mx.far.test\nmax_age: 604800\nversion: STSv1\n",
    ],
)
def test_forms_that_the_grammar_allows_mean_the_same(text: bytes) -> None:
    assert parsed(POLICY) == parsed(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the version is missing, not STSv1"),
        (POLICY.replace(b"STSv1", b"STSv2"), "the version is STSv2, not STSv1"),
        (POLICY.replace(b"version: STSv1\r\n", b""), "the version is missing, not STSv1"),
        (POLICY.replace(b"enforce", b"enforced"), "the mode is enforced, not enforce, testing or none"),
        (POLICY.replace(b"mode: enforce\r\n", b""), "the mode is missing, not enforce, testing or none"),
        (POLICY.replace(b"604800", b"-1"), "max_age is -1, not a number of seconds"),
        (POLICY.replace(b"604800", b"12345678901"), "max_age is 12345678901, not a number of seconds"),
        (POLICY.replace(b"max_age: 604800\r\n", b""), "max_age is missing, not a number of seconds"),
        (b"version: STSv1\nmode: testing\nmax_age: 1\n", "mode testing names no mx"),
        (POLICY.replace(b"*.mx", b"mx*"), "mx mx*.far.test is no host name"),
        (POLICY.replace(b"*.mx", b"*.*.mx"), "mx *.*.mx.far.test is no host name"),
        (POLICY.replace(b"mail.far.test", b"-.test"), "mx -.test is no host name"),
        (POLICY.replace(b"mail.far.test", b"*"), "mx * is no host name"),
        (POLICY.replace(b"\r\nmx: m", b"\r\n\r\nmx: m"), "line 3 is no field"),
        (POLICY + b"<html>\r\n", "line 6 is no field"),
        (POLICY + b"x: caf\xe9\r\n", "not UTF-8"),
        (POLICY + b"x: " + b"y" * 65_536, "longer than 65536 bytes"),
    ],
)
def test_what_breaks_the_grammar_is_no_policy(text: bytes, words: str) -> None:
    assert words == problem(text)


def test_a_policy_that_takes_an_earlier_one_back_needs_no_mail_exchanger() -> None:
    assert StsPolicy("far.test", "20260301", "none", (), 0) == parsed(b"version: STSv1\nmode: none\nmax_age: 0\n")


def test_no_policy_lives_longer_than_a_year() -> None:
    assert 31_557_600 == parsed(POLICY.replace(b"604800", b"4000000000")).max_age_seconds


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("mail.far.test", True),
        ("MAIL.Far.Test.", True),
        ("a.mx.far.test", True),
        ("a.b.mx.far.test", False),
        ("mx.far.test", False),
        (".mx.far.test", False),
        ("mail.far.test.evil.test", False),
        ("xmail.far.test", False),
        ("other.test", False),
        ("", False),
    ],
)
def test_a_host_matches_by_name_or_by_one_more_label(host: str, *, allowed: bool) -> None:
    """Source: smtp-delivery P-45."""
    assert allowed is parsed(POLICY).allows(host)


def test_hosts_outside_ascii_are_compared_as_a_labels() -> None:
    policy = parsed(POLICY.replace(b"mail.far.test", b"xn--mhre-5qa.test"))
    assert policy.allows("Möhre.test")


def test_the_words_of_a_policy_make_the_same_policy() -> None:
    policy = parsed(POLICY)
    assert policy == parsed("\n".join(policy.lines).encode())


@given(st.binary(max_size=300))
def test_no_bytes_make_half_a_policy(text: bytes) -> None:
    """Whatever a host serves is a policy with everything it needs, or refused."""
    try:
        policy = parsed(text)
    except StsSyntaxError:
        return
    assert policy.mode == "none" or policy.mx


@given(st.lists(st.text(max_size=60), max_size=3))
def test_no_records_announce_a_malformed_version(records: list[str]) -> None:
    version = policy_id(records)
    assert version is None or (version.isalnum() and version.isascii())
