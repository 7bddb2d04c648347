"""The frame of mail to the postmaster: one part of plain text that no program answers.

Source: RFC 3834 §5
"""

from email.utils import format_datetime

from mailq.dsn.text import clean, joined
from mailq.dsn.values import Letterhead


def note(body: bytes, letterhead: Letterhead, *, to: str, subject: str) -> bytes:
    """Return a message, CRLF line ends.

    Args:
        body: CRLF line ends.
        letterhead: Of these, the size limit does not matter.
        to: An address.
        subject: Cleaned where it holds what strangers said.
    """
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{letterhead.hostname}>",
        f"To: {clean(to)}",
        f"Subject: {subject}",
        f"Date: {format_datetime(letterhead.written_at)}",
        f"Message-ID: <{letterhead.message_id}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Transfer-Encoding: {'7bit' if body.isascii() else '8bit'}",
        "",
    ]
    return joined(header) + body
