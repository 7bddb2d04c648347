"""Mail to the postmaster about messages in quarantine: values in, message bytes out.

Source: smtp-delivery Q-04, RFC 3834 §5
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mailq.dsn.note import note
from mailq.dsn.text import clean, joined
from mailq.dsn.values import Letterhead


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One recipient in quarantine.

    Attributes:
        queue_id: Of its message.
        address: Its own.
        fault: Where our own code failed, several lines.
    """

    queue_id: str
    address: str
    fault: str


def compose_quarantine(quarantined: Sequence[Quarantined], letterhead: Letterhead, *, to: str) -> bytes:
    """Tell the postmaster *to* what was put in quarantine, at least one; return the message, CRLF line ends.

    A fault that several have in common is shown once. Of the letterhead, the size limit does not matter.
    """
    by_fault: dict[str, list[Quarantined]] = {}
    for one in quarantined:
        by_fault.setdefault(one.fault, []).append(one)
    lines = [
        "The mail below made mailq itself, a hook or a whole worker fail, time and",
        "again. It is kept and not tried any more; all other mail goes on.",
        "",
        "Look at it:          mailq show QUEUE-ID",
        "Try it again:        mailq release QUEUE-ID",
        "Give it up:          mailq cancel QUEUE-ID",
    ]
    for fault, group in by_fault.items():
        lines += ["", *(f"{one.queue_id}: {clean(one.address)}" for one in group), ""]
        lines += [f"    {clean(line)}" for line in fault.splitlines()]
    body = joined(lines)
    return note(body, letterhead, to=to, subject=f"mailq: {len(quarantined)} in quarantine")
