"""What one conversation with one server told us."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailq.status import Delivered, Failure, RecipientId, Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """The evidence of one session.

    Attributes:
        verdicts: What the server said about single recipients.
        failure: What befell every recipient without a verdict; None when each has one.
        completed: A transaction was carried through, whatever its result: the destination is well.
            Source: smtp-delivery X-14.
        transacted: The handshake succeeded, so the session counts against the session limit.
            Source: smtp-delivery C-44, C-52.
        retry_plaintext: Ask this server once more, without TLS. Source: smtp-delivery P-30, P-32.
        trouble: What the postmaster may want to see of it; None when nothing. Source: smtp-delivery C-70.
    """

    verdicts: Mapping[RecipientId, Delivered | Failure] = field(default_factory=dict)
    failure: Failure | None = None
    completed: bool = False
    transacted: bool = False
    retry_plaintext: bool = False
    trouble: Trouble | None = None
