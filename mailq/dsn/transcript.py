"""Mail to the postmaster about a session that went wrong: values in, message bytes out.

Source: smtp-delivery T-40, RFC 3834 §5
"""

from collections.abc import Sequence

from mailq.dsn.note import note
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
    return note(body, letterhead, to=to, subject=f"mailq {language} client: errors from {clean(server)}")
