"""One mail transaction on a session that is ready: MAIL, RCPT, DATA, content, and what the server made of it.

Invariant: the content is opened before MAIL is said, and the final dot is
sent only after all of it: a store that fails half-way can never make a server
accept half a message.

Source: smtp-delivery X-01, X-10 to X-70, S-40, S-54 to S-58, T-20 to T-39.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from mailq.delivery.classify import is_protocol_error, refused, smtputf8_missing, stream_failure, too_large
from mailq.delivery.ports import MessageBodies
from mailq.delivery.report import SessionReport
from mailq.delivery.session import STREAM_ERRORS, Session
from mailq.envelope import DeliveryRequest, Protocol, Recipient
from mailq.errors import ConnectionLostError, MailqError
from mailq.smtp import commands
from mailq.smtp.body import encode_content
from mailq.smtp.dialogue import Send, Transaction
from mailq.status import Delivered, Failure, RecipientId, Scope, Stage

CHUNK_BYTES = 65_536
END_OF_CONTENT = b".\r\n"


def transfer(
    session: Session,
    request: DeliveryRequest,
    recipients: Sequence[Recipient],
    *,
    bodies: MessageBodies,
    may_retry_plaintext: bool,
) -> SessionReport:
    """Offer *request* to the session's server for *recipients*.

    Returns:
        A verdict for every recipient, or a failure for those without one.
    """
    unfit = _unfit(session, request, recipients)
    if unfit is not None:
        return unfit
    transaction = _transaction(session, request, recipients)
    with bodies.open(request.queue_id) as content:
        try:
            _carry_out(session, transaction, content)
        except STREAM_ERRORS as error:
            return _broken_off(session, transaction, error, may_retry_plaintext=may_retry_plaintext)
    if not transaction.clean:
        session.spoil()
    return SessionReport(
        verdicts=_verdicts(session, transaction),
        failure=_rejection(session, transaction),
        completed=True,
        transacted=True,
    )


def _broken_off(
    session: Session, transaction: Transaction, error: MailqError, *, may_retry_plaintext: bool
) -> SessionReport:
    """What a conversation that broke off told: whom the server had answered for keeps that answer. Source: T-39."""
    verdicts, failure, retry = _verdicts(session, transaction), _rejection(session, transaction), False
    if failure is None:
        failure = stream_failure(error, session.stage, session.endpoint)
        retry = session.encrypted and may_retry_plaintext and bool(transaction.undecided)
    return SessionReport(verdicts=verdicts, failure=failure, transacted=True, retry_plaintext=retry)


def _unfit(session: Session, request: DeliveryRequest, recipients: Sequence[Recipient]) -> SessionReport | None:
    """Whether the server's extensions forbid even to try."""
    limit = session.extensions.size_limit_bytes
    if 0 < limit < request.size_bytes:
        failure = too_large(request.size_bytes, limit, session.endpoint)
        return SessionReport(failure=failure, completed=True, transacted=True)
    addresses = (request.sender, *(r.address for r in recipients))
    needed = request.utf8_header or not all(address.isascii() for address in addresses)
    if request.smtputf8 and needed and not session.extensions.offers("SMTPUTF8"):
        session.spoil()
        return SessionReport(failure=smtputf8_missing(session.endpoint))
    return None


def _transaction(session: Session, request: DeliveryRequest, recipients: Sequence[Recipient]) -> Transaction:
    extensions = session.extensions
    return Transaction(
        mail=commands.mail_from(request, extensions),
        recipients=[(r.id, commands.rcpt_to(r, extensions)) for r in recipients],
        pipelining=extensions.offers("PIPELINING"),
        lmtp=request.protocol is Protocol.LMTP,
    )


def _carry_out(session: Session, transaction: Transaction, content: BinaryIO) -> None:
    """Do what the transaction asks for until it asks for nothing more."""
    settings = session.settings
    timeouts = {
        Stage.MAIL: settings.mail_timeout,
        Stage.RCPT: settings.rcpt_timeout,
        Stage.DATA: settings.data_init_timeout,
        Stage.END_OF_DATA: settings.data_done_timeout,
        Stage.RSET: settings.rset_timeout,
    }
    while (step := transaction.next_step()) is not None:
        if isinstance(step, Send):
            session.say(step.data, step.expects[0], timeouts[step.expects[0]])
            for stage in step.expects:
                transaction.receive(session.hear(stage, timeouts[stage]))
        elif _send_content(session, content):
            transaction.content_written()
            for _ in range(step.expects):
                transaction.receive(session.hear(Stage.END_OF_DATA, settings.data_done_timeout))
        else:
            transaction.content_failed()
            _hear_parting_words(session, transaction)
            return


def _send_content(session: Session, content: BinaryIO) -> bool:
    """Send the content and the final dot; False when the server went away meanwhile."""
    settings = session.settings
    encoded = encode_content(
        iter(lambda: content.read(CHUNK_BYTES), b""), line_length_limit_bytes=settings.line_length_limit_bytes
    )
    try:
        for chunk in _with_dot(encoded):
            session.say(chunk, Stage.BODY, settings.data_xfer_timeout)
    except ConnectionLostError:
        return False
    return True


def _with_dot(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks, the final dot in one write with the last."""
    waiting = b""
    for chunk in chunks:
        if waiting:
            yield waiting
        waiting = chunk
    yield waiting + END_OF_CONTENT


def _hear_parting_words(session: Session, transaction: Transaction) -> None:
    """Take a reply that the server sent before it went away for its answer to the message. Source: X-66.

    Raises:
        ConnectionLostError: It left without one.
    """
    transaction.receive(session.hear(Stage.BODY, session.settings.data_xfer_timeout))


def _verdicts(session: Session, transaction: Transaction) -> dict[RecipientId, Delivered | Failure]:
    endpoint = session.endpoint
    passed_on = session.extensions.offers("DSN")
    verdicts: dict[RecipientId, Delivered | Failure] = {
        recipient: Delivered(endpoint, reply, passed_on) for recipient, reply in transaction.delivered.items()
    }
    for recipient, (stage, reply) in transaction.refused.items():
        verdicts[recipient] = refused(reply, stage, Scope.RECIPIENT, endpoint)
        if is_protocol_error(reply):
            session.spoil()
    return verdicts


def _rejection(session: Session, transaction: Transaction) -> Failure | None:
    if transaction.rejected is None:
        return None
    stage, reply = transaction.rejected
    if is_protocol_error(reply):
        session.spoil()
    return refused(reply, stage, Scope.MESSAGE, session.endpoint)
