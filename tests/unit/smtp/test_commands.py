"""Commands are exactly what the server is told. Source: smtp-delivery X-20 to X-29."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailq.envelope import DeliveryRequest, Encoding, Notify, Recipient, Ret
from mailq.smtp import commands
from mailq.smtp.extensions import NONE, Extensions
from mailq.status import RecipientId
from mailq.xtext import xtext

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVERYTHING = Extensions(keywords=frozenset({"SIZE", "8BITMIME", "DSN", "SMTPUTF8", "PIPELINING"}))

REQUEST = DeliveryRequest(
    queue_id="Q1",
    nexthop="dest.test",
    sender="s@home.test",
    recipients=(Recipient(RecipientId(1), "a@dest.test"),),
    size_bytes=300,
    arrived_at=NOON,
    active_at=NOON,
)


def offering(*keywords: str) -> Extensions:
    """Return extensions with these keywords alone."""
    return Extensions(keywords=frozenset(keywords))


def recipient(address: str, orcpt: str = "", *notify: Notify) -> Recipient:
    """Return a recipient."""
    return Recipient(RecipientId(1), address, orcpt, frozenset(notify))


def test_greetings_carry_our_name() -> None:
    assert b"EHLO me.test\r\n" == commands.ehlo("me.test")
    assert b"HELO me.test\r\n" == commands.helo("me.test")
    assert b"LHLO me.test\r\n" == commands.lhlo("me.test")


def test_a_server_without_extensions_gets_the_address_alone() -> None:
    request = replace(REQUEST, envid="e", ret=Ret.FULL, smtputf8=True)
    assert b"MAIL FROM:<s@home.test>\r\n" == commands.mail_from(request, NONE)
    assert b"RCPT TO:<a@b.test>\r\n" == commands.rcpt_to(recipient("a@b.test", "rfc822;x@y", Notify.NEVER), NONE)


def test_parameters_of_mail_come_in_a_fixed_order() -> None:
    request = replace(REQUEST, encoding=Encoding.EIGHT_BIT, envid="e=1", ret=Ret.HDRS, smtputf8=True)
    assert (
        b"MAIL FROM:<s@home.test> SIZE=300 BODY=8BITMIME ENVID=e+3D1 RET=HDRS SMTPUTF8 AUTH=<>\r\n"
    ) == commands.mail_from(request, EVERYTHING, dummy_auth=True)


def test_the_null_sender_is_a_pair_of_brackets() -> None:
    assert b"MAIL FROM:<>\r\n" == commands.mail_from(replace(REQUEST, sender=""), NONE)


def test_converted_content_has_no_size() -> None:
    assert b"MAIL FROM:<s@home.test>\r\n" == commands.mail_from(REQUEST, offering("SIZE"), converted=True)


@pytest.mark.parametrize(
    ("encoding", "parameter"),
    [(Encoding.SEVEN_BIT, b" BODY=7BIT"), (Encoding.EIGHT_BIT, b" BODY=8BITMIME"), (None, b"")],
)
def test_body_says_how_the_content_was_classified(encoding: Encoding | None, parameter: bytes) -> None:
    request = replace(REQUEST, encoding=encoding)
    assert b"MAIL FROM:<s@home.test>" + parameter + b"\r\n" == commands.mail_from(request, offering("8BITMIME"))


def test_smtputf8_is_only_asked_for_when_the_sender_did() -> None:
    assert b"MAIL FROM:<s@home.test>\r\n" == commands.mail_from(REQUEST, offering("SMTPUTF8"))


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        ("root", b"root"),
        ("a.b+c@x.test", b"a.b+c@x.test"),
        ("a b@x.test", b'"a b"@x.test'),
        ("a..b@x.test", b'"a..b"@x.test'),
        (".a@x.test", b'".a"@x.test'),
        ("a.@x.test", b'"a."@x.test'),
        ('a"b\\c@x.test', b'"a\\"b\\\\c"@x.test'),
        ("a@b@x.test", b'"a@b"@x.test'),
        ("a>b@x.test", b'"a>b"@x.test'),
        ("@x.test", b'""@x.test'),
        ('"a b"@x.test', b'"a b"@x.test'),
        ('"a\\"b"@x.test', b'"a\\"b"@x.test'),
        ('"a"b"@x.test', b'"\\"a\\"b\\""@x.test'),
        ("grün@x.test", "grün@x.test".encode()),
        ("a@[IPv6:2001:db8::1]", b"a@[IPv6:2001:db8::1]"),
    ],
)
def test_a_local_part_is_quoted_where_it_must_be_and_only_once(address: str, wire: bytes) -> None:
    assert b"RCPT TO:<" + wire + b">\r\n" == commands.rcpt_to(recipient(address), NONE)
    assert b"MAIL FROM:<" + wire + b">\r\n" == commands.mail_from(replace(REQUEST, sender=address), NONE)


@pytest.mark.parametrize(
    ("whom", "line"),
    [
        (recipient("b@dest.test"), b"RCPT TO:<b@dest.test> ORCPT=rfc822;b@dest.test\r\n"),
        (recipient("b"), b"RCPT TO:<b> ORCPT=rfc822;b\r\n"),
        (recipient("a b@x.test"), b'RCPT TO:<"a b"@x.test> ORCPT=rfc822;"a+20b"@x.test\r\n'),
        (recipient("grün@x.test"), "RCPT TO:<grün@x.test> ORCPT=utf-8;gr\\x{FC}n@x.test\r\n".encode()),
        (
            recipient("a@dest.test", "rfc822;x+y@z.test", Notify.DELAY, Notify.FAILURE),
            b"RCPT TO:<a@dest.test> ORCPT=rfc822;x+2By@z.test NOTIFY=FAILURE,DELAY\r\n",
        ),
        (
            recipient("a@x", "UTF-8;ü+=\\@z", Notify.SUCCESS),
            b"RCPT TO:<a@x> ORCPT=UTF-8;\\x{FC}\\x{2B}\\x{3D}\\x{5C}@z NOTIFY=SUCCESS\r\n",
        ),
        (recipient("a@x", "rfc822;b@x", Notify.NEVER), b"RCPT TO:<a@x> ORCPT=rfc822;b@x NOTIFY=NEVER\r\n"),
    ],
)
def test_a_server_with_dsn_is_told_the_original_recipient(whom: Recipient, line: bytes) -> None:
    assert line == commands.rcpt_to(whom, offering("DSN"))


@pytest.mark.parametrize("bad", ["a\r\nRSET@x", "a\n@x", "a\0@x", "a@x\r\nRSET"])
def test_what_would_break_the_line_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"line break|domain"):
        commands.rcpt_to(recipient(bad), NONE)
    with pytest.raises(ValueError, match=r"line break|domain"):
        commands.mail_from(replace(REQUEST, sender=bad), NONE)
    with pytest.raises(ValueError, match="line break"):
        commands.ehlo(bad)


@pytest.mark.parametrize("bad", ["a@x> SIZE=1", "a@x y", "a@<x", "a@x\t"])
def test_a_domain_cannot_leave_the_brackets(bad: str) -> None:
    with pytest.raises(ValueError, match="domain"):
        commands.rcpt_to(recipient(bad), NONE)


def test_an_original_recipient_without_a_type_is_refused() -> None:
    with pytest.raises(ValueError, match="type"):
        commands.rcpt_to(recipient("a@x", "b@x"), EVERYTHING)


@given(st.text())
def test_xtext_is_printable_ascii_without_space_and_can_be_read_back(text: str) -> None:
    encodable = text.encode("utf-8", "replace").decode()
    written = xtext(encodable)
    assert all("!" <= character <= "~" and character != "=" for character in written)
    start, *rest = written.split("+")
    read = start.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)
    assert encodable == read.decode()


@given(st.text(min_size=1), st.text(min_size=1))
def test_whatever_the_address_a_command_is_one_line_or_refused(local: str, domain: str) -> None:
    try:
        line = commands.rcpt_to(recipient(f"{local}@{domain}"), EVERYTHING)
    except ValueError:
        return
    assert line.endswith(b"\r\n")
    assert 1 == line.count(b"\r") == line.count(b"\n")
    assert b"\0" not in line


addresses = st.from_regex(r"[ -~]{0,8}@[ -~]{0,8}", fullmatch=True) | st.sampled_from(
    [
        "a@b.test",
        "a.b-c_d@B-1.test",
        "a+b@b.test",
        "a=b@b.test",
        "a..b@b.test",
        "a@b",
        "a\n@b.test",
        "a@b.test\n",
        "é@b.test",
    ]
)


@given(
    address=addresses,
    orcpt=st.sampled_from(["", "rfc822;x@y.test"]),
    notify=st.frozensets(st.sampled_from(Notify)),
    dsn=st.booleans(),
)
def test_an_ordinary_recipient_is_written_as_any_other(
    *, address: str, orcpt: str, notify: frozenset[Notify], dsn: bool
) -> None:
    who = Recipient(RecipientId(1), address, orcpt, notify)
    try:
        expected = commands.careful_rcpt_to(who, dsn=dsn)
    except ValueError:
        with pytest.raises(ValueError, match=r"cannot? |may not|not a"):
            commands.rcpt_to(who, offering("DSN") if dsn else NONE)
    else:
        assert expected == commands.rcpt_to(who, offering("DSN") if dsn else NONE)
