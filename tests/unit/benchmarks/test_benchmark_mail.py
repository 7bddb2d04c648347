"""The messages of benchmarks, and the check of what arrived."""

import zlib

import pytest

from benchmarks.harness.mail import Arrived, Mail, compare, domain_name, read_dump, shares


def test_each_recipient_of_a_run_has_an_address_of_its_own() -> None:
    mail = Mail(domains=3, recipients=4)
    everyone = [one for number in range(10) for one in mail.recipients_of(number)]
    assert 40 == len(set(everyone))


def test_messages_to_one_recipient_go_to_the_domains_in_turn() -> None:
    mail = Mail(domains=3)
    assert ["d0.test", "d1.test", "d2.test", "d0.test"] == [
        mail.recipients_of(number)[0].partition("@")[2] for number in range(4)
    ]


def test_the_recipients_of_one_message_are_spread_evenly_over_the_domains() -> None:
    domains = [one.partition("@")[2] for one in Mail(domains=5, recipients=20).recipients_of(7)]
    assert {domain_name(number): 4 for number in range(5)} == {one: domains.count(one) for one in domains}


@pytest.mark.parametrize("size", [500, 2000, 1_000_000])
def test_a_message_has_about_the_size_that_was_asked_for(size: int) -> None:
    assert abs(size - len(Mail(size_bytes=size).content(1))) <= 200


@pytest.mark.parametrize("size", [5000, 200_000])
def test_a_message_needs_no_conversion_on_its_way(size: int) -> None:
    content = Mail(size_bytes=size).content(12)
    lines = content.split(b"\r\n")
    assert content.isascii()
    assert 998 > max(map(len, lines))
    assert not [line for line in lines if line.startswith(b".") or b"\n" in line]


def test_nothing_makes_a_large_message_much_smaller() -> None:
    content = Mail(size_bytes=200_000).content(12)
    assert len(zlib.compress(content)) > 0.7 * len(content)


def test_mail_that_came_once_to_everybody_is_exact() -> None:
    assert compare(["a", "b"], ["b", "a"]).is_exact


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (["a"], Arrived(delivered=1, duplicates=0, missing=1, strangers=0)),
        (["a", "b", "b", "b"], Arrived(delivered=2, duplicates=2, missing=0, strangers=0)),
        (["a", "b", "c", "c"], Arrived(delivered=2, duplicates=0, missing=0, strangers=2)),
    ],
)
def test_what_is_missing_doubled_or_not_ours_is_counted(seen: list[str], expected: Arrived) -> None:
    assert expected == compare(["a", "b"], seen)
    assert not expected.is_exact


DUMP = (
    b"X-Client-Addr: 127.0.0.1\nX-Mail-Args: <sender@sender.test>\nX-Rcpt-Args: <m1.r0@d1.test>\n"
    b"X-Rcpt-Args: <m1.r1@d1.test> NOTIFY=NEVER\nReceived: from client\n\nhello\nthe end of 1\n\n"
)


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
def test_a_dump_is_read_in_pieces_of_any_length(step: int) -> None:
    chunks = [DUMP[start : start + step] for start in range(0, len(DUMP), step)]
    recipients, ends = read_dump(chunks)
    assert ["m1.r0@d1.test", "m1.r1@d1.test"] == recipients
    assert {1: 1} == dict(ends)


def test_a_dump_of_messages_that_were_sent_names_their_recipients_and_ends() -> None:
    mail = Mail(domains=2)
    dump = b"".join(
        b"X-Rcpt-Args: <%s>\n%s\n" % (mail.recipients_of(number)[0].encode(), mail.content(number).replace(b"\r", b""))
        for number in range(5)
    )
    recipients, ends = read_dump([dump])
    assert [mail.recipients_of(number)[0] for number in range(5)] == recipients
    assert dict.fromkeys(range(5), 1) == dict(ends)


@pytest.mark.parametrize(("count", "parts"), [(10, 4), (3, 4), (4000, 7), (0, 2)])
def test_injectors_share_all_messages_and_hand_over_none_twice(count: int, parts: int) -> None:
    found = shares(count, parts)
    assert list(range(count)) == [number for share in found for number in share]
    assert max(map(len, found)) - min(map(len, found)) <= 1
