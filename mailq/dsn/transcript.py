"""Mail to the postmaster about a session that went wrong: values in, message bytes out.

Source: smtp-delivery T-40, RFC 3834 §5
"""

from collections.abc import Sequence
from email.utils import format_datetime

from mailq.dsn.text import clean, joined
from mailq.dsn.values import Letterhead


def compose_transcript(
    lines: Sequence[str], letterhead: Letterhead, *, to: str, server: str, language: str, queue_id: str
) -> bytes:
    """Show the postmaster *to* what was said in a session; return the message, CRLF line ends.

    Args:
        lines: The transcript, oldest first.
        letterhead: Of these, the size limit does not matter.
        to: An address.
        server: As in logs, ``HOST[ADDR]:PORT``.
        language: ``SMTP`` or ``LMTP``.
        queue_id: The message that the session was held for.
    """
    body = joined(
        [
            f"The session with {clean(server)} for message {queue_id}",
            "did not go as the protocol has it. What was said last:",
            "",
            *(f" {clean(line)}" for line in lines),
            "",
            "What became of the message is in the log of the worker, under its queue id.",
        ]
    )
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{letterhead.hostname}>",
        f"To: {clean(to)}",
        f"Subject: mailq {language} client: errors from {clean(server)}",
        f"Date: {format_datetime(letterhead.written_at)}",
        f"Message-ID: <{letterhead.message_id}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Transfer-Encoding: {'7bit' if body.isascii() else '8bit'}",
        "",
    ]
    return joined(header) + body
