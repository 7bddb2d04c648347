"""From an open connection to a session that is ready for mail: greeting, EHLO, STARTTLS, EHLO again, AUTH.

Source: smtp-delivery S-10 to S-24, S-30, P-20 to P-33.
"""

from dataclasses import dataclass

from mailq.delivery.authenticate import authenticate
from mailq.delivery.classify import (
    greeting_refused,
    is_protocol_error,
    loops_back,
    refused_to_talk,
    stream_failure,
    tls_handshake_failed,
    tls_not_offered,
    tls_refused,
)
from mailq.delivery.report import SessionReport
from mailq.delivery.session import STREAM_ERRORS, Session
from mailq.envelope import Protocol
from mailq.errors import TlsHandshakeError
from mailq.smtp import commands
from mailq.smtp.extensions import Extensions
from mailq.smtp.sasl import Credentials
from mailq.status import Failure, Reply, Stage

UNAVAILABLE_CODE = 421


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What a handshake needs to know.

    Attributes:
        protocol: SMTP or LMTP.
        nexthop: The request's nexthop, for the text of a loop.
        best: The server is a best MX.
        detect_loop: A server that calls itself by our name is ourselves. Source: smtp-delivery C-18.
        tls_level: none, may or encrypt.
        credentials: For logging in; None where there are none.
        may_retry_plaintext: A TLS failure may be answered by plaintext. Source: smtp-delivery P-30.
    """

    protocol: Protocol
    nexthop: str
    best: bool
    detect_loop: bool
    tls_level: str
    may_retry_plaintext: bool
    credentials: Credentials | None = None


def introduce(session: Session, introduction: Introduction) -> SessionReport | None:
    """Bring a new session to where MAIL can be said.

    Returns:
        None on success; else what to tell the ledger and the plan.
    """
    try:
        failure = _introduce(session, introduction)
    except TlsHandshakeError:
        failure = tls_handshake_failed(session.endpoint, required=introduction.tls_level != "may")
        return SessionReport(failure=failure, retry_plaintext=introduction.may_retry_plaintext)
    except STREAM_ERRORS as error:
        failure = stream_failure(error, session.stage, session.endpoint)
        retry = session.encrypted and introduction.may_retry_plaintext
        return SessionReport(failure=failure, retry_plaintext=retry)
    if failure is None:
        return None
    if failure.reply is not None and is_protocol_error(failure.reply):
        session.spoil()
    return SessionReport(failure=failure)


def _introduce(session: Session, introduction: Introduction) -> Failure | None:
    settings = session.settings
    greeting = session.hear(Stage.GREETING, settings.helo_timeout)
    if not greeting.positive:
        return greeting_refused(greeting, session.endpoint, skip_5xx=settings.skip_5xx_greeting)
    failure = _greet(session, introduction, esmtp=_speaks_esmtp(greeting) or settings.always_send_ehlo)
    if failure is None and introduction.tls_level != "none":
        failure = _encrypt(session, introduction)
    if failure is None and introduction.credentials is not None:
        failure = authenticate(session, introduction.credentials)
    return failure


def _encrypt(session: Session, introduction: Introduction) -> Failure | None:
    """Start TLS where the server offers it; say EHLO again, since nothing said before counts. Source: P-20 to P-23."""
    if not session.extensions.offers("STARTTLS"):
        return tls_not_offered(session.endpoint) if introduction.tls_level == "encrypt" else None
    reply = session.ask(commands.STARTTLS, Stage.STARTTLS, session.settings.starttls_timeout)
    if not reply.positive:
        return tls_refused(reply, session.endpoint) if introduction.tls_level == "encrypt" else None
    session.start_tls()
    return _greet(session, introduction, esmtp=True)


def _speaks_esmtp(greeting: Reply) -> bool:
    return any("ESMTP" in line.split() for line in greeting.lines)


def _greet(session: Session, introduction: Introduction, *, esmtp: bool) -> Failure | None:
    """Say EHLO, HELO or LHLO and learn the server's extensions."""
    settings = session.settings
    name = settings.helo_name or settings.myhostname
    if introduction.protocol is Protocol.LMTP:
        reply = session.ask(commands.lhlo(name), Stage.LHLO, settings.helo_timeout)
        if not reply.positive:
            return refused_to_talk(reply, Stage.LHLO, session.endpoint)
        return _learn(session, introduction, reply)
    if session.encrypted or (esmtp and not settings.never_send_ehlo):
        reply = session.ask(commands.ehlo(name), Stage.EHLO, settings.helo_timeout)
        if reply.positive:
            return _learn(session, introduction, reply)
        if reply.code == UNAVAILABLE_CODE:
            return refused_to_talk(reply, Stage.EHLO, session.endpoint)
    reply = session.ask(commands.helo(name), Stage.HELO, settings.helo_timeout)
    return None if reply.positive else refused_to_talk(reply, Stage.HELO, session.endpoint)


def _learn(session: Session, introduction: Introduction, reply: Reply) -> Failure | None:
    session.extensions = Extensions.parse(reply, discard=session.settings.discard_ehlo_keywords)
    own_name = session.settings.myhostname.lower()
    if introduction.detect_loop and session.extensions.server_name.lower() == own_name:
        return loops_back(introduction.nexthop, session.endpoint, best=introduction.best)
    return None
