"""Reports to senders and postmasters: values in, message bytes out.

A report has three parts: a text for people, the status fields for programs,
and the returned message or its header. The text names a hundred recipients at
most; the status fields name all. What is said of a recipient is what was
recorded of its last attempt.

A report to an address outside ASCII about SMTPUTF8 mail is in the global form
throughout; to any other address it can be sent without SMTPUTF8.

Source: RFC 3464, RFC 6522, RFC 6533, RFC 3834 §5, smtp-delivery B-16, B-20 to B-28
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.header import Header
from email.utils import format_datetime, formataddr
from typing import Final

from mailq.dsn.returned import header_of, is_large, returned_part
from mailq.dsn.status_part import status_part
from mailq.dsn.template import Template, duration_values, expand
from mailq.dsn.text import clean, joined, wrapped
from mailq.dsn.values import Letterhead, Original, Report, ReportedRecipient
from mailq.envelope import Ret

NAMED_IN_TEXT: Final = 100
"""More recipients than these are named in the status fields only."""

_MESSAGE_ID: Final = re.compile(rb"^Message-ID:[ \t]*(?:\r\n[ \t]+)?(<[^<>\s]{1,900}>)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What tells the kinds of reports apart.

    Attributes:
        to: Its recipient.
        postmaster: It is for people who know what it is about: without an introduction.
        template: The words.
        action: Of all recipients; empty: each has its own.
        returned: What the third part is called, without ``Headers``.
    """

    to: str
    template: Template
    action: str
    headers_only: bool
    postmaster: bool = False
    returned: str = "Undelivered Message"


def compose_failure_report(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, *, to: str = ""
) -> Report:
    """Tell the sender that *recipients*, at least one, will not get the message.

    Args:
        original: What they will not get.
        recipients: They.
        letterhead: Whose report it is.
        to: The sender by another name; empty: as in *original*.

    Source:
        smtp-delivery B-01, B-42
    """
    form = _Form(
        to=to or original.sender,
        template=letterhead.templates.failure,
        action="failed",
        headers_only=original.ret is Ret.HDRS or is_large(original, letterhead),
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
        template=letterhead.templates.failure,
        action="failed",
        headers_only=headers_only or is_large(original, letterhead),
        postmaster=True,
    )
    return _compose(original, recipients, letterhead, form)


def compose_delay_report(original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead) -> Report:
    """Tell the sender that *recipients*, at least one, have not got the message yet. Source: smtp-delivery B-02."""
    form = _Form(to=original.sender, template=letterhead.templates.delay, action="delayed", headers_only=True)
    return _compose(original, recipients, letterhead, form)


def compose_delay_copy(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, *, to: str
) -> Report:
    """Tell the postmaster *to* that *recipients*, at least one, have not got the message yet. Source: B-06."""
    form = _Form(to=to, template=letterhead.templates.delay, action="delayed", headers_only=True, postmaster=True)
    return _compose(original, recipients, letterhead, form)


def compose_success_report(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, *, to: str = ""
) -> Report:
    """Tell the sender, or else the postmaster *to*, that *recipients*, at least one, were delivered.

    Source:
        smtp-delivery B-03, B-18, B-24, B-27
    """
    form = _Form(
        to=to or original.sender,
        template=letterhead.templates.success,
        action="",
        headers_only=True,
        postmaster=bool(to),
        returned="Message",
    )
    return _compose(original, recipients, letterhead, form)


def _compose(
    original: Original, recipients: Sequence[ReportedRecipient], letterhead: Letterhead, form: _Form
) -> Report:
    in_utf8 = original.smtputf8 and not form.to.isascii()
    notification = _notification(_introduction(original, recipients, letterhead, form), recipients)
    status = status_part(original, recipients, letterhead, action=form.action, in_utf8=in_utf8)
    returned = returned_part(original, headers_only=form.headers_only, in_utf8=in_utf8)
    eight_bit = not (notification.isascii() and status.isascii() and returned.body.isascii())
    boundary = _boundary(letterhead, returned.body)
    header = _header(original, letterhead, form, boundary=boundary, eight_bit=eight_bit)
    description = form.returned + " Headers" * returned.headers_only
    parts = [
        _part("Notification", "text/plain; charset=utf-8", notification),
        _part("Delivery report", "message/global-delivery-status" if in_utf8 else "message/delivery-status", status),
        _part(description, returned.content_type, returned.body),
    ]
    marker = f"--{boundary}"
    body = b"".join(f"{marker}\r\n".encode() + part for part in parts)
    content = header + b"\r\nThis is a MIME-encapsulated message.\r\n\r\n" + body + f"{marker}--\r\n".encode()
    return Report(content, smtputf8=in_utf8, utf8_header=not header.isascii(), eight_bit=eight_bit)


def _introduction(
    original: Original, recipients: Iterable[ReportedRecipient], letterhead: Letterhead, form: _Form
) -> str:
    if form.postmaster:
        return ""
    ends = [one.retry_until for one in recipients if one.retry_until is not None]
    values = {
        "mail_name": "mailq",
        "myhostname": letterhead.hostname,
        "mydomain": letterhead.hostname.partition(".")[2] or letterhead.hostname,
        "queue_id": original.queue_id,
        "retry_until": format_datetime(max(ends)) if ends else "",
        **dict(duration_values("delay_warning_time", original.warned_after)),
        **dict(duration_values("maximal_queue_lifetime", original.lifetime)),
    }
    return expand(form.template.text, values)


def _header(original: Original, letterhead: Letterhead, form: _Form, *, boundary: str, eight_bit: bool) -> bytes:
    template = form.template
    at_host = "" if "@" in template.from_address else f"@{letterhead.hostname}"
    lines = [
        f"From: {formataddr((template.from_name, template.from_address + at_host))}",
        f"To: {clean(form.to)}",
        f"Subject: {_encoded(template.postmaster_subject if form.postmaster else template.subject)}",
        f"Date: {format_datetime(letterhead.written_at)}",
        f"Message-ID: <{letterhead.message_id}>",
        *_references(original.content or b""),
        *(["TLS-Required: No"] if original.tls_optional else []),
        f"Auto-Submitted: auto-{'generated' if form.postmaster else 'replied'}",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if eight_bit else '7bit'}",
    ]
    return joined(lines)


def _encoded(text: str) -> str:
    return text if text.isascii() else Header(text, "utf-8").encode(linesep="\r\n")


def _references(content: bytes) -> Iterator[str]:
    found = _MESSAGE_ID.search(header_of(content))
    if found is not None and found[1].isascii():
        yield f"References: {found[1].decode()}"
        yield f"In-Reply-To: {found[1].decode()}"


def _notification(text: str, recipients: Sequence[ReportedRecipient]) -> bytes:
    blocks = [text] if text else []
    named = recipients[:NAMED_IN_TEXT]
    blocks += [wrapped(f"<{clean(one.address)}>: {clean(one.reason)}") for one in named]
    if len(recipients) > len(named):
        blocks.append(
            f"and {len(recipients) - len(named)} more, {len(recipients)} in all: "
            "the delivery report in this message names them."
        )
    return joined("\n\n".join(blocks).split("\n"))


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
