"""One mail transaction on a session that is ready: MAIL, RCPT, DATA, content, and what the server made of it.

Invariant: the content is opened before MAIL is said, and the final dot is
sent only after all of it: a store that fails half-way can never make a server
accept half a message.

Differs from Postfix: a server that accepts the message before it has the end
of it has not got it. Its recipients are deferred, and the session is closed;
a refusal that comes early counts as the answer to the message, as in Postfix.

Source: smtp-delivery X-01, X-10 to X-70, S-40, S-54 to S-61, T-20 to T-39.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from mailq.delivery.classify import (
    hook_failed,
    is_protocol_error,
    refused,
    smtputf8_missing,
    stream_failure,
    too_large,
)
from mailq.delivery.outgoing import Outgoing, prepare
from mailq.delivery.pace import Pace
from mailq.delivery.ports import Fence, Ports
from mailq.delivery.report import SessionReport
from mailq.delivery.session import STREAM_ERRORS, Session
from mailq.envelope import DeliveryRequest, Protocol, Recipient
from mailq.errors import ConnectionLostError, EarlyReplyError, HookFailedError, MailqError
from mailq.smtp import commands
from mailq.smtp.dialogue import Send, Transaction
from mailq.status import Delivered, Failure, RecipientId, Scope, Stage

STALE: Final = SessionReport(stale=True)


def transfer(
    session: Session,
    request: DeliveryRequest,
    recipients: Sequence[Recipient],
    *,
    ports: Ports,
    may_retry_plaintext: bool,
) -> SessionReport:
    """Offer *request* to the session's server for *recipients*.

    Returns:
        A verdict for every recipient, or a failure for those without one; or that the session was stale.
    """
    unfit = _unfit(session, request, recipients)
    if unfit is not None:
        return unfit if not session.owes_proof or session.prove() else STALE
    outgoing = prepare(session, request, ports)
    if isinstance(outgoing, Failure):
        return SessionReport(failure=outgoing, transacted=True)
    transaction = _transaction(session, outgoing, recipients)
    with ports.bodies.open(request.queue_id) as content:
        try:
            blocks = outgoing.blocks(
                content,
                hooks=ports.hooks,
                line_length_limit_bytes=session.settings.line_length_limit_bytes,
                dot_stuffing=not _in_chunk(session, outgoing),
            )
        except HookFailedError as error:
            return SessionReport(failure=hook_failed(error, session.endpoint), transacted=True)
        try:
            _carry_out(session, transaction, blocks, fence=ports.fence)
        except STREAM_ERRORS as error:
            report = _broken_off(session, transaction, error, may_retry_plaintext=may_retry_plaintext)
            return report.once_and_for_all() if request.doubt_settles and session.stage is Stage.END_OF_DATA else report
    return _carried_out(session, transaction)


def _carried_out(session: Session, transaction: Transaction) -> SessionReport:
    """What a transaction told that came to its end."""
    if transaction.stale:
        return STALE
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
    if session.stage is Stage.RSET_PROBE:
        return STALE
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
    if request.smtputf8 and not session.extensions.offers("SMTPUTF8"):
        addresses = (request.sender, *(r.address for r in recipients))
        if request.utf8_header or not all(address.isascii() for address in addresses):
            session.spoil()
            return SessionReport(failure=smtputf8_missing(session.endpoint))
    return None


def _transaction(session: Session, outgoing: Outgoing, recipients: Sequence[Recipient]) -> Transaction:
    extensions, request = session.extensions, outgoing.request
    return Transaction(
        mail=commands.mail_from(
            request,
            extensions,
            converted=outgoing.planned_conversion,
            dummy_auth=session.settings.send_dummy_mail_auth and session.authenticated,
        ),
        recipients=[(r.id, commands.rcpt_to(r, extensions)) for r in recipients],
        pipelining=extensions.offers("PIPELINING"),
        lmtp=request.protocol is Protocol.LMTP,
        chunking=_in_chunk(session, outgoing),
        probe=session.owes_proof,
    )


def _in_chunk(session: Session, outgoing: Outgoing) -> bool:
    """Whether the content goes by BDAT: where that saves the wait for the go-ahead to DATA. Source: RFC 3030."""
    offers = session.extensions.offers
    return offers("CHUNKING") and not offers("PIPELINING") and outgoing.fits_one_chunk


def _carry_out(session: Session, transaction: Transaction, blocks: Iterator[bytes], *, fence: Fence) -> None:
    """Do what the transaction asks for until it asks for nothing more.

    Raises:
        LeaseLostError: By *fence*, before the last of the content: the server has not got it.
    """
    patience = session.patience
    while (step := transaction.next_step()) is not None:
        if isinstance(step, Send):
            first = step.expects[0]
            session.say(step.data, first, patience[first])
            for stage in step.expects:
                transaction.receive(session.hear(stage, patience[stage]))
                if transaction.stale:
                    return
            session.owes_proof = False
        elif _send_content(session, _chunk(blocks) if step.in_chunk else _with_dot(blocks), fence):
            transaction.content_written()
            for _ in range(step.expects):
                transaction.receive(session.hear(Stage.END_OF_DATA, patience[Stage.END_OF_DATA]))
        else:
            transaction.content_failed()
            _hear_parting_words(session, transaction)
            return


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


def _send_content(session: Session, writes: Iterator[bytes], fence: Fence) -> bool:
    """Send the content to its end; False when the server went away, or spoke, before the last write."""
    settings = session.settings
    pace = Pace(limit_seconds=settings.data_xfer_timeout.total_seconds(), bytes_per_second=settings.min_data_rate)
    session.stage = Stage.BODY
    try:
        waiting = next(writes)
        for following in writes:
            session.say_content(waiting, pace)
            waiting = following
        if session.has_unheard():
            # Behind the end of the content it would be taken for the answer to it.
            return False
        fence()
        session.say_content(waiting, pace)
    except ConnectionLostError:
        return False
    return True


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


def _verdicts(session: Session, transaction: Transaction) -> dict[RecipientId, Delivered | Failure]:
    endpoint = session.endpoint
    passed_on = session.extensions.offers("DSN")
    final = transaction.lmtp and not passed_on and session.settings.lmtp_assume_final
    verdicts: dict[RecipientId, Delivered | Failure] = {}
    told: dict[int, Delivered] = {}
    for recipient, reply in transaction.delivered.items():
        # By one reply, one thing happened to all whom it was about.
        known = told.get(id(reply))
        verdicts[recipient] = known or told.setdefault(id(reply), Delivered(endpoint, reply, passed_on, final=final))
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
