"""From an open connection to a session that is ready for mail: greeting, EHLO, STARTTLS, EHLO again, AUTH.

Source: smtp-delivery S-10 to S-24, S-30, S-36, S-41, P-20 to P-33, P-53; RFC 8689 §4.2.
"""

from dataclasses import dataclass

from mailq.delivery.authenticate import authenticate
from mailq.delivery.classify import (
    certificate_not_verified,
    greeting_refused,
    is_protocol_error,
    loops_back,
    refused_to_talk,
    requiretls_missing,
    requiretls_unsafe,
    stream_failure,
    tls_handshake_failed,
    tls_not_offered,
    tls_refused,
)
from mailq.delivery.logins import Login
from mailq.delivery.report import SessionReport
from mailq.delivery.session import STREAM_ERRORS, Session
from mailq.envelope import Protocol
from mailq.errors import TlsHandshakeError
from mailq.security import RequireTls, TlsLevel, TlsResult
from mailq.smtp import commands
from mailq.smtp.extensions import Extensions
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
        plaintext: A TLS failure has gone before, and so the policy is level none. Source: smtp-delivery C-37.
        login: At this server; None: never.
        may_retry_plaintext: A TLS failure may be answered by plaintext. Source: smtp-delivery P-30.
    """

    protocol: Protocol
    nexthop: str
    best: bool
    detect_loop: bool
    plaintext: bool
    may_retry_plaintext: bool
    login: Login | None = None


def introduce(session: Session, introduction: Introduction) -> SessionReport | None:
    """Bring a new session to where MAIL can be said.

    Returns:
        None on success; else what to tell the ledger and the plan.
    """
    try:
        failure = _introduce(session, introduction)
    except TlsHandshakeError as error:
        _note_plaintext(session, f"handshake failure: {error}")
        failure = tls_handshake_failed(session.endpoint, required=session.policy.level.required)
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
    settings, policy = session.settings, session.policy
    if policy.wrapper:
        # TLS goes before the greeting, and what is said in it is all said in TLS. Source: smtp-delivery S-18.
        failure = _unproved(session, session.start_tls())
        if failure is not None:
            return failure
    greeting = session.hear(Stage.GREETING, settings.helo_timeout)
    if not greeting.positive:
        return greeting_refused(greeting, session.endpoint, skip_5xx=settings.skip_5xx_greeting)
    failure = _greet(session, introduction, esmtp=_speaks_esmtp(greeting) or settings.always_send_ehlo)
    if failure is None and not policy.wrapper:
        failure = _encrypt(session, introduction)
    if failure is None and policy.requires is RequireTls.ENFORCE and not session.extensions.offers("REQUIRETLS"):
        failure = _next_server(session, requiretls_missing(session.endpoint))
    if failure is None and introduction.login is not None:
        failure = authenticate(session, introduction.login)
    return failure


def _encrypt(session: Session, introduction: Introduction) -> Failure | None:
    """Start TLS where the server offers it; say EHLO again, since nothing said before counts. Source: P-20 to P-26."""
    endpoint, policy = session.endpoint, session.policy
    if policy.level is TlsLevel.NONE:
        _note_plaintext(session, "TLS failed before" if introduction.plaintext else "")
        return None
    if not session.extensions.offers("STARTTLS"):
        _note_plaintext(session, "STARTTLS not offered")
        if policy.requires.demands_tls:
            return _next_server(session, requiretls_missing(endpoint))
        return tls_not_offered(endpoint) if policy.level.required else None
    reply = session.ask(commands.STARTTLS, Stage.STARTTLS, session.settings.starttls_timeout)
    if not reply.positive:
        _note_plaintext(session, f"STARTTLS refused: {reply.text}")
        if policy.requires.demands_tls:
            return _next_server(session, requiretls_unsafe(endpoint, f"refused to start TLS: {reply.text}"))
        return tls_refused(reply, endpoint) if policy.level.required else None
    failure = _unproved(session, session.start_tls())
    return _greet(session, introduction, esmtp=True) if failure is None else failure


def _unproved(session: Session, result: TlsResult) -> Failure | None:
    """Whether the server had to prove who it is, and did not; nothing but QUIT is said to it then. Source: P-26."""
    if result.verified_by or not session.policy.level.authenticated:
        return None
    if session.policy.requires is RequireTls.ENFORCE:
        return _next_server(session, requiretls_unsafe(session.endpoint, "has no certificate that proves its name"))
    return certificate_not_verified(session.endpoint)


def _next_server(session: Session, failure: Failure) -> Failure:
    session.spoil()
    return failure


def _note_plaintext(session: Session, problem: str) -> None:
    session.tls = TlsResult(level=session.policy.level, source=session.policy.source, problem=problem)


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
    discard = session.settings.discard_ehlo_keywords
    if not session.encrypted or session.policy.requires is RequireTls.DISABLE:
        # It says nothing where anybody could have said it. Source: smtp-delivery S-36, X-25.
        discard = (*discard, "REQUIRETLS")
    session.extensions = Extensions.parse(reply, discard=discard)
    own_name = session.settings.myhostname.lower()
    if introduction.detect_loop and session.extensions.server_name.lower() == own_name:
        return loops_back(introduction.nexthop, session.endpoint, best=introduction.best)
    return None
