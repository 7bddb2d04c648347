"""The next message's commands behind the end of this one's content, in one write.

Of a message, a server that is quick and near is waited for twice: for the go-ahead to its content, and for the answer
to it. Where the next message is known by then, its commands go out with the final dot, and it is waited for once.

Invariants:
    Of the next message nothing but its commands is sent; its content waits for the go-ahead, and for its own turn.
    Until the server has shown that it is in step, see :attr:`mailq.smtp.dialogue.Transaction.proven`, nothing that it
    says of the next message counts, and the message goes another way as if it had not been named.
    A session on which commands are ahead is for that very request; whoever else gets hold of it can only close it, for
    the server may be waiting for content.

Source: RFC 2920 §3.1, which allows the end of the content to be the first of a group.
"""

from dataclasses import dataclass
from typing import Final

from mailq.delivery.outgoing import Outgoing
from mailq.envelope import DeliveryRequest, Protocol
from mailq.smtp.dialogue import Send, Transaction

LAST_WRITE_BYTES: Final = 16_384
"""Behind more than this nothing follows: it may not fit the system's buffer, and then nobody knows what went out."""


@dataclass(frozen=True, slots=True)
class Following:
    """A transaction that was begun behind the one before it.

    Attributes:
        request: What it is for.
        outgoing: In the form for this server.
        transaction: Its replies are still to be read.
        said: All its commands.
    """

    request: DeliveryRequest
    outgoing: Outgoing
    transaction: Transaction
    said: Send


def goes_the_same_way(request: DeliveryRequest, following: DeliveryRequest, *, by_sender: bool) -> bool:
    """Whether *following* would be sent over the session that *request* leaves.

    Args:
        request: The one before it.
        following: The next.
        by_sender: Sessions may be logged in by the sender.
    """
    return (
        following.protocol is request.protocol is Protocol.SMTP
        and following.nexthop == request.nexthop
        and following.cache == request.cache
        and (following.require_tls, following.tls_optional) == (request.require_tls, request.tls_optional)
        and (following.sender == request.sender or not by_sender)
    )
