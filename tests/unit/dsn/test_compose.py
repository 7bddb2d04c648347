"""Failure and delay reports, read back by Python's own parser."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailq.dsn.compose import (
    compose_delay_copy,
    compose_delay_report,
    compose_failure_copy,
    compose_failure_report,
    compose_success_report,
)
from mailq.dsn.returned import HEADER_LIMIT_BYTES
from mailq.dsn.template import Template, Templates
from mailq.dsn.values import Letterhead, Original, Report, ReportedRecipient
from mailq.envelope import Ret

CONTENT = b"From: ann@home.test\r\nMessage-ID: <m1@home.test>\r\nSubject: hello\r\n\r\nGood morning.\r\n"
ORIGINAL = Original(
    queue_id="QUEUEID",
    sender="ann@home.test",
    envid="env 7",
    ret=None,
    arrived_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
    content=CONTENT,
)
REFUSED = ReportedRecipient(
    address="bob@far.test",
    orcpt="rfc822;bob@old.test",
    status="5.1.1",
    reason="host mx.far.test[192.0.2.1] said: 550 5.1.1 no such user (in reply to RCPT TO command)",
    remote_host="mx.far.test",
    remote_reply="550 5.1.1 no such user",
)
SILENT = ReportedRecipient(
    address="eve@far.test", orcpt="", status="4.4.1", reason="connect to mx.far.test[192.0.2.1]:25: timed out"
)
LETTERHEAD = Letterhead(
    hostname="mail.home.test",
    message_id="QUEUEID.1@mail.home.test",
    written_at=datetime(2026, 3, 2, 12, 0, tzinfo=UTC),
    size_limit_bytes=50_000,
)


def parsed(report: Report) -> EmailMessage:
    """Parse without a single defect in any part."""
    message = message_from_bytes(report.content, policy=policy.default)
    assert [] == [defect for part in message.walk() for defect in part.defects]
    return cast("EmailMessage", message)


def parts(report: Report) -> list[EmailMessage]:
    return cast("list[EmailMessage]", list(parsed(report).iter_parts()))


def groups(report: Report) -> list[EmailMessage]:
    """Return the groups of status fields: the message's, then one a recipient."""
    return cast("list[EmailMessage]", parts(report)[1].get_payload())


def failure(original: Original = ORIGINAL, *recipients: ReportedRecipient) -> Report:
    return compose_failure_report(original, recipients or (REFUSED,), LETTERHEAD)


def test_a_report_is_addressed_to_the_sender_and_answers_no_machine() -> None:
    """Source: smtp-delivery B-20, B-21."""
    message = parsed(failure())
    assert "Mail Delivery System <MAILER-DAEMON@mail.home.test>" == message["From"]
    assert "ann@home.test" == message["To"]
    assert "Undelivered Mail Returned to Sender" == message["Subject"]
    assert "auto-replied" == message["Auto-Submitted"]
    assert "<QUEUEID.1@mail.home.test>" == message["Message-ID"]
    assert "Mon, 02 Mar 2026 12:00:00 +0000" == message["Date"]
    assert ("<m1@home.test>", "<m1@home.test>") == (message["References"], message["In-Reply-To"])
    assert ("multipart/report", "delivery-status") == (
        message.get_content_type(),
        message.get_param("report-type"),
    )


def test_a_report_has_three_parts() -> None:
    """Source: smtp-delivery B-22, B-23, B-24."""
    found = [(part["Content-Description"], part.get_content_type()) for part in parts(failure())]
    assert [
        ("Notification", "text/plain"),
        ("Delivery report", "message/delivery-status"),
        ("Undelivered Message", "message/rfc822"),
    ] == found


def test_the_text_names_each_recipient_and_why() -> None:
    text = parts(failure(ORIGINAL, REFUSED, SILENT))[0].get_content()
    assert "This is the mail system at host mail.home.test." in text
    joined = " ".join(text.split())
    assert f"<bob@far.test>: {REFUSED.reason}" in joined
    assert f"<eve@far.test>: {SILENT.reason}" in joined
    assert max(len(line) for line in text.splitlines()) < 80


def test_the_message_fields_say_which_message_it_was() -> None:
    """Source: smtp-delivery B-25."""
    about = groups(failure())[0]
    assert {
        "Reporting-MTA": "dns; mail.home.test",
        "Original-Envelope-Id": "env 7",
        "X-Mailq-Queue-ID": "QUEUEID",
        "X-Mailq-Sender": "rfc822; ann@home.test",
        "Arrival-Date": "Sun, 01 Mar 2026 12:00:00 +0000",
    } == dict(about.items())


def test_no_envelope_id_is_reported_where_none_was_given() -> None:
    assert "Original-Envelope-Id" not in groups(failure(replace(ORIGINAL, envid="")))[0]


def test_a_servers_reply_is_passed_on_with_its_name() -> None:
    """Source: smtp-delivery B-26, B-27."""
    _, refused = groups(failure())
    assert [
        ("Final-Recipient", "rfc822; bob@far.test"),
        ("Original-Recipient", "rfc822; bob@old.test"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.far.test"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 no such user"),
    ] == list(refused.items())


def test_where_no_server_replied_the_reason_is_our_own() -> None:
    """Source: smtp-delivery B-26, B-28."""
    _, silent = groups(failure(ORIGINAL, SILENT))
    assert [
        ("Final-Recipient", "rfc822; eve@far.test"),
        ("Original-Recipient", "rfc822; eve@far.test"),
        ("Action", "failed"),
        ("Status", "4.4.1"),
        ("Diagnostic-Code", f"X-Mailq; {SILENT.reason}"),
    ] == list(silent.items())


def test_the_original_comes_back_whole_byte_for_byte() -> None:
    """Source: smtp-delivery B-24."""
    report = failure()
    assert b"\r\n\r\nReturn-Path: <ann@home.test>\r\n" + CONTENT + b"\r\n--" in report.content
    assert b"Good morning." in parts(report)[2].as_bytes()


@pytest.mark.parametrize(
    ("ret", "limit", "description"),
    [
        (None, 50_000, "Undelivered Message"),
        (Ret.FULL, 50_000, "Undelivered Message"),
        (Ret.HDRS, 50_000, "Undelivered Message Headers"),
        (None, len(CONTENT), "Undelivered Message"),
        (None, len(CONTENT) - 1, "Undelivered Message Headers"),
        (Ret.FULL, len(CONTENT) - 1, "Undelivered Message Headers"),
        (Ret.FULL, 0, "Undelivered Message"),
        (Ret.HDRS, 0, "Undelivered Message Headers"),
    ],
)
def test_large_originals_and_those_of_modest_senders_come_back_as_header(
    ret: Ret | None, limit: int, description: str
) -> None:
    """Source: smtp-delivery B-01, B-16."""
    letterhead = replace(LETTERHEAD, size_limit_bytes=limit)
    report = compose_failure_report(replace(ORIGINAL, ret=ret), [REFUSED], letterhead)
    returned = parts(report)[2]
    whole = description == "Undelivered Message"
    assert description == returned["Content-Description"]
    assert ("message/rfc822" if whole else "text/rfc822-headers") == returned.get_content_type()
    assert whole == (b"Good morning." in report.content)
    assert b"Subject: hello" in report.content


def test_a_plain_report_is_seven_bit() -> None:
    report = failure()
    assert (False, False, False) == (report.smtputf8, report.utf8_header, report.eight_bit)
    assert report.content.isascii()
    assert "7bit" == parsed(report)["Content-Transfer-Encoding"]


def test_an_eight_bit_original_makes_an_eight_bit_report() -> None:
    report = failure(replace(ORIGINAL, content=CONTENT + b"Gr\xfc\xdfe\r\n"))
    assert (False, False, True) == (report.smtputf8, report.utf8_header, report.eight_bit)
    assert "8bit" == parsed(report)["Content-Transfer-Encoding"]
    assert "8bit" == parts(report)[2]["Content-Transfer-Encoding"]


def test_a_report_about_an_smtputf8_message_uses_the_global_types() -> None:
    """Source: smtp-delivery B-23, B-24, B-26; RFC 6533."""
    original = replace(ORIGINAL, smtputf8=True, sender="änn@home.test")
    report = failure(original, replace(REFUSED, address="bøb@far.test", orcpt=""))
    assert (True, True, True) == (report.smtputf8, report.utf8_header, report.eight_bit)
    assert b"Final-Recipient: utf-8; b\xc3\xb8b@far.test\r\n" in report.content
    assert b"Content-Type: message/global-delivery-status\r\n" in report.content
    assert b"Content-Type: message/global\r\n" in report.content
    headers_only = failure(replace(original, ret=Ret.HDRS))
    assert b"Content-Type: message/global-headers\r\n" in headers_only.content


def test_a_delay_report_promises_to_go_on() -> None:
    """Source: smtp-delivery B-02, B-21, B-26."""
    until = ORIGINAL.arrived_at + timedelta(days=5)
    report = compose_delay_report(ORIGINAL, [replace(SILENT, retry_until=until)], LETTERHEAD)
    assert "Delayed Mail (still being retried)" == parsed(report)["Subject"]
    _, silent = groups(report)
    assert ("delayed", "4.4.1") == (silent["Action"], silent["Status"])
    assert "Fri, 06 Mar 2026 12:00:00 +0000" == silent["Will-Retry-Until"]
    assert "text/rfc822-headers" == parts(report)[2].get_content_type()


def test_a_server_cannot_write_fields_of_its_own() -> None:
    evil = replace(REFUSED, remote_reply="550 no\r\nAction: delivered\r\n\r\nStatus: 2.0.0", reason="a\r\n\r\nb")
    report = failure(ORIGINAL, evil)
    _, only = groups(report)
    assert ["failed"] == only.get_all("Action")
    assert "smtp; 550 no Action: delivered Status: 2.0.0" == only["Diagnostic-Code"]


def test_a_reply_in_utf8_is_shown_to_people_and_made_ascii_for_programs() -> None:
    """Source: RFC 3464 §2.1."""
    report = failure(ORIGINAL, replace(REFUSED, remote_reply="550 später", reason="host said: 550 später"))
    assert "host said: 550 später" in parts(report)[0].get_content()
    assert "smtp; 550 sp?ter" == groups(report)[1]["Diagnostic-Code"]


def test_an_endless_reply_is_cut() -> None:
    report = failure(ORIGINAL, replace(REFUSED, remote_reply="550 " + "x" * 5000, reason="ü" * 5000))
    assert len(report.content) < 5000
    assert max(len(line) for line in report.content.split(b"\r\n")) <= 998


def test_a_report_about_a_report_of_ours_has_another_boundary() -> None:
    inner = failure()
    outer = parts(failure(replace(ORIGINAL, content=inner.content)))
    assert 3 == len(outer)
    assert inner.content.rstrip() in outer[2].as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@settings(deadline=None)
@given(content=st.binary(max_size=300), headers_only=st.booleans())
def test_no_original_can_break_a_report(content: bytes, headers_only: bool) -> None:  # noqa: FBT001 - given by keyword
    original = replace(ORIGINAL, content=content, ret=Ret.HDRS if headers_only else Ret.FULL)
    report = failure(original)
    boundary = message_from_bytes(report.content).get_boundary()
    assert boundary is not None
    assert 4 == report.content.count(f"--{boundary}".encode())
    header_end = (b"\r\n" + content).find(b"\r\n\r\n")
    returned = content[: max(0, header_end - 2)] if headers_only and header_end >= 0 else content
    assert b"Return-Path: <ann@home.test>\r\n" + returned in report.content


@settings(deadline=None)
@given(text=st.text(max_size=2000))
def test_no_words_of_a_server_can_break_a_report(text: str) -> None:
    report = failure(ORIGINAL, replace(REFUSED, remote_reply=f"550 {text}", reason=text))
    message = message_from_bytes(report.content)
    status = message.get_payload()[1]  # type: ignore[index]  # a multipart's payload is a list
    assert 2 == len(status.get_payload())
    assert b"\n" not in report.content.replace(b"\r\n", b"")
    assert b"\r" not in report.content.replace(b"\r\n", b"")


UNTIL = datetime(2026, 3, 6, 12, 0, tzinfo=UTC)
COPIES = {
    "failure": lambda original: compose_failure_copy(
        original, [REFUSED], LETTERHEAD, to="postmaster@home.test", headers_only=True
    ),
    "double bounce": lambda original: compose_failure_copy(
        original, [REFUSED], LETTERHEAD, to="postmaster@home.test", headers_only=False
    ),
    "delay": lambda original: compose_delay_copy(
        original, [replace(SILENT, retry_until=UNTIL)], LETTERHEAD, to="postmaster@home.test"
    ),
}


@pytest.mark.parametrize(
    ("kind", "subject", "action", "returned"),
    [
        ("failure", "Postmaster Copy: Undelivered Mail", "failed", "text/rfc822-headers"),
        ("double bounce", "Postmaster Copy: Undelivered Mail", "failed", "message/rfc822"),
        ("delay", "Postmaster Warning: Delayed Mail", "delayed", "text/rfc822-headers"),
    ],
)
def test_a_copy_for_the_postmaster_comes_to_the_point(kind: str, subject: str, action: str, returned: str) -> None:
    """Source: smtp-delivery B-04 to B-06, B-20 to B-22."""
    copy = COPIES[kind](ORIGINAL)
    message = parsed(copy)
    assert ("postmaster@home.test", subject, "auto-generated") == (
        message["To"],
        message["Subject"],
        message["Auto-Submitted"],
    )
    text, _, content = parts(copy)
    assert text.get_content().startswith("<")
    assert returned == content.get_content_type()
    about, recipient = groups(copy)
    assert ("rfc822; ann@home.test", action) == (about["X-Mailq-Sender"], recipient["Action"])


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_names_the_null_sender(kind: str) -> None:
    """Source: smtp-delivery B-25."""
    copy = COPIES[kind](replace(ORIGINAL, sender=""))
    assert "rfc822; MAILER-DAEMON" == groups(copy)[0]["X-Mailq-Sender"]
    assert b"Return-Path: <>\r\n" in copy.content


def test_a_large_double_bounce_is_returned_as_its_header() -> None:
    """Source: smtp-delivery B-16."""
    copy = COPIES["double bounce"](replace(ORIGINAL, content=CONTENT + b"x" * 50_000))
    assert "text/rfc822-headers" == parts(copy)[2].get_content_type()


TAKEN = ReportedRecipient(
    address="bob@far.test",
    orcpt="",
    status="2.0.0",
    reason="delivery via mx.far.test[192.0.2.1]:25: 250 2.0.0 queued as 42",
    remote_host="mx.far.test",
    remote_reply="250 2.0.0 queued as 42",
    action="relayed",
    last_attempt_at=datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC),
)


def test_a_success_report_says_for_each_recipient_how_far_the_message_came() -> None:
    """Source: smtp-delivery B-03, B-20, B-21, B-24, B-27, scenario 10.10."""
    in_mailbox = replace(TAKEN, address="eve@near.test", action="delivered")
    report = compose_success_report(ORIGINAL, [TAKEN, in_mailbox], LETTERHEAD)
    message = parsed(report)
    assert ("Successful Mail Delivery Report", "ann@home.test", "auto-replied") == (
        message["Subject"],
        message["To"],
        message["Auto-Submitted"],
    )
    text, _, returned = parts(report)
    assert f"<bob@far.test>: {TAKEN.reason}" in " ".join(text.get_content().split())
    _, relayed, delivered = groups(report)
    assert [
        ("Final-Recipient", "rfc822; bob@far.test"),
        ("Original-Recipient", "rfc822; bob@far.test"),
        ("Action", "relayed"),
        ("Status", "2.0.0"),
        ("Remote-MTA", "dns; mx.far.test"),
        ("Diagnostic-Code", "smtp; 250 2.0.0 queued as 42"),
        ("Last-Attempt-Date", "Sun, 01 Mar 2026 12:00:05 +0000"),
    ] == list(relayed.items())
    assert "delivered" == delivered["Action"]
    assert ("Message Headers", "text/rfc822-headers") == (
        returned["Content-Description"],
        returned.get_content_type(),
    )


def test_a_success_of_the_null_senders_mail_is_told_the_postmaster() -> None:
    """Source: smtp-delivery B-18."""
    message = parsed(compose_success_report(replace(ORIGINAL, sender=""), [TAKEN], LETTERHEAD, to="pm@home.test"))
    assert ("pm@home.test", "auto-generated") == (message["To"], message["Auto-Submitted"])


def test_a_failure_report_may_go_to_the_sender_by_another_name() -> None:
    """Source: smtp-delivery B-42."""
    report = compose_failure_report(ORIGINAL, [REFUSED], LETTERHEAD, to="ann+bob=far.test@home.test")
    assert "ann+bob=far.test@home.test" == parsed(report)["To"]


def test_who_needs_no_tls_gets_a_report_without_it() -> None:
    """Source: smtp-delivery B-20; RFC 8689 §3."""
    assert "No" == parsed(failure(replace(ORIGINAL, tls_optional=True)))["TLS-Required"]
    assert "TLS-Required" not in parsed(failure())


UTF8 = replace(
    ORIGINAL,
    smtputf8=True,
    content="From: Änn <ann@home.test>\r\nSubject: grüezi\r\n\r\nText\r\n".encode(),
)
BOB = replace(REFUSED, address="bøb+x@far.test", orcpt="utf-8;bøb=1@old.test")


def test_a_sender_with_an_ascii_address_needs_no_smtputf8_to_get_a_report() -> None:
    """Source: smtp-delivery B-23, B-24; RFC 6533 §3, RFC 6532 §3.7."""
    report = compose_failure_report(UTF8, [BOB], LETTERHEAD)
    assert (False, False, True) == (report.smtputf8, report.utf8_header, report.eight_bit)
    _, status, returned = parts(report)
    assert ("message/delivery-status", "message/global") == (status.get_content_type(), returned.get_content_type())
    _, bob = groups(report)
    assert (r"utf-8; b\x{F8}b\x{2B}x@far.test", r"utf-8; b\x{F8}b\x{3D}1@old.test") == (
        bob["Final-Recipient"],
        bob["Original-Recipient"],
    )


def test_what_is_ascii_of_smtputf8_mail_is_returned_in_the_plain_form() -> None:
    """Source: RFC 6533 §4."""
    ascii_content = replace(UTF8, content=CONTENT)
    assert "message/rfc822" == parts(failure(ascii_content, BOB))[2].get_content_type()
    assert "text/rfc822-headers" == parts(failure(replace(ascii_content, ret=Ret.HDRS)))[2].get_content_type()
    assert "message/global-headers" == parts(failure(replace(UTF8, ret=Ret.HDRS)))[2].get_content_type()


def test_a_long_address_is_cut_between_its_escapes() -> None:
    long = replace(BOB, orcpt="utf-8;" + "ø" * 490)
    _, only = groups(compose_failure_report(UTF8, [long], LETTERHEAD))
    assert "utf-8; " + r"\x{F8}" * 150 == only["Original-Recipient"]


def test_a_message_that_is_gone_is_reported_on_all_the_same() -> None:
    """Source: smtp-delivery B-24."""
    returned = parts(failure(replace(ORIGINAL, content=None, size_bytes=70)))[2]
    assert "Undelivered Message Headers" == returned["Content-Description"]
    assert "X-Mailq-Notice: the message itself cannot be read any more" in returned.get_content()


def test_a_huge_header_is_returned_in_whole_lines_up_to_a_limit() -> None:
    lines = b"".join(b"X-%05d: %s\r\n" % (number, b"x" * 90) for number in range(2000))
    returned = parts(failure(replace(ORIGINAL, ret=Ret.HDRS, content=lines + b"\r\nbody")))[2]
    text = returned.get_content().replace("\r\n", "\n").rstrip("\n") + "\n"
    kept = text.replace("\n", "\r\n").encode().removeprefix(b"Return-Path: <ann@home.test>\r\n")
    assert HEADER_LIMIT_BYTES - 102 < len(kept) <= HEADER_LIMIT_BYTES
    assert lines.startswith(kept)


def test_of_many_recipients_the_text_names_some_and_the_status_all() -> None:
    many = [replace(REFUSED, address=f"r{number}@far.test", orcpt="") for number in range(10_000)]
    report = compose_failure_report(ORIGINAL, many, LETTERHEAD)
    text, _, status = report.content.partition(b"Content-Type: message/delivery-status")
    assert len(text) < 20_000
    assert b"and 9900 more, 10000 in all" in text
    assert [b"r%d@far.test" % number for number in range(10_000)] == re.findall(
        rb"^Final-Recipient: rfc822; (\S+)", status, re.MULTILINE
    )


def test_ones_own_words_are_those_of_the_report() -> None:
    """Source: smtp-delivery B-20, B-21."""
    words = Template(from_name="Die Post", from_address="post", subject="Ärger", text="Hier ist $myhostname.")
    letterhead = replace(LETTERHEAD, templates=Templates(failure=words))
    report = compose_failure_report(ORIGINAL, [REFUSED], letterhead)
    message = parsed(report)
    assert ("Die Post <post@mail.home.test>", "Ärger") == (message["From"], message["Subject"])
    assert parts(report)[0].get_content().startswith("Hier ist mail.home.test.")
    assert report.content.isascii()


def test_a_delay_report_tells_how_long_it_is_tried() -> None:
    """Source: smtp-delivery B-22, B-26."""
    until = ORIGINAL.arrived_at + timedelta(days=2)
    original = replace(ORIGINAL, lifetime=timedelta(days=2), warned_after=timedelta(minutes=90))
    report = compose_delay_report(original, [replace(SILENT, retry_until=until)], LETTERHEAD)
    text = " ".join(parts(report)[0].get_content().split())
    assert "for 1.5 hours." in text
    assert "for 2 days in all, until Tue, 03 Mar 2026 12:00:00 +0000." in text
