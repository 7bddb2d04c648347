"""Log in to a server that offers AUTH, where there are credentials for it.

A server that does not offer AUTH is spoken to without; a failed log-in is
never followed by an attempt without, on that server, nor by one with a weaker
mechanism. Password and token go into no failure, log line or transcript, nor
into a variable that a traceback would show.

A token that is refused is thrown away, and one new one is tried in the same session.

Source: smtp-delivery P-60 to P-68; RFC 4954 §4.
"""

import binascii
from base64 import b64decode, b64encode

from mailq.delivery.classify import (
    authentication_failed,
    authentication_loops,
    authentication_refused,
    no_mechanism,
)
from mailq.delivery.logins import Login
from mailq.delivery.session import Session
from mailq.errors import SaslError
from mailq.smtp.credentials import AccessToken, Credentials, Secret
from mailq.smtp.sasl import Account, Exchange, begin, choose_mechanism, offers_binding
from mailq.smtp.sasl_scram import BINDING_KINDS, ChannelBinding
from mailq.status import Failure, Reply, Stage

MOST_CHALLENGES = 100
LINE_LIMIT_BYTES = 512
CONTINUE = 334
WRONG_CREDENTIALS = 535


def authenticate(session: Session, login: Login) -> Failure | None:
    """Log in; None on success, and where there is nothing to log in with or to.

    Raises:
        HookFailedError: Credentials or token cannot be had. Else as :meth:`Session.ask`.
    """
    extensions = session.extensions
    if not extensions.offers("AUTH"):
        return None
    credentials = login.credentials()
    if credentials is None:
        return None
    binding = _channel_binding(session)
    mechanism = choose_mechanism(
        extensions.auth_mechanisms,
        mechanism_filter=session.settings.sasl_mechanism_filter,
        security_options=security_options(session),
        by_token=login.by_token(credentials),
        can_bind=binding is not None,
    )
    if mechanism is None:
        session.login = "none unavailable"
        return no_mechanism(session.endpoint)
    if not mechanism.endswith("-PLUS") and offers_binding(extensions.auth_mechanisms):
        binding = None
    return _Attempt(session, login, credentials, mechanism, binding).run()


def security_options(session: Session) -> tuple[str, ...]:
    """Return what a mechanism must give on this session: less the better it is protected. Source: P-65."""
    settings = session.settings
    options = settings.sasl_security_options
    if session.encrypted:
        options = settings.sasl_tls_security_options or options
        if session.tls is not None and session.tls.verified_by:
            options = settings.sasl_tls_verified_security_options or options
    return options


def _channel_binding(session: Session) -> ChannelBinding | None:
    if not session.encrypted:
        return None
    found = ((kind, session.channel_binding(kind)) for kind in BINDING_KINDS)
    return next(((kind, data) for kind, data in found if data), None)


class _LoopError(Exception):
    """The server asks on and on."""


class _Attempt:
    """One account's attempt, by one mechanism."""

    def __init__(
        self, session: Session, login: Login, credentials: Credentials, mechanism: str, binding: ChannelBinding | None
    ) -> None:
        self._session = session
        self._login = login
        self._credentials = credentials
        self._mechanism = mechanism
        self._binding = binding

    def run(self) -> Failure | None:
        """Log in; None on success."""
        session, endpoint = self._session, self._session.endpoint
        try:
            failure = self._by_token() if self._login.by_token(self._credentials) else self._by_password()
        except _LoopError:
            session.spoil()
            failure, result = authentication_loops(endpoint), "failed"
        except SaslError as error:
            session.spoil()
            failure, result = authentication_failed(endpoint, str(error)), "failed"
        else:
            result = "accepted" if failure is None else "refused"
        if not session.login:
            session.login = f"{self._mechanism} {result}"
        return failure

    def _by_password(self) -> Failure | None:
        known = self._login.refusal_on_record(self._credentials)
        if known is not None:
            self._session.login = f"{self._mechanism} remembered"
            return self._refused(known, cached=True)
        reply = self._converse(None)
        if reply.positive:
            self._login.note_success(self._credentials)
            return None
        if reply.code == WRONG_CREDENTIALS:
            self._login.note_refusal(self._credentials, reply)
        return self._refused(reply)

    def _by_token(self) -> Failure | None:
        token = self._login.token(self._credentials)
        reply = self._converse(token)
        if reply.code == WRONG_CREDENTIALS:
            self._login.reject_token(self._credentials, token)
            newer = self._login.token(self._credentials)
            if newer != token:
                reply = self._converse(newer)
            if reply.code == WRONG_CREDENTIALS:
                self._login.reject_token(self._credentials, newer)
        return None if reply.positive else self._refused(reply)

    def _refused(self, reply: Reply, *, cached: bool = False) -> Failure:
        session = self._session
        soft_bounce = session.settings.sasl_auth_soft_bounce
        return authentication_refused(reply, session.endpoint, soft_bounce=soft_bounce, cached=cached)

    def _converse(self, token: AccessToken | None) -> Reply:
        """Say AUTH and answer challenges; return the reply that ends it, positive only if the server proved itself."""
        endpoint = self._session.endpoint
        self._session.conceal(Secret((token.value if token else self._credentials.password).encode()))
        account = Account(
            credentials=self._credentials,
            token=token,
            host=endpoint.host,
            port=endpoint.port,
            binding=self._binding,
        )
        exchange = begin(self._mechanism, account)
        line, said = _first_line(self._mechanism, exchange)
        reply = self._ask(line)
        for _ in range(MOST_CHALLENGES):
            if reply.code != CONTINUE:
                break
            challenge = _decoded(reply)
            if not said and challenge:
                raise SaslError("the server's first challenge is not empty")
            reply = self._ask(_answer(exchange, challenge) if said else _first_response(exchange))
            said = True
        if reply.code == CONTINUE:
            raise _LoopError
        if reply.positive:
            exchange.finish()
        return reply

    def _ask(self, line: Secret) -> Reply:
        # A server that does not understand a line may repeat it.
        self._session.conceal(_response_in(line))
        return self._session.ask(line, Stage.AUTH, self._session.settings.helo_timeout)


def _first_line(mechanism: str, exchange: Exchange) -> tuple[Secret, bool]:
    """Return the AUTH command, and whether nothing is left to be said before the server speaks.

    A longer line is not for every server; it asks for the response with an empty challenge. Source: P-66.
    """
    first = exchange.initial()
    if first is None:
        return Secret(f"AUTH {mechanism}\r\n".encode()), True
    line = Secret(f"AUTH {mechanism} ".encode() + b64encode(first) + b"\r\n")
    if len(line) <= LINE_LIMIT_BYTES:
        return line, True
    return Secret(f"AUTH {mechanism}\r\n".encode()), False


def _response_in(line: Secret) -> Secret:
    """Return what of a line is the response; empty: it has none."""
    command, _, rest = line.strip().partition(b" ")
    return Secret(rest.partition(b" ")[2] if command == b"AUTH" else command)


def _first_response(exchange: Exchange) -> Secret:
    return Secret(b64encode(exchange.initial() or b"") + b"\r\n")


def _answer(exchange: Exchange, challenge: bytes) -> Secret:
    return Secret(b64encode(exchange.answer(challenge)) + b"\r\n")


def _decoded(reply: Reply) -> bytes:
    """Return the challenge in a reply.

    Raises:
        SaslError: It is no base64.
    """
    try:
        return b64decode(reply.lines[-1][4:].strip(), validate=True)
    except (ValueError, binascii.Error):
        pass
    raise SaslError("the server's challenge is no base64")
