"""Reports about undelivered mail: values in, message bytes out.

A report has three parts: a text for people, the status fields for programs,
and the returned message or its header. The returned part is copied byte for
byte, never parsed and written again: whatever was wrong with the original
must not keep its sender from being told.

Every value that comes from outside, such as a server's reply, is made
printable and short before it goes into a field, so no reply can add one.

Source: RFC 3464, RFC 6522, RFC 6533, RFC 3834 §5, smtp-delivery B-16, B-20 to B-28
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from mailq.envelope import Ret

_WIDTH = 78
_TEXT_LIMIT_BYTES = 900
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\U0010ffff]+")
_HEADER_END = re.compile(rb"\r\n\r\n")
_MESSAGE_ID = re.compile(rb"^Message-ID:[ \t]*(?:\r\n[ \t]+)?(<[^<>\s]{1,900}>)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """A recipient the report is about.

    Attributes:
        address: Envelope address.
        orcpt: ``type;address``, decoded; empty when the sender gave none.
        status: RFC 3463 code, such as ``5.1.1``.
        reason: What people read.
        remote_host: The server that replied; empty when none did.
        remote_reply: Its words, code included; empty when none did.
    """

    address: str
    orcpt: str
    status: str
    reason: str
    remote_host: str = ""
    remote_reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The message the report is about.

    Attributes:
        queue_id: Its name in the queue.
        sender: Who gets the report.
        envid: RFC 3461 ENVID, decoded; empty when none was given.
        ret: How much the sender wants back; None: all of it.
        arrived_at: When it entered the queue.
        content: CRLF line ends.
        smtputf8: It was sent with SMTPUTF8.
    """

    queue_id: str
    sender: str
    envid: str
    ret: Ret | None
    arrived_at: datetime
    content: bytes
    smtputf8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """Whose report it is, and when.

    Attributes:
        hostname: Own name.
        message_id: Without angle brackets; unique, and part of the boundary.
        written_at: The report's date.
        size_limit_bytes: Larger originals are returned as header only; 0 is no limit.
    """

    hostname: str
    message_id: str
    written_at: datetime
    size_limit_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """A composed report.

    Attributes:
        content: CRLF line ends.
        smtputf8: It can be sent to SMTPUTF8 servers only.
        utf8_header: Its own header has bytes above 127.
        eight_bit: Its body has.
    """

    content: bytes
    smtputf8: bool
    utf8_header: bool
    eight_bit: bool


def compose_failure_report(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead
) -> Report:
    """Tell the sender that *recipients*, at least one, will not get the message."""
    text = (
        f"This is the mail system at host {letterhead.hostname}.\n\n"
        "Your message could not be delivered to the recipients below, and will not be\n"
        "tried again. What was said about each of them follows; your message, or its\n"
        "header, is attached."
    )
    headers_only = original.ret is Ret.HDRS or 0 < letterhead.size_limit_bytes < len(original.content)
    return _compose(
        original,
        letterhead,
        subject="Undelivered Mail Returned to Sender",
        text=text,
        recipients=recipients,
        fields=["Action: failed"],
        headers_only=headers_only,
    )


def compose_delay_report(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, *, retry_until: datetime
) -> Report:
    """Tell the sender that *recipients*, at least one, have not got the message yet."""
    text = (
        f"This is the mail system at host {letterhead.hostname}.\n\n"
        "This is a warning only: you need not send your message again. It could not be\n"
        f"delivered to the recipients below so far, and is tried until\n{format_datetime(retry_until)}."
    )
    return _compose(
        original,
        letterhead,
        subject="Delayed Mail (still being retried)",
        text=text,
        recipients=recipients,
        fields=["Action: delayed", f"Will-Retry-Until: {format_datetime(retry_until)}"],
        headers_only=True,
    )


def _compose(
    original: Original,
    letterhead: Letterhead,
    *,
    subject: str,
    text: str,
    recipients: Sequence[ReportedRecipient],
    fields: Sequence[str],
    headers_only: bool,
) -> Report:
    utf8 = original.smtputf8
    notification = _notification(text, recipients)
    status = _status_part(original, recipients, letterhead, fields)
    returned = _returned(original, headers_only=headers_only)
    eight_bit = not (notification.isascii() and status.isascii() and returned.isascii())
    boundary = _boundary(letterhead, returned)
    header = _header(original, letterhead, subject=subject, boundary=boundary, eight_bit=eight_bit)
    parts = [
        _part("Notification", "text/plain; charset=utf-8", notification),
        _part("Delivery report", "message/global-delivery-status" if utf8 else "message/delivery-status", status),
        _part("Undelivered Message" + " Headers" * headers_only, _returned_type(utf8, headers_only), returned),
    ]
    marker = f"--{boundary}"
    body = b"".join(f"{marker}\r\n".encode() + part for part in parts)
    content = header + b"\r\nThis is a MIME-encapsulated message.\r\n\r\n" + body + f"{marker}--\r\n".encode()
    return Report(content, smtputf8=utf8, utf8_header=not header.isascii(), eight_bit=eight_bit)


def _header(original: Original, letterhead: Letterhead, *, subject: str, boundary: str, eight_bit: bool) -> bytes:
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{letterhead.hostname}>",
        f"To: {_clean(original.sender)}",
        f"Subject: {subject}",
        f"Date: {format_datetime(letterhead.written_at)}",
        f"Message-ID: <{letterhead.message_id}>",
        *_references(original.content),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}",
    ]
    return _lines(lines)


def _references(content: bytes) -> Iterable[str]:
    header = _HEADER_END.split(content, maxsplit=1)[0]
    found = _MESSAGE_ID.search(header)
    if found is not None and found[1].isascii():
        yield f"References: {found[1].decode()}"


def _notification(text: str, recipients: Iterable[ReportedRecipient]) -> bytes:
    blocks = [text]
    blocks += [_wrapped(f"<{_clean(one.address)}>: {_clean(one.reason)}") for one in recipients]
    return _lines("\n\n".join(blocks).split("\n"))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _status_part(
    original: Original, recipients: Iterable[ReportedRecipient], letterhead: Letterhead, fields: Sequence[str]
) -> bytes:
    lines = [f"Reporting-MTA: dns; {letterhead.hostname}"]
    if original.envid:
        lines.append(f"Original-Envelope-Id: {_clean(original.envid)}")
    lines += [
        f"X-Mailq-Queue-ID: {original.queue_id}",
        f"X-Mailq-Sender: {_address_type(original.sender)}; {_clean(original.sender)}",
        f"Arrival-Date: {format_datetime(original.arrived_at)}",
    ]
    for one in recipients:
        lines += ["", *_recipient_fields(one, fields)]
    # Only the global form may hold UTF-8. Source: RFC 3464 §2.1, RFC 6533 §3
    return _lines(lines) if original.smtputf8 else _lines(lines).decode().encode("ascii", "replace")


def _recipient_fields(one: ReportedRecipient, fields: Sequence[str]) -> Iterable[str]:
    plain = f"{_address_type(one.address)}; {_clean(one.address)}"
    kind, separator, address = one.orcpt.partition(";")
    yield f"Final-Recipient: {plain}"
    yield f"Original-Recipient: {_clean(kind)}; {_clean(address)}" if separator else f"Original-Recipient: {plain}"
    yield fields[0]
    yield f"Status: {one.status}"
    if one.remote_reply:
        yield f"Remote-MTA: dns; {_clean(one.remote_host)}"
        yield from _wrapped(f"Diagnostic-Code: smtp; {_clean(one.remote_reply)}").split("\n")
    else:
        yield from _wrapped(f"Diagnostic-Code: X-Mailq; {_clean(one.reason)}").split("\n")
    yield from fields[1:]


def _returned(original: Original, *, headers_only: bool) -> bytes:
    content = original.content
    if headers_only:
        content = _HEADER_END.split(content, maxsplit=1)[0]
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    return f"Return-Path: <{_clean(original.sender)}>\r\n".encode() + content


def _returned_type(utf8: bool, headers_only: bool) -> str:  # noqa: FBT001 - two facts, both named at the only call
    if headers_only:
        return "message/global-headers" if utf8 else "text/rfc822-headers"
    return "message/global" if utf8 else "message/rfc822"


def _part(description: str, content_type: str, body: bytes) -> bytes:
    lines = [f"Content-Description: {description}", f"Content-Type: {content_type}"]
    if not body.isascii():
        lines.append("Content-Transfer-Encoding: 8bit")
    return _lines([*lines, ""]) + body + b"\r\n"


def _boundary(letterhead: Letterhead, returned: bytes) -> str:
    # The original may hold a report of ours, and with it a boundary made in the same way.
    base = re.sub(r"[^A-Za-z0-9.]", ".", letterhead.message_id)[:60]
    boundary = base
    while boundary.encode() in returned:
        boundary = f"{boundary[:60]}{len(boundary)}="
    return boundary


def _address_type(address: str) -> str:
    return "rfc822" if address.isascii() else "utf-8"


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).encode()[:_TEXT_LIMIT_BYTES].decode(errors="ignore")


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()
