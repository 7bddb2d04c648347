"""The part of a report that programs read: status fields of the message and of each recipient.

Every value that comes from outside is made printable and short before it goes
into a field, so nobody can add one. Addresses outside ASCII are of the type
``utf-8``, written as they are in the global form, which only a reader with
SMTPUTF8 gets, and escaped in the other.

Source: RFC 3464 §2, RFC 6533 §3, smtp-delivery B-25 to B-28
"""

from collections.abc import Iterable, Iterator
from email.utils import format_datetime

from mailq.dsn.text import clean, joined, wrapped
from mailq.dsn.values import Letterhead, Original, ReportedRecipient
from mailq.xtext import utf8_xtext

_NULL_SENDER = "MAILER-DAEMON"
_LONGEST = 900


def status_part(
    original: Original,
    recipients: Iterable[ReportedRecipient],
    letterhead: Letterhead,
    *,
    action: str,
    in_utf8: bool,
) -> bytes:
    """Return the body of the part.

    Args:
        original: The message.
        recipients: At least one.
        letterhead: Of this, the host's name.
        action: The same for all; empty: each recipient's own.
        in_utf8: In the global form.
    """
    lines = [f"Reporting-MTA: dns; {letterhead.hostname}"]
    if original.envid:
        lines.append(f"Original-Envelope-Id: {clean(original.envid)}")
    lines += [
        f"X-Mailq-Queue-ID: {original.queue_id}",
        f"X-Mailq-Sender: {_typed(original.sender or _NULL_SENDER, in_utf8=in_utf8)}",
        f"Arrival-Date: {format_datetime(original.arrived_at)}",
    ]
    for one in recipients:
        lines += ["", *_fields(one, action or one.action, in_utf8=in_utf8)]
    # Only the global form may hold UTF-8. Source: RFC 3464 §2.1
    return joined(lines) if in_utf8 else joined(lines).decode().encode("ascii", "replace")


def _fields(one: ReportedRecipient, action: str, *, in_utf8: bool) -> Iterator[str]:
    plain = _typed(one.address, in_utf8=in_utf8)
    yield f"Final-Recipient: {plain}"
    yield f"Original-Recipient: {_original(one.orcpt, in_utf8=in_utf8) if ';' in one.orcpt else plain}"
    yield f"Action: {action}"
    yield f"Status: {one.status}"
    if one.remote_reply:
        yield f"Remote-MTA: dns; {clean(one.remote_host)}"
        yield from wrapped(f"Diagnostic-Code: smtp; {clean(one.remote_reply)}").split("\n")
    else:
        yield from wrapped(f"Diagnostic-Code: X-Mailq; {clean(one.reason)}").split("\n")
    if one.last_attempt_at is not None:
        yield f"Last-Attempt-Date: {format_datetime(one.last_attempt_at)}"
    if one.retry_until is not None:
        yield f"Will-Retry-Until: {format_datetime(one.retry_until)}"


def _typed(address: str, *, in_utf8: bool) -> str:
    if address.isascii():
        return f"rfc822; {clean(address)}"
    return f"utf-8; {clean(address) if in_utf8 else _escaped(address)}"


def _original(orcpt: str, *, in_utf8: bool) -> str:
    kind, _, address = orcpt.partition(";")
    escaped = kind.lower() == "utf-8" and not in_utf8
    return f"{clean(kind)}; {_escaped(address) if escaped else clean(address)}"


def _escaped(address: str) -> str:
    # Escapes are longer than what they stand for, and a line has its limit.
    while len(written := utf8_xtext(address)) > _LONGEST:
        address = address[:-1]
    return written
