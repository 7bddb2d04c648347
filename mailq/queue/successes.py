"""Whose delivery its sender is to be told of, and in which word.

Success is told of where the sender asked for it and nobody else will tell: a
server that announced DSN owes the report itself. With ``confirm_delay_cleared``
it is told of, too, where the sender knows that the message was late. What was
taken for sent without a server's answer is never called a success.

Source: smtp-delivery B-27, B-31, B-32, Q-58; RFC 3461 §5.2; postconf(5) lmtp_assume_final, confirm_delay_cleared
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from mailq.envelope import Notify
from mailq.queue.enqueue import parse_notify
from mailq.queue.messages import RecipientResult
from mailq.queue.tables import delay
from mailq.status import Delivered, Outcome

_warned = select(delay.c.message_id).where(
    delay.c.message_id.in_(bindparam("ids", expanding=True)), delay.c.settled_at.is_not(None)
)


def action_of(outcome: Outcome) -> str:
    """Return ``delivered`` or ``relayed`` for what a server took, else an empty text. Source: RFC 3464 §2.3.3."""
    if not isinstance(outcome, Delivered):
        return ""
    return "delivered" if outcome.final else "relayed"


def told_of_success(
    connection: Connection, results: Sequence[RecipientResult], rows: Mapping[int, Row[Any]]
) -> frozenset[int]:
    """Return the recipients of *results* whose sender is to be told that they were delivered.

    Args:
        connection: Of the transaction that writes the results.
        results: At most one a recipient.
        rows: The recipients by id; of each, ``message_id`` and ``notify``.
    """
    taken = [
        (one, parse_notify(rows[one.recipient_id].notify), one.outcome.dsn_passed_on)
        for one in results
        if isinstance(one.outcome, Delivered)
    ]
    asked = {one.recipient_id for one, notify, passed_on in taken if Notify.SUCCESS in notify and not passed_on}
    waited = [one for one, notify, _ in taken if one.confirm_delay and (not notify or Notify.DELAY in notify)]
    if waited:
        ids = sorted({rows[one.recipient_id].message_id for one in waited})
        warned = set(connection.execute(_warned, {"ids": ids}).scalars())
        asked |= {one.recipient_id for one in waited if rows[one.recipient_id].message_id in warned}
    return frozenset(asked)
