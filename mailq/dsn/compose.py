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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from mailq.dsn.text import clean, joined, wrapped
from mailq.dsn.values import Letterhead, Original, Report, ReportedRecipient
from mailq.envelope import Ret

_HEADER_END: Final = re.compile(rb"\r\n\r\n")
_MESSAGE_ID: Final = re.compile(rb"^Message-ID:[ \t]*(?:\r\n[ \t]+)?(<[^<>\s]{1,900}>)", re.IGNORECASE | re.MULTILINE)
_NULL_SENDER: Final = "MAILER-DAEMON"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What tells the kinds of reports apart.

    Attributes:
        to: Its recipient.
        postmaster: It is for people who know what it is about: without an introduction.
        introduction: For people.
        fields: The action, then fields that follow all others, the same for each recipient.
    """

    to: str
    subject: str
    fields: Sequence[str]
    headers_only: bool
    postmaster: bool = False
    introduction: str = ""


def compose_failure_report(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead
) -> Report:
    """Tell the sender that *recipients*, at least one, will not get the message. Source: smtp-delivery B-01."""
    form = _Form(
        to=original.sender,
        subject="Undelivered Mail Returned to Sender",
        introduction=(
            f"This is the mail system at host {letterhead.hostname}.\n\n"
            "Your message could not be delivered to the recipients below, and will not be\n"
            "tried again. What was said about each of them follows; your message, or its\n"
            "header, is attached."
        ),
        fields=["Action: failed"],
        headers_only=original.ret is Ret.HDRS or _is_large(original, letterhead),
    )
    return _compose(original, recipients, letterhead, form)


def compose_failure_copy(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, *, to: str, headers_only: bool
) -> Report:
    """Tell the postmaster *to* that *recipients*, at least one, will not get the message.

    Source:
        smtp-delivery B-04, B-05, B-21, B-22
    """
    form = _Form(
        to=to,
        subject="Postmaster Copy: Undelivered Mail",
        fields=["Action: failed"],
        headers_only=headers_only or _is_large(original, letterhead),
        postmaster=True,
    )
    return _compose(original, recipients, letterhead, form)


def compose_delay_report(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, *, retry_until: datetime
) -> Report:
    """Tell the sender that *recipients*, at least one, have not got the message yet. Source: smtp-delivery B-02."""
    form = _Form(
        to=original.sender,
        subject="Delayed Mail (still being retried)",
        introduction=(
            f"This is the mail system at host {letterhead.hostname}.\n\n"
            "This is a warning only: you need not send your message again. It could not be\n"
            f"delivered to the recipients below so far, and is tried until\n{format_datetime(retry_until)}."
        ),
        fields=_delay_fields(retry_until),
        headers_only=True,
    )
    return _compose(original, recipients, letterhead, form)


def compose_delay_copy(
    original: Original,
    recipients: Sequence[ReportedRecipient],
    letterhead: Letterhead,
    *,
    to: str,
    retry_until: datetime,
) -> Report:
    """Tell the postmaster *to* that *recipients*, at least one, have not got the message yet. Source: B-06."""
    form = _Form(
        to=to,
        subject="Postmaster Warning: Delayed Mail",
        fields=_delay_fields(retry_until),
        headers_only=True,
        postmaster=True,
    )
    return _compose(original, recipients, letterhead, form)


def _delay_fields(retry_until: datetime) -> Sequence[str]:
    return ["Action: delayed", f"Will-Retry-Until: {format_datetime(retry_until)}"]


def _is_large(original: Original, letterhead: Letterhead) -> bool:
    return 0 < letterhead.size_limit_bytes < len(original.content)


def _compose(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, form: _Form
) -> Report:
    utf8 = original.smtputf8
    notification = _notification(form.introduction, recipients)
    status = _status_part(original, recipients, letterhead, form.fields)
    returned = _returned(original, headers_only=form.headers_only)
    eight_bit = not (notification.isascii() and status.isascii() and returned.isascii())
    boundary = _boundary(letterhead, returned)
    header = _header(original, letterhead, form, boundary=boundary, eight_bit=eight_bit)
    description = "Undelivered Message" + " Headers" * form.headers_only
    parts = [
        _part("Notification", "text/plain; charset=utf-8", notification),
        _part("Delivery report", "message/global-delivery-status" if utf8 else "message/delivery-status", status),
        _part(description, _returned_type(utf8, form.headers_only), returned),
    ]
    marker = f"--{boundary}"
    body = b"".join(f"{marker}\r\n".encode() + part for part in parts)
    content = header + b"\r\nThis is a MIME-encapsulated message.\r\n\r\n" + body + f"{marker}--\r\n".encode()
    return Report(content, smtputf8=utf8, utf8_header=not header.isascii(), eight_bit=eight_bit)


def _header(original: Original, letterhead: Letterhead, form: _Form, *, boundary: str, eight_bit: bool) -> bytes:
    lines = [
        f"From: Mail Delivery System <MAILER-DAEMON@{letterhead.hostname}>",
        f"To: {clean(form.to)}",
        f"Subject: {form.subject}",
        f"Date: {format_datetime(letterhead.written_at)}",
        f"Message-ID: <{letterhead.message_id}>",
        *_references(original.content),
        f"Auto-Submitted: auto-{'generated' if form.postmaster else 'replied'}",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}",
    ]
    return joined(lines)


def _references(content: bytes) -> Iterable[str]:
    header = _HEADER_END.split(content, maxsplit=1)[0]
    found = _MESSAGE_ID.search(header)
    if found is not None and found[1].isascii():
        yield f"References: {found[1].decode()}"


def _notification(text: str, recipients: Iterable[ReportedRecipient]) -> bytes:
    blocks = [text] if text else []
    blocks += [wrapped(f"<{clean(one.address)}>: {clean(one.reason)}") for one in recipients]
    return joined("\n\n".join(blocks).split("\n"))


def _status_part(
    original: Original, recipients: Iterable[ReportedRecipient], letterhead: Letterhead, fields: Sequence[str]
) -> bytes:
    lines = [f"Reporting-MTA: dns; {letterhead.hostname}"]
    if original.envid:
        lines.append(f"Original-Envelope-Id: {clean(original.envid)}")
    lines += [
        f"X-Mailq-Queue-ID: {original.queue_id}",
        f"X-Mailq-Sender: {_address_type(original.sender)}; {clean(original.sender or _NULL_SENDER)}",
        f"Arrival-Date: {format_datetime(original.arrived_at)}",
    ]
    for one in recipients:
        lines += ["", *_recipient_fields(one, fields)]
    # Only the global form may hold UTF-8. Source: RFC 3464 §2.1, RFC 6533 §3
    return joined(lines) if original.smtputf8 else joined(lines).decode().encode("ascii", "replace")


def _recipient_fields(one: ReportedRecipient, fields: Sequence[str]) -> Iterable[str]:
    plain = f"{_address_type(one.address)}; {clean(one.address)}"
    kind, separator, address = one.orcpt.partition(";")
    yield f"Final-Recipient: {plain}"
    yield f"Original-Recipient: {clean(kind)}; {clean(address)}" if separator else f"Original-Recipient: {plain}"
    yield fields[0]
    yield f"Status: {one.status}"
    if one.remote_reply:
        yield f"Remote-MTA: dns; {clean(one.remote_host)}"
        yield from wrapped(f"Diagnostic-Code: smtp; {clean(one.remote_reply)}").split("\n")
    else:
        yield from wrapped(f"Diagnostic-Code: X-Mailq; {clean(one.reason)}").split("\n")
    yield from fields[1:]


def _returned(original: Original, *, headers_only: bool) -> bytes:
    content = original.content
    if headers_only:
        content = _HEADER_END.split(content, maxsplit=1)[0]
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    return f"Return-Path: <{clean(original.sender)}>\r\n".encode() + content


def _returned_type(utf8: bool, headers_only: bool) -> str:  # noqa: FBT001 - two facts, both named at the only call
    if headers_only:
        return "message/global-headers" if utf8 else "text/rfc822-headers"
    return "message/global" if utf8 else "message/rfc822"


def _part(description: str, content_type: str, body: bytes) -> bytes:
    lines = [f"Content-Description: {description}", f"Content-Type: {content_type}"]
    if not body.isascii():
        lines.append("Content-Transfer-Encoding: 8bit")
    return joined([*lines, ""]) + body + b"\r\n"


def _boundary(letterhead: Letterhead, returned: bytes) -> str:
    # The original may hold a report of ours, and with it a boundary made in the same way.
    base = re.sub(r"[^A-Za-z0-9.]", ".", letterhead.message_id)[:60]
    boundary = base
    while boundary.encode() in returned:
        boundary = f"{boundary[:60]}{len(boundary)}="
    return boundary


def _address_type(address: str) -> str:
    return "rfc822" if address.isascii() else "utf-8"
