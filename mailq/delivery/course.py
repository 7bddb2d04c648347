"""Carry out a transaction on a session: write what it asks for, and tell it what the server says.

Invariant: the final dot is sent only after all of the content, and after the fence.

Source: smtp-delivery X-10 to X-12, X-60 to X-67, T-39, S-61.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta

from mailq.delivery.following import LAST_WRITE_BYTES
from mailq.delivery.pace import Pace
from mailq.delivery.ports import Fence
from mailq.delivery.session import STREAM_ERRORS, Session
from mailq.errors import ConnectionLostError, EarlyReplyError
from mailq.smtp import commands
from mailq.smtp.dialogue import Send, Transaction
from mailq.status import Stage

Follow = Callable[[], bytes]
"""Returns commands to send behind the end of the content; empty: there are none."""


def nothing_follows() -> bytes:
    """Name no commands."""
    return b""


class Course:
    """The way of one transaction, step by step, until it asks for nothing more."""

    __slots__ = ("_fence", "_follow", "_session", "_transaction")

    def __init__(self, session: Session, transaction: Transaction, *, fence: Fence, follow: Follow) -> None:
        self._session = session
        self._transaction = transaction
        self._fence = fence
        self._follow = follow

    def carry_out(self, blocks: Iterator[bytes], said: Send | None) -> None:
        """Do what the transaction asks for; *said* is what of it was said already, behind another's end.

        Raises:
            LeaseLostError: By the fence, before the last of the content: the server has not got it.
        """
        session, transaction = self._session, self._transaction
        if said is not None:
            session.transcript.said(said.data, said.expects[0])
            # The first answer shows whether the session is of use, as that to RSET would.
            if not self._hear_all(said, session.patience[Stage.RSET_PROBE]):
                return
        while (step := transaction.next_step()) is not None:
            if isinstance(step, Send):
                first = step.expects[0]
                session.say(step.data, first, session.patience[first])
                if not self._hear_all(step, session.patience[first]):
                    return
                session.owes_proof = False
            elif self._send_content(_chunk(blocks) if step.in_chunk else _with_dot(blocks)):
                for _ in range(step.expects):
                    transaction.receive(session.hear(Stage.END_OF_DATA, session.patience[Stage.END_OF_DATA]))
            else:
                transaction.content_failed()
                _hear_parting_words(session, transaction)
                return

    def _hear_all(self, step: Send, limit: timedelta) -> bool:
        """Hear the replies to a group, the first within *limit*; False where the session is of no use."""
        session, transaction = self._session, self._transaction
        for stage in step.expects:
            transaction.receive(session.hear(stage, limit))
            if transaction.stale:
                return False
            limit = session.patience[stage]
        return True

    def _send_content(self, writes: Iterator[bytes]) -> bool:
        """Send the content to its end; False when the server went away, or spoke, before the last write."""
        session, settings = self._session, self._session.settings
        pace = Pace(limit_seconds=settings.data_xfer_timeout.total_seconds(), bytes_per_second=settings.min_data_rate)
        session.stage = Stage.BODY
        try:
            waiting = next(writes)
            for following in writes:
                session.say_content(waiting, pace)
                waiting = following
            # Behind the end of the content it would be taken for the answer to it.
            if session.has_unheard():
                return False
            self._fence()
            ahead = self._follow() if len(waiting) <= LAST_WRITE_BYTES else b""
            if ahead:
                self._send_end(waiting + ahead, pace)
                return True
            session.say_content(waiting, pace)
        except ConnectionLostError:
            if session.following is not None:
                raise
            return False
        self._transaction.content_written()
        return True

    def _send_end(self, data: bytes, pace: Pace) -> None:
        """Send the end of the content and what follows it: should that fail, the final dot may have gone out."""
        self._transaction.content_written()
        try:
            self._session.say_content(data, pace)
        except STREAM_ERRORS:
            self._session.stage = Stage.END_OF_DATA
            raise


def _chunk(blocks: Iterator[bytes]) -> Iterator[bytes]:
    content = b"".join(blocks)
    yield commands.bdat_last(len(content)) + content


def _with_dot(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content, the final dot in one write with the last of it."""
    waiting = b""
    for block in blocks:
        if waiting:
            yield waiting
        waiting = block
    yield waiting + commands.END_OF_DATA


def _hear_parting_words(session: Session, transaction: Transaction) -> None:
    """Take a refusal that the server did not wait with for its answer to the message. Source: X-66.

    Raises:
        ConnectionLostError: It left without a word, or not all recipients are answered for.
        EarlyReplyError: It accepted what it had not got.
    """
    reply = session.hear(Stage.BODY, session.settings.data_xfer_timeout)
    # The server waits for content: whatever was written now would be part of the message.
    session.broken = True
    if reply.code < 400:  # noqa: PLR2004 - RFC 5321 §4.2.1
        raise EarlyReplyError
    transaction.receive(reply)
    if transaction.undecided and transaction.rejected is None:
        raise ConnectionLostError
