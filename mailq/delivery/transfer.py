"""One mail transaction on a session that is ready: MAIL, RCPT, DATA, content, and what the server made of it.

Invariant: the content is opened before MAIL is said, and the final dot is
sent only after all of it: a store that fails half-way can never make a server
accept half a message.

Differs from Postfix: a server that accepts the message before it has the end
of it has not got it. Its recipients are deferred, and the session is closed;
a refusal that comes early counts as the answer to the message, as in Postfix.

Source: smtp-delivery X-01, X-10 to X-70, S-40, S-54 to S-61, T-20 to T-39.
"""

from collections.abc import Sequence
from typing import Final

from mailq.delivery.classify import (
    hook_failed,
    is_protocol_error,
    refused,
    smtputf8_missing,
    stream_failure,
    too_large,
)
from mailq.delivery.course import Course, Follow, nothing_follows
from mailq.delivery.following import Following
from mailq.delivery.outgoing import Outgoing, prepare
from mailq.delivery.ports import Ports
from mailq.delivery.report import SessionReport
from mailq.delivery.session import STREAM_ERRORS, Session
from mailq.envelope import DeliveryRequest, Protocol, Recipient
from mailq.errors import ConnectionTimeoutError, HookFailedError, MailqError
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
    follow: Follow = nothing_follows,
) -> SessionReport:
    """Offer *request* to the session's server for *recipients*, or go on with what was said of it already.

    Args:
        session: It is ready.
        request: What is to be sent.
        recipients: Who of its recipients still needs a server.
        ports: The world.
        may_retry_plaintext: Where TLS breaks, this server is asked once more without.
        follow: Asked for the next message's commands just before the end of the content is sent.

    Returns:
        A verdict for every recipient, or a failure for those without one; or that the session was stale.
    """
    begun, session.following = session.following, None
    if begun is None:
        unfit = _unfit(session, request, recipients)
        if unfit is not None:
            return unfit if not session.owes_proof or session.prove() else STALE
        outgoing = prepare(session, request, ports)
        if isinstance(outgoing, Failure):
            return SessionReport(failure=outgoing, transacted=True)
        transaction, said = _transaction(session, outgoing, recipients), None
    else:
        outgoing, transaction, said = begun.outgoing, begun.transaction, begun.said
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
            Course(session, transaction, fence=ports.fence, follow=follow).carry_out(blocks, said)
        except STREAM_ERRORS as error:
            report = _broken_off(session, transaction, error, may_retry_plaintext=may_retry_plaintext)
            return report.once_and_for_all() if request.doubt_settles and session.stage is Stage.END_OF_DATA else report
    return _carried_out(session, transaction)


def _carried_out(session: Session, transaction: Transaction) -> SessionReport:
    """What a transaction told that came to its end."""
    if transaction.stale:
        session.in_step = False
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
    if not transaction.proven:
        session.in_step = not isinstance(error, ConnectionTimeoutError)
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


def begin_behind(session: Session, request: DeliveryRequest, ports: Ports) -> Following | None:
    """Return *request* as it follows the transaction that ends on *session*; None where it cannot.

    What speaks against it shows when its own turn comes.
    """
    if request.smtputf8 and not session.extensions.offers("SMTPUTF8"):
        return None
    if _unfit(session, request, request.recipients) is not None:
        return None
    outgoing = prepare(session, request, ports)
    if isinstance(outgoing, Failure) or outgoing.planned_conversion:
        return None
    transaction = _transaction(session, outgoing, request.recipients, follows=True)
    said = transaction.next_step()
    if not isinstance(said, Send) or said.expects[-1] is not Stage.DATA:
        return None
    return Following(request, outgoing, transaction, said)


def _transaction(
    session: Session, outgoing: Outgoing, recipients: Sequence[Recipient], *, follows: bool = False
) -> Transaction:
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
        follows=follows,
    )


def _in_chunk(session: Session, outgoing: Outgoing) -> bool:
    """Whether the content goes by BDAT: where that saves the wait for the go-ahead to DATA. Source: RFC 3030."""
    offers = session.extensions.offers
    return offers("CHUNKING") and not offers("PIPELINING") and outgoing.fits_one_chunk


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
